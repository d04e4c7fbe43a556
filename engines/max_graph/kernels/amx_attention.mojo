"""The encoder's softmax attention on AMX; see `amx.mojo`.

Everything is transposed: scores are keys @ queries', `(SPAN keys, SPAN queries)`, so that each query has a lane of the
vectors, in which its maximum and sum are kept without adding up lanes, and weights become the right operand of
values' @ weights, `(HEAD, SPAN queries)`, without being moved.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.collections import Array
from std.math import ceildiv

from .amx import (
    LEFT,
    PRODUCTS,
    SIDE,
    SPAN,
    STEP,
    TILE,
    Bits,
    add_product,
    align,
    begin,
    clear_sums,
    end,
    load_sums,
    pack_rows,
    store_pair,
    store_row,
    store_sums,
)
from .attention import HEAD, SCALE, exp_nonpositive
from .tile import LOWEST, WIDTH, Vector

comptime HEAD_SPANS = HEAD // SPAN
"""Parts of a head's columns; also the steps of its depth."""

comptime QUERIES = 3 * SPAN
"""Queries of one task."""

comptime RIGHT = 3 * 2 * TILE
"""Values of a right operand of float32 for one step."""

comptime SUMS = SPAN * SPAN
"""Values of four tiles of sums."""

comptime TURNS = 4 * len(PRODUCTS)
"""Products of terms for one span of keys: of two steps of scores, and of two parts of the output."""

comptime Halves = Array[Vector, 2]
"""A value for each of `SPAN` queries."""


@extensibility.register("whisper_amx_attention")
struct AmxAttention:
    """The encoder's self-attention, without a mask.

    `qkv`: `(n_ctx, 3 * n_state)`: queries, keys and values, the heads side by side in each. `y`: `(n_ctx, n_state)`.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        qkv: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var n_ctx, n_state = y.dim_size(0), y.dim_size(1)
        var heads, stride, blocks = n_state // HEAD, 3 * n_state, ceildiv(n_ctx, QUERIES)
        var size = ceildiv(n_ctx, SPAN) * HEAD_SPANS * LEFT  # of one head's keys, or values
        var packed_list = List[Bits](unsafe_uninit_length=heads * 2 * size + 32)
        var packed = align(packed_list.unsafe_ptr())  # keys and values, (heads, 2, size)
        var qp = qkv.unsafe_ptr()
        var yp = y.unsafe_ptr()

        def pack(head: Int) raises {imm}:
            var keys = qp.unsafe_offset(n_state + head * HEAD)
            pack_rows(n_ctx, HEAD, keys, stride, packed.unsafe_offset(2 * head * size))
            pack_values(n_ctx, keys.unsafe_offset(n_state), stride, packed.unsafe_offset((2 * head + 1) * size))

        def work(task: Int) raises {imm}:
            var head, block = task // blocks, task % blocks
            var keys = packed.unsafe_offset(2 * head * size)
            begin()
            for first in range(block * QUERIES, min(block * QUERIES + QUERIES, n_ctx), SPAN):
                var q = qp.unsafe_offset(first * stride + head * HEAD)
                var out = yp.unsafe_offset(first * n_state + head * HEAD)
                attend_span(min(SPAN, n_ctx - first), n_ctx, q, stride, keys, out, n_state)
            end()

        sync_parallelize(pack, heads)
        sync_parallelize(work, heads * blocks)


def pack_values(live: Int, v: Pointer[Float32, ...], stride: Int, packed: Pointer[mut=True, Bits, ...]):
    """Writes `v` `(live, HEAD)`, its rows `stride` apart, as the left operand `(HEAD, live)`.

    Positions past the end repeat the last one; their weights are 1e-38.
    """
    var steps = ceildiv(live, STEP)
    for t in range(0, steps * STEP, SIDE):
        for d in range(HEAD):
            var target = packed.unsafe_offset((d // SPAN * steps + t // STEP) * LEFT + d % SPAN * STEP + t % STEP)
            store_row(read_column(t, live, v.unsafe_offset(d), stride), target)


@always_inline
def read_column(first: Int, count: Int, x: Pointer[Float32, ...], stride: Int) -> Vector:
    """Returns values `first` to `first + WIDTH` of `x` `(count,)`, `stride` apart; those past the end repeat the last."""
    var column = Vector(0)
    comptime for lane in range(WIDTH):
        column[lane] = x.unsafe_offset(min(first + lane, count - 1) * stride).unsafe_load()
    return column


@no_inline
def attend_span(
    rows: Int,
    live: Int,
    q: Pointer[Float32, ...],
    stride: Int,
    keys: Pointer[Bits, ...],
    y: Pointer[mut=True, Float32, ...],
    y_stride: Int,
):
    """Writes one head's output `y` for up to `SPAN` queries `q`; `keys`: of `live` positions, `(2, size)` with the values.

    Goes through the keys in spans with a running maximum and sum of each query. While AMX multiplies the next span's
    keys and the last span's values, the vectors compute this span's weights.
    """
    var queries_list = List[Bits](unsafe_uninit_length=HEAD_SPANS * RIGHT + 32)
    var queries = align(queries_list.unsafe_ptr())  # the right operand (HEAD, SPAN), scaled, which is exact
    var weights_list = List[Bits](unsafe_uninit_length=2 * RIGHT + 32)
    var weights = align(weights_list.unsafe_ptr())  # right operands (SPAN, SPAN), of even spans and of odd ones
    var scores_list = List[Float32](unsafe_uninit_length=2 * SUMS + 16)
    var scores = align(scores_list.unsafe_ptr())  # (SPAN, SPAN), of even spans and of odd ones
    var mixed_list = List[Float32](length=HEAD_SPANS * SUMS + 16, fill=0)
    var mixed = align(mixed_list.unsafe_ptr())  # (HEAD, SPAN)
    for half in range(2):
        for d in range(0, HEAD, 2):
            var even = read_column(half * SIDE, rows, q.unsafe_offset(d), stride)
            var odd = read_column(half * SIDE, rows, q.unsafe_offset(d + 1), stride)
            var target = queries.unsafe_offset(d // STEP * RIGHT + half * TILE + d % STEP * SIDE)
            store_pair(even * SCALE, odd * SCALE, target)
    var tops = Halves(fill=Vector(LOWEST))
    var sums = Halves(fill=Vector(0))
    var spans = ceildiv(live, SPAN)
    for span in range(-1, spans + 1):
        var here = span % 2  # the next span and the last are at the other place
        var score = scores.unsafe_offset(here * SUMS)
        var scales = Halves(fill=Vector(1))
        var is_inside = 0 <= span < spans
        var is_higher = is_inside and raise_tops(live - span * SPAN, score, tops, sums, scales)
        comptime for turn in range(TURNS):
            comptime if turn < TURNS // 2:
                if span + 1 < spans:
                    add_to_scores[turn](span + 1, keys, queries, scores.unsafe_offset((1 - here) * SUMS))
            else:
                if span > 0:
                    var last = weights.unsafe_offset((1 - here) * RIGHT)
                    add_to_output[turn - TURNS // 2](span - 1, spans, keys, last, mixed)
            comptime if turn % 3 < 2:  # 16 of 24 turns, each with two rows of scores
                if is_inside:
                    write_weights((turn // 3 * 2 + turn % 3) * 2, score, tops, sums, weights.unsafe_offset(here * RIGHT))
        if is_higher:
            for d in range(HEAD):
                comptime for half in range(2):
                    var at = mixed.unsafe_offset(d * SPAN + half * SIDE)
                    at.unsafe_store(at.unsafe_load[width=WIDTH]() * scales[half])
    for row in range(rows):
        var share = 1 / sums[row // SIDE][row % SIDE]
        for d in range(0, HEAD, WIDTH):
            var value = read_column(d, HEAD, mixed.unsafe_offset(row), SPAN)
            y.unsafe_offset(row * y_stride + d).unsafe_store(value * share)


@always_inline
def add_to_scores[
    turn: Int
](span: Int, keys: Pointer[Bits, ...], queries: Pointer[Bits, ...], scores: Pointer[mut=True, Float32, ...]):
    """Does one of the turns in which AMX computes the scores `(SPAN, SPAN)` of a span of keys."""
    comptime step = turn // len(PRODUCTS)
    comptime if turn == 0:
        clear_sums()
    var left = keys.unsafe_offset((span * HEAD_SPANS + step) * LEFT)
    add_product[turn % len(PRODUCTS), 3, False](left, queries.unsafe_offset(step * RIGHT))
    comptime if turn == TURNS // 2 - 1:
        store_sums(scores)


@always_inline
def add_to_output[
    turn: Int
](
    span: Int, spans: Int, keys: Pointer[Bits, ...], weights: Pointer[Bits, ...], mixed: Pointer[mut=True, Float32, ...]
):
    """Does one of the turns in which AMX adds a span's values times weights to `mixed` `(HEAD, SPAN)`."""
    comptime part = turn // len(PRODUCTS)
    var sums = mixed.unsafe_offset(part * SUMS)
    comptime if turn % len(PRODUCTS) == 0:
        load_sums(sums)
    var values = keys.unsafe_offset(spans * HEAD_SPANS * LEFT)
    add_product[turn % len(PRODUCTS), 3, False](values.unsafe_offset((part * spans + span) * LEFT), weights)
    comptime if turn % len(PRODUCTS) == len(PRODUCTS) - 1:
        store_sums(sums)


@always_inline
def raise_tops(
    live: Int, scores: Pointer[mut=True, Float32, ...], mut tops: Halves, mut sums: Halves, mut scales: Halves
) -> Bool:
    """Takes the highest of the first `live` keys' scores into `tops`, and sets `scales` to what that makes of the past.

    Returns whether any is higher than before.
    """
    for t in range(live, SPAN):
        comptime for half in range(2):
            scores.unsafe_offset(t * SPAN + half * SIDE).unsafe_store(Vector(LOWEST))
    var highest = Array[Vector, 8](fill=Vector(LOWEST))  # of every fourth key, (4, 2): chains that don't wait
    for t in range(0, SPAN, 4):
        comptime for i in range(8):
            var at = scores.unsafe_offset((t + i // 2) * SPAN + i % 2 * SIDE)
            highest[i] = max(highest[i], at.unsafe_load[width=WIDTH]())
    var is_higher = False
    comptime for half in range(2):
        var top = max(max(highest[half], highest[2 + half]), max(highest[4 + half], highest[6 + half]))
        top = max(top, tops[half])
        if top.ne(tops[half]).reduce_or():
            is_higher = True
            scales[half] = exp_nonpositive(tops[half] - top)
            sums[half] = sums[half] * scales[half]
            tops[half] = top
    return is_higher


@always_inline
def write_weights(
    t: Int, scores: Pointer[Float32, ...], tops: Halves, mut sums: Halves, weights: Pointer[mut=True, Bits, ...]
):
    """Writes the weights of keys `t` and `t + 1` of a span into its right operand, and adds them to `sums`."""
    comptime for half in range(2):
        var at = scores.unsafe_offset(t * SPAN + half * SIDE)
        var even = exp_nonpositive(at.unsafe_load[width=WIDTH]() - tops[half])
        var odd = exp_nonpositive(at.unsafe_offset(SPAN).unsafe_load[width=WIDTH]() - tops[half])
        sums[half] = sums[half] + (even + odd)
        store_pair(even, odd, weights.unsafe_offset(half * TILE + t * SIDE))
