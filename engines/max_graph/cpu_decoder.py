"""Whisper's text decoder as MAX graphs on the CPU, of this project's kernels.

All sizes are symbolic, so that one compiled module serves every checkpoint; matrices are kept in
float16 where that is exact. A step of one token waits for memory, so one step of six takes far less
time than six: a draft, which reads a third as much, guesses tokens for a step to confirm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from max.driver import Buffer
from max.dtype import DType
from max.graph import BufferType, Graph, Module, TensorType, ops

from engines.base import FloatArray
from engines.max_graph.decoder import Cache, CrossKV, Decoder
from engines.max_graph.operations import HEAD, PANEL, CpuOperations, new_graph
from engines.max_graph.weights import DecoderWeights
from engines.token_selection import IntArray, Step, TokenConstraints

DRAFT = DType.int8
"""The type of a draft's matrices: integers, with a scale for each output."""

DRAFT_AUDIO = DType.uint8
"""The type of a draft's audio keys and values: upper bytes of float16, a sign, 5 exponent and 2
mantissa bits. They need no scales, for which there is no time: each window has its own."""

NIBBLE_STEP = 0.37
"""The scale of 4 bits in units of a row's root mean square: the largest of normally distributed
values are clipped, so that the others are rounded by less."""


def build(module: Module, op: CpuOperations) -> Graph:
    """Add the graphs to `module`; returns the last, through which MAX finds the kernels."""
    inputs = [op.tensor("n_ctx", "n_state"), *op.linear_pair("kv", "n_kv", "n_state")]
    with new_graph("cross", inputs, module) as graph:
        x, w, b = (value.tensor for value in graph.inputs)
        n_state = x.shape[1]
        kv = op.linear(x, w, b)  # (n_ctx, layers * 2 * n_state)
        packed = op.pack_keys_values(kv, b.shape[0] // (n_state * 2), n_state)
        graph.output(*(ops.unsqueeze(each, 0) for each in packed))  # (1, layers, heads, …)
    _build_layers("step", module, op)
    _build_layers("draft", module, op)
    return _build_layers("align", module, op)


def _layers_types(op: CpuOperations, draft: bool) -> list[TensorType | BufferType]:
    """Types of what `CpuDecoder._gather` returns; all but the last three in the kernel's order."""
    cache = BufferType(DType.float32, ["layers", "places", "heads", "cache"], op.device)
    windows = ["windows", "layers", "heads", "panels", HEAD * PANEL]
    cross = TensorType(DRAFT_AUDIO if draft else DType.float32, windows, op.device)
    matrix = DRAFT if draft else op.weight
    vocabulary = DType.uint8 if draft else op.weight
    return [
        cache,  # self-attention keys
        cache,  # self-attention values
        TensorType(DType.int64, ["batch", "new"], op.device),  # tokens
        TensorType(DType.int64, ["batch", 4], op.device),  # see `_gather`
        cross,  # cross-attention keys
        cross,  # cross-attention values
        op.panels("vocabulary", "n_state"),  # token embedding
        op.tensor("n_text_ctx", "n_state"),  # positional embedding
        TensorType(matrix, ["layers", "matrices"], op.device),
        op.tensor("layers", "biases"),
        op.tensor("layers", "norms"),
        op.tensor("last_norm"),
        op.tensor("n_ctx"),  # read for its length only: a kernel sees no symbolic size
        TensorType(vocabulary, ["panels_read", "rows_read", PANEL], op.device),  # of the logits
        op.tensor("n_vocab"),  # the logits' bias: zeros
        TensorType(DType.int64, ["m"], op.device),  # rows
    ]


def _build_layers(name: str, module: Module, op: CpuOperations) -> Graph:
    """`step`: logits `(m, n_vocab)`, top k tokens and their log-probabilities `(m, k)`.

    `draft`: the same of one token, over weights as `pack_draft` rounds them, the vocabulary to 4
    bits, and audio keys and values in type `DRAFT_AUDIO`.
    `align`: logits, cross-attention scores `(layers, heads, new, n_ctx)`, the residual stream
    `(1 + 3 * layers, new, n_state)` and what the last norm makes of its end `(new, n_state)`.
    """
    align, draft = name == "align", name == "draft"
    shared = _layers_types(op, draft)
    selection = [
        op.tensor("n_vocab"),  # mask
        TensorType(DType.int64, ["m", 4], op.device),  # ranges
        TensorType(DType.int64, [1], op.device),  # whether timestamps may dominate
        op.tensor("k"),  # read for its length only
    ]
    with new_graph(name, [*shared, *([] if align else selection)], module) as graph:
        values = list(graph.inputs[: len(shared) - 3])
        others = (value.tensor for value in graph.inputs[len(shared) - 3 :])
        vocabulary, no_bias, rows, *selected = others
        tokens, cross_keys, embedding, matrices = (values[at].tensor for at in (2, 4, 6, 8))
        hidden_rows, n_ctx = tokens.shape[0] * tokens.shape[1], values[-1].tensor.shape[0]
        n, layers, heads = embedding.shape[1], cross_keys.shape[1], cross_keys.shape[2]
        scores = [layers, heads, hidden_rows, n_ctx] if align else [1, 1, 1, 1]
        stream = [layers * 3 + 1, hidden_rows, n] if align else [1, 1, 1]
        hidden, qk, states = ops.inplace_custom(
            "whisper_decoder",
            device=op.device,
            values=values,
            out_types=[op.tensor(hidden_rows, n), op.tensor(*scores), op.tensor(*stream)],
            parameters={
                "embedded": embedding.dtype,
                "weight": matrices.dtype,
                "cross": cross_keys.dtype,
                "align": align,
            },
        )
        read = [vocabulary, embedding] if draft else [rows, vocabulary]
        [logits] = op.call(
            "whisper_draft_logits" if draft else "whisper_logits",
            [hidden.tensor, *read, no_bias],
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


def round_audio(array: np.ndarray) -> np.ndarray:
    """Round float32 values to `DRAFT_AUDIO`."""
    rounded = torch.from_numpy(array).to(torch.float8_e5m2)
    return rounded.view(torch.uint8).numpy()


def pack_draft(matrix: FloatArray, bits: int) -> np.ndarray:
    """Round a matrix `(n_out, depth)` to integers of 8 or 4 bits, with a scale for each output.

    Returns bytes `(panels, depth * bits / 8 + 4, PANEL)`. The last rows of a panel are the scales
    of its outputs, in float32. A byte of 4 bits holds two depths, the first in its lower half.
    """
    panels = -(-len(matrix) // PANEL)
    values = torch.zeros(panels * PANEL, matrix.shape[1])
    values[: len(matrix)] = torch.from_numpy(matrix)
    if bits == 8:
        scales = values.abs().amax(1) / 127
    else:
        scales = NIBBLE_STEP * values.square().mean(1).sqrt()
    scales.clamp_(min=torch.finfo(torch.float32).tiny)
    half = 2 ** (bits - 1)
    whole = values.div_(scales[:, None]).round_().clamp_(-half, half - 1)
    if bits == 8:
        packed = whole.to(torch.int8).view(torch.uint8)
    else:
        nibbles = whole.add_(half).to(torch.uint8)
        packed = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    rows = packed.reshape(panels, PANEL, -1).transpose(1, 2)  # (panels, depth * bits / 8, PANEL)
    ends = scales.view(torch.uint8).reshape(panels, -1, PANEL)
    return torch.cat([rows, ends], 1).numpy()


class PendingStep(NamedTuple):
    """The arguments of `Decoder.step` for one clip: one token of each beam."""

    tokens: IntArray
    cache: Cache
    rows: IntArray
    constraints: TokenConstraints
    ranges: IntArray
    k: int


class CpuDecoder(Decoder):
    """The decoder on the CPU, whose graphs select the tokens as well.

    Caches are float32 NumPy arrays `(layers, batch, heads, slots * HEAD * PANEL)`. Inside a head
    keys are `(slots, HEAD, PANEL)` and values `(HEAD // PANEL, slots * PANEL, PANEL)`: the operand
    layout of the kernels' matrix product.
    """

    drafts = 11
    """The most tokens that `draft` guesses before a step."""

    _op: CpuOperations
    _draft_weights: list[Buffer]

    def _place(self, weights: DecoderWeights) -> list[Buffer]:
        """Stack the layers' weights as `kernels/decoder.mojo` describes them."""
        pack = self._op.pack_panels
        matrices, rounded, biases, norms = [], [], [], []
        for layer in weights.layers:
            pairs = list(zip(layer[::2], layer[1::2], strict=True))
            linear = [pair for pair in pairs if pair[0].ndim == 2]
            norm = [each for pair in pairs if pair[0].ndim == 1 for each in pair]
            matrices.append(np.concatenate([pack(matrix).ravel() for matrix, _ in linear]))
            rounded.append(np.concatenate([pack_draft(matrix, 8).ravel() for matrix, _ in linear]))
            biases.append(np.concatenate([bias for _, bias in linear]))
            norms.append(np.concatenate(norm))
        embedding = pack(weights.embedding)
        middle = [
            np.stack(biases),  # (layers, 11 * n)
            np.stack(norms),  # (layers, 6 * n)
            np.concatenate(weights.last_norm),  # (2 * n,)
            np.zeros(self.dims.n_audio_ctx, np.float32),
        ]
        no_bias = np.zeros(self.dims.n_vocab, np.float32)

        def order(stack: np.ndarray, vocabulary: np.ndarray) -> list[Buffer]:
            """`stack`: a row each layer. `vocabulary`: `(panels, rows of a panel, PANEL)`."""
            arrays = [embedding, weights.positions, stack, *middle, vocabulary, no_bias]
            return [Buffer.from_numpy(array) for array in arrays]

        vocabulary = pack_draft(weights.embedding, 4)
        self._draft_weights = order(np.stack(rounded).view(np.int8), vocabulary)
        return order(np.stack(matrices), embedding)

    def new_cache(self, batch: int) -> Cache:
        dims = self.dims
        slots = -(-dims.n_text_ctx // PANEL)
        shape = (dims.n_text_layer, batch, dims.n_text_head, slots * HEAD * PANEL)
        keys, values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        return Cache(keys, values, places=tuple(range(batch)))

    def reorder_beams(self, cache: Cache, source: Cache, beams: list[int]) -> None:
        inside = cache is source
        moved = [beam for beam, of in enumerate(beams) if not (inside and beam == of)]
        copied = [cache.places[beam] for beam in moved]
        of = [source.places[beams[beam]] for beam in moved]
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

    def draft(
        self,
        token: int,
        cross: CrossKV,
        cache: Cache,
        constraints: TokenConstraints,
        ranges: IntArray,
        k: int,
    ) -> tuple[int, float]:
        """Append `token` to the cache of one beam and guess the next with its log-probability.

        About a third of what `step` reads is read, rounded. `ranges`: `(1, 4)`.
        """
        tokens = np.array([[token]], np.int64)
        self.check(tokens, cache)
        if cache.draft is None:
            keys, values = (round_audio(np.from_dlpack(each)) for each in cross)
            cache.draft = Buffer.from_numpy(keys), Buffer.from_numpy(values)
        rows = np.zeros(1, np.int64)
        inputs = self._gather(tokens, cache.draft, [cache], rows, self._draft_weights)
        results = self._models["draft"].execute(*inputs, *self._selection(constraints, ranges, k))
        cache.length += 1
        _, top, logprobs = (each.to_numpy() for each in results)
        return int(top[0, 0]), float(logprobs[0, 0])

    def step_together(self, steps: Sequence[PendingStep], cross: CrossKV) -> list[Step]:
        """Take one step of several clips, whose caches share their arrays, at once.

        `cross`: all windows' keys and values. Constraints and `k` are those of the first.
        """
        first, counts = steps[0], np.cumsum([len(each.tokens) for each in steps])
        tokens = np.concatenate([each.tokens for each in steps])  # (batch, 1)
        offsets = [0, *counts[:-1]]
        rows = np.concatenate([each.rows + at for each, at in zip(steps, offsets, strict=True)])
        ranges = np.concatenate([each.ranges for each in steps])
        caches = [each.cache for each in steps]
        inputs = self._gather(tokens, cross, caches, rows, self._weights)
        selection = self._selection(first.constraints, ranges, first.k)
        results = [each.to_numpy() for each in self._models["step"].execute(*inputs, *selection)]
        for each in steps:
            each.cache.length += 1
        logits, top, logprobs = (np.split(each, counts[:-1]) for each in results)
        return list(zip(logits, top, logprobs, strict=True))

    def _inputs(
        self, tokens: IntArray, cross: CrossKV, cache: Cache, rows: IntArray
    ) -> list[Buffer]:
        return self._gather(tokens, cross, [cache], rows, self._weights)

    def _gather(
        self,
        tokens: IntArray,
        cross: CrossKV,
        caches: Sequence[Cache],
        rows: IntArray,
        weights: Sequence[Buffer],
    ) -> list[Buffer]:
        """Return the inputs for the beams of several caches, which share their arrays.

        The kernel is told of each beam its place, the positions there, its window, and how many
        panels of positions all beams of this cache have in common.
        """
        table = []
        for each in caches:
            common = each.length if len(each.places) == 1 else each.common
            table += [(place, each.length, each.window, common // PANEL) for place in each.places]
        return [
            Buffer.from_numpy(caches[0].keys),
            Buffer.from_numpy(caches[0].values),
            Buffer.from_numpy(np.ascontiguousarray(tokens)),
            Buffer.from_numpy(np.array(table, np.int64)),
            *cross,
            *weights,
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
