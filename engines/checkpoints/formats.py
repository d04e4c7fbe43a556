"""Checkpoint files as OpenAI's tensors: `.pt`, Hugging Face folders, CTranslate2 folders.

Every reader gives dimensions, tensors under OpenAI's names as they are stored, and the alignment
heads where the file has them. Nothing in a file is executed, and sizes are checked before memory
is taken for them.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor
from whisper.model import ModelDimensions

from engines.base import CheckpointError, ran_out_of_memory
from engines.checkpoints.content import (
    AlignmentHeads,
    Content,
    decoder_shapes,
    difference,
    encoder_shapes,
)

HEAD_WIDTH = 64
"""Every Whisper checkpoint has attention heads of this width."""

LARGEST_BYTES = 7 * 2**30
"""More than the tensors of large-v3 in float32 (6.2 GB)."""

DEFLATED_BYTES, DEFLATED_RATIO = 64 * 2**20, 8
"""A zip may unpack to so many bytes, and to so many times its size on top. Weights hardly deflate:
what grows more was made to fill the memory."""


def read_content(path: Path) -> Content:
    """Read and check a file or folder in any of the formats; raises `CheckpointError`.

    `state` maps OpenAI's names to float tensors on the CPU, finite, of the expected shapes.
    """
    reader: Callable[[Path], Content]
    if not path.is_dir():
        reader, kind = read_openai, "a file of weights"
    elif (path / "model.bin").is_file():
        reader, kind = read_ctranslate2, "a CTranslate2 folder"
    elif any(path.glob("*.safetensors")):
        reader, kind = read_hugging_face, "a Hugging Face folder"
    else:
        raise CheckpointError(
            f"{path.name} is a folder without model.safetensors or model.bin: name a folder as "
            "Hugging Face or CTranslate2 have it (a pytorch_model.bin must be saved as safetensors "
            "first)."
        )
    try:
        content = reader(path)
    except CheckpointError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise CheckpointError(
            f"{path.name} can't be read ({error.strerror}): put the file back, or pick another "
            "model."
        ) from error
    except Exception as error:  # arbitrary bytes can make the parsers raise anything
        if ran_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{path.name} is not a Whisper checkpoint: it can't be read as {kind} "
            f"({type(error).__name__}). Use a file in OpenAI's .pt format, or a folder as Hugging "
            "Face or CTranslate2 have it."
        ) from error
    _check_dims(path.name, content.dims)
    _check_tensors(path.name, content)
    state = {name: tensor.detach() for name, tensor in content.state.items()}
    return Content(content.dims, state, content.heads)


# OpenAI's .pt


def read_openai(path: Path) -> Content:
    """Read `{"dims": …, "model_state_dict": …}` as `torch.save` writes it."""
    if not zipfile.is_zipfile(path):
        with path.open("rb"):  # a file that can't be opened has a reason of its own
            raise CheckpointError(
                f"{path.name} is not a Whisper checkpoint: it is no archive as PyTorch 1.6 and "
                "newer save it. Use a file in OpenAI's .pt format."
            )
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > min(LARGEST_BYTES, DEFLATED_BYTES + DEFLATED_RATIO * size):
        raise CheckpointError(
            f"{path.name} would unpack from {size / 1e6:.1f} MB to {unpacked / 1e6:.0f} MB, which "
            "no Whisper checkpoint does: use another copy of the file."
        )
    # `weights_only` builds tensors and plain containers, and calls nothing else.
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    try:
        dims, state = ModelDimensions(**loaded["dims"]), dict(loaded["model_state_dict"].items())
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"{path.name} is not a Whisper checkpoint: it needs 'dims' and 'model_state_dict', "
            "as in OpenAI's files."
        ) from error
    tensors = [each for each in state.values() if isinstance(each, Tensor)]
    in_tensors = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if in_tensors > unpacked:  # views of a few numbers, which would be copied out
        raise CheckpointError(
            f"{path.name} has tensors of {in_tensors / 1e6:.0f} MB in {unpacked / 1e6:.0f} MB, as "
            "no Whisper checkpoint has: use another copy of the file."
        )
    return Content(dims, state)


# Hugging Face

_HUGGING_FACE_NAMES = {
    r"^model\.": "",
    r"^(encoder|decoder)\.layers\.": r"\1.blocks.",
    r"\.self_attn_layer_norm\.": ".attn_ln.",
    r"\.encoder_attn_layer_norm\.": ".cross_attn_ln.",
    r"\.final_layer_norm\.": ".mlp_ln.",
    r"\.self_attn\.": ".attn.",
    r"\.encoder_attn\.": ".cross_attn.",
    r"\.q_proj\.": ".query.",
    r"\.k_proj\.": ".key.",
    r"\.v_proj\.": ".value.",
    r"\.out_proj\.": ".out.",
    r"\.fc1\.": ".mlp.0.",
    r"\.fc2\.": ".mlp.2.",
    r"^encoder\.layer_norm\.": "encoder.ln_post.",
    r"^decoder\.layer_norm\.": "decoder.ln.",
    r"^(encoder|decoder)\.embed_positions\.weight$": r"\1.positional_embedding",
    r"^decoder\.embed_tokens\.": "decoder.token_embedding.",
}


def from_hugging_face(name: str) -> str:
    """Return OpenAI's name of one of Hugging Face's tensors."""
    return _rename(name, _HUGGING_FACE_NAMES)


def read_hugging_face(folder: Path) -> Content:
    """Read `config.json` and `model.safetensors`, in one file or in shards."""
    config = _read_json(folder, "config.json")
    if config.get("model_type") != "whisper":
        raise CheckpointError(
            f"{folder.name} holds a model of type {config.get('model_type')!r}, not whisper."
        )
    files = sorted(folder.glob("model-*-of-*.safetensors"))
    if (folder / "model.safetensors").is_file() or not files:
        files = [folder / "model.safetensors"]
    elif len(files) != int(files[0].stem.rpartition("-")[2]):
        raise CheckpointError(f"{folder.name} lacks some of its shards: download it again.")
    state: dict[str, Tensor] = {}
    for file in files:
        if file.stat().st_size > LARGEST_BYTES:
            raise CheckpointError(f"{file.name} is larger than any Whisper checkpoint.")
        try:
            stored = load_file(file)
        except safetensors.SafetensorError as error:
            raise CheckpointError(
                f"{file.name} is damaged or cut short ({error}): use another copy of the file."
            ) from error
        state |= {from_hugging_face(name): tensor for name, tensor in stored.items()}
    output = state.pop("proj_out.weight", None)  # the embedding, which the model shares
    if output is not None and not torch.equal(output, state["decoder.token_embedding.weight"]):
        raise CheckpointError(
            f"{folder.name} has an output layer of its own (proj_out), where Whisper uses its "
            "token embedding: it can't be run as a Whisper."
        )
    n_heads = config["encoder_attention_heads"], config["decoder_attention_heads"]
    dims = _measure_dims(state, *n_heads)
    return Content(dims, state, _read_heads(folder, "generation_config.json", dims))


# CTranslate2, as faster-whisper uses it

_CTRANSLATE2_NAMES = {
    r"/": ".",
    r"\.gamma$": ".weight",
    r"\.beta$": ".bias",
    r"\.layer_(\d+)\.": r".blocks.\1.",
    r"\.self_attention\.layer_norm\.": ".attn_ln.",
    r"\.self_attention\.linear_0\.": ".attn.query+key+value.",
    r"\.self_attention\.linear_1\.": ".attn.out.",
    r"\.attention\.layer_norm\.": ".cross_attn_ln.",
    r"\.attention\.linear_0\.": ".cross_attn.query.",
    r"\.attention\.linear_1\.": ".cross_attn.key+value.",
    r"\.attention\.linear_2\.": ".cross_attn.out.",
    r"\.ffn\.layer_norm\.": ".mlp_ln.",
    r"\.ffn\.linear_0\.": ".mlp.0.",
    r"\.ffn\.linear_1\.": ".mlp.2.",
    r"^encoder\.layer_norm\.": "encoder.ln_post.",
    r"^decoder\.layer_norm\.": "decoder.ln.",
    r"\.position_encodings\.encodings$": ".positional_embedding",
    r"^decoder\.embeddings\.": "decoder.token_embedding.",
}
"""Some linear layers are several of OpenAI's, stacked; their names are joined by `+` here."""

_CTRANSLATE2_DTYPES: dict[int, Any] = {0: np.float32, 4: np.float16}


def from_ctranslate2(name: str) -> list[str]:
    """Return OpenAI's names of the tensors that one of CTranslate2's holds, stacked by rows."""
    joined = _rename(name, _CTRANSLATE2_NAMES)
    stacked = re.search(r"\w+\+[\w+]+", joined)
    parts = stacked[0].split("+") if stacked else [""]
    return [joined.replace(stacked[0], part) if stacked else joined for part in parts]


def read_ctranslate2(folder: Path) -> Content:
    """Read `model.bin` and `config.json` of a conversion in float16 or float32."""
    state: dict[str, Tensor] = {}
    for stacked_name, array in _read_variables(folder / "model.bin", folder.name):
        names = from_ctranslate2(stacked_name)
        for name, part in zip(names, np.split(array, len(names)), strict=True):
            if name.endswith(".key.bias") and not part.any():
                continue  # OpenAI's keys have no bias; CTranslate2 fills in zeros
            state[name] = torch.from_numpy(part)
    n_heads = len(state["encoder.conv1.bias"]) // HEAD_WIDTH
    dims = _measure_dims(state, n_heads, n_heads)
    return Content(dims, state, _read_heads(folder, "config.json", dims))


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

    if take("<I") != (6,) or take_string() != "WhisperSpec":
        raise CheckpointError(f"{name} is no CTranslate2 conversion of a Whisper that can be read.")
    _, count = take("<II")
    for _ in range(count):
        variable = take_string()
        (rank,) = take("<B")
        shape = take(f"<{rank}I")
        kind, n_bytes = take("<BI")
        if at + n_bytes > len(content):
            raise CheckpointError(f"{name} is cut short: use another copy of the folder.")
        values = np.frombuffer(content, np.uint8, n_bytes, at)
        at += n_bytes
        if rank == 0:  # numbers of heads, flags
            continue
        if kind not in _CTRANSLATE2_DTYPES:
            raise CheckpointError(
                f"{name} has quantized weights (int8 or int16): use a conversion in float16 or "
                "float32."
            )
        yield variable, values.view(_CTRANSLATE2_DTYPES[kind]).reshape(shape).copy()


# What all formats share


def _rename(name: str, patterns: dict[str, str]) -> str:
    """Return OpenAI's name of a tensor; an unknown one stays."""
    for pattern, replacement in patterns.items():
        name = re.sub(pattern, replacement, name)
    return name


def _measure_dims(state: dict[str, Tensor], n_audio_head: int, n_text_head: int) -> ModelDimensions:
    """Return the dimensions that tensors under OpenAI's names have."""
    n_state, n_mels, _ = state["encoder.conv1.weight"].shape
    n_audio_ctx, _ = state["encoder.positional_embedding"].shape
    n_text_ctx, n_text_state = state["decoder.positional_embedding"].shape
    n_vocab, _ = state["decoder.token_embedding.weight"].shape
    n_audio_layer, n_text_layer = (
        len({name.split(".")[2] for name in state if name.startswith(f"{half}.blocks.")})
        for half in ("encoder", "decoder")
    )
    return ModelDimensions(
        *(n_mels, n_audio_ctx, n_state, n_audio_head, n_audio_layer),
        *(n_vocab, n_text_ctx, n_text_state, n_text_head, n_text_layer),
    )


def _read_json(folder: Path, name: str, default: Any = None) -> Any:
    """Return the object in a JSON file of a folder; `default`, if given, where there is none."""
    path = folder / name
    if not path.is_file():
        if default is not None:
            return default
        raise CheckpointError(f"{folder.name} lacks {name}: download the whole folder.")
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise CheckpointError(f"{name} in {folder.name} is damaged: download it again.")
    return content


def _read_heads(folder: Path, file: str, dims: ModelDimensions) -> AlignmentHeads | None:
    """Return the heads if the decoder has them all; a distilled model may list its teacher's."""
    pairs = _read_json(folder, file, {}).get("alignment_heads") or []
    heads = tuple((int(layer), int(head)) for layer, head in pairs)
    layers, width = range(dims.n_text_layer), range(dims.n_text_head)
    there = all(layer in layers and head in width for layer, head in heads)
    return heads if heads and there else None


def _check_dims(name: str, dims: ModelDimensions) -> None:
    """Raise `CheckpointError` for dimensions that no Whisper has."""
    sound = (
        all(isinstance(size, int) and size > 0 for size in vars(dims).values())
        and dims.n_mels in (80, 128)
        and dims.n_audio_ctx == 1500
        and dims.n_text_ctx == 448
        and dims.n_audio_state == dims.n_text_state == dims.n_audio_head * HEAD_WIDTH
        and dims.n_audio_head == dims.n_text_head
        and dims.n_audio_head <= 32
        and max(dims.n_audio_layer, dims.n_text_layer) <= 64
        and dims.n_vocab in (51864, 51865, 51866)  # English; 99 languages; 100 (large-v3)
    )
    if not sound:
        raise CheckpointError(f"{name} has dimensions that no Whisper has: {dims}.")


def _check_tensors(file: str, content: Content) -> None:
    """Raise `CheckpointError` unless all are finite, dense floats of the expected shapes."""
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for name, tensor in content.state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{file} has {name} as {type(tensor).__name__}, not as a tensor.")
        if tensor.dtype not in floats or tensor.layout != torch.strided or tensor.is_meta:
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}".replace("torch.", "")
            raise CheckpointError(
                f"{file} has {name} as a tensor of another kind ({kind}): save the checkpoint with "
                "dense float16, bfloat16 or float32 tensors."
            )
    expected = {f"encoder.{name}": shape for name, shape in encoder_shapes(content.dims).items()}
    expected |= {f"decoder.{name}": shape for name, shape in decoder_shapes(content.dims).items()}
    found = {name: tuple(tensor.shape) for name, tensor in content.state.items()}
    if problems := difference(expected, found):
        raise CheckpointError(f"{file} doesn't fit its dimensions: {problems}.")
    for name, tensor in content.state.items():
        # A sum takes a fifth of the time, and is finite only where all are.
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.float().isfinite().all():
            raise CheckpointError(
                f"{file} has values in {name} that are not numbers (NaN or infinite) or that "
                "float32 can't hold: use another copy of the file."
            )
