"""Whisper's text decoder as MAX graphs: what every device has in common, and the CPU's.

- `cross`: encoder features to every layer's cross-attention keys and values, once per window.
- `step`: new tokens through all layers, over caches written in place; returns the logits and, on
  the CPU, the top k tokens of selected rows.
- `align`: logits of all rows, the cross-attention scores from which word timestamps are made, and
  the residual stream after every part of a layer, which the layer inspection reads.

On the CPU all sizes are symbolic, and matrices are kept in float16 where that is exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from max.driver import CPU, Buffer, Device
from max.dtype import DType
from max.engine import Model
from max.graph import BufferType, Graph, Module, TensorType, ops
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.max_graph.operations import (
    HEAD,
    PANEL,
    CpuOperations,
    Operations,
    new_graph,
    place,
    put,
)
from engines.max_graph.weights import DecoderWeights
from engines.token_selection import IntArray, Step, TokenConstraints, select_top_k

CrossKV: TypeAlias = tuple[Buffer, Buffer]
"""One window's cross-attention keys and values, as a device's `cross` graph lays them out."""


@dataclass
class Cache:
    """Self-attention keys and values of some beams, laid out by `Decoder.new_cache`.

    `length`: the positions they hold. `common`: the first of them that all beams have in common.
    """

    keys: Any
    values: Any
    length: int = 0
    common: int = 0


class Trace(NamedTuple):
    """What every layer computed of some tokens of one window.

    `states`: the residual stream `(1 + 3 * layers, tokens, n_state)`, the embedding first, then
    after self-attention, cross-attention and MLP of each layer. `own`: self-attention's keys and
    values, each `(layers, tokens, n_state)`. `cross`: cross-attention's, `(layers, n_audio_ctx,
    n_state)`. `hidden`: after the last norm, `(tokens, n_state)`. `logits`: `(tokens, n_vocab)`.
    """

    states: FloatArray
    own: tuple[FloatArray, FloatArray]
    cross: tuple[FloatArray, FloatArray]
    hidden: FloatArray
    logits: FloatArray


class Decoder(ABC):
    """A decoder's compiled graphs with one checkpoint's weights on one device."""

    def __init__(
        self,
        models: dict[str, Model],
        weights: DecoderWeights,
        dims: ModelDimensions,
        op: Operations,
        device: Device,
    ) -> None:
        self.dims = dims
        self._models = models
        self._op = op
        self._device = device
        self._cross = place(weights.cross, op, device)
        self._weights = self._place(weights)

    def compute_cross_kv(self, features: FloatArray) -> CrossKV:
        """Return cross-attention keys and values of features `(n_audio_ctx, n_audio_state)`."""
        keys, values = self._models["cross"].execute(put(features, self._device), *self._cross)
        return keys, values

    @abstractmethod
    def new_cache(self, batch: int) -> Cache:
        """Return an empty cache for `batch` beams and `n_text_ctx` positions."""

    @abstractmethod
    def reorder_beams(self, cache: Cache, source: Cache, beams: list[int]) -> None:
        """Make beam `i` of `cache` a copy of beam `beams[i]` of `source`, which may be `cache`."""

    def step(
        self,
        tokens: IntArray,
        cross: CrossKV,
        cache: Cache,
        rows: IntArray,
        constraints: TokenConstraints,
        ranges: IntArray,
        k: int,
    ) -> Step:
        """Append `tokens` `(batch, new)` to the cache and decode the selected rows.

        `rows`: `(m,)`, beam * new + position. Returns logits `(m, n_vocab)` and, under
        `constraints` and `ranges` `(m, 4)`, the top k tokens of each row with their
        log-probabilities, both `(m, k)`; a token is -1 where fewer are allowed.
        """
        selection = self._selection(constraints, ranges, k)
        logits, *top = self._run("step", tokens, cross, cache, rows, *selection)
        return logits, *(top or select_top_k(logits, constraints, ranges, k))

    def align(self, tokens: IntArray, cross: CrossKV) -> tuple[FloatArray, FloatArray]:
        """Return logits and scaled cross-attention scores before the softmax.

        `tokens`: `(1, new)`, from the first position on. Logits are `(new, n_vocab)`, scores
        `(layers, heads, new, n_audio_ctx)`.
        """
        rows = np.arange(tokens.size, dtype=np.int64)
        logits, scores, *_ = self._run("align", tokens, cross, self.new_cache(1), rows)
        return logits, scores

    def trace(self, tokens: IntArray, features: FloatArray) -> Trace:
        """Return what every layer computes of `tokens` `(1, new)` from the first position on.

        `features`: `(n_audio_ctx, n_audio_state)`. Caches and logits are those of `step`, which an
        engine runs; the residual stream is that of `align`, the same kernel with more outputs.
        """
        cross, cache = self.compute_cross_kv(features), self.new_cache(1)
        rows = np.arange(tokens.size, dtype=np.int64)
        _, _, states, hidden = self._run("align", tokens, cross, self.new_cache(1), rows)
        n_vocab = self.dims.n_vocab
        every = TokenConstraints(np.zeros(n_vocab, np.float32), False)
        ranges = np.tile(np.array([0, 0, 0, n_vocab]), (rows.size, 1))
        logits, *_ = self.step(tokens, cross, cache, rows, every, ranges, 1)
        own = self._unpack(cache.keys, cache.values, cache.length)
        other = self._unpack(*cross, self.dims.n_audio_ctx)
        return Trace(states, own, other, hidden, logits)

    def _run(
        self,
        graph: str,
        tokens: IntArray,
        cross: CrossKV,
        cache: Cache,
        rows: IntArray,
        *selection: Buffer,
    ) -> list[np.ndarray]:
        """Run `step` or `align`; raises `ValueError` for tokens that the cache can't take.

        The kernels read embeddings and write caches unchecked.
        """
        new, dims = tokens.shape[1], self.dims
        if cache.length + new > dims.n_text_ctx:
            raise ValueError(f"no position is left of {dims.n_text_ctx} for {new} tokens")
        if tokens.min() < 0 or tokens.max() >= dims.n_vocab:
            raise ValueError(f"tokens are 0 to {dims.n_vocab - 1}")
        inputs = self._inputs(tokens, cross, cache, rows)
        results = self._models[graph].execute(*inputs, *selection)
        cache.length += new
        return [result.to(CPU()).to_numpy() for result in results]

    @abstractmethod
    def _unpack(self, keys: Any, values: Any, length: int) -> tuple[FloatArray, FloatArray]:
        """Return the keys and values of one beam's cache, or of the audio, as `Trace` has them."""

    @abstractmethod
    def _place(self, weights: DecoderWeights) -> list[Buffer]:
        """Return the weights that `step` and `align` take, in their order."""

    @abstractmethod
    def _inputs(
        self, tokens: IntArray, cross: CrossKV, cache: Cache, rows: IntArray
    ) -> list[Buffer]:
        """Return the inputs that `step` and `align` share, in their order."""

    def _selection(self, constraints: TokenConstraints, ranges: IntArray, k: int) -> list[Buffer]:
        """Return the inputs by which `step` selects tokens; none where the host does."""
        return []


# On the CPU.


def build(module: Module, op: CpuOperations) -> Graph:
    """Add the three graphs to `module`; returns the last, through which MAX finds the kernels."""
    inputs = [op.tensor("n_ctx", "n_state"), *op.linear_pair("kv", "n_kv", "n_state")]
    with new_graph("cross", inputs, module) as graph:
        x, w, b = (value.tensor for value in graph.inputs)
        n_state = x.shape[1]
        kv = op.linear(x, w, b)  # (n_ctx, layers * 2 * n_state)
        graph.output(*op.pack_keys_values(kv, b.shape[0] // (n_state * 2), n_state))
    _build_layers("step", module, op)
    return _build_layers("align", module, op)


def _layers_types(op: CpuOperations) -> list[TensorType | BufferType]:
    """Types of what `CpuDecoder._inputs` returns; all but the last two in the kernel's order."""
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
        op.tensor("n_vocab"),  # the logits' bias: zeros
        TensorType(DType.int64, ["m"], op.device),  # rows
    ]


def _build_layers(name: str, module: Module, op: CpuOperations) -> Graph:
    """`step`: logits `(m, n_vocab)`, top k tokens and their log-probabilities `(m, k)`.

    `align`: logits, cross-attention scores `(layers, heads, new, n_ctx)`, the residual stream
    `(1 + 3 * layers, new, n_state)` and what the last norm makes of its end `(new, n_state)`.
    """
    align, shared = name == "align", _layers_types(op)
    selection = [
        op.tensor("n_vocab"),  # mask
        TensorType(DType.int64, ["m", 4], op.device),  # ranges
        TensorType(DType.int64, [1], op.device),  # whether timestamps may dominate
        op.tensor("k"),  # read for its length only
    ]
    with new_graph(name, [*shared, *([] if align else selection)], module) as graph:
        values = list(graph.inputs[: len(shared) - 2])
        no_bias, rows, *selected = (value.tensor for value in graph.inputs[len(shared) - 2 :])
        tokens, cross_keys, embedding = (values[at].tensor for at in (2, 4, 6))
        hidden_rows, n_ctx = tokens.shape[0] * tokens.shape[1], values[-1].tensor.shape[0]
        n, layers = embedding.shape[1], cross_keys.shape[0]
        scores = [layers, cross_keys.shape[1], hidden_rows, n_ctx] if align else [1, 1, 1, 1]
        stream = [layers * 3 + 1, hidden_rows, n] if align else [1, 1, 1]
        hidden, qk, states = ops.inplace_custom(
            "whisper_decoder",
            device=op.device,
            values=values,
            out_types=[op.tensor(hidden_rows, n), op.tensor(*scores), op.tensor(*stream)],
            parameters={"weight": embedding.dtype, "align": align},
        )
        [logits] = op.call(
            "whisper_logits",
            [hidden.tensor, rows, embedding, no_bias],
            op.tensor(rows.shape[0], no_bias.shape[0]),
            weight=embedding.dtype,
        )
        if align:
            graph.output(logits, qk.tensor, states.tensor, hidden.tensor)
        else:
            mask, ranges, dominate, like = selected
            top = [rows.shape[0], like.shape[0]]  # (m, k)
            types = TensorType(DType.int64, top, op.device), op.tensor(*top)
            values = [logits, mask, ranges, dominate]
            graph.output(logits, *op.call("whisper_select", values, *types))
    return graph


class CpuDecoder(Decoder):
    """The decoder on the CPU, whose graphs select the tokens as well.

    Caches are float32 NumPy arrays `(layers, batch, heads, slots * HEAD * PANEL)`. Inside a head
    keys are `(slots, HEAD, PANEL)` and values `(HEAD // PANEL, slots * PANEL, PANEL)`: the operand
    layout of the kernels' matrix product.
    """

    def _place(self, weights: DecoderWeights) -> list[Buffer]:
        """Stack the layers' weights as `kernels/decoder.mojo` describes them."""
        lay_out = self._op.lay_out
        matrices, biases, norms = [], [], []
        for layer in weights.layers:
            pairs = list(zip(layer[::2], layer[1::2], strict=True))
            linear = [pair for pair in pairs if pair[0].ndim == 2]
            norm = [each for pair in pairs if pair[0].ndim == 1 for each in pair]
            matrices.append(np.concatenate([lay_out(matrix).ravel() for matrix, _ in linear]))
            biases.append(np.concatenate([bias for _, bias in linear]))
            norms.append(np.concatenate(norm))
        arrays = [
            lay_out(weights.embedding),  # (panels, n, PANEL)
            weights.positions,  # (n_text_ctx, n)
            np.stack(matrices),  # (layers, 14 * n * n)
            np.stack(biases),  # (layers, 11 * n)
            np.stack(norms),  # (layers, 6 * n)
            np.concatenate(weights.last_norm),  # (2 * n,)
            np.zeros(self.dims.n_audio_ctx, np.float32),
            np.zeros(self.dims.n_vocab, np.float32),
        ]
        return [Buffer.from_numpy(array) for array in arrays]

    def new_cache(self, batch: int) -> Cache:
        dims = self.dims
        slots = -(-dims.n_text_ctx // PANEL)
        shape = (dims.n_text_layer, batch, dims.n_text_head, slots * HEAD * PANEL)
        return Cache(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def reorder_beams(self, cache: Cache, source: Cache, beams: list[int]) -> None:
        inside = cache is source
        copied = [beam for beam, of in enumerate(beams) if not (inside and beam == of)]
        of = [beams[beam] for beam in copied]
        first = source.common // PANEL if inside else 0  # positions from here on, in whole panels
        last = -(-source.length // PANEL)
        keys = slice(first * HEAD * PANEL, last * HEAD * PANEL)
        cache.keys[:, copied, :, keys] = source.keys[:, of, :, keys]
        into, values = (  # (layers, batch, heads, HEAD // PANEL, slots * PANEL * PANEL)
            each.values.reshape(*each.values.shape[:3], HEAD // PANEL, -1)
            for each in (cache, source)
        )
        positions = slice(first * PANEL * PANEL, last * PANEL * PANEL)
        into[:, copied, :, :, positions] = values[:, of, :, :, positions]
        if not inside:
            cache.length = cache.common = source.length

    def _unpack(self, keys: Any, values: Any, length: int) -> tuple[FloatArray, FloatArray]:
        layers, heads, n = self.dims.n_text_layer, self.dims.n_text_head, self.dims.n_text_state
        keys, values = (np.from_dlpack(each) for each in (keys, values))
        keys = keys.reshape(layers, heads, -1, HEAD, PANEL).transpose(0, 2, 4, 1, 3)
        values = values.reshape(layers, heads, HEAD // PANEL, -1, PANEL).transpose(0, 3, 1, 2, 4)
        keys, values = (each.reshape(layers, -1, n)[:, :length] for each in (keys, values))
        return keys, values

    def _inputs(
        self, tokens: IntArray, cross: CrossKV, cache: Cache, rows: IntArray
    ) -> list[Buffer]:
        return [
            Buffer.from_numpy(cache.keys),
            Buffer.from_numpy(cache.values),
            Buffer.from_numpy(np.ascontiguousarray(tokens)),
            Buffer.from_numpy(np.array([cache.length], np.int64)),
            *cross,
            *self._weights,
            Buffer.from_numpy(rows),
        ]

    def _selection(self, constraints: TokenConstraints, ranges: IntArray, k: int) -> list[Buffer]:
        arrays = [
            constraints.mask,
            ranges,
            np.array([constraints.timestamps_dominate], np.int64),
            np.zeros(k, np.float32),
        ]
        return [Buffer.from_numpy(array) for array in arrays]
