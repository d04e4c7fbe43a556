"""Whisper's text decoder as MAX graphs on an accelerator, of built-in operations but for products.

The same three parts as in `decoder.py`, with sizes fixed but for beams and new tokens: `cross`,
`step` and `align`; `take` reorders beams. The choice of tokens stays on the host (`select_best`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from max.driver import CPU, Buffer, Device
from max.dtype import DType
from max.engine import Model
from max.graph import BufferType, DeviceRef, Graph, Module, TensorType, TensorValue, ops
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.choice import MASKED, IntArray, Rules, select_best
from engines.max_graph.decoder import check_tokens
from engines.max_graph.operations import HEAD, AcceleratorOperations, cast, new_graph, place, put
from engines.max_graph.weights import PlainDecoderWeights

LAYER_INPUTS = 18
"""Tensors of one layer, in the order of `PlainDecoderWeights.layers`."""


def build(module: Module, op: AcceleratorOperations, dims: ModelDimensions) -> Graph:
    """Add all graphs to `module`; returns the last, as `decoder.build` does."""
    _build_cross(module, op, dims)
    _build_take(module, op, dims)
    _build_stack("step", module, op, dims)
    return _build_stack("align", module, op, dims)


def _build_cross(module: Module, op: AcceleratorOperations, dims: ModelDimensions) -> None:
    n, layers, n_ctx = dims.n_text_state, dims.n_text_layer, dims.n_audio_ctx
    columns = layers * 2 * n
    inputs = [op.tensor(n_ctx, n), op.matrix("cross", columns, n), op.tensor(columns)]
    with new_graph("cross", inputs, module) as graph:
        x, w, b = (value.tensor for value in graph.inputs)
        kv = ops.reshape(op.linear(x, w, b), [n_ctx, layers, 2, n // HEAD, HEAD])
        keys, values = (ops.permute(kv[:, :, part], [1, 2, 0, 3]) for part in range(2))
        graph.output(cast(keys, op.weight), cast(values, op.weight))


def _cache_type(op: AcceleratorOperations, dims: ModelDimensions, batch: str) -> BufferType:
    shape = [dims.n_text_layer, batch, dims.n_text_ctx, dims.n_text_head, HEAD]
    return BufferType(op.weight, shape, op.device)


def _build_take(module: Module, op: AcceleratorOperations, dims: ModelDimensions) -> None:
    """`take(keys, values, beams)`: new caches, since a gather stored where it reads from reads
    what it has just written."""
    kind = _cache_type(op, dims, "others")
    cache = TensorType(kind.dtype, kind.shape, op.device)
    inputs = [cache, cache, TensorType(DType.int64, ["batch"], op.device)]
    with new_graph("take", inputs, module) as graph:
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


def _build_stack(
    name: str, module: Module, op: AcceleratorOperations, dims: ModelDimensions
) -> Graph:
    """`step`: logits of the picked rows. `align`: the same, and the scaled scores."""
    n, layers = dims.n_text_state, dims.n_text_layer
    shape = [layers, dims.n_text_head, dims.n_audio_ctx, HEAD]
    cross = TensorType(op.weight, shape, op.device)
    inputs = [
        _cache_type(op, dims, "batch"),
        _cache_type(op, dims, "batch"),
        TensorType(DType.int64, ["batch", "new"], op.device),
        TensorType(DType.int64, ["new"], op.device),
        op.tensor("new", dims.n_text_ctx),
        TensorType(DType.int64, [], DeviceRef.CPU()),
        TensorType(DType.int64, ["picked"], op.device),
        cross,
        cross,
        TensorType(op.weight, [dims.n_vocab, n], op.device),
        op.tensor(dims.n_text_ctx, n),
        op.tensor(n),
        op.tensor(n),
        *(kind for _ in range(layers) for kind in _layer_types(op, n)),
    ]
    with new_graph(name, inputs, module) as graph:
        keys, values = (value.buffer for value in graph.inputs[:2])
        tokens, at, mask, start, picked, cross_keys, cross_values, *rest = (
            value.tensor for value in graph.inputs[2:]
        )
        embedding, positions, last_scale, last_shift, *weights = rest
        batch, new = tokens.shape
        x = cast(ops.gather(embedding, tokens, axis=0), DType.float32)
        x = x + ops.gather(positions, at, axis=0)
        x = ops.reshape(x, [batch * new, n])
        all_scores = []
        for layer in range(layers):
            w = weights[layer * LAYER_INPUTS : (layer + 1) * LAYER_INPUTS]
            qkv = op.linear(op.layer_norm(x, w[0], w[1]), w[2], w[3])
            query, key, value = (
                ops.reshape(part, [batch, new, n // HEAD, HEAD])
                for part in ops.split(qkv, [n, n, n], axis=1)
            )
            window = [layer, slice(None), (slice(start, start + _count(at)), new)]
            ops.buffer_store_slice(keys, cast(key, op.weight), window)
            ops.buffer_store_slice(values, cast(value, op.weight), window)
            past_keys, past_values = (ops.buffer_load(each)[layer] for each in (keys, values))
            mixed = _attend(op, query, past_keys, past_values, mask)
            x = op.linear(ops.reshape(mixed, [batch * new, n]), w[4], w[5], add=x)
            query = op.linear(op.layer_norm(x, w[6], w[7]), w[8], w[9])
            query = ops.transpose(ops.reshape(query, [batch * new, n // HEAD, HEAD]), 0, 1)
            scores = op.product(query * HEAD**-0.5, cross_keys[layer], transposed=True)
            all_scores.append(scores)
            mixed = op.product(ops.softmax(scores), cross_values[layer])
            mixed = ops.transpose(mixed, 0, 1)
            x = op.linear(ops.reshape(mixed, [batch * new, n]), w[10], w[11], add=x)
            hidden = op.linear(op.layer_norm(x, w[12], w[13]), w[14], w[15], gelu=True)
            x = op.linear(hidden, w[16], w[17], add=x)
        x = ops.gather(op.layer_norm(x, last_scale, last_shift), picked, axis=0)
        logits = op.product(x, embedding, transposed=True)
        graph.output(logits, *([ops.stack(all_scores)] if name == "align" else []))
    return graph


def _count(at: TensorValue) -> TensorValue:
    return ops.shape_to_tensor(at.shape)[0].cast(DType.int64)


def _attend(
    op: AcceleratorOperations,
    query: TensorValue,
    keys: TensorValue,
    values: TensorValue,
    mask: TensorValue,
) -> TensorValue:
    """Self-attention over the cache: `(batch, new, heads, HEAD)` in and out."""
    query, keys, values = (ops.transpose(each, 1, 2) for each in (query, keys, values))
    scores = op.product(query * HEAD**-0.5, keys, transposed=True) + mask
    return ops.transpose(op.product(ops.softmax(scores), values), 1, 2)


@dataclass
class AcceleratorCache:
    """Keys and values `(layers, batch, n_text_ctx, heads, HEAD)` on the device."""

    keys: Buffer
    values: Buffer
    take_graph: Model
    device: Device
    length: int = 0

    def take(self, source: AcceleratorCache, beams: list[int]) -> None:
        """Make beam `i` a copy of `source`'s beam `beams[i]`."""
        chosen = Buffer.from_numpy(np.array(beams, np.int64)).to(self.device)
        self.keys, self.values = self.take_graph.execute(source.keys, source.values, chosen)[:2]
        self.length = source.length


@dataclass(frozen=True)
class AcceleratorAudio:
    """One window's cross-attention keys and values, `(layers, heads, n_audio_ctx, HEAD)`."""

    keys: Buffer
    values: Buffer


class AcceleratorDecoder:
    """The compiled graphs with one checkpoint's weights on an accelerator; as `MaxDecoder`."""

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
        """An empty cache for `batch` beams."""
        dims = self.dims
        shape = (dims.n_text_layer, batch, dims.n_text_ctx, dims.n_text_head, HEAD)
        keys, values = (Buffer.zeros(shape, self._weight, self._device) for _ in range(2))
        return AcceleratorCache(keys, values, self._models["take"], self._device)

    def listen(self, features: FloatArray) -> AcceleratorAudio:
        """Keys and values for one window's features, `(n_audio_ctx, n_audio_state)`."""
        return AcceleratorAudio(
            *self._models["cross"].execute(self._put(features), *self._cross)[:2]
        )

    def step(
        self,
        tokens: IntArray,
        audio: AcceleratorAudio,
        cache: AcceleratorCache,
        picked: IntArray,
        rules: Rules | None = None,
        ranges: IntArray | None = None,
        best: int = 1,
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """Append `tokens` to the cache; arguments and results as in `MaxDecoder.step`."""
        (result,) = self._models["step"].execute(*self._inputs(tokens, audio, cache, picked))
        cache.length += tokens.shape[1]
        logits: FloatArray = result.to(CPU()).to_numpy()
        rules = rules or Rules(np.zeros(self.dims.n_vocab, np.float32), False)
        if ranges is None:
            ranges = np.tile(np.array([0, 0, 0, self.dims.n_vocab], np.int64), (len(picked), 1))
        return logits, *select_best(logits, rules, ranges, best)

    def align(self, tokens: IntArray, audio: AcceleratorAudio) -> tuple[FloatArray, FloatArray]:
        """Logits and scaled cross-attention scores, as in `MaxDecoder.align`."""
        rows = np.arange(tokens.size, dtype=np.int64)
        results = self._models["align"].execute(
            *self._inputs(tokens, audio, self.new_cache(1), rows)
        )
        logits, scores = (result.to(CPU()).to_numpy() for result in results)
        return logits, scores

    def _inputs(
        self,
        tokens: IntArray,
        audio: AcceleratorAudio,
        cache: AcceleratorCache,
        picked: IntArray,
    ) -> list[Buffer]:
        new = tokens.shape[1]
        check_tokens(tokens, cache.length, self.dims)
        at = np.arange(cache.length, cache.length + new, dtype=np.int64)
        later = np.arange(self.dims.n_text_ctx)[None] > at[:, None]
        return [
            cache.keys,
            cache.values,
            self._put(tokens),
            self._put(at),
            self._put(np.where(later, MASKED, np.float32(0))),
            Buffer.from_numpy(np.array(cache.length, np.int64)),
            self._put(picked),
            audio.keys,
            audio.values,
            *self._weights,
        ]

    def _put(self, array: np.ndarray) -> Buffer:
        return put(array, self._device)
