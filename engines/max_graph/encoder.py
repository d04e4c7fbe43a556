"""Whisper's audio encoder as three MAX graphs: stem, block and post.

`stem` is both convolutions and the positional embedding, `block` is run once per layer, `post` is
the final layer norm. Weights are inputs of the graphs. On a CPU every size is symbolic, so one
compiled module serves every checkpoint; on an accelerator the sizes are fixed, because the
built-in products are tuned for their shapes.

The arithmetic is that of `whisper.model.AudioEncoder`, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from max.driver import CPU, Buffer, Device
from max.engine import Model
from max.graph import Graph, Module
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.max_graph.operations import Operations, Size, new_graph, place, put
from engines.max_graph.weights import TAPS, EncoderWeights, Matrix


@dataclass(frozen=True)
class Sizes:
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
    def symbolic(cls) -> Sizes:
        """Return symbols, for graphs that serve any Whisper."""
        return cls(*(field.name for field in fields(cls)))

    @classmethod
    def of(cls, dims: ModelDimensions) -> Sizes:
        """Return the sizes of one checkpoint."""
        n_mels, n_ctx, n = dims.n_mels, dims.n_audio_ctx, dims.n_audio_state
        return cls(n_mels, 2 * n_ctx, 3 * n_mels, 3 * n, n_ctx, n, 3 * n, 4 * n)


def build(module: Module, op: Operations, sizes: Sizes) -> Graph:
    """Add the three graphs to `module`.

    Returns the last of them: MAX compiles a graph's whole module, but finds the kernels only
    through a graph.
    """
    _build_stem(module, op, sizes)
    _build_block(module, op, sizes)
    return _build_post(module, op, sizes)


def _build_stem(module: Module, op: Operations, s: Sizes) -> None:
    inputs = [
        op.tensor(s.n_mels, s.frames),
        op.matrix("conv1", s.n_state, s.mel_taps),
        op.tensor(s.n_state),
        op.matrix("conv2", s.n_state, s.state_taps),
        op.tensor(s.n_state),
        op.tensor(s.n_ctx, s.n_state),
    ]
    with new_graph("stem", inputs, module) as graph:
        mel, w1, b1, w2, b2, positions = (value.tensor for value in graph.inputs)
        x = op.pad_frames(mel)  # (frames + 2, n_mels)
        x = op.conv(x, w1, b1, x.shape[0], stride=1, padded=True)  # (frames + 2, n_state)
        x2 = op.conv(x, w2, b2, s.n_ctx, stride=2, add=positions)  # (n_ctx, n_state)
        graph.output(x, x2)


def _build_block(module: Module, op: Operations, s: Sizes) -> None:
    inputs = [
        op.tensor(s.n_ctx, s.n_state),
        op.tensor(s.n_state),
        op.tensor(s.n_state),
        op.matrix("qkv", s.n_qkv, s.n_state),
        op.tensor(s.n_qkv),
        op.matrix("out", s.n_state, s.n_state),
        op.tensor(s.n_state),
        op.tensor(s.n_state),
        op.tensor(s.n_state),
        op.matrix("mlp0", s.n_mlp, s.n_state),
        op.tensor(s.n_mlp),
        op.matrix("mlp2", s.n_state, s.n_mlp),
        op.tensor(s.n_state),
    ]
    with new_graph("block", inputs, module) as graph:
        x, *w = (value.tensor for value in graph.inputs)  # x: (n_ctx, n_state)
        qkv = op.linear(op.layer_norm(x, w[0], w[1]), w[2], w[3])  # (n_ctx, 3 * n_state)
        x = op.linear(op.attention(qkv, s.n_state), w[4], w[5], add=x)
        hidden = op.linear(op.layer_norm(x, w[6], w[7]), w[8], w[9], gelu=True)  # (n_ctx, n_mlp)
        graph.output(op.linear(hidden, w[10], w[11], add=x))


def _build_post(module: Module, op: Operations, s: Sizes) -> Graph:
    inputs = [op.tensor(s.n_ctx, s.n_state), op.tensor(s.n_state), op.tensor(s.n_state)]
    with new_graph("post", inputs, module) as graph:
        x, w, b = (value.tensor for value in graph.inputs)
        graph.output(op.layer_norm(x, w, b))
    return graph


class MaxEncoder:
    """The compiled graphs with one checkpoint's weights on one device."""

    def __init__(
        self, models: dict[str, Model], weights: EncoderWeights, op: Operations, device: Device
    ) -> None:
        self._models = models
        self._device = device
        self._stem = place(weights.stem, op, device)
        self._blocks = [place(block, op, device) for block in weights.blocks]
        self._post = place(weights.post, op, device)
        (first, *_), positions = weights.stem, weights.stem[4]
        assert isinstance(first, Matrix) and not isinstance(positions, Matrix)
        self._shape = (first.values.shape[1] // TAPS, 2 * len(positions))

    def __call__(self, mel: FloatArray) -> FloatArray:
        """Encode one window, `(n_mels, 3000)` to `(n_audio_ctx, n_audio_state)`, both float32."""
        x = self._execute("stem", self._input(mel), self._stem)[1]
        for weights in self._blocks:
            x = self._execute("block", x, weights)[0]
        return _on_host(self._execute("post", x, self._post)[0])

    def stages(self, mel: FloatArray) -> Iterator[tuple[str, FloatArray]]:
        """Yield name and output of every stage: `conv1`, `conv2`, `blocks.0`, …, `ln_post`.

        `conv1` is `(3000, n_state)`. `conv2`, which has the positions added, and all later stages
        are `(n_audio_ctx, n_state)`.
        """
        padded, x = self._execute("stem", self._input(mel), self._stem)
        yield "conv1", _on_host(padded)[1:-1]
        yield "conv2", _on_host(x)
        for layer, weights in enumerate(self._blocks):
            x = self._execute("block", x, weights)[0]
            yield f"blocks.{layer}", _on_host(x)
        yield "ln_post", _on_host(self._execute("post", x, self._post)[0])

    def _input(self, mel: FloatArray) -> Buffer:
        """Check the window's shape, which the kernels do not, and copy it to the device."""
        if mel.shape != self._shape:
            raise ValueError(f"a window of log-mel is {self._shape}, not {mel.shape}")
        return put(mel.astype(np.float32, copy=False), self._device)

    def _execute(self, graph: str, x: Buffer, weights: list[Buffer]) -> list[Buffer]:
        return self._models[graph].execute(x, *weights)


def _on_host(buffer: Buffer) -> FloatArray:
    return buffer.to(CPU()).to_numpy()
