"""A checkpoint's tensors, checked by name and shape and gathered for the graphs.

Only this module and `engines.checkpoints.content` know the checkpoint's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from whisper.model import ModelDimensions

from engines.base import CheckpointError, FloatArray
from engines.checkpoints.content import decoder_shapes, difference, encoder_shapes

TAPS = 3
"""Width of both convolutions."""

Weights = list[FloatArray]
"""Pairs of matrix `(n_out, depth)` and bias `(n_out,)`, or of a norm's scale and shift."""

LAYER = (
    "attn_ln",
    "attn.qkv",
    "attn.out",
    "cross_attn_ln",
    "cross_attn.query",
    "cross_attn.out",
    "mlp_ln",
    "mlp.0",
    "mlp.2",
)
"""The pairs of a layer, in the order in which it reads them; the encoder has no cross-attention."""


@dataclass(frozen=True)
class EncoderWeights:
    """The encoder's weights, in the order in which its graphs take them.

    `convolutions`: two pairs, whose matrices have the taps one after another along the depth.
    """

    convolutions: Weights
    positions: FloatArray  # (n_audio_ctx, n_state)
    blocks: tuple[Weights, ...]
    post: Weights


@dataclass(frozen=True)
class DecoderWeights:
    """The decoder's weights; `cross`: the cross-attention keys and values of all layers."""

    cross: Weights  # (layers * 2 * n, n) and its bias
    embedding: FloatArray  # (n_vocab, n)
    positions: FloatArray  # (n_text_ctx, n)
    layers: tuple[Weights, ...]
    last_norm: Weights


def encoder_weights(state: Mapping[str, Tensor], dims: ModelDimensions) -> EncoderWeights:
    """Gather the `encoder.*` tensors of `state`; raises `CheckpointError` unless all fit."""
    arrays = _gather(state, "encoder", encoder_shapes(dims))
    convolutions = []
    for name in ("conv1", "conv2"):
        taps = arrays[f"{name}.weight"].transpose(0, 2, 1)  # (n_out, TAPS, n_in)
        convolutions += [taps.reshape(len(taps), -1), arrays[f"{name}.bias"]]
    return EncoderWeights(
        convolutions=convolutions,
        positions=arrays["positional_embedding"],
        blocks=tuple(_layer(arrays, layer) for layer in range(dims.n_audio_layer)),
        post=[arrays["ln_post.weight"], arrays["ln_post.bias"]],
    )


def decoder_weights(state: Mapping[str, Tensor], dims: ModelDimensions) -> DecoderWeights:
    """Gather the `decoder.*` tensors of `state`; raises `CheckpointError` unless all fit."""
    arrays = _gather(state, "decoder", decoder_shapes(dims))
    no_bias = np.zeros(dims.n_text_state, np.float32)
    matrices, biases = [], []
    for layer in range(dims.n_text_layer):
        prefix = f"blocks.{layer}.cross_attn"
        matrices += [arrays[f"{prefix}.key.weight"], arrays[f"{prefix}.value.weight"]]
        biases += [no_bias, arrays[f"{prefix}.value.bias"]]
    return DecoderWeights(
        cross=[np.concatenate(matrices), np.concatenate(biases)],
        embedding=arrays["token_embedding.weight"],
        positions=arrays["positional_embedding"],
        layers=tuple(_layer(arrays, layer) for layer in range(dims.n_text_layer)),
        last_norm=[arrays["ln.weight"], arrays["ln.bias"]],
    )


def _layer(arrays: Mapping[str, FloatArray], layer: int) -> Weights:
    """Return the pairs of `LAYER`, query, key and value as one product."""
    prefix = f"blocks.{layer}."
    block = {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
    block["attn.key.bias"] = np.zeros_like(block["attn.query.bias"])  # whisper's keys have none
    for kind in ("weight", "bias"):
        parts = [block[f"attn.{part}.{kind}"] for part in ("query", "key", "value")]
        block[f"attn.qkv.{kind}"] = np.concatenate(parts)
    names = [name for name in LAYER if f"{name}.weight" in block]
    return [block[f"{name}.{kind}"] for name in names for kind in ("weight", "bias")]


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
