"""CTranslate2's folders, as faster-whisper uses them, as OpenAI's tensors."""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from whisper.model import ModelDimensions

from engines.base import CheckpointError
from engines.checkpoints.content import HEAD_WIDTH, Content, parse_heads, read_json

_CT2_DTYPES: dict[int, Any] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_CT2_VERSION = 6

_CT2_ATTENTION = (
    ("self_attention", "attn", (("linear_0", ("query", "key", "value")), ("linear_1", ("out",)))),
    (
        "attention",
        "cross_attn",
        (("linear_0", ("query",)), ("linear_1", ("key", "value")), ("linear_2", ("out",))),
    ),
)
"""CTranslate2's name of an attention, OpenAI's, and what each of its linear layers stacks."""


def read_ctranslate2(folder: Path) -> Content:
    """Read `model.bin` and `config.json` of a conversion in float16 or float32."""
    variables = dict(_read_variables(folder / "model.bin", folder.name))
    state = _map_ctranslate2(variables)
    n_state = variables["encoder/conv1/weight"].shape[0]
    layers = {
        half: len({name.split("/")[1] for name in variables if re.match(rf"{half}/layer_\d", name)})
        for half in ("encoder", "decoder")
    }
    dims = ModelDimensions(
        n_mels=variables["encoder/conv1/weight"].shape[1],
        n_audio_ctx=variables["encoder/position_encodings/encodings"].shape[0],
        n_audio_state=n_state,
        n_audio_head=n_state // HEAD_WIDTH,
        n_audio_layer=layers["encoder"],
        n_vocab=variables["decoder/embeddings/weight"].shape[0],
        n_text_ctx=variables["decoder/position_encodings/encodings"].shape[0],
        n_text_state=n_state,
        n_text_head=n_state // HEAD_WIDTH,
        n_text_layer=layers["decoder"],
    )
    heads = read_json(folder, "config.json", {}).get("alignment_heads")
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    return Content(dims, tensors, parse_heads(heads))


def _read_variables(file: Path, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and arrays of `model.bin`, format version 6; scalars are left out.

    Little endian: uint32 version, string specification, uint32 revision, uint32 count; for each
    variable its name, uint8 rank, uint32 sizes, uint8 type, uint32 bytes, values. A string is
    uint16 length, its final NUL included, and the bytes.
    """
    with file.open("rb") as opened:
        content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    at = 0

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from(layout, content, at)
        at += struct.calcsize(layout)
        return values

    def take_string() -> str:
        (length,) = take("<H")
        return str(take(f"<{length}s")[0].rstrip(b"\0").decode())

    (version,) = take("<I")
    specification = take_string() if version == _CT2_VERSION else ""
    if specification != "WhisperSpec":
        raise CheckpointError(f"{name} is no CTranslate2 conversion of a Whisper that can be read.")
    _, count = take("<II")
    for _ in range(count):
        variable = take_string()
        (rank,) = take("<B")
        shape = take(f"<{rank}I")
        dtype, n_bytes = take("<BI")
        if at + n_bytes > len(content):
            raise CheckpointError(f"{name} is cut short: use another copy of the folder.")
        values = np.frombuffer(content, np.uint8, n_bytes, at)
        at += n_bytes
        if rank == 0:  # numbers of heads, flags
            continue
        if _CT2_DTYPES.get(dtype) not in (np.float16, np.float32):
            raise CheckpointError(
                f"{name} has quantized weights (int8 or int16): use a conversion in float16 or "
                "float32."
            )
        yield variable, values.view(_CT2_DTYPES[dtype]).reshape(shape).copy()


def _map_ctranslate2(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return OpenAI's names and arrays, stacked projections taken apart; unknown names stay."""
    state: dict[str, np.ndarray] = {}
    for name, array in variables.items():
        half, *rest, kind = name.split("/")
        suffix = {"gamma": "weight", "beta": "bias"}.get(kind, kind)
        match rest:
            case [("conv1" | "conv2") as layer]:
                state[f"{half}.{layer}.{suffix}"] = array
            case ["position_encodings"]:
                state[f"{half}.positional_embedding"] = array
            case ["embeddings"]:
                state[f"{half}.token_embedding.weight"] = array
            case ["layer_norm"]:
                state[f"{half}.{'ln_post' if half == 'encoder' else 'ln'}.{suffix}"] = array
            case [block, *inner] if re.fullmatch(r"layer_\d+", block):
                prefix = f"{half}.blocks.{block.removeprefix('layer_')}"
                state |= _map_ctranslate2_layer(prefix, inner, suffix, array, name)
            case _:
                state[name] = array
    return state


def _map_ctranslate2_layer(
    prefix: str, inner: list[str], suffix: str, array: np.ndarray, name: str
) -> dict[str, np.ndarray]:
    match inner:
        case ["ffn", "layer_norm"]:
            return {f"{prefix}.mlp_ln.{suffix}": array}
        case ["ffn", ("linear_0" | "linear_1") as linear]:
            return {f"{prefix}.mlp.{2 * int(linear[-1])}.{suffix}": array}
    for theirs, ours, linears in _CT2_ATTENTION:
        if inner == [theirs, "layer_norm"]:
            return {f"{prefix}.{ours}_ln.{suffix}": array}
        for layer, stacked in linears:
            if inner == [theirs, layer]:
                parts = np.split(array, len(stacked))  # each (n_state, n_state) or (n_state,)
                named = dict(zip(stacked, parts, strict=True))
                if suffix == "bias" and "key" in named and not named["key"].any():
                    del named["key"]  # OpenAI's keys have no bias; CTranslate2 fills in zeros
                return {f"{prefix}.{ours}.{key}.{suffix}": part for key, part in named.items()}
    return {name: array}
