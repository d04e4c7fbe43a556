"""A checkpoint's tensors, checked by name and shape and laid out for the graphs.

Only this module and `engines.checkpoints.content` know the checkpoint's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from max.dtype import DType
from torch import Tensor
from whisper.model import ModelDimensions

from engines.base import CheckpointError, FloatArray
from engines.checkpoints import Checkpoint
from engines.checkpoints.content import decoder_shapes, difference, encoder_shapes

PANEL = 32
"""Columns of one packed panel; `kernels/tile.mojo` computes by the same number."""

TAPS = 3
"""Width of both convolutions."""


@dataclass(frozen=True)
class Matrix:
    """A weight matrix `(n_out, depth)`, which the device's operations lay out (`lay_out`)."""

    values: FloatArray


Weights = list[FloatArray | Matrix]
AnyFloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class EncoderWeights:
    """Arguments of the encoder's three graphs, in the order of their inputs.

    A convolution's matrix has its three taps one after another along the depth.
    """

    stem: Weights
    blocks: tuple[Weights, ...]
    post: Weights


@dataclass(frozen=True)
class PlainDecoderWeights:
    """A decoder's weights, matrices as `(n_out, depth)`.

    `cross`: matrix and bias of every layer's cross-attention keys and values, `(layers * 2 * n,)`.
    `layers`: for each of them scale and shift of the first norm, matrix and bias of
    query-key-value and of the output; the second norm, cross-attention query and output; the third
    norm and both halves of the MLP.
    """

    cross: Weights
    embedding: FloatArray
    positions: FloatArray
    layers: tuple[Weights, ...]
    last_norm: list[FloatArray]


@dataclass(frozen=True)
class DecoderWeights:
    """Arguments of the CPU's graphs, with packed matrices (see `pack`).

    `cross`: as in `PlainDecoderWeights`. `stacked`: embedding, positions, matrices, biases, norms
    and last norm, as `kernels/decoder.mojo` describes them.
    """

    cross: list[AnyFloatArray]
    stacked: list[AnyFloatArray]


def matrix_dtype(checkpoint: Checkpoint) -> DType:
    """Return the type of a checkpoint's matrices on a CPU: float16 where that is exact."""
    return DType.float16 if checkpoint.fits_float16 else DType.float32


def decoder_weights(state: Mapping[str, Tensor], dims: ModelDimensions) -> PlainDecoderWeights:
    """Gather the `decoder.*` tensors of `state`; raises `CheckpointError` unless all fit."""
    arrays = _gather(state, "decoder", decoder_shapes(dims))
    no_bias = np.zeros(dims.n_text_state, np.float32)
    cross, biases, layers = [], [], []
    for layer in range(dims.n_text_layer):
        prefix = f"blocks.{layer}."
        block = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
        cross += [block["cross_attn.key.weight"], block["cross_attn.value.weight"]]
        biases += [no_bias, block["cross_attn.value.bias"]]
        layers.append(_decoder_layer(block, no_bias))
    return PlainDecoderWeights(
        cross=[Matrix(np.concatenate(cross)), np.concatenate(biases)],
        embedding=arrays["token_embedding.weight"],
        positions=arrays["positional_embedding"],
        layers=tuple(layers),
        last_norm=[arrays["ln.weight"], arrays["ln.bias"]],
    )


def _decoder_layer(block: Mapping[str, FloatArray], no_bias: FloatArray) -> Weights:
    def linear(name: str) -> Weights:
        return [Matrix(block[f"{name}.weight"]), block[f"{name}.bias"]]

    def norm(name: str) -> Weights:
        return [block[f"{name}.weight"], block[f"{name}.bias"]]

    self_attention = [block[f"attn.{name}.weight"] for name in ("query", "key", "value")]
    return [
        *norm("attn_ln"),
        Matrix(np.concatenate(self_attention)),
        np.concatenate([block["attn.query.bias"], no_bias, block["attn.value.bias"]]),
        *linear("attn.out"),
        *norm("cross_attn_ln"),
        *linear("cross_attn.query"),
        *linear("cross_attn.out"),
        *norm("mlp_ln"),
        *linear("mlp.0"),
        *linear("mlp.2"),
    ]


_NORMS = (0, 1, 6, 7, 12, 13)
_MATRICES = (2, 4, 8, 10, 14, 16)
_BIASES = (3, 5, 9, 11, 15, 17)
"""Indices into the list that `_decoder_layer` returns."""


def stack(weights: PlainDecoderWeights, weight: DType) -> DecoderWeights:
    """Lay weights out for the CPU: matrices packed in type `weight`, one array of each kind."""

    def packed(matrix: FloatArray | Matrix) -> AnyFloatArray:
        values = matrix.values if isinstance(matrix, Matrix) else matrix
        return pack(values).astype(weight.to_numpy())

    def vectors(layer: Weights, indices: tuple[int, ...]) -> FloatArray:
        chosen = (layer[index] for index in indices)
        return np.concatenate([each for each in chosen if not isinstance(each, Matrix)])

    def matrices(layer: Weights) -> AnyFloatArray:
        return np.concatenate([packed(layer[index]).ravel() for index in _MATRICES])

    matrix, bias = weights.cross
    assert not isinstance(bias, Matrix)
    return DecoderWeights(
        cross=[packed(matrix), bias],
        stacked=[
            packed(weights.embedding),  # (panels, n, PANEL)
            weights.positions,  # (n_text_ctx, n)
            np.stack([matrices(layer) for layer in weights.layers]),  # (layers, 14 * n * n)
            np.stack([vectors(layer, _BIASES) for layer in weights.layers]),  # (layers, 11 * n)
            np.stack([vectors(layer, _NORMS) for layer in weights.layers]),  # (layers, 6 * n)
            np.concatenate(weights.last_norm),  # (2 * n,)
        ],
    )


def _gather(
    state: Mapping[str, Tensor], half: str, shapes: dict[str, tuple[int, ...]]
) -> dict[str, FloatArray]:
    """Return one half's tensors as float32 arrays; raise unless they have exactly `shapes`."""
    prefix = f"{half}."
    tensors = {
        key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
    }
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if problems := difference(shapes, found):
        raise CheckpointError(f"The {half}'s weights don't fit: {problems}.")
    return {key: np.asarray(tensor.numpy(), np.float32) for key, tensor in tensors.items()}


def encoder_weights(state: Mapping[str, Tensor], dims: ModelDimensions) -> EncoderWeights:
    """Gather the `encoder.*` tensors of `state`; raises `CheckpointError` unless all fit."""
    arrays = _gather(state, "encoder", encoder_shapes(dims))
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
    """Turn a convolution's weight `(n_out, n_in, 3)` into the matrix `(n_out, 3 * n_in)`."""
    return Matrix(np.ascontiguousarray(weight.transpose(0, 2, 1).reshape(len(weight), -1)))


def pack(matrix: FloatArray) -> FloatArray:
    """Pack a matrix `(n_out, depth)` into zero-padded panels `(panels, depth, PANEL)`."""
    n_out, depth = matrix.shape
    panels = -(-n_out // PANEL)
    padded = np.zeros((panels * PANEL, depth), np.float32)
    padded[:n_out] = matrix
    return np.ascontiguousarray(padded.reshape(panels, PANEL, depth).transpose(0, 2, 1))
