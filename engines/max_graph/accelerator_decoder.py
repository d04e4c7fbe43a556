"""Whisper's text decoder as MAX graphs on an accelerator, of built-in operations and our product.

The graphs are those of `decoder.py`, `cross`, `step` and `align`, with every size fixed except
beams and new tokens; `reorder` gathers beams. The host chooses the tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from max.driver import Buffer
from max.dtype import DType
from max.graph import BufferType, DeviceRef, Graph, Module, TensorType, ops
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.max_graph.decoder import Cache, CrossKV, Decoder
from engines.max_graph.operations import HEAD, AcceleratorOperations, new_graph, place, put, read
from engines.max_graph.weights import LAYER, DecoderWeights
from engines.token_selection import MASKED, IntArray


def build(module: Module, op: AcceleratorOperations, dims: ModelDimensions) -> Graph:
    """Add all graphs to `module`; returns the last, as `cpu_decoder.build` does."""
    n, layers, n_ctx = dims.n_text_state, dims.n_text_layer, dims.n_audio_ctx
    inputs = [op.tensor(n_ctx, n), *op.linear_pair("cross", layers * 2 * n, n)]
    with new_graph("cross", inputs, module) as graph:
        x, w, b = (value.tensor for value in graph.inputs)
        kv = ops.reshape(op.linear(x, w, b), [n_ctx, layers, 2, n // HEAD, HEAD])
        keys, values = (
            ops.permute(kv[:, :, part], [1, 2, 0, 3])  # (layers, heads, n_ctx, HEAD)
            for part in range(2)
        )
        graph.output(keys.cast(op.weight), values.cast(op.weight))

    # New caches: a gather stored where it reads from would read what it has just written.
    cache = TensorType(op.weight, _cache_shape(dims, "source_beams"), op.device)
    inputs = [cache, cache, TensorType(DType.int64, ["batch"], op.device)]
    with new_graph("reorder", inputs, module) as graph:
        keys, values, beams = (value.tensor for value in graph.inputs)
        graph.output(ops.gather(keys, beams, axis=1), ops.gather(values, beams, axis=1))

    _build_layers("step", module, op, dims)
    return _build_layers("align", module, op, dims)


def _cache_shape(dims: ModelDimensions, batch: int | str) -> list[int | str]:
    return [dims.n_text_layer, batch, dims.n_text_ctx, dims.n_text_head, HEAD]


def _layers_types(
    op: AcceleratorOperations, dims: ModelDimensions
) -> list[TensorType | BufferType]:
    """Types of what `AcceleratorDecoder._inputs` returns."""
    n, layers = dims.n_text_state, dims.n_text_layer
    cache = BufferType(op.weight, _cache_shape(dims, "batch"), op.device)
    cross = TensorType(op.weight, [layers, dims.n_text_head, dims.n_audio_ctx, HEAD], op.device)
    layer = [
        *op.norm_pair(n),
        *op.linear_pair("qkv", 3 * n, n),
        *op.linear_pair("out", n, n),
        *op.norm_pair(n),
        *op.linear_pair("cross_query", n, n),
        *op.linear_pair("cross_out", n, n),
        *op.norm_pair(n),
        *op.linear_pair("mlp0", 4 * n, n),
        *op.linear_pair("mlp2", n, 4 * n),
    ]
    return [
        cache,  # self-attention keys
        cache,  # self-attention values
        TensorType(DType.int64, ["batch", "new"], op.device),  # tokens
        TensorType(DType.int64, ["new"], op.device),  # their positions
        op.tensor("new", dims.n_text_ctx),  # causal mask
        TensorType(DType.int64, [], DeviceRef.CPU()),  # positions already in the caches
        TensorType(DType.int64, ["m"], op.device),  # rows
        cross,  # cross-attention keys
        cross,  # cross-attention values
        TensorType(op.weight, [dims.n_vocab, n], op.device),  # token embedding
        op.tensor(dims.n_text_ctx, n),  # positional embedding
        *op.norm_pair(n),  # the last norm
        *(layer * layers),
    ]


def _build_layers(
    name: str, module: Module, op: AcceleratorOperations, dims: ModelDimensions
) -> Graph:
    """`step`: logits `(m, n_vocab)` of the selected rows. `align`: more, as on the CPU."""
    n, heads = dims.n_text_state, dims.n_text_head
    with new_graph(name, _layers_types(op, dims), module) as graph:
        keys, values = (value.buffer for value in graph.inputs[:2])
        tokens, at, mask, start, rows, cross_keys, cross_values, *weights = (
            value.tensor for value in graph.inputs[2:]
        )
        embedding, positions, last_scale, last_shift, *weights = weights
        batch, new = tokens.shape
        end = start + ops.shape_to_tensor(at.shape)[0].cast(DType.int64)
        x = ops.gather(embedding, tokens, axis=0).cast(DType.float32)  # (batch, new, n)
        x = ops.reshape(x + ops.gather(positions, at, axis=0), [batch * new, n])
        all_scores, states = [], [x]
        for layer in range(dims.n_text_layer):
            w = weights[layer * 2 * len(LAYER) :]

            # Self-attention over the caches, to which the new keys and values are added first.
            qkv = op.linear(op.layer_norm(x, w[0], w[1]), w[2], w[3])  # (batch * new, 3 * n)
            query, key, value = (
                ops.reshape(part, [batch, new, heads, HEAD])
                for part in ops.split(qkv, [n, n, n], axis=1)
            )
            window = [layer, slice(None), (slice(start, end), new)]
            ops.buffer_store_slice(keys, key.cast(op.weight), window)
            ops.buffer_store_slice(values, value.cast(op.weight), window)
            query, key, value = (
                ops.transpose(each, 1, 2)  # (batch, heads, new or n_text_ctx, HEAD)
                for each in (query, *(ops.buffer_load(c)[layer] for c in (keys, values)))
            )
            mixed, _ = op.attend(query, key, value, mask)  # (batch, new, heads, HEAD)
            x = op.linear(ops.reshape(mixed, [batch * new, n]), w[4], w[5], add=x)
            states.append(x)

            # Cross-attention: all beams share keys and values, so they are rows of one product.
            query = op.linear(op.layer_norm(x, w[6], w[7]), w[8], w[9])
            query = ops.transpose(ops.reshape(query, [batch * new, heads, HEAD]), 0, 1)
            mixed, scores = op.attend(query, cross_keys[layer], cross_values[layer])
            all_scores.append(scores)  # (heads, batch * new, n_ctx)
            x = op.linear(ops.reshape(mixed, [batch * new, n]), w[10], w[11], add=x)
            states.append(x)

            hidden = op.linear(op.layer_norm(x, w[12], w[13]), w[14], w[15], gelu=True)
            x = op.linear(hidden, w[16], w[17], add=x)
            states.append(x)
        hidden = op.layer_norm(x, last_scale, last_shift)  # (batch * new, n)
        logits = op.product(ops.gather(hidden, rows, axis=0), embedding, transposed=True)
        told = [ops.stack(all_scores), ops.stack(states), hidden] if name == "align" else []
        graph.output(logits, *told)  # logits: (m, n_vocab)
    return graph


class AcceleratorDecoder(Decoder):
    """The decoder on an accelerator.

    Caches are buffers `(layers, batch, n_text_ctx, heads, HEAD)` in the type of the weights.
    """

    def new_cache(self, batch: int) -> Cache:
        shape = _cache_shape(self.dims, batch)
        keys, values = (Buffer.zeros(shape, self._op.weight, self._device) for _ in range(2))
        return Cache(keys, values)

    def reorder_beams(self, cache: Cache, source: Cache, beams: list[int]) -> None:
        chosen = put(np.array(beams, np.int64), self._device)
        cache.keys, cache.values = self._models["reorder"].execute(
            source.keys, source.values, chosen
        )
        cache.length = source.length

    def _place(self, weights: DecoderWeights) -> list[Buffer]:
        op, device = self._op, self._device
        return [
            put(weights.embedding, device, op.weight),
            put(weights.positions, device),
            *place(weights.last_norm, op, device),
            *(buffer for layer in weights.layers for buffer in place(layer, op, device)),
        ]

    def _unpack(self, keys: Any, values: Any, length: int) -> tuple[FloatArray, FloatArray]:
        layers, n = self.dims.n_text_layer, self.dims.n_text_state
        keys, values = (read(each) for each in (keys, values))
        if keys.ndim == 5:  # a cache: (layers, 1, n_text_ctx, heads, HEAD)
            keys, values = keys[:, 0, :length], values[:, 0, :length]
        else:  # (layers, heads, n_audio_ctx, HEAD)
            keys, values = (each.transpose(0, 2, 1, 3) for each in (keys, values))
        return keys.reshape(layers, length, n), values.reshape(layers, length, n)

    def _inputs(
        self, tokens: IntArray, cross: CrossKV, cache: Cache, rows: IntArray
    ) -> list[Buffer]:
        at = np.arange(cache.length, cache.length + tokens.shape[1], dtype=np.int64)
        later = np.arange(self.dims.n_text_ctx)[None] > at[:, None]  # (new, n_text_ctx)
        return [
            cache.keys,
            cache.values,
            put(tokens, self._device),
            put(at, self._device),
            put(np.where(later, MASKED, np.float32(0)), self._device),
            Buffer.from_numpy(np.array(cache.length, np.int64)),
            put(rows, self._device),
            *cross,
            *self._weights,
        ]
