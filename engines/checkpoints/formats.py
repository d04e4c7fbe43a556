"""Checkpoint files as OpenAI's tensors: `.pt`, Hugging Face folders, CTranslate2 folders.

Every reader gives dimensions, tensors under OpenAI's names as they are stored, and the alignment
heads where the file has them. Nothing in a file is executed, and sizes are checked before memory
is taken for them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor
from whisper.model import ModelDimensions

from engines.base import CheckpointError
from engines.checkpoints.content import (
    HEAD_WIDTH,
    AlignmentHeads,
    Content,
    all_shapes,
    difference,
    parse_heads,
    read_json,
)
from engines.checkpoints.ctranslate2 import read_ctranslate2
from engines.errors import ran_out_of_memory

VOCABULARIES = (51864, 51865, 51866)
"""English-only; multilingual with 99 languages; with 100 (large-v3)."""

LARGEST_BYTES = 7 * 2**30
"""More than the tensors of large-v3 in float32 (6.2 GB)."""

DEFLATED_BYTES, DEFLATED_RATIO = 64 * 2**20, 8
"""A zip may unpack to so many bytes, and to so many times its size on top. Weights hardly deflate:
what grows more was made to fill the memory."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_content(path: Path) -> Content:
    """Read and check a file or folder in any of the formats; raises `CheckpointError`.

    `state` maps OpenAI's names to float tensors on the CPU, finite, of the expected shapes.
    """
    reader, what = _find_reader(path)
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
            f"{path.name} is not a Whisper checkpoint: it can't be read as {what} "
            f"({type(error).__name__}). Use a file in OpenAI's .pt format, or a folder as Hugging "
            "Face or CTranslate2 have it."
        ) from error
    check_dims(path.name, content.dims)
    state = {name: _check_kind(path.name, name, t) for name, t in content.state.items()}
    _check_tensors(path.name, state, content.dims)
    return Content(content.dims, state, _check_heads(content.heads, content.dims))


def _find_reader(path: Path) -> tuple[Callable[[Path], Content], str]:
    if not path.is_dir():
        return read_openai, "a file of weights"
    if (path / "model.bin").is_file():
        return read_ctranslate2, "a CTranslate2 folder"
    if any(path.glob("*.safetensors")):
        return read_hugging_face, "a Hugging Face folder"
    raise CheckpointError(
        f"{path.name} is a folder without model.safetensors or model.bin: name a folder as Hugging "
        "Face or CTranslate2 have it (a pytorch_model.bin must be saved as safetensors first)."
    )


# OpenAI's .pt


def read_openai(path: Path) -> Content:
    """Read `{"dims": …, "model_state_dict": …}` as `torch.save` writes it."""
    _check_zip(path)
    # `weights_only` builds tensors and plain containers, and calls nothing else.
    content = torch.load(path, map_location="cpu", weights_only=True)
    try:
        if not isinstance(content, dict):
            raise TypeError(f"{type(content).__name__} in place of a dictionary")
        dims = ModelDimensions(**content["dims"])
        state = dict(content["model_state_dict"].items())
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path.name} is not a Whisper checkpoint: it needs 'dims' and 'model_state_dict', "
            "as in OpenAI's files."
        ) from error
    return Content(dims, state)


def _check_zip(path: Path) -> None:
    """Refuse a file that is no zip, or one that unpacks to far more than weights would."""
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        with path.open("rb"):  # a file that can't be opened has a reason of its own
            raise CheckpointError(
                f"{path.name} is not a Whisper checkpoint: it is no archive as PyTorch 1.6 and "
                "newer save it. Use a file in OpenAI's .pt format."
            )
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > min(LARGEST_BYTES, DEFLATED_BYTES + DEFLATED_RATIO * size):
        raise CheckpointError(
            f"{path.name} would unpack from {size / 1e6:.1f} MB to {unpacked / 1e6:.0f} MB, which "
            "no Whisper checkpoint does: use another copy of the file."
        )


# Hugging Face


_HUGGING_FACE_NAMES = (
    (r"^model\.", ""),
    (r"^(encoder|decoder)\.layers\.", r"\1.blocks."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"\.self_attn\.", ".attn."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"^(encoder|decoder)\.embed_positions\.weight$", r"\1.positional_embedding"),
    (r"^decoder\.embed_tokens\.", "decoder.token_embedding."),
)


def read_hugging_face(folder: Path) -> Content:
    """Read `config.json` and `model.safetensors`, in one file or in shards."""
    config = read_json(folder, "config.json")
    if config.get("model_type") != "whisper":
        raise CheckpointError(
            f"{folder.name} holds a model of type {config.get('model_type')!r}, not whisper."
        )
    dims = ModelDimensions(
        n_mels=config["num_mel_bins"],
        n_audio_ctx=config["max_source_positions"],
        n_audio_state=config["d_model"],
        n_audio_head=config["encoder_attention_heads"],
        n_audio_layer=config["encoder_layers"],
        n_vocab=config["vocab_size"],
        n_text_ctx=config["max_target_positions"],
        n_text_state=config["d_model"],
        n_text_head=config["decoder_attention_heads"],
        n_text_layer=config["decoder_layers"],
    )
    check_dims(folder.name, dims)
    stored: dict[str, Tensor] = {}
    for file in _list_shards(folder):
        stored |= _read_safetensors(file)
    output = stored.pop("proj_out.weight", None)  # the embedding, which the model shares
    state = {_rename(name): tensor for name, tensor in stored.items()}
    embedding = state.get("decoder.token_embedding.weight")
    if output is not None and (embedding is None or not torch.equal(output, embedding)):
        raise CheckpointError(
            f"{folder.name} has an output layer of its own (proj_out), where Whisper uses its "
            "token embedding: it can't be run as a Whisper."
        )
    heads = read_json(folder, "generation_config.json", {}).get("alignment_heads")
    return Content(dims, state, parse_heads(heads))


def _list_shards(folder: Path) -> list[Path]:
    index = read_json(folder, "model.safetensors.index.json", {})
    if not index:
        return [folder / "model.safetensors"]
    names = sorted(set(index["weight_map"].values()))
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{folder.name} names shards outside its own folder.")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder.name} lacks {', '.join(missing)}: download it again.")
    return [folder / name for name in names]


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    if file.stat().st_size > LARGEST_BYTES:
        raise CheckpointError(f"{file.name} is larger than any Whisper checkpoint.")
    try:
        return load_file(file)
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{file.name} is damaged or cut short ({error}): use another copy of the file."
        ) from error


def _rename(name: str) -> str:
    """Return OpenAI's name of one of Hugging Face's tensors."""
    for pattern, replacement in _HUGGING_FACE_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


# What all formats share


def _check_heads(heads: AlignmentHeads | None, dims: ModelDimensions) -> AlignmentHeads | None:
    """Return the heads if the decoder has them all; a distilled model may list its teacher's."""
    if heads is None:
        return None
    layers, width = range(dims.n_text_layer), range(dims.n_text_head)
    return heads if all(layer in layers and head in width for layer, head in heads) else None


def check_dims(name: str, dims: ModelDimensions) -> None:
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
        and dims.n_vocab in VOCABULARIES
    )
    if not sound:
        raise CheckpointError(f"{name} has dimensions that no Whisper has: {dims}.")


def _check_kind(file: str, name: str, tensor: Any) -> Tensor:
    """Return a plain tensor of floats; raise `CheckpointError` for any other kind."""
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{file} has {name} as {type(tensor).__name__}, not as a tensor.")
    kind = None
    if tensor.layout != torch.strided:
        kind = "sparse"
    elif tensor.is_quantized:
        kind = "quantized"
    elif tensor.is_meta:
        kind = "a placeholder without values"
    elif tensor.dtype not in FLOATS:
        kind = f"of type {str(tensor.dtype).removeprefix('torch.')}"
    if kind is not None:
        raise CheckpointError(
            f"{file} has {name} {kind}: save the checkpoint with dense float16, bfloat16 or "
            "float32 tensors."
        )
    return tensor.detach()


def _check_tensors(file: str, state: Mapping[str, Tensor], dims: ModelDimensions) -> None:
    problems = difference(all_shapes(dims), {name: tuple(t.shape) for name, t in state.items()})
    if problems:
        raise CheckpointError(f"{file} doesn't fit its dimensions: {problems}.")
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{file} has values in {name} that are not numbers (NaN or infinite): use "
                "another copy of the file."
            )
        if tensor.dtype == torch.float64 and not torch.isfinite(tensor.float()).all():
            raise CheckpointError(f"{file} has values in {name} that float32 can't hold.")
