"""A checkpoint's content: the tensors that it must have, and a digest that tells OpenAI's.

One digest stands for a checkpoint's tensors, whatever file they came from. It is SHA-256 over all
tensors in the order of their names; each contributes its name, a line feed, its shape as decimal
numbers joined by commas, a line feed, and its values as little-endian float16. OpenAI publishes
float16, so its own file, the float32 copy at Hugging Face and a CTranslate2 conversion in float16
all give the same digest.

    python -m engines.checkpoints --digest NAME_OR_PATH    prints it
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from whisper.model import ModelDimensions, ResidualAttentionBlock

Shapes = dict[str, tuple[int, ...]]

AlignmentHeads = tuple[tuple[int, int], ...]
"""Pairs of decoder layer and head whose cross-attention follows the audio."""

TENSOR_DIGESTS = {
    "tiny.en": "5ec1ae3d740e303247b6166c483a35cf302da9f9c359f6eb350bd061c414564a",
    "base": "3f2911912ca12e22ffdd1c1b251b38fcfff4fba22421d08eed29ff30940e3c36",
}
"""`digest_tensors` of official checkpoints; the others' are not known here."""

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Content:
    """What a checkpoint file holds. `heads` is None where the file names none."""

    dims: ModelDimensions
    state: dict[str, Tensor]
    heads: AlignmentHeads | None = None


def encoder_shapes(dims: ModelDimensions) -> Shapes:
    """Return name and shape of every encoder tensor that a checkpoint of `dims` must have."""
    n = dims.n_audio_state
    return {
        "conv1.weight": (n, dims.n_mels, 3),
        "conv1.bias": (n,),
        "conv2.weight": (n, n, 3),
        "conv2.bias": (n,),
        "positional_embedding": (dims.n_audio_ctx, n),
        "ln_post.weight": (n,),
        "ln_post.bias": (n,),
        **_block_shapes(n, dims.n_audio_head, dims.n_audio_layer, cross_attention=False),
    }


def decoder_shapes(dims: ModelDimensions) -> Shapes:
    """Return name and shape of every decoder tensor that a checkpoint of `dims` must have."""
    n = dims.n_text_state
    return {
        "token_embedding.weight": (dims.n_vocab, n),
        "positional_embedding": (dims.n_text_ctx, n),
        "ln.weight": (n,),
        "ln.bias": (n,),
        **_block_shapes(n, dims.n_text_head, dims.n_text_layer, cross_attention=True),
    }


def _block_shapes(n_state: int, n_head: int, n_layer: int, cross_attention: bool) -> Shapes:
    with torch.device("meta"):  # whisper's own module, without memory for its parameters
        block = ResidualAttentionBlock(n_state, n_head, cross_attention)
    shapes = {name: tuple(tensor.shape) for name, tensor in block.state_dict().items()}
    return {
        f"blocks.{layer}.{name}": shape
        for layer in range(n_layer)
        for name, shape in shapes.items()
    }


def difference(expected: Shapes, found: Shapes, at_most: int = 5) -> str:
    """Return what is missing, unused or wrongly shaped, in words; empty when nothing is."""
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not used by this model" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {found[name]} in place of {expected[name]}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    problems.sort()
    more = len(problems) - at_most
    return "; ".join(problems[:at_most]) + (f"; and {more} more" if more > 0 else "")


def digest_tensors(state: Mapping[str, Tensor], dtype: torch.dtype = torch.float16) -> str:
    """Return the hexadecimal digest of a state dictionary, as the module describes it.

    `dtype`: another type of the values; float32 tells apart what float16 rounds to the same.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        shape = ",".join(str(size) for size in tensor.shape)
        digest.update(f"{name}\n{shape}\n".encode())
        values = tensor.detach().to(dtype).contiguous().numpy()
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def digest_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
