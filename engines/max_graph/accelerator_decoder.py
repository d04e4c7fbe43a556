"""Whisper's text decoder as MAX graphs on an accelerator, of built-in operations and our product.

The parts are those of `decoder.py`, `cross`, `step` and `align`, with every size fixed except
beams and new tokens; `reorder` gathers beams. Tokens are chosen on the host (`select_top_k`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from max.driver import CPU, Buffer, Device
from max.dtype import DType
from max.engine import Model
from max.graph import (
    BufferType,
    BufferValue,
    DeviceRef,
    Graph,
    Module,
    TensorType,
    TensorValue,
    ops,
)
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.max_graph.decoder import allow_all, check_tokens
from engines.max_graph.operations import HEAD, AcceleratorOperations, cast, new_graph, place, put
from engines.max_graph.weights import PlainDecoderWeights
from engines.token_selection import MASKED, IntArray, TokenConstraints, select_top_k

LAYER_INPUTS = 18
"""Tensors of one layer, in the order of `PlainDecoderWeights.layers`."""


def build(module: Module, op: AcceleratorOperations, dims: ModelDimensions) -> Graph:
    """Add all graphs to `module`; returns the last, as `decoder.build` does."""
    _build_cross(module, op, dims)
    _build_reorder(module, op, dims)
    _build_layers("step", module, op, dims)
    return _build_layers("align", module, op, dims)


def _build_cross(module: Module, op: AcceleratorOperations, dims: ModelDimensions) -> None:
    n, layers, n_ctx = dims.n_text_state, dims.n_text_layer, dims.n_audio_ctx
    columns = layers * 2 * n
    inputs = [op.tensor(n_ctx, n), op.matrix("cross", columns, n), op.tensor(columns)]
    with new_graph("cross", inputs, module) as graph:
        x, w, b = (value.tensor for value in graph.inputs)
        kv = ops.reshape(op.linear(x, w, b), [n_ctx, layers, 2, n // HEAD, HEAD])
        keys, values = (
            ops.permute(kv[:, :, part], [1, 2, 0, 3])  # (layers, heads, n_ctx, HEAD)
            for part in range(2)
        )
        graph.output(cast(keys, op.weight), cast(values, op.weight))


def _cache_type(op: AcceleratorOperations, dims: ModelDimensions, batch: str) -> BufferType:
    shape = [dims.n_text_layer, batch, dims.n_text_ctx, dims.n_text_head, HEAD]
    return BufferType(op.weight, shape, op.device)


def _build_reorder(module: Module, op: AcceleratorOperations, dims: ModelDimensions) -> None:
    """`reorder(keys, values, beams)` returns new caches.

    A gather that is stored where it reads from would read what it has just written.
    """
    kind = _cache_type(op, dims, "source_beams")
    cache = TensorType(kind.dtype, kind.shape, op.device)
    inputs = [cache, cache, TensorType(DType.int64, ["batch"], op.device)]
    with new_graph("reorder", inputs, module) as graph:
        keys, values, beams = (value.tensor for value in graph.inputs)
        graph.output(*(ops.gather(each, beams, axis=1) for each in (keys, values)))


def _layer_types(op: AcceleratorOperations, n: int) -> list[TensorType]:
    """Types of one layer's weights."""

    def linear(name: str, n_out: int, depth: int) -> list[TensorType]:
        return [op.matrix(name, n_out, depth), op.tensor(n_out)]

    norm = [op.tensor(n), op.tensor(n)]
    return [
        *norm,
        *linear("qkv", 3 * n, n),
        *linear("out", n, n),
        *norm,
        *linear("cross_query", n, n),
        *linear("cross_out", n, n),
        *norm,
        *linear("mlp0", 4 * n, n),
        *linear("mlp2", n, 4 * n),
    ]


def _layers_types(
    op: AcceleratorOperations, dims: ModelDimensions
) -> list[TensorType | BufferType]:
    """Types of the inputs of `step` and `align`, in the order of `AcceleratorDecoder._inputs`."""
    n, layers = dims.n_text_state, dims.n_text_layer
    cross = TensorType(op.weight, [layers, dims.n_text_head, dims.n_audio_ctx, HEAD], op.device)
    return [
        _cache_type(op, dims, "batch"),  # keys
        _cache_type(op, dims, "batch"),  # values
        TensorType(DType.int64, ["batch", "new"], op.device),  # tokens
        TensorType(DType.int64, ["new"], op.device),  # their positions
        op.tensor("new", dims.n_text_ctx),  # causal mask
        TensorType(DType.int64, [], DeviceRef.CPU()),  # positions already in the caches
        TensorType(DType.int64, ["m"], op.device),  # rows
        cross,  # keys
        cross,  # values
        TensorType(op.weight, [dims.n_vocab, n], op.device),  # token embedding
        op.tensor(dims.n_text_ctx, n),  # positional embedding
        op.tensor(n),  # scale and shift of the last norm
        op.tensor(n),
        *(kind for _ in range(layers) for kind in _layer_types(op, n)),
    ]


def _build_layers(
    name: str, module: Module, op: AcceleratorOperations, dims: ModelDimensions
) -> Graph:
    """`step`: logits of the selected rows. `align`: the same, and the scaled scores."""
    n = dims.n_text_state
    with new_graph(name, _layers_types(op, dims), module) as graph:
        keys, values = (value.buffer for value in graph.inputs[:2])
        tokens, at, mask, start, rows, cross_keys, cross_values, *rest = (
            value.tensor for value in graph.inputs[2:]
        )
        embedding, positions, last_scale, last_shift, *weights = rest
        batch, new = tokens.shape
        cache = _CacheWindow(keys, values, start, start + _count(at), mask)
        x = cast(ops.gather(embedding, tokens, axis=0), DType.float32)  # (batch, new, n)
        x = x + ops.gather(positions, at, axis=0)
        x = ops.reshape(x, [batch * new, n])
        all_scores = []
        for layer in range(dims.n_text_layer):
            w = weights[layer * LAYER_INPUTS : (layer + 1) * LAYER_INPUTS]
            x = _self_attention(op, x, w[:6], cache, layer, tokens)
            x, scores = _cross_attention(op, x, w[6:12], cross_keys[layer], cross_values[layer])
            all_scores.append(scores)
            hidden = op.linear(op.layer_norm(x, w[12], w[13]), w[14], w[15], gelu=True)
            x = op.linear(hidden, w[16], w[17], add=x)
        x = ops.gather(op.layer_norm(x, last_scale, last_shift), rows, axis=0)  # (m, n)
        logits = op.product(x, embedding, transposed=True)  # (m, n_vocab)
        graph.output(logits, *([ops.stack(all_scores)] if name == "align" else []))
    return graph


def _count(at: TensorValue) -> TensorValue:
    return ops.shape_to_tensor(at.shape)[0].cast(DType.int64)


@dataclass(frozen=True)
class _CacheWindow:
    """The caches `(layers, batch, n_text_ctx, heads, HEAD)` and the positions to write."""

    keys: BufferValue
    values: BufferValue
    start: TensorValue
    end: TensorValue
    mask: TensorValue


def _self_attention(
    op: AcceleratorOperations,
    x: TensorValue,
    w: list[TensorValue],
    cache: _CacheWindow,
    layer: int,
    tokens: TensorValue,
) -> TensorValue:
    """`x` `(batch * new, n)` plus self-attention over the cache, to which it is appended."""
    batch, new = tokens.shape
    n = int(x.shape[1])
    qkv = op.linear(op.layer_norm(x, w[0], w[1]), w[2], w[3])  # (batch * new, 3 * n)
    query, key, value = (
        ops.reshape(part, [batch, new, n // HEAD, HEAD])
        for part in ops.split(qkv, [n, n, n], axis=1)
    )
    window = [layer, slice(None), (slice(cache.start, cache.end), new)]
    ops.buffer_store_slice(cache.keys, cast(key, op.weight), window)
    ops.buffer_store_slice(cache.values, cast(value, op.weight), window)
    query, keys, values = (
        ops.transpose(each, 1, 2)  # (batch, heads, new or n_text_ctx, HEAD)
        for each in (query, *(ops.buffer_load(each)[layer] for each in (cache.keys, cache.values)))
    )
    scores = op.product(query * HEAD**-0.5, keys, transposed=True) + cache.mask
    mixed = ops.transpose(op.product(ops.softmax(scores), values), 1, 2)
    return op.linear(ops.reshape(mixed, [batch * new, n]), w[4], w[5], add=x)


def _cross_attention(
    op: AcceleratorOperations,
    x: TensorValue,
    w: list[TensorValue],
    keys: TensorValue,
    values: TensorValue,
) -> tuple[TensorValue, TensorValue]:
    """`x` plus attention to the audio, and the scaled scores `(heads, batch * new, n_ctx)`.

    All beams share `keys` and `values` `(heads, n_ctx, HEAD)`, so they are rows of one product.
    """
    rows, n = x.shape[0], int(x.shape[1])
    query = op.linear(op.layer_norm(x, w[0], w[1]), w[2], w[3])
    query = ops.transpose(ops.reshape(query, [rows, n // HEAD, HEAD]), 0, 1)  # (heads, rows, HEAD)
    scores = op.product(query * HEAD**-0.5, keys, transposed=True)
    mixed = ops.transpose(op.product(ops.softmax(scores), values), 0, 1)  # (rows, heads, HEAD)
    return op.linear(ops.reshape(mixed, [rows, n]), w[4], w[5], add=x), scores


@dataclass
class AcceleratorCache:
    """Keys and values `(layers, batch, n_text_ctx, heads, HEAD)` on the device."""

    keys: Buffer
    values: Buffer
    reorder: Model
    device: Device
    length: int = 0

    def reorder_beams(self, source: AcceleratorCache, beams: list[int]) -> None:
        """Make beam `i` a copy of `source`'s beam `beams[i]`."""
        chosen = Buffer.from_numpy(np.array(beams, np.int64)).to(self.device)
        self.keys, self.values = self.reorder.execute(source.keys, source.values, chosen)[:2]
        self.length = source.length


@dataclass(frozen=True)
class AcceleratorCrossKV:
    """One window's cross-attention keys and values, `(layers, heads, n_audio_ctx, HEAD)`."""

    keys: Buffer
    values: Buffer


class AcceleratorDecoder:
    """The compiled graphs with one checkpoint's weights on an accelerator.

    Methods as in `decoder.Decoder`.
    """

    def __init__(
        self,
        models: dict[str, Model],
        weights: PlainDecoderWeights,
        dims: ModelDimensions,
        op: AcceleratorOperations,
        device: Device,
    ) -> None:
        self.dims = dims
        self._models = models
        self._device = device
        self._weight = op.weight
        self._cross = place(weights.cross, op, device)
        self._weights = [put(weights.embedding, device, op.weight)]
        self._weights += place([weights.positions, *weights.last_norm], op, device)
        for layer in weights.layers:
            self._weights += place(layer, op, device)

    def new_cache(self, batch: int) -> AcceleratorCache:
        dims = self.dims
        shape = (dims.n_text_layer, batch, dims.n_text_ctx, dims.n_text_head, HEAD)
        keys, values = (Buffer.zeros(shape, self._weight, self._device) for _ in range(2))
        return AcceleratorCache(keys, values, self._models["reorder"], self._device)

    def compute_cross_kv(self, features: FloatArray) -> AcceleratorCrossKV:
        keys, values = self._models["cross"].execute(self._put(features), *self._cross)[:2]
        return AcceleratorCrossKV(keys, values)

    def step(
        self,
        tokens: IntArray,
        cross: AcceleratorCrossKV,
        cache: AcceleratorCache,
        rows: IntArray,
        constraints: TokenConstraints | None = None,
        ranges: IntArray | None = None,
        k: int = 1,
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        (result,) = self._models["step"].execute(*self._inputs(tokens, cross, cache, rows))
        cache.length += tokens.shape[1]
        logits: FloatArray = result.to(CPU()).to_numpy()
        constraints, ranges = allow_all(self.dims, len(rows), constraints, ranges)
        return logits, *select_top_k(logits, constraints, ranges, k)

    def align(self, tokens: IntArray, cross: AcceleratorCrossKV) -> tuple[FloatArray, FloatArray]:
        rows = np.arange(tokens.size, dtype=np.int64)
        results = self._models["align"].execute(
            *self._inputs(tokens, cross, self.new_cache(1), rows)
        )
        logits, scores = (result.to(CPU()).to_numpy() for result in results)
        return logits, scores

    def _inputs(
        self,
        tokens: IntArray,
        cross: AcceleratorCrossKV,
        cache: AcceleratorCache,
        rows: IntArray,
    ) -> list[Buffer]:
        """The inputs of `_layers_types`."""
        new = tokens.shape[1]
        check_tokens(tokens, cache.length, self.dims)
        at = np.arange(cache.length, cache.length + new, dtype=np.int64)
        later = np.arange(self.dims.n_text_ctx)[None] > at[:, None]  # (new, n_text_ctx)
        return [
            cache.keys,
            cache.values,
            self._put(tokens),
            self._put(at),
            self._put(np.where(later, MASKED, np.float32(0))),
            Buffer.from_numpy(np.array(cache.length, np.int64)),
            self._put(rows),
            cross.keys,
            cross.values,
            *self._weights,
        ]

    def _put(self, array: np.ndarray) -> Buffer:
        return put(array, self._device)
