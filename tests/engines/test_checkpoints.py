"""Checkpoint files in every format: right ones as they are, wrong ones with one clear sentence."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
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


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# Right files


@pytest.mark.parametrize(
    ("write", "given"),
    [
        (write_checkpoint, {}),
        (write_hugging_face, {"heads": HEADS}),
        (write_hugging_face, {"heads": [[7, 0]]}),  # in a layer that only its teacher has
        (write_hugging_face, {"heads": HEADS, "shards": 3}),
        (write_ctranslate2, {"heads": HEADS, "dtype": "float16"}),
        (write_ctranslate2, {"heads": HEADS, "dtype": "float32"}),
    ],
)
def test_every_format_gives_the_same_tensors(
    write: Callable[..., Path], given: dict[str, Any], tmp_path: Path
) -> None:
    """Of a distilled model: three encoder layers, two decoder layers, heads of its own."""
    state = random_state(DISTILLED, half=True)
    checkpoint = checkpoints.load(str(write(tmp_path / "model", DISTILLED, state, **given)))
    assert checkpoint.dims == DISTILLED
    assert_same(checkpoint.state, state)
    assert checkpoint.heads == (((1, 0), (1, 1)) if given.get("heads") == HEADS else None)
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


@pytest.mark.parametrize(
    "change",
    [
        *(Tensor.half, Tensor.bfloat16, Tensor.double, torch.nn.Parameter),
        lambda tensor: tensor + 3e38 * (tensor.ndim == 1),  # whose sum float32 can't hold
    ],
)
def test_other_floats_and_trained_parameters_are_taken_exactly(
    change: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    state = {name: change(tensor) for name, tensor in random_state(MINI).items()}
    path = write_checkpoint(tmp_path / "other.pt", MINI, state)
    found = checkpoints.load(str(path)).state
    assert_same(found, {name: tensor.float() for name, tensor in state.items()})
    assert all(tensor.numpy().size for tensor in found.values())  # none asks for gradients


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


def openai(change: Callable[[dict[str, Any]], Any] = dict, **sizes: int) -> Write:
    """MINI with other tensors, or with dimensions that lie."""
    dims = ModelDimensions(**vars(MINI) | sizes)
    return lambda path: write_checkpoint(path, dims, change(random_state(MINI)))


def norm(values: Any) -> Write:
    """MINI with another `decoder.ln.weight`, of 64 values."""
    return openai(lambda state: state | {"decoder.ln.weight": values})


def write_as(kind: Callable[..., Path], spoil: Write = lambda path: None, **changes: Any) -> Write:
    """MINI in a format, spoilt afterwards."""

    def write(path: Path) -> None:
        kind(path, MINI, random_state(MINI), **changes)
        spoil(path)

    return write


def cut(file: str, size: int) -> Write:
    """Keep so many bytes of a folder's file, or of a file itself."""
    return lambda path: os.truncate(path / file, size)


hugging_face = partial(write_as, write_hugging_face)
ctranslate2 = partial(write_as, write_ctranslate2)


def write_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for at in range(3):
            archive.writestr(f"model/data/{at}", bytes(100_000_000))


def own_output_layer(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"] + 1
    save_file(tensors, path / "model.safetensors")


WRONG: dict[str, tuple[Write, str]] = {
    "not a zip": (lambda p: p.write_bytes(b"no weights" * 100), "is not a Whisper checkpoint"),
    "cut short": (write_as(write_checkpoint, cut("", 5_000_000)), "is not a Whisper checkpoint"),
    "only weights": (lambda p: torch.save(random_state(MINI), p), "is not a Whisper checkpoint"),
    # 5 GB in 5 MB would fill the memory; so would less
    "grows": (write_archive, r"would unpack from .* MB to 300 MB"),
    "views of one number": (
        openai(lambda s: {name: torch.zeros(1).expand(each.shape) for name, each in s.items()}),
        r"has tensors of \d+ MB in 0 MB",
    ),
    "huge": (openai(n_vocab=10**15), "dimensions that no Whisper has"),
    "missing": (openai(lambda s: dict(list(s.items())[:-1])), "decoder.ln.bias is missing"),
    "unused": (
        openai(lambda state: state | {"encoder.blocks.0.attn.key.bias": torch.zeros(64)}),
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
        hugging_face(lambda p: max(p.glob("*.safetensors")).unlink(), shards=2),
        "lacks some of its shards",
    ),
    "own output layer": (hugging_face(own_output_layer), "output layer of its own"),
    "damaged safetensors": (
        hugging_face(cut("model.safetensors", 1_000_000)),
        "damaged or cut short",
    ),
    "quantized ct2": (ctranslate2(dtype="int8"), "quantized weights"),
    "ct2 cut short": (ctranslate2(cut("model.bin", 5_000_000)), "is cut short"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_gets_one_sentence(kind: str, tmp_path: Path) -> None:
    write, words = WRONG[kind]
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoints.load(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))]
)
def test_nothing_in_a_file_is_executed(write: Callable[[Any, Path], None], tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "model.pt"

    class MakesAFolder:
        """Unpickling this with Python's own pickle would make a folder."""

        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(trap),)

    write({"dims": vars(MINI), "model_state_dict": MakesAFolder()}, path)
    with pytest.raises(CheckpointError, match="is not a Whisper checkpoint"):
        checkpoints.load(str(path))
    assert not trap.exists()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"no model called 'tinny': pick tiny\.en"):
        checkpoints.load("tinny")
