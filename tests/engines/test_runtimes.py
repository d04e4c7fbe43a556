"""Engines over optional runtimes: what is written for them, and what is said without them.

The contract that they share with all engines is in `test_contract.py`.
"""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from whisper.model import ModelDimensions

from engines import checkpoints, hardware, registry, runtimes
from engines.base import EngineError, EngineUnavailable
from engines.checkpoints import Checkpoint
from engines.checkpoints.formats import read_content
from engines.models import LANGUAGES
from engines.token_selection import TokenConstraints
from tests.engines.checkpoint_files import DIMENSIONS, random_state

OPTIONAL = [row.key for row in registry.ENGINES if row.is_optional]

DIMS = [
    pytest.param(replace(DIMENSIONS["distilled"], n_vocab=n_vocab), id=name)
    for name, n_vocab in {"English": 51864, "99 languages": 51865, "100 languages": 51866}.items()
]


def make_checkpoint(dims: ModelDimensions, heads: object = ((1, 0),)) -> Checkpoint:
    state = random_state(dims)
    for number, name in enumerate(state):
        state[name] += number / 1024  # no two layer norms alike
    return Checkpoint("made here", dims, state, heads)  # type: ignore[arg-type]


def test_without_its_packages_a_row_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(registry.row(OPTIONAL[0]), packages=("no_such_runtime",))
    monkeypatch.setattr(registry, "ENGINES", (*registry.ENGINES[:1], row))
    assert registry.statuses()[1].reason == "optional and not installed: run make engines-extra"
    with pytest.raises(EngineUnavailable, match="make engines-extra"):
        registry.get(row.key)
    broken = replace(row, packages=("json",), make="engines.no_such_file:Engine")
    monkeypatch.setattr(registry, "ENGINES", (*registry.ENGINES[:1], broken))
    with pytest.raises(EngineUnavailable, match="is installed but can't be loaded"):
        registry.get(row.key)
    assert row.key not in registry.available()  # nobody gets it without asking


def test_a_checkpoint_is_converted_once_and_again_where_a_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_WHISPER_CACHE", str(tmp_path))
    written: list[Path] = []

    def write(folder: Path) -> None:
        written.append(folder)
        (folder / "weights").write_bytes(b"1234")

    checkpoint = make_checkpoint(DIMENSIONS["mini"], ((0, 0),))
    model = checkpoint.build(runtimes.RuntimeWhisper)
    folder = runtimes.convert_once(checkpoint, model, "form", write)
    assert runtimes.convert_once(checkpoint, model, "form", write) == folder
    assert len(written) == 1
    (folder / "weights").write_bytes(b"12")
    assert runtimes.convert_once(checkpoint, model, "form", write) == folder
    assert (folder / "weights").read_bytes() == b"1234"
    # Float16 holds the two for the same.
    checkpoint.state["decoder.ln.weight"] += 1e-5

    def write_too_much(new: Path) -> None:
        write(new)
        (new / "more").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(EngineError, match=f"stored in {folder.parent}: the disk is full"):
        runtimes.convert_once(checkpoint, model, "form", write_too_much)
    assert {path for path in folder.parent.iterdir() if path.is_dir()} == {folder}
    with pytest.MonkeyPatch.context() as patch:  # a kill leaves what it was at
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(EngineError, match="disk is full"):
            runtimes.convert_once(checkpoint, model, "form", write_too_much)
    assert len(list(folder.parent.glob("*/more"))) == 1
    assert runtimes.convert_once(checkpoint, model, "form", write) != folder
    assert not list(folder.parent.glob("*/more"))


@pytest.mark.parametrize("dims", DIMS)
def test_ctranslate2_gets_the_tensors_special_tokens_and_heads_of_whisper(
    dims: ModelDimensions, tmp_path: Path
) -> None:
    ctranslate2 = pytest.importorskip(
        "ctranslate2", reason="make engines-extra installs CTranslate2"
    )
    tokenizers = pytest.importorskip("tokenizers", reason="make engines-extra installs tokenizers")
    from engines import faster_whisper

    checkpoint = make_checkpoint(dims)
    model = checkpoint.build(runtimes.RuntimeWhisper)
    faster_whisper.write(checkpoint, model, tmp_path)
    read = read_content(tmp_path)
    assert read.dims == dims and read.heads == ((1, 0),)
    assert all(torch.equal(read.state[name], each) for name, each in checkpoint.state.items())
    ours = model.tokenizer
    names = json.loads((tmp_path / "vocabulary.json").read_text())
    assert len(set(names)) == len(names) == dims.n_vocab
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    special = ours.special_tokens
    assert special["<|notimestamps|>"] == ours.no_timestamps == ours.timestamp_begin - 1
    for name, number in special.items():
        assert names[number] == name and theirs.token_to_id(name) == number
    assert f"<|{30:.2f}|>" == names[-1]  # the last token there is: no number is off by one
    config = json.loads((tmp_path / "config.json").read_text())
    languages = sorted(ours.all_language_tokens) if model.is_multilingual else []
    assert config["lang_ids"] == languages
    assert ctranslate2.models.Whisper(str(tmp_path)).is_multilingual == model.is_multilingual
    text = " Ça coûte 3.50 €, naïve café — 日本語 👩‍🚀 don't"
    assert theirs.encode(text).ids == ours.encode(text)


def test_an_official_name_has_whispers_own_heads() -> None:
    """English-only and multilingual: as `whisper.load_model` sets them."""
    for name in ("tiny.en", "tiny"):
        dims = replace(DIMENSIONS["tiny"], n_vocab=51864 if name == "tiny.en" else 51865)
        expected = whisper.model.Whisper(dims)
        expected.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
        made = Checkpoint(name, dims, expected.state_dict()).build(runtimes.RuntimeWhisper)
        assert made.heads == list(map(tuple, expected.alignment_heads.indices().T.tolist()))


@pytest.mark.parametrize("dims", DIMS)
def test_whisper_cpp_reads_the_special_tokens_of_whisper(
    dims: ModelDimensions, tmp_path: Path
) -> None:
    bindings = pytest.importorskip(
        "_pywhispercpp", reason="make engines-extra installs pywhispercpp"
    )
    from engines import whisper_cpp

    checkpoint = make_checkpoint(dims)
    model = checkpoint.build(runtimes.RuntimeWhisper)
    ours = model.tokenizer
    whisper_cpp.write(checkpoint, ours.encoding._mergeable_ranks, "q8_0", tmp_path)
    path = tmp_path / whisper_cpp.GGML_FILE
    context = whisper_cpp.ContextLoader(path, "made here", dims.n_text_layer).open(True)._ctx
    special = {
        "eot": ours.eot,
        "sot": ours.sot,
        "prev": ours.sot_prev,
        "solm": ours.sot_lm,
        "not": ours.no_timestamps,
        "beg": ours.timestamp_begin,
    }
    found = {name: getattr(bindings, f"whisper_token_{name}")(context) for name in special}
    assert found == special
    if model.is_multilingual:
        codes = [bindings.whisper_lang_str(n) for n in range(model.num_languages)]
        assert codes == list(LANGUAGES)[: model.num_languages]
    assert bindings.whisper_token_to_bytes(context, 440) == ours.encoding.decode_bytes([440])


def test_q8_0_rounds_within_half_a_step_of_each_block() -> None:
    pytest.importorskip("_pywhispercpp", reason="make engines-extra installs pywhispercpp")
    from engines import whisper_cpp

    values = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    values[0, :32] = 0
    read = np.frombuffer(whisper_cpp.quantise(values), [("scale", "<f2"), ("values", "i1", 32)])
    again = (read["scale"][:, None].astype(np.float32) * read["values"]).reshape(values.shape)
    steps = read["scale"].astype(np.float32).repeat(32).reshape(values.shape)
    assert (np.abs(again - values) <= 0.51 * steps + 0.001 * np.abs(values)).all()


@pytest.mark.parametrize("dims", DIMS)
def test_transformers_gets_the_tensors_special_tokens_and_heads_of_whisper(
    dims: ModelDimensions,
) -> None:
    pytest.importorskip("transformers", reason="make engines-extra installs transformers")
    from engines import transformers

    checkpoint = make_checkpoint(dims)
    model = checkpoint.build(runtimes.RuntimeWhisper)
    made, ours = transformers.load(checkpoint, model), model.tokenizer
    held = dict(made.named_parameters())
    assert not any(each.is_meta for each in held.values())
    embedding = held["model.decoder.embed_tokens.weight"]
    assert torch.equal(embedding, checkpoint.state["decoder.token_embedding.weight"])
    assert made.proj_out.weight is made.model.decoder.embed_tokens.weight
    rules = made.generation_config
    assert rules.no_timestamps_token_id + 1 == ours.timestamp_begin
    assert (rules.eos_token_id, rules.decoder_start_token_id) == (ours.eot, ours.sot)
    assert {ours.sot_prev, ours.transcribe, ours.no_speech} <= set(rules.suppress_tokens)
    assert rules.alignment_heads == [[1, 0]]
    if model.is_multilingual:
        assert sorted(rules.lang_to_id.values()) == sorted(ours.all_language_tokens)
        assert rules.task_to_id["transcribe"] == ours.transcribe


def assert_near(found: Any, expected: Any, dtype: str) -> None:
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < (1e-4 if dtype == "float32" else 0.05)
    assert error > (0 if dtype == "float32" else 1e-4), "nothing was rounded"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_openvino_computes_what_whisper_does(dtype: Any) -> None:
    pytest.importorskip("openvino", reason="make engines-extra installs OpenVINO")
    if dtype == "bfloat16" and (reason := hardware.why_no_bfloat16()):
        pytest.skip(reason)
    from engines import openvino

    checkpoint = make_checkpoint(DIMENSIONS["distilled"])
    if dtype == "bfloat16":  # which serves trained weights; random ones cancel in its sums
        checkpoint = checkpoints.load("tiny.en")
    dims, expected = checkpoint.dims, checkpoint.build(whisper.model.Whisper)
    graphs = openvino.Graphs(checkpoint, dtype)
    decoder = openvino.Decoder(graphs)
    random = np.random.default_rng(0)
    mel = random.normal(size=(1, dims.n_mels, 3000)).astype(np.float32)
    with torch.inference_mode():
        features = expected.encoder(torch.from_numpy(mel))
        found = graphs.compile(graphs.encoder()).infer([mel])[0]
        assert_near(found, features.numpy(), dtype)
        tokens = np.array([[50257, 362, 1, 9], [50257, 362, 1, 7]])
        logits = expected.decoder(torch.from_numpy(tokens), features.expand(2, -1, -1)).numpy()
    cross = decoder.compute_cross_kv(features[0].numpy())
    free: dict[str, Any] = {
        "constraints": TokenConstraints(np.zeros(dims.n_vocab, np.float32), False),
        "ranges": np.array([[0, 0, 0, dims.n_vocab]] * 2),
        "k": 1,
    }
    cache = decoder.new_cache(1)
    first, *_ = decoder.step(tokens[:1, :3], cross, cache, np.array([1, 2]), **free)
    assert_near(first, logits[0, 1:3], dtype)
    beams = decoder.new_cache(2)
    decoder.reorder_beams(beams, cache, [0, 0])
    last, *_ = decoder.step(tokens[:, 3:], cross, beams, np.arange(2), **free)
    assert_near(last, logits[:, 3], dtype)
    aligned, scores = decoder.align(tokens[1:], cross)
    assert_near(aligned, logits[1], dtype)
    assert scores.shape == (dims.n_text_layer, dims.n_text_head, 4, dims.n_audio_ctx)
