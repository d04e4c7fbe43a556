"""A checkpoint's tensors, checked by name and shape, laid out for the graphs.

The only module that knows the checkpoint's names.
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
from engines.checkpoints import difference

PANEL = 32
"""Columns of one packed panel; `kernels/tile.mojo` computes by the same number."""


@dataclass(frozen=True)
class Matrix:
    """A weight matrix `(n_out, depth)`, to be laid out as the device's operations want it."""

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


@dataclass(frozen=True)
class DecoderWeights:
    """Arguments of the decoder's graphs, matrices as `pack` makes them.

    `cross`: matrix and bias of every layer's cross-attention keys and values, `(layers * 2 * n,)`.
    `stacked`: embedding, positions, matrices, biases, norms and last norm, as
    `kernels/decoder.mojo` describes them.
    """

    cross: list[AnyFloatArray]
    stacked: list[AnyFloatArray]


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


def matrix_dtype(state: Mapping[str, Tensor]) -> DType:
    """float16 when every matrix of the checkpoint is exactly representable in it, else float32.

    OpenAI's checkpoints are stored in float16, so that theirs are. The encoder's positions are
    computed rather than stored, and stay in float32 in any case.
    """
    exact = all(
        bool((tensor == tensor.half().float()).all())
        for key, tensor in state.items()
        if tensor.ndim >= 2 and not key.endswith("positional_embedding")
    )
    return DType.float16 if exact else DType.float32


def decoder_weights(
    state: Mapping[str, Tensor], dims: ModelDimensions, weight: DType
) -> DecoderWeights:
    """Gather the `decoder.*` tensors of `state`, matrices in `weight`, the rest in float32.

    Raises `CheckpointError` unless all fit.
    """
    arrays = _gather(state, "decoder", decoder_shapes(dims))
    layers, dtype = range(dims.n_text_layer), weight.to_numpy()

    def get(layer: int, *names: str) -> list[FloatArray]:
        return [arrays[f"blocks.{layer}.{name}"] for name in names]

    no_bias = np.zeros(dims.n_text_state, np.float32)
    cross = [get(i, "cross_attn.key.weight", "cross_attn.value.weight") for i in layers]
    cross_bias = [[no_bias, *get(i, "cross_attn.value.bias")] for i in layers]
    return DecoderWeights(
        cross=[
            pack(np.concatenate([matrix for pair in cross for matrix in pair])).astype(dtype),
            np.concatenate([bias for pair in cross_bias for bias in pair]),
        ],
        stacked=[
            pack(arrays["token_embedding.weight"]).astype(dtype),
            arrays["positional_embedding"],
            np.stack([_stack_matrices(get(i, *_MATRICES), dtype) for i in layers]),
            np.stack([_stack_biases(get(i, *_BIASES), no_bias) for i in layers]),
            np.stack([np.concatenate(get(i, *_NORMS)) for i in layers]),
            np.concatenate([arrays["ln.weight"], arrays["ln.bias"]]),
        ],
    )


_MATRICES = (
    "attn.query.weight",
    "attn.key.weight",
    "attn.value.weight",
    "attn.out.weight",
    "cross_attn.query.weight",
    "cross_attn.out.weight",
    "mlp.0.weight",
    "mlp.2.weight",
)
_BIASES = (
    "attn.query.bias",
    "attn.value.bias",
    "attn.out.bias",
    "cross_attn.query.bias",
    "cross_attn.out.bias",
    "mlp.0.bias",
    "mlp.2.bias",
)
_NORMS = (
    "attn_ln.weight",
    "attn_ln.bias",
    "cross_attn_ln.weight",
    "cross_attn_ln.bias",
    "mlp_ln.weight",
    "mlp_ln.bias",
)


def _stack_matrices(matrices: list[FloatArray], dtype: np.dtype[Any]) -> AnyFloatArray:
    packed = [pack(matrix).astype(dtype).ravel() for matrix in matrices]
    return np.concatenate(packed)


def _stack_biases(biases: list[FloatArray], no_key_bias: FloatArray) -> FloatArray:
    return np.concatenate([biases[0], no_key_bias, *biases[1:]])


def _gather(
    state: Mapping[str, Tensor], half: str, shapes: dict[str, tuple[int, ...]]
) -> dict[str, FloatArray]:
    """The tensors of one half as float32 arrays; raises unless they have exactly `shapes`."""
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
    """A convolution's weight `(n_out, n_in, 3)` as the matrix `(n_out, 3 * n_in)`."""
    return Matrix(np.ascontiguousarray(weight.transpose(0, 2, 1).reshape(len(weight), -1)))


def pack(matrix: FloatArray) -> FloatArray:
    """A matrix `(n_out, depth)` as panels `(ceil(n_out / PANEL), depth, PANEL)`, zero-padded."""
    n_out, depth = matrix.shape
    panels = -(-n_out // PANEL)
    padded = np.zeros((panels * PANEL, depth), np.float32)
    padded[:n_out] = matrix
    return np.ascontiguousarray(padded.reshape(panels, PANEL, depth).transpose(0, 2, 1))
