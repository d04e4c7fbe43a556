"""A checkpoint's encoder tensors, checked by name and shape, laid out for the graphs.

The only module that knows the checkpoint's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from whisper.model import ModelDimensions

from engines.base import CheckpointError, FloatArray
from engines.checkpoints import difference

PANEL = 32
"""Columns of one packed panel; `kernels/tile.mojo` computes by the same number."""


@dataclass(frozen=True)
class Matrix:
    """A weight matrix `(n_out, depth)`, to be laid out as the device's operations want it."""

    values: FloatArray


Weights = list[FloatArray | Matrix]


@dataclass(frozen=True)
class EncoderWeights:
    """Arguments of the encoder's three graphs, in the order of their inputs.

    A convolution's matrix has its three taps one after another along the depth.
    """

    stem: Weights
    blocks: tuple[Weights, ...]
    post: Weights


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
    block: dict[str, tuple[int, ...]] = {
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
    for layer in range(dims.n_audio_layer):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def encoder_weights(state: Mapping[str, Tensor], dims: ModelDimensions) -> EncoderWeights:
    """Gather the `encoder.*` tensors of `state`; raises `CheckpointError` unless all fit."""
    tensors = {
        key.removeprefix("encoder."): tensor.numpy()
        for key, tensor in state.items()
        if key.startswith("encoder.")
    }
    found = {key: tuple(array.shape) for key, array in tensors.items()}
    if problems := difference(encoder_shapes(dims), found):
        raise CheckpointError(f"The encoder's weights don't fit: {problems}.")
    arrays = {key: np.asarray(array, np.float32) for key, array in tensors.items()}
    return EncoderWeights(
        stem=[
            _taps(arrays["conv1.weight"]),
            arrays["conv1.bias"],
            _taps(arrays["conv2.weight"]),
            arrays["conv2.bias"],
            arrays["positional_embedding"],
        ],
        blocks=tuple(_block(arrays, layer) for layer in range(dims.n_audio_layer)),
        post=[arrays["ln_post.weight"], arrays["ln_post.bias"]],
    )


def _block(arrays: Mapping[str, FloatArray], layer: int) -> Weights:
    def get(name: str) -> FloatArray:
        return arrays[f"blocks.{layer}.{name}"]

    query, key, value = (get(f"attn.{name}.weight") for name in ("query", "key", "value"))
    no_key_bias = np.zeros_like(get("attn.query.bias"))
    return [
        get("attn_ln.weight"),
        get("attn_ln.bias"),
        Matrix(np.concatenate([query, key, value])),
        np.concatenate([get("attn.query.bias"), no_key_bias, get("attn.value.bias")]),
        Matrix(get("attn.out.weight")),
        get("attn.out.bias"),
        get("mlp_ln.weight"),
        get("mlp_ln.bias"),
        Matrix(get("mlp.0.weight")),
        get("mlp.0.bias"),
        Matrix(get("mlp.2.weight")),
        get("mlp.2.bias"),
    ]


def _taps(weight: FloatArray) -> Matrix:
    """A convolution's weight `(n_out, n_in, 3)` as the matrix `(n_out, 3 * n_in)`."""
    return Matrix(np.ascontiguousarray(weight.transpose(0, 2, 1).reshape(len(weight), -1)))


def pack(matrix: FloatArray) -> FloatArray:
    """A matrix `(n_out, depth)` as panels `(ceil(n_out / PANEL), depth, PANEL)`, zero-padded."""
    n_out, depth = matrix.shape
    panels = -(-n_out // PANEL)
    padded = np.zeros((panels * PANEL, depth), np.float32)
    padded[:n_out] = matrix
    return np.ascontiguousarray(padded.reshape(panels, PANEL, depth).transpose(0, 2, 1))
