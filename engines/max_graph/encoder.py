"""Whisper's audio encoder as three MAX graphs: stem, block and post.

`stem` is both convolutions and the positional embedding, `block` is run once per layer, `post` is
the final layer norm. Weights are inputs of the graphs. On a CPU every size is symbolic, so one
compiled module serves every checkpoint; on an accelerator the sizes are fixed, because the
built-in products are tuned for their shapes.

The arithmetic is that of `whisper.model.AudioEncoder`, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from max.driver import CPU, Buffer, Device
from max.engine import Model
from max.graph import Graph, Module
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.max_graph.operations import Operations, Size, new_graph, place, put
from engines.max_graph.weights import TAPS, EncoderWeights


class Sizes(NamedTuple):
    """The encoder's dimensions, as numbers or as symbols."""

    n_mels: Size
    frames: Size  # 2 * n_ctx
    mel_taps: Size  # 3 * n_mels: depth of the first convolution's product
    state_taps: Size  # 3 * n_state: depth of the second's
    n_ctx: Size
    n_state: Size
    n_qkv: Size  # 3 * n_state
    n_mlp: Size  # 4 * n_state

    @classmethod
    def of(cls, dims: ModelDimensions) -> Sizes:
        """Return the sizes of one checkpoint."""
        n_mels, n_ctx, n = dims.n_mels, dims.n_audio_ctx, dims.n_audio_state
        return cls(n_mels, 2 * n_ctx, TAPS * n_mels, TAPS * n, n_ctx, n, 3 * n, 4 * n)


SYMBOLIC = Sizes(*Sizes._fields)
"""Sizes for graphs that serve any checkpoint."""


def build(module: Module, op: Operations, s: Sizes) -> Graph:
    """Add the three graphs to `module`.

    Returns the last of them: MAX compiles a graph's whole module, but finds the kernels only
    through a graph.
    """
    state = op.tensor(s.n_ctx, s.n_state)
    inputs = [
        op.tensor(s.n_mels, s.frames),
        *op.linear_pair("conv1", s.n_state, s.mel_taps),
        *op.linear_pair("conv2", s.n_state, s.state_taps),
        state,  # positional embedding
    ]
    with new_graph("stem", inputs, module) as graph:
        mel, *w = (value.tensor for value in graph.inputs)
        graph.output(*op.stem(mel, w))  # (frames + 2, n_state) and (n_ctx, n_state)

    inputs = [
        state,
        *op.norm_pair(s.n_state),
        *op.linear_pair("qkv", s.n_qkv, s.n_state),
        *op.linear_pair("out", s.n_state, s.n_state),
        *op.norm_pair(s.n_state),
        *op.linear_pair("mlp0", s.n_mlp, s.n_state),
        *op.linear_pair("mlp2", s.n_state, s.n_mlp),
    ]
    with new_graph("block", inputs, module) as graph:
        x, *w = (value.tensor for value in graph.inputs)  # x: (n_ctx, n_state)
        qkv = op.linear(op.layer_norm(x, w[0], w[1]), w[2], w[3])  # (n_ctx, 3 * n_state)
        x = op.linear(op.attention(qkv, x.shape[1]), w[4], w[5], add=x)
        hidden = op.linear(op.layer_norm(x, w[6], w[7]), w[8], w[9], gelu=True)  # (n_ctx, n_mlp)
        graph.output(op.linear(hidden, w[10], w[11], add=x))

    with new_graph("post", [state, *op.norm_pair(s.n_state)], module) as graph:
        x, scale, shift = (value.tensor for value in graph.inputs)
        graph.output(op.layer_norm(x, scale, shift))
    return graph


class MaxEncoder:
    """The compiled graphs with one checkpoint's weights on one device."""

    def __init__(
        self, models: dict[str, Model], weights: EncoderWeights, op: Operations, device: Device
    ) -> None:
        self._models = models
        self._device = device
        self._stem = [*place(weights.convolutions, op, device), put(weights.positions, device)]
        self._blocks = [place(block, op, device) for block in weights.blocks]
        self._post = place(weights.post, op, device)
        depth = weights.convolutions[0].shape[1]
        self._shape = (depth // TAPS, 2 * len(weights.positions))  # (n_mels, 3000)

    def __call__(self, mel: FloatArray) -> FloatArray:
        """Encode one window, `(n_mels, 3000)` to `(n_audio_ctx, n_audio_state)`, both float32."""
        for _, x in self._run(mel):
            last = x
        return _on_host(last)

    def stages(self, mel: FloatArray) -> Iterator[tuple[str, FloatArray]]:
        """Yield name and output of every stage: `conv1`, `conv2`, `blocks.0`, …, `ln_post`.

        `conv1` is `(3000, n_state)`. `conv2`, which has the positions added, and all later stages
        are `(n_audio_ctx, n_state)`.
        """
        for name, x in self._run(mel):
            yield name, _on_host(x)[1:-1] if name == "conv1" else _on_host(x)

    def _run(self, mel: FloatArray) -> Iterator[tuple[str, Buffer]]:
        if mel.shape != self._shape:  # the kernels read it unchecked
            raise ValueError(f"a window of log-mel is {self._shape}, not {mel.shape}")
        window = put(mel.astype(np.float32, copy=False), self._device)
        padded, x = self._models["stem"].execute(window, *self._stem)
        yield "conv1", padded  # (3002, n_state), a row of zeros at both ends
        yield "conv2", x
        for layer, weights in enumerate(self._blocks):
            [x] = self._models["block"].execute(x, *weights)
            yield f"blocks.{layer}", x
        [x] = self._models["post"].execute(x, *self._post)
        yield "ln_post", x


def _on_host(buffer: Buffer) -> FloatArray:
    return buffer.to(CPU()).to_numpy()
