"""Whisper's text decoder as MAX graphs on the CPU, with its caches.

`cross` turns encoder features into every layer's cross-attention keys and values, once a window.
`step` runs new tokens through all layers over caches that it writes in place, and gives logits and
the best tokens of picked rows. `align` gives all rows' logits and the cross-attention scores that
word timestamps are made from. All sizes are symbolic; matrices are float16 where that is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from max.driver import Buffer
from max.dtype import DType
from max.engine import Model
from max.graph import BufferType, Graph, Module, TensorType, TensorValue, ops
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.choice import IntArray, Rules
from engines.max_graph.operations import HEAD, CpuOperations, new_graph
from engines.max_graph.weights import PANEL, DecoderWeights


def build(module: Module, op: CpuOperations) -> Graph:
    """Add the three graphs to `module`; returns the last, through which MAX finds the kernels."""
    _build_cross(module, op)
    _build_step(module, op)
    return _build_align(module, op)


def _build_cross(module: Module, op: CpuOperations) -> None:
    inputs = [
        op.tensor("n_ctx", "n_state"),
        op.matrix("kv", "n_kv", "n_state"),
        op.tensor("n_kv"),
    ]
    with new_graph("cross", inputs, module) as graph:
        x, w, b = (value.tensor for value in graph.inputs)
        n_state = x.shape[1]
        layers = b.shape[0] // (n_state * 2)
        graph.output(*op.pack_keys_values(op.linear(x, w, b), layers, n_state))


def _stack_inputs(op: CpuOperations) -> list[TensorType | BufferType]:
    """Inputs that `step` and `align` share, in the order of `whisper_decoder`'s."""
    cache = BufferType(DType.float32, ["layers", "batch", "heads", "cache"], op.device)
    cross = op.tensor("layers", "heads", "panels", HEAD * PANEL)
    return [
        cache,
        cache,
        TensorType(DType.int64, ["batch", "new"], op.device),
        TensorType(DType.int64, [1], op.device),
        cross,
        cross,
        op.matrix("vocabulary", "n_vocab", "n_state"),
        op.tensor("n_text_ctx", "n_state"),
        TensorType(op.weight, ["layers", "matrices"], op.device),
        op.tensor("layers", "biases"),
        op.tensor("layers", "norms"),
        op.tensor("last_norm"),
        op.tensor("n_ctx"),
    ]


def _run_stack(op: CpuOperations, graph: Graph, align: bool) -> tuple[TensorValue, TensorValue]:
    values = list(graph.inputs[:13])
    tokens, embedding = values[2].tensor, values[6].tensor
    rows, n_state = tokens.shape[0] * tokens.shape[1], embedding.shape[1]
    layers, heads = values[4].tensor.shape[:2]
    scores = (layers, heads, rows, values[12].tensor.shape[0]) if align else (1, 1, 1, 1)
    hidden, qk = ops.inplace_custom(
        "whisper_decoder",
        device=op.device,
        values=values,
        out_types=[op.tensor(rows, n_state), op.tensor(*scores)],
        parameters={"weight": embedding.dtype, "align": align},
    )
    return hidden.tensor, qk.tensor


def _logits(
    op: CpuOperations,
    hidden: TensorValue,
    picked: TensorValue,
    embedding: TensorValue,
    mask: TensorValue,
) -> TensorValue:
    return ops.custom(
        "whisper_logits",
        device=op.device,
        values=[hidden, picked, embedding, mask],
        out_types=[op.tensor(picked.shape[0], mask.shape[0])],
        parameters={"weight": embedding.dtype},
    )[0].tensor


def _build_step(module: Module, op: CpuOperations) -> None:
    inputs = [
        *_stack_inputs(op),
        TensorType(DType.int64, ["picked"], op.device),
        op.tensor("n_vocab"),
        op.tensor("n_vocab"),
        TensorType(DType.int64, ["picked", 4], op.device),
        TensorType(DType.int64, [1], op.device),
        op.tensor("best"),
    ]
    with new_graph("step", inputs, module) as graph:
        hidden, _ = _run_stack(op, graph, align=False)
        picked, zeros, mask, ranges, weigh, like = (value.tensor for value in graph.inputs[13:])
        logits = _logits(op, hidden, picked, graph.inputs[6].tensor, zeros)
        best = [picked.shape[0], like.shape[0]]
        tokens, logprobs = ops.custom(
            "whisper_select",
            device=op.device,
            values=[logits, mask, ranges, weigh],
            out_types=[TensorType(DType.int64, best, op.device), op.tensor(*best)],
        )
        graph.output(logits, tokens.tensor, logprobs.tensor)


def _build_align(module: Module, op: CpuOperations) -> Graph:
    inputs = [
        *_stack_inputs(op),
        TensorType(DType.int64, ["picked"], op.device),
        op.tensor("n_vocab"),
    ]
    with new_graph("align", inputs, module) as graph:
        hidden, qk = _run_stack(op, graph, align=True)
        picked, zeros = (value.tensor for value in graph.inputs[13:])
        graph.output(_logits(op, hidden, picked, graph.inputs[6].tensor, zeros), qk)
    return graph


@dataclass
class Cache:
    """Self-attention keys and values of `batch` beams, and how many positions they hold.

    Both `(layers, batch, heads, slots * HEAD * PANEL)`, float32; inside a head keys are
    `(slots, HEAD, PANEL)` and values `(2, slots * PANEL, PANEL)`.
    """

    keys: FloatArray
    values: FloatArray
    length: int = 0

    def take(self, source: Cache, beams: list[int]) -> None:
        """Make beam `i` a copy of `source`'s beam `beams[i]`, as far as it is filled."""
        live = -(-source.length // PANEL) * PANEL
        chosen = source.keys[:, beams, :, : live * HEAD]
        self.keys[:, :, :, : live * HEAD] = chosen
        mine, theirs = _by_half(self.values), _by_half(source.values)
        mine[:, :, :, :, : live * PANEL] = theirs[:, beams, :, :, : live * PANEL]
        self.length = source.length


def _by_half(values: FloatArray) -> FloatArray:
    return values.reshape(*values.shape[:3], HEAD // PANEL, -1)


@dataclass(frozen=True)
class Audio:
    """One window's cross-attention keys and values, on the device."""

    keys: Buffer
    values: Buffer
    length: Buffer


def check_tokens(tokens: IntArray, length: int, dims: ModelDimensions) -> None:
    """Raise `ValueError` for tokens that don't exist or that `length` positions leave no room for.

    Kernels read embeddings and write caches unchecked.
    """
    if length + tokens.shape[1] > dims.n_text_ctx:
        raise ValueError(f"no position is left of {dims.n_text_ctx} for {tokens.shape[1]} tokens")
    if tokens.min() < 0 or tokens.max() >= dims.n_vocab:
        raise ValueError(f"tokens are 0 to {dims.n_vocab - 1}")


class Decoder(Protocol):
    """What the token loop asks of a decoder, wherever it runs; audio and cache are its own."""

    dims: ModelDimensions

    def new_cache(self, batch: int) -> Any:
        """An empty cache for `batch` beams and `n_text_ctx` positions."""

    def listen(self, features: FloatArray) -> Any:
        """Keys and values for one window's features, `(n_audio_ctx, n_audio_state)`."""

    def step(
        self,
        tokens: IntArray,
        audio: Any,
        cache: Any,
        picked: IntArray,
        rules: Rules | None = None,
        ranges: IntArray | None = None,
        best: int = 1,
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """Append `tokens` to the cache; see `MaxDecoder.step`."""
        ...

    def align(self, tokens: IntArray, audio: Any) -> tuple[FloatArray, FloatArray]:
        """Logits and cross-attention scores; see `MaxDecoder.align`."""
        ...


class MaxDecoder:
    """The compiled graphs with one checkpoint's weights, on the CPU."""

    def __init__(
        self, models: dict[str, Model], weights: DecoderWeights, dims: ModelDimensions
    ) -> None:
        self.dims = dims
        self._models = models
        self._cross = [Buffer.from_numpy(array) for array in weights.cross]
        self._stacked = [Buffer.from_numpy(array) for array in weights.stacked]
        self._zeros = Buffer.from_numpy(np.zeros(dims.n_vocab, np.float32))
        self._no_rules = Rules(np.zeros(dims.n_vocab, np.float32), False)
        self._anything = np.array([0, 0, 0, dims.n_vocab], np.int64)

    def new_cache(self, batch: int) -> Cache:
        """An empty cache for `batch` beams and `n_text_ctx` positions."""
        dims = self.dims
        slots = -(-dims.n_text_ctx // PANEL)
        shape = (dims.n_text_layer, batch, dims.n_text_head, slots * HEAD * PANEL)
        return Cache(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def listen(self, features: FloatArray) -> Audio:
        """Keys and values for one window's features, `(n_audio_ctx, n_audio_state)`."""
        keys, values = self._models["cross"].execute(
            Buffer.from_numpy(np.ascontiguousarray(features, np.float32)), *self._cross
        )
        return Audio(keys, values, Buffer.from_numpy(np.zeros(len(features), np.float32)))

    def step(
        self,
        tokens: IntArray,
        audio: Audio,
        cache: Cache,
        picked: IntArray,
        rules: Rules | None = None,
        ranges: IntArray | None = None,
        best: int = 1,
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """Append `tokens` `(batch, new)` to the cache.

        Returns logits `(m, n_vocab)` of the `m` picked rows (row = beam * new + position), and
        under `rules` and `ranges` `(m, 4)` the `best` tokens of each with their log-probabilities,
        `(m, best)`; a token of -1 where fewer are allowed.
        """
        rules = rules or self._no_rules
        if ranges is None:
            ranges = np.tile(self._anything, (len(picked), 1))
        results = self._models["step"].execute(
            *self._inputs(tokens, audio, cache),
            Buffer.from_numpy(picked),
            self._zeros,
            Buffer.from_numpy(rules.mask),
            Buffer.from_numpy(ranges),
            Buffer.from_numpy(np.array([rules.weigh], np.int64)),
            Buffer.from_numpy(np.zeros(best, np.float32)),
        )
        cache.length += tokens.shape[1]
        logits, chosen, logprobs = (result.to_numpy() for result in results)
        return logits, chosen, logprobs

    def align(self, tokens: IntArray, audio: Audio) -> tuple[FloatArray, FloatArray]:
        """Logits `(new, n_vocab)` and scaled cross-attention scores before the softmax.

        `tokens`: `(1, new)`, from the first position on. Scores are
        `(layers, heads, new, n_audio_ctx)`.
        """
        rows = np.arange(tokens.size, dtype=np.int64)
        logits, qk = self._models["align"].execute(
            *self._inputs(tokens, audio, self.new_cache(1)),
            Buffer.from_numpy(rows),
            self._zeros,
        )
        return logits.to_numpy(), qk.to_numpy()

    def _inputs(self, tokens: IntArray, audio: Audio, cache: Cache) -> list[Buffer]:
        check_tokens(tokens, cache.length, self.dims)
        return [
            Buffer.from_numpy(cache.keys),
            Buffer.from_numpy(cache.values),
            Buffer.from_numpy(np.ascontiguousarray(tokens)),
            Buffer.from_numpy(np.array([cache.length], np.int64)),
            audio.keys,
            audio.values,
            *self._stacked,
            audio.length,
        ]
