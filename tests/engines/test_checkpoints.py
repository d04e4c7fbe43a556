"""Checkpoint files in every format: right ones as they are, wrong ones with one clear sentence."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper
from torch import Tensor
from whisper.model import Whisper

from engines import checkpoints
from engines.base import CheckpointError
from engines.checkpoints.digests import TENSOR_DIGESTS, digest_tensors
from tests.engines.checkpoint_files import (
    DIMENSIONS,
    random_state,
    write_checkpoint,
    write_ctranslate2,
    write_hugging_face,
)

MINI, DISTILLED = DIMENSIONS["mini"], DIMENSIONS["distilled"]
HEADS = [[1, 0], [1, 1]]


def halved(dims: whisper.model.ModelDimensions) -> dict[str, Tensor]:
    """Random tensors that float16 holds exactly."""
    return {name: tensor.half().float() for name, tensor in random_state(dims).items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# Right files


@pytest.mark.parametrize("layout", ["openai", "hugging face", "sharded", "ct2 16", "ct2 32"])
def test_every_format_gives_the_same_tensors(layout: str, tmp_path: Path) -> None:
    """Of a distilled model: three encoder layers, two decoder layers, heads of its own."""
    state, path = halved(DISTILLED), tmp_path / "model"
    match layout:
        case "openai":
            torch.save({"dims": vars(DISTILLED), "model_state_dict": state}, path)
        case "hugging face":
            write_hugging_face(path, DISTILLED, state, heads=HEADS)
        case "sharded":
            write_hugging_face(path, DISTILLED, state, shards=3, heads=HEADS)
        case "ct2 16":
            write_ctranslate2(path, DISTILLED, state, "float16", HEADS)
        case "ct2 32":
            write_ctranslate2(path, DISTILLED, state, "float32", HEADS)
    checkpoint = checkpoints.load(str(path))
    assert checkpoint.dims == DISTILLED
    assert_same(checkpoint.state, state)
    assert digest_tensors(checkpoint.state) == digest_tensors(state)
    assert checkpoint.heads == (None if layout == "openai" else ((1, 0), (1, 1)))
    mask = checkpoint.build(Whisper).alignment_heads.to_dense()
    assert mask.tolist() == [[False, False], [True, True]]


def test_a_path_loads_as_whisper_loads_it(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "mini.pt", MINI)
    expected = whisper.load_model(str(path), device="cpu").state_dict()
    assert_same(checkpoints.load(str(path)).build(Whisper).state_dict(), expected)


@pytest.mark.parametrize("change", [Tensor.half, Tensor.bfloat16, Tensor.double])
def test_other_floats_are_widened_or_narrowed_exactly(
    change: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    state = {name: change(tensor) for name, tensor in random_state(MINI).items()}
    torch.save({"dims": vars(MINI), "model_state_dict": state}, tmp_path / "other.pt")
    found = checkpoints.load(str(tmp_path / "other.pt")).state
    assert_same(found, {name: tensor.float() for name, tensor in state.items()})


def test_parameters_that_want_gradients_load(tmp_path: Path) -> None:
    state = {name: torch.nn.Parameter(tensor) for name, tensor in random_state(MINI).items()}
    torch.save({"dims": vars(MINI), "model_state_dict": state}, tmp_path / "trained.pt")
    found = checkpoints.load(str(tmp_path / "trained.pt")).state
    assert not any(tensor.requires_grad for tensor in found.values())
    assert all(tensor.numpy().size for tensor in found.values())


def test_heads_of_a_teacher_are_left_out(tmp_path: Path) -> None:
    """A distilled model may list heads in layers that only its teacher has."""
    write_hugging_face(tmp_path / "m", DISTILLED, halved(DISTILLED), heads=[[7, 0]])
    assert checkpoints.load(str(tmp_path / "m")).heads is None


def test_engines_that_hold_a_checkpoint_share_its_memory(tmp_path: Path) -> None:
    path = str(write_checkpoint(tmp_path / "mini.pt", MINI))
    first, second = checkpoints.load(path), checkpoints.load(path)
    assert first is second
    key = "decoder.token_embedding.weight"
    assert first.build(Whisper).state_dict()[key].data_ptr() == first.state[key].data_ptr()


@pytest.mark.parametrize("name", TENSOR_DIGESTS)
def test_an_official_name_has_openais_tensors_and_heads(name: str) -> None:
    checkpoint = checkpoints.load(name)
    assert digest_tensors(checkpoint.state) == TENSOR_DIGESTS[name]
    model = Whisper(checkpoint.dims)
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
    found = checkpoint.build(Whisper).alignment_heads.to_dense()
    assert torch.equal(found, model.alignment_heads.to_dense())


def test_the_digest_is_what_its_description_says() -> None:
    import hashlib

    state = {"b": torch.tensor([[1.5, -2.0]]), "a": torch.tensor([0.25])}
    written = b"a\n1\n\x00\x34" + b"b\n1,2\n\x00\x3e\x00\xc0"
    assert digest_tensors(state) == hashlib.sha256(written).hexdigest()
    assert digest_tensors(state) != digest_tensors({**state, "a": torch.tensor([0.5])})


# Wrong files


def save(path: Path, **changes: Any) -> None:
    """Write MINI's state with changed tensors, their names with `__` in place of dots."""
    state = random_state(MINI) | {k.replace("__", "."): v for k, v in changes.items()}
    torch.save({"dims": vars(MINI), "model_state_dict": state}, path)


def cut_short(path: Path) -> None:
    write_checkpoint(path, MINI)
    os.truncate(path, path.stat().st_size // 2)


def another_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")


def grows(path: Path) -> None:
    """A checkpoint of zeros, deflated: 5 GB in 5 MB would fill the memory; so would less."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for part in range(3):
            archive.writestr(f"model/data/{part}", bytes(100_000_000))


def other_dims(**sizes: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        torch.save({"dims": vars(MINI) | sizes, "model_state_dict": random_state(MINI)}, path)

    return make


def hugging_face(**changes: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write_hugging_face(path, MINI, random_state(MINI), **changes)

    return make


def lacks_a_shard(path: Path) -> None:
    write_hugging_face(path, MINI, random_state(MINI), shards=2)
    (path / "model-00002-of-00002.safetensors").unlink()


def own_output_layer(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_hugging_face(path, MINI, random_state(MINI))
    tensors = load_file(path / "model.safetensors")
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"] + 1
    save_file(tensors, path / "model.safetensors")


def damaged_safetensors(path: Path) -> None:
    write_hugging_face(path, MINI, random_state(MINI))
    os.truncate(path / "model.safetensors", 1_000_000)


def shard_elsewhere(path: Path) -> None:
    write_hugging_face(path, MINI, random_state(MINI), shards=2)
    index = {"weight_map": {"x": "../../etc/passwd"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def ct2(dtype: str, cut: bool = False) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write_ctranslate2(path, MINI, random_state(MINI), dtype)
        if cut:
            os.truncate(path / "model.bin", 5_000_000)

    return make


LN = "decoder__ln__weight"
WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "not a zip": (lambda p: p.write_bytes(b"no weights" * 100), "is not a Whisper checkpoint"),
    "empty": (lambda p: p.touch(), "is not a Whisper checkpoint"),
    "cut short": (cut_short, "is not a Whisper checkpoint"),
    "another zip": (another_zip, "is not a Whisper checkpoint"),
    "only a tensor": (lambda p: torch.save(torch.zeros(3), p), "is not a Whisper checkpoint"),
    "only weights": (lambda p: torch.save(random_state(MINI), p), "is not a Whisper checkpoint"),
    "grows": (grows, r"would unpack from .* MB to 300 MB"),
    "no mels": (other_dims(n_mels=0), "dimensions that no Whisper has"),
    "huge": (other_dims(n_vocab=10**15), "dimensions that no Whisper has"),
    "more tokens": (other_dims(n_vocab=51900), "dimensions that no Whisper has"),
    "missing": (lambda p: write_checkpoint(p, MINI, **{LN: None}), "decoder.ln.weight is missing"),
    "unused": (
        lambda p: save(p, encoder__blocks__0__attn__key__bias=torch.zeros(64)),
        "attn.key.bias is not used by this model",
    ),
    "wrong shape": (lambda p: save(p, **{LN: torch.zeros(65)}), r"shape \(65,\) in place of"),
    "NaN": (lambda p: save(p, **{LN: torch.full((64,), float("nan"))}), "are not numbers"),
    "overflows": (
        lambda p: save(p, **{LN: torch.full((64,), 1e300, dtype=torch.float64)}),
        "values in decoder.ln.weight that float32 can't hold",
    ),
    "sparse": (lambda p: save(p, **{LN: torch.ones(64).to_sparse()}), "decoder.ln.weight sparse"),
    "complex": (lambda p: save(p, **{LN: torch.ones(64, dtype=torch.cfloat)}), "type complex64"),
    "integer": (lambda p: save(p, **{LN: torch.ones(64, dtype=torch.int8)}), "type int8"),
    "float8": (lambda p: save(p, **{LN: torch.ones(64).to(torch.float8_e4m3fn)}), "float8"),
    "meta": (lambda p: save(p, **{LN: torch.ones(64, device="meta")}), "without values"),
    "quantized": (
        lambda p: save(p, **{LN: torch.quantize_per_tensor(torch.ones(64), 1.0, 0, torch.qint8)}),
        "quantized|is not a Whisper checkpoint",
    ),
    "no tensor": (lambda p: save(p, **{LN: [1.0]}), "as list, not as a tensor"),
    "empty folder": (lambda p: p.mkdir(), "folder without model.safetensors"),
    "another model": (hugging_face(model_type="bert"), "of type 'bert', not whisper"),
    "lacks a shard": (lacks_a_shard, "lacks model-00002-of-00002.safetensors"),
    "shard elsewhere": (shard_elsewhere, "outside its own folder"),
    "own output layer": (own_output_layer, "output layer of its own"),
    "damaged safetensors": (damaged_safetensors, "damaged or cut short"),
    "int8": (ct2("int8"), "quantized weights"),
    "ct2 cut short": (ct2("float16", cut=True), "is cut short"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_gets_one_sentence(kind: str, tmp_path: Path) -> None:
    make, words = WRONG[kind]
    path = tmp_path / "model.pt"
    make(path)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoints.load(str(path))
    assert "\n" not in str(caught.value)


class MakesAFolder:
    """Unpickling this with Python's own pickle would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [torch.save, plain_pickle])
def test_nothing_in_a_file_is_executed(write: Callable[[Any, Path], None], tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "model.pt"
    write({"dims": vars(MINI), "model_state_dict": MakesAFolder(trap)}, path)
    with pytest.raises(CheckpointError, match="is not a Whisper checkpoint"):
        checkpoints.load(str(path))
    assert not trap.exists()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"no model called 'tinny': pick tiny\.en"):
        checkpoints.load("tinny")
