"""What a checkpoint holds: the record that readers make, and the tensors there must be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from whisper.model import ModelDimensions

from engines.base import CheckpointError

HEAD_WIDTH = 64
"""Every Whisper checkpoint has attention heads of this width."""

AlignmentHeads = tuple[tuple[int, int], ...]
"""Pairs of decoder layer and head whose cross-attention follows the audio."""


@dataclass(frozen=True)
class Content:
    """What a checkpoint file holds. `heads` is None where the file names none."""

    dims: ModelDimensions
    state: dict[str, Tensor]
    heads: AlignmentHeads | None = None


def read_json(folder: Path, name: str, default: Any = None) -> Any:
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


def parse_heads(pairs: Any) -> AlignmentHeads | None:
    """Return a list of `[layer, head]` as pairs; None where there is none."""
    return tuple((int(layer), int(head)) for layer, head in pairs) if pairs else None


def all_shapes(dims: ModelDimensions) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of `dims` must have."""
    halves = {"encoder": encoder_shapes(dims), "decoder": decoder_shapes(dims)}
    return {
        f"{half}.{key}": shape for half, shapes in halves.items() for key, shape in shapes.items()
    }


def encoder_shapes(dims: ModelDimensions) -> dict[str, tuple[int, ...]]:
    """Name and shape of every encoder tensor that a checkpoint of `dims` must have."""
    n = dims.n_audio_state
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (n, dims.n_mels, 3),
        "conv1.bias": (n,),
        "conv2.weight": (n, n, 3),
        "conv2.bias": (n,),
        "positional_embedding": (dims.n_audio_ctx, n),
        "ln_post.weight": (n,),
        "ln_post.bias": (n,),
    }
    block = _block_shapes(n)
    for layer in range(dims.n_audio_layer):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def _block_shapes(n: int) -> dict[str, tuple[int, ...]]:
    """Tensors of a layer with self-attention and MLP, `n` wide."""
    return {
        "attn_ln.weight": (n,),
        "attn_ln.bias": (n,),
        "attn.query.weight": (n, n),
        "attn.query.bias": (n,),
        "attn.key.weight": (n, n),
        "attn.value.weight": (n, n),
        "attn.value.bias": (n,),
        "attn.out.weight": (n, n),
        "attn.out.bias": (n,),
        "mlp_ln.weight": (n,),
        "mlp_ln.bias": (n,),
        "mlp.0.weight": (4 * n, n),
        "mlp.0.bias": (4 * n,),
        "mlp.2.weight": (n, 4 * n),
        "mlp.2.bias": (n,),
    }


def decoder_shapes(dims: ModelDimensions) -> dict[str, tuple[int, ...]]:
    """Name and shape of every decoder tensor that a checkpoint of `dims` must have."""
    n = dims.n_text_state
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (dims.n_vocab, n),
        "positional_embedding": (dims.n_text_ctx, n),
        "ln.weight": (n,),
        "ln.bias": (n,),
    }
    block = _block_shapes(n)
    block |= {
        name.replace("attn", "cross_attn", 1): shape
        for name, shape in block.items()
        if name.startswith("attn")
    }
    for layer in range(dims.n_text_layer):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def difference(
    expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], at_most: int = 5
) -> str:
    """What is missing, unused or wrongly shaped, in words; empty when nothing is."""
    problems = [f"{key} is missing" for key in expected.keys() - found.keys()]
    problems += [f"{key} is not used by this model" for key in found.keys() - expected.keys()]
    problems += [
        f"{key} has shape {found[key]} in place of {expected[key]}"
        for key in expected.keys() & found.keys()
        if expected[key] != found[key]
    ]
    problems.sort()
    more = len(problems) - at_most
    return "; ".join(problems[:at_most]) + (f"; and {more} more" if more > 0 else "")
