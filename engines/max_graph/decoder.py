"""Whisper's text decoder as MAX graphs on the CPU, with its caches.

- `cross`: encoder features to every layer's cross-attention keys and values, once per window.
- `step`: new tokens through all layers, over caches written in place; returns the logits and the
  top k tokens of selected rows.
- `align`: logits of all rows and the cross-attention scores from which word timestamps are made.

All sizes are symbolic. Matrices are kept in float16 where that is exact.
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
from engines.max_graph.operations import HEAD, CpuOperations, new_graph
from engines.max_graph.weights import PANEL, DecoderWeights
from engines.token_selection import IntArray, TokenConstraints


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
        kv = op.linear(x, w, b)  # (n_ctx, layers * 2 * n_state)
        graph.output(*op.pack_keys_values(kv, layers, n_state))


LAYER_STACK_INPUTS = 13
"""Length of `_layer_stack_inputs`."""


def _layer_stack_inputs(op: CpuOperations) -> list[TensorType | BufferType]:
    """Inputs that `step` and `align` share, in the order of the kernel `whisper_decoder`."""
    cache = BufferType(DType.float32, ["layers", "batch", "heads", "cache"], op.device)
    cross = op.tensor("layers", "heads", "panels", HEAD * PANEL)
    return [
        cache,  # self-attention keys
        cache,  # self-attention values
        TensorType(DType.int64, ["batch", "new"], op.device),  # tokens
        TensorType(DType.int64, [1], op.device),  # positions already in the caches
        cross,  # cross-attention keys
        cross,  # cross-attention values
        op.matrix("vocabulary", "n_vocab", "n_state"),  # token embedding
        op.tensor("n_text_ctx", "n_state"),  # positional embedding
        TensorType(op.weight, ["layers", "matrices"], op.device),
        op.tensor("layers", "biases"),
        op.tensor("layers", "norms"),
        op.tensor("last_norm"),
        op.tensor("n_ctx"),  # read for its length only: a kernel sees no symbolic size
    ]


def _run_layers(op: CpuOperations, graph: Graph, align: bool) -> tuple[TensorValue, TensorValue]:
    """Hidden states `(batch * new, n_state)` and, with `align`, cross-attention scores."""
    values = list(graph.inputs[:LAYER_STACK_INPUTS])
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
    rows: TensorValue,
    embedding: TensorValue,
    no_bias: TensorValue,
) -> TensorValue:
    """Logits `(m, n_vocab)` of the `m` hidden states that `rows` selects."""
    return ops.custom(
        "whisper_logits",
        device=op.device,
        values=[hidden, rows, embedding, no_bias],
        out_types=[op.tensor(rows.shape[0], no_bias.shape[0])],
        parameters={"weight": embedding.dtype},
    )[0].tensor


def _build_step(module: Module, op: CpuOperations) -> None:
    inputs = [
        *_layer_stack_inputs(op),
        TensorType(DType.int64, ["m"], op.device),  # rows
        op.tensor("n_vocab"),  # no bias
        op.tensor("n_vocab"),  # mask
        TensorType(DType.int64, ["m", 4], op.device),  # ranges
        TensorType(DType.int64, [1], op.device),  # whether timestamps may dominate
        op.tensor("k"),  # read for its length only
    ]
    with new_graph("step", inputs, module) as graph:
        hidden, _ = _run_layers(op, graph, align=False)
        rows, no_bias, mask, ranges, dominate, like = (
            value.tensor for value in graph.inputs[LAYER_STACK_INPUTS:]
        )
        logits = _logits(op, hidden, rows, graph.inputs[6].tensor, no_bias)
        top = [rows.shape[0], like.shape[0]]  # (m, k)
        tokens, logprobs = ops.custom(
            "whisper_select",
            device=op.device,
            values=[logits, mask, ranges, dominate],
            out_types=[TensorType(DType.int64, top, op.device), op.tensor(*top)],
        )
        graph.output(logits, tokens.tensor, logprobs.tensor)


def _build_align(module: Module, op: CpuOperations) -> Graph:
    inputs = [
        *_layer_stack_inputs(op),
        TensorType(DType.int64, ["m"], op.device),  # rows
        op.tensor("n_vocab"),  # no bias
    ]
    with new_graph("align", inputs, module) as graph:
        hidden, qk = _run_layers(op, graph, align=True)
        rows, no_bias = (value.tensor for value in graph.inputs[LAYER_STACK_INPUTS:])
        graph.output(_logits(op, hidden, rows, graph.inputs[6].tensor, no_bias), qk)
    return graph


@dataclass
class Cache:
    """Self-attention keys and values of `batch` beams, and how many positions they hold.

    Both are float32 `(layers, batch, heads, slots * HEAD * PANEL)`. Inside a head keys are
    `(slots, HEAD, PANEL)` and values `(HEAD // PANEL, slots * PANEL, PANEL)`: the operand layout
    of the kernels' matrix product.
    """

    keys: FloatArray
    values: FloatArray
    length: int = 0

    def reorder_beams(self, source: Cache, beams: list[int]) -> None:
        """Copy `source`'s beam `beams[i]` to beam `i`, as far as `source` is filled."""
        filled = -(-source.length // PANEL) * PANEL  # in whole panels
        keys = source.keys[:, beams, :, : filled * HEAD]
        self.keys[:, :, :, : filled * HEAD] = keys
        values = _split_panels(source.values)[:, beams, :, :, : filled * PANEL]
        _split_panels(self.values)[:, :, :, :, : filled * PANEL] = values
        self.length = source.length


def _split_panels(values: FloatArray) -> FloatArray:
    """View values as `(layers, batch, heads, HEAD // PANEL, slots * PANEL * PANEL)`."""
    return values.reshape(*values.shape[:3], HEAD // PANEL, -1)


@dataclass(frozen=True)
class CrossKV:
    """One window's cross-attention keys and values on the device, and a vector of its length."""

    keys: Buffer
    values: Buffer
    length: Buffer


def check_tokens(tokens: IntArray, length: int, dims: ModelDimensions) -> None:
    """Raise `ValueError` for tokens outside the vocabulary or past the last position.

    The kernels read embeddings and write caches unchecked.
    """
    if length + tokens.shape[1] > dims.n_text_ctx:
        raise ValueError(f"no position is left of {dims.n_text_ctx} for {tokens.shape[1]} tokens")
    if tokens.min() < 0 or tokens.max() >= dims.n_vocab:
        raise ValueError(f"tokens are 0 to {dims.n_vocab - 1}")


def allow_all(
    dims: ModelDimensions, rows: int, constraints: TokenConstraints | None, ranges: IntArray | None
) -> tuple[TokenConstraints, IntArray]:
    """Fill in constraints and ranges `(rows, 4)` that allow every token, where None is given."""
    if constraints is None:
        constraints = TokenConstraints(np.zeros(dims.n_vocab, np.float32), False)
    if ranges is None:
        ranges = np.tile(np.array([0, 0, 0, dims.n_vocab], np.int64), (rows, 1))
    return constraints, ranges


class Decoder(Protocol):
    """A decoder as the token loop uses it; the types of its cross KV and cache are its own."""

    dims: ModelDimensions

    def new_cache(self, batch: int) -> Any:
        """Return an empty cache for `batch` beams and `n_text_ctx` positions."""

    def compute_cross_kv(self, features: FloatArray) -> Any:
        """Return cross-attention keys and values of features `(n_audio_ctx, n_audio_state)`."""

    def step(
        self,
        tokens: IntArray,
        cross: Any,
        cache: Any,
        rows: IntArray,
        constraints: TokenConstraints | None = None,
        ranges: IntArray | None = None,
        k: int = 1,
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """Append `tokens` `(batch, new)` to the cache and decode the selected rows.

        `rows`: `(m,)`, beam * new + position. Returns logits `(m, n_vocab)` and, under
        `constraints` and `ranges` `(m, 4)`, the top k tokens of each row with their
        log-probabilities, both `(m, k)`; a token is -1 where fewer are allowed.
        """
        ...

    def align(self, tokens: IntArray, cross: Any) -> tuple[FloatArray, FloatArray]:
        """Return logits and scaled cross-attention scores before the softmax.

        `tokens`: `(1, new)`, from the first position on. Logits are `(new, n_vocab)`, scores
        `(layers, heads, new, n_audio_ctx)`.
        """
        ...


class CpuDecoder:
    """The compiled graphs with one checkpoint's weights, on the CPU; methods as in `Decoder`."""

    def __init__(
        self, models: dict[str, Model], weights: DecoderWeights, dims: ModelDimensions
    ) -> None:
        self.dims = dims
        self._models = models
        self._cross = [Buffer.from_numpy(array) for array in weights.cross]
        self._stacked = [Buffer.from_numpy(array) for array in weights.stacked]
        self._no_bias = Buffer.from_numpy(np.zeros(dims.n_vocab, np.float32))

    def new_cache(self, batch: int) -> Cache:
        dims = self.dims
        slots = -(-dims.n_text_ctx // PANEL)
        shape = (dims.n_text_layer, batch, dims.n_text_head, slots * HEAD * PANEL)
        return Cache(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def compute_cross_kv(self, features: FloatArray) -> CrossKV:
        x = Buffer.from_numpy(np.ascontiguousarray(features, np.float32))
        keys, values = self._models["cross"].execute(x, *self._cross)
        return CrossKV(keys, values, Buffer.from_numpy(np.zeros(len(features), np.float32)))

    def step(
        self,
        tokens: IntArray,
        cross: CrossKV,
        cache: Cache,
        rows: IntArray,
        constraints: TokenConstraints | None = None,
        ranges: IntArray | None = None,
        k: int = 1,
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        constraints, ranges = allow_all(self.dims, len(rows), constraints, ranges)
        results = self._models["step"].execute(
            *self._inputs(tokens, cross, cache),
            Buffer.from_numpy(rows),
            self._no_bias,
            Buffer.from_numpy(constraints.mask),
            Buffer.from_numpy(ranges),
            Buffer.from_numpy(np.array([constraints.timestamps_dominate], np.int64)),
            Buffer.from_numpy(np.zeros(k, np.float32)),
        )
        cache.length += tokens.shape[1]
        logits, top, logprobs = (result.to_numpy() for result in results)
        return logits, top, logprobs

    def align(self, tokens: IntArray, cross: CrossKV) -> tuple[FloatArray, FloatArray]:
        rows = np.arange(tokens.size, dtype=np.int64)
        logits, qk = self._models["align"].execute(
            *self._inputs(tokens, cross, self.new_cache(1)),
            Buffer.from_numpy(rows),
            self._no_bias,
        )
        return logits.to_numpy(), qk.to_numpy()

    def _inputs(self, tokens: IntArray, cross: CrossKV, cache: Cache) -> list[Buffer]:
        """The inputs of `_layer_stack_inputs`."""
        check_tokens(tokens, cache.length, self.dims)
        return [
            Buffer.from_numpy(cache.keys),
            Buffer.from_numpy(cache.values),
            Buffer.from_numpy(np.ascontiguousarray(tokens)),
            Buffer.from_numpy(np.array([cache.length], np.int64)),
            cross.keys,
            cross.values,
            *self._stacked,
            cross.length,
        ]
