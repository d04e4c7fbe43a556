"""Checkpoint files in every format: right ones as they are, wrong ones with one clear sentence."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper
from safetensors.torch import load_file, save_file
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from engines import checkpoints
from engines.base import CheckpointError
from engines.checkpoints.content import TENSOR_DIGESTS, digest_tensors
from tests.engines.checkpoint_files import (
    DIMENSIONS,
    random_state,
    write_checkpoint,
    write_ctranslate2,
    write_hugging_face,
)

MINI, DISTILLED = DIMENSIONS["mini"], DIMENSIONS["distilled"]
HEADS = [[1, 0], [1, 1]]


def halved(dims: ModelDimensions) -> dict[str, Tensor]:
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
            write_checkpoint(path, DISTILLED, state)
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


def test_a_path_loads_as_whisper_loads_it_and_its_memory_is_shared(tmp_path: Path) -> None:
    path = str(write_checkpoint(tmp_path / "mini.pt", MINI))
    first, second = checkpoints.load(path), checkpoints.load(path)
    assert first is second
    found = first.build(Whisper).state_dict()
    assert_same(found, whisper.load_model(path, device="cpu").state_dict())
    key = "decoder.token_embedding.weight"
    assert found[key].data_ptr() == first.state[key].data_ptr()


def enlarge(tensor: Tensor) -> Tensor:
    """Numbers whose sum float32 can't hold, though it holds each."""
    return tensor + 3e38 * (tensor.ndim == 1)


@pytest.mark.parametrize(
    "change", [Tensor.half, Tensor.bfloat16, Tensor.double, torch.nn.Parameter, enlarge]
)
def test_other_floats_and_trained_parameters_are_taken_exactly(
    change: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    state = {name: change(tensor) for name, tensor in random_state(MINI).items()}
    path = write_checkpoint(tmp_path / "other.pt", MINI, state)
    found = checkpoints.load(str(path)).state
    assert_same(found, {name: tensor.float() for name, tensor in state.items()})
    assert all(tensor.numpy().size for tensor in found.values())  # none asks for gradients


def test_heads_of_a_teacher_are_left_out(tmp_path: Path) -> None:
    """A distilled model may list heads in layers that only its teacher has."""
    write_hugging_face(tmp_path / "m", DISTILLED, halved(DISTILLED), heads=[[7, 0]])
    assert checkpoints.load(str(tmp_path / "m")).heads is None


@pytest.mark.parametrize("name", TENSOR_DIGESTS)
def test_an_official_name_has_openais_tensors_and_heads(name: str) -> None:
    checkpoint = checkpoints.load(name)
    assert digest_tensors(checkpoint.state) == TENSOR_DIGESTS[name]
    model = checkpoint.build(Whisper)
    found = model.alignment_heads.to_dense()
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
    assert torch.equal(found, model.alignment_heads.to_dense())


# Wrong files

Write = Callable[[Path], Any]


def openai(name: str = "", tensor: Any = None, **sizes: int) -> Write:
    """MINI with another tensor, or with dimensions that lie."""

    def write(path: Path) -> None:
        state = random_state(MINI) | ({name: tensor} if name else {})
        write_checkpoint(path, ModelDimensions(**vars(MINI) | sizes), state)

    return write


def norm(values: Any) -> Write:
    """MINI with another `decoder.ln.weight`, of 64 values."""
    return openai("decoder.ln.weight", values)


def hugging_face(spoil: Write = lambda path: None, **changes: Any) -> Write:
    """MINI as a folder, which is spoilt afterwards."""

    def write(path: Path) -> None:
        write_hugging_face(path, MINI, random_state(MINI), **changes)
        spoil(path)

    return write


def ctranslate2(dtype: str, spoil: Write = lambda path: None) -> Write:
    def write(path: Path) -> None:
        write_ctranslate2(path, MINI, random_state(MINI), dtype)
        spoil(path)

    return write


def cut_short(path: Path) -> None:
    write_checkpoint(path, MINI)
    os.truncate(path, path.stat().st_size // 2)


def zipped(*parts: bytes) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for at, part in enumerate(parts):
                archive.writestr(f"model/data/{at}", part)

    return write


def views(path: Path) -> None:
    """Tensors of every shape, each of which stores one number."""
    state = random_state(MINI)
    write_checkpoint(
        path, MINI, {name: torch.zeros(1).expand(each.shape) for name, each in state.items()}
    )


def own_output_layer(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"] + 1
    save_file(tensors, path / "model.safetensors")


WRONG: dict[str, tuple[Write, str]] = {
    "not a zip": (lambda p: p.write_bytes(b"no weights" * 100), "is not a Whisper checkpoint"),
    "cut short": (cut_short, "is not a Whisper checkpoint"),
    "only weights": (lambda p: torch.save(random_state(MINI), p), "is not a Whisper checkpoint"),
    # 5 GB in 5 MB would fill the memory; so would less
    "grows": (zipped(*[bytes(100_000_000)] * 3), r"would unpack from .* MB to 300 MB"),
    "views of one number": (views, r"has tensors of \d+ MB in 0 MB"),
    "huge": (openai(n_vocab=10**15), "dimensions that no Whisper has"),
    "missing": (
        lambda p: write_checkpoint(p, MINI, dict(list(random_state(MINI).items())[:-1])),
        "decoder.ln.bias is missing",
    ),
    "unused": (
        openai("encoder.blocks.0.attn.key.bias", torch.zeros(64)),
        "attn.key.bias is not used by this model",
    ),
    "wrong shape": (norm(torch.zeros(65)), r"shape \(65,\) in place of \(64,\)"),
    "NaN": (norm(torch.full((64,), float("nan"))), "are not numbers"),
    "overflows": (norm(torch.full((64,), 1e300, dtype=torch.float64)), "float32 can't hold"),
    "sparse": (norm(torch.ones(64).to_sparse()), r"decoder.ln.weight .*sparse"),
    "integer": (norm(torch.ones(64, dtype=torch.int8)), "int8"),
    "no tensor": (norm([1.0]), "as list, not as a tensor"),
    "empty folder": (lambda p: p.mkdir(), "folder without model.safetensors"),
    "another model": (hugging_face(model_type="bert"), "of type 'bert', not whisper"),
    "lacks a shard": (
        hugging_face(lambda p: (p / "model-00002-of-00002.safetensors").unlink(), shards=2),
        "lacks some of its shards",
    ),
    "own output layer": (hugging_face(own_output_layer), "output layer of its own"),
    "damaged safetensors": (
        hugging_face(lambda p: os.truncate(p / "model.safetensors", 1_000_000)),
        "damaged or cut short",
    ),
    "quantized ct2": (ctranslate2("int8"), "quantized weights"),
    "ct2 cut short": (
        ctranslate2("float16", lambda p: os.truncate(p / "model.bin", 5_000_000)),
        "is cut short",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_gets_one_sentence(kind: str, tmp_path: Path) -> None:
    write, words = WRONG[kind]
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoints.load(str(path))
    assert "\n" not in str(caught.value)


class MakesAFolder:
    """Unpickling this with Python's own pickle would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))]
)
def test_nothing_in_a_file_is_executed(write: Callable[[Any, Path], None], tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "model.pt"
    write({"dims": vars(MINI), "model_state_dict": MakesAFolder(trap)}, path)
    with pytest.raises(CheckpointError, match="is not a Whisper checkpoint"):
        checkpoints.load(str(path))
    assert not trap.exists()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"no model called 'tinny': pick tiny\.en"):
        checkpoints.load("tinny")
