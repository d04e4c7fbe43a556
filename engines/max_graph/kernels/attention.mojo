"""Softmax attention over heads of 64, one head and a block of queries at a time.

Keys and values are laid out as packed panels (see `tile.mojo`), so both products of attention are the register
tile's: scores = queries @ keys over panels of `PANEL` positions, output = weights @ values over panels of columns.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.collections import Array
from std.math import ceildiv

from .tile import (
    COLUMNS,
    DISTANCE,
    LOWEST,
    PANEL,
    TALL,
    TILES,
    VECTORS,
    WIDTH,
    Vector,
    add_product,
    multiply,
    needs_tile,
    spread,
)

comptime HEAD = 64
"""Width of a head in every Whisper checkpoint."""

comptime HEAD_PANELS = HEAD // PANEL
"""Panels of one head's columns."""

comptime SCALE = Float32(0.125)
"""1 / sqrt(HEAD)."""

comptime QUERIES = 16 * TALL
"""Query rows of one task, several tiles over the same keys and values."""


@extensibility.register("whisper_pack_keys_values")
struct PackKeysValues:
    """Lays out keys and values as panels.

    `kv`: `(n_ctx, columns)`, of which the last `layers * 2 * n_state` hold keys and values of one layer after
    another. `keys`, `values`: `(layers, heads, panels, HEAD * PANEL)`. Inside a head keys are transposed,
    `(panels, HEAD, PANEL)`, and values are `(HEAD_PANELS, panels * PANEL, PANEL)`. Positions past `n_ctx` are zeros.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        keys: OutputTensor[dtype=DType.float32, rank=4, ...],
        values: OutputTensor[dtype=DType.float32, rank=4, ...],
        kv: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var n_ctx, row_stride = kv.dim_size(0), kv.dim_size(1)
        var layers, heads, panels = keys.dim_size(0), keys.dim_size(1), keys.dim_size(2)
        var n_state = heads * HEAD
        var source = kv.unsafe_ptr().unsafe_offset(row_stride - layers * 2 * n_state)
        var kp = keys.unsafe_ptr()
        var vp = values.unsafe_ptr()

        def work(task: Int) raises {imm}:  # task: layer * heads + head
            var k = kp.unsafe_offset(task * panels * HEAD * PANEL)
            var v = vp.unsafe_offset(task * panels * HEAD * PANEL)
            var column = (task // heads) * 2 * n_state + (task % heads) * HEAD
            for t in range(panels * PANEL):
                var row = source.unsafe_offset(min(t, n_ctx - 1) * row_stride + column)
                var live = Float32(1) if t < n_ctx else Float32(0)  # 0 blanks the padding
                var key = k.unsafe_offset((t // PANEL) * HEAD * PANEL + t % PANEL)
                for d in range(HEAD):
                    key.unsafe_offset(d * PANEL).unsafe_store(live * row.unsafe_offset(d).unsafe_load())
                for d in range(0, HEAD, WIDTH):
                    var value = v.unsafe_offset(((d // PANEL) * panels * PANEL + t) * PANEL + d % PANEL)
                    value.unsafe_store(live * row.unsafe_offset(n_state + d).unsafe_load[width=WIDTH]())

        sync_parallelize(work, layers * heads)


@extensibility.register("whisper_self_attention")
struct SelfAttention:
    """The encoder's self-attention, without a mask.

    `qkv`: `(n_ctx, 3 * n_state)`, of which queries are the first third. `keys`, `values`: as `PackKeysValues` writes
    them, for one layer. `y`: `(n_ctx, n_state)`, the heads side by side.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        qkv: InputTensor[dtype=DType.float32, rank=2, ...],
        keys: InputTensor[dtype=DType.float32, rank=4, ...],
        values: InputTensor[dtype=DType.float32, rank=4, ...],
        ctx: DeviceContext,
    ) raises:
        var n_ctx, n_state = y.dim_size(0), y.dim_size(1)
        var panels = keys.dim_size(2)
        var blocks = ceildiv(n_ctx, QUERIES)
        var qp = qkv.unsafe_ptr()
        var kp = keys.unsafe_ptr()
        var vp = values.unsafe_ptr()
        var yp = y.unsafe_ptr()

        def work(task: Int) raises {imm}:
            var head = task // blocks
            var first = (task % blocks) * QUERIES
            var size = panels * HEAD * PANEL
            var k = kp.unsafe_offset(head * size)
            var v = vp.unsafe_offset(head * size)
            var q = qp.unsafe_offset(first * 3 * n_state + head * HEAD)
            var out = yp.unsafe_offset(first * n_state + head * HEAD)
            attend_block(min(QUERIES, n_ctx - first), n_ctx, panels, q, 3 * n_state, k, v, out, n_state)

        sync_parallelize(work, keys.dim_size(1) * blocks)


@no_inline
def attend_block(
    rows: Int,
    live: Int,
    slots: Int,
    q: Pointer[Float32, ...],
    q_stride: Int,
    k: Pointer[Float32, ...],
    v: Pointer[Float32, ...],
    y: Pointer[mut=True, Float32, ...],
    y_stride: Int,
):
    """Writes one head's output for up to `QUERIES` queries, as `attend` does.

    A block of keys and values is read once for all tiles of queries, and nothing grows with the number of keys: of
    each query the highest score so far, the sum of its weights and its output are kept, and scaled down when a higher
    score is met. Keys, values and a tile's scores stay in the first-level cache.
    """
    comptime KEYS = COLUMNS
    var tiles = ceildiv(rows, TALL)
    var queries_list = List[Float32](unsafe_uninit_length=QUERIES * DISTANCE)
    var queries = queries_list.unsafe_ptr()  # scaled, which is exact, (tiles, TALL, DISTANCE)
    var keys_list = List[Float32](unsafe_uninit_length=HEAD * KEYS)
    var keys = keys_list.unsafe_ptr()  # (HEAD, KEYS)
    var values_list = List[Float32](unsafe_uninit_length=HEAD * KEYS)
    var values = values_list.unsafe_ptr()  # (HEAD // COLUMNS, KEYS, COLUMNS)
    var scores_list = List[Float32](unsafe_uninit_length=TALL * KEYS)
    var scores = scores_list.unsafe_ptr()  # (TALL, KEYS)
    var weights_list = List[Float32](unsafe_uninit_length=TALL * DISTANCE)
    var weights = weights_list.unsafe_ptr()  # (TALL, DISTANCE)
    var mixed_list = List[Float32](length=QUERIES * HEAD, fill=0)
    var mixed = mixed_list.unsafe_ptr()  # (tiles, HEAD // COLUMNS, TALL, COLUMNS)
    var tops_list = List[Float32](length=QUERIES, fill=LOWEST)
    var tops = tops_list.unsafe_ptr()
    var sums_list = List[Float32](length=QUERIES * WIDTH, fill=0)
    var sums = sums_list.unsafe_ptr()  # (QUERIES, WIDTH)
    for row in range(tiles * TALL):
        var source = q.unsafe_offset(min(row, rows - 1) * q_stride)
        for d in range(0, HEAD, WIDTH):
            queries.unsafe_offset(row * DISTANCE + d).unsafe_store(
                source.unsafe_offset(d).unsafe_load[width=WIDTH]() * SCALE
            )
    var panels = ceildiv(live, PANEL)
    for first in range(0, panels * PANEL, KEYS):
        var count = min(KEYS, panels * PANEL - first)
        comptime for part in range(KEYS // PANEL):
            var panel = min(first // PANEL + part, panels - 1)  # keys past the last count for nothing
            spread(HEAD, k.unsafe_offset(panel * HEAD * PANEL), keys.unsafe_offset(part * PANEL))
        comptime for part in range(HEAD // PANEL):
            comptime target = part * PANEL // COLUMNS * KEYS * COLUMNS + part * PANEL % COLUMNS
            spread(count, v.unsafe_offset((part * slots * PANEL + first) * PANEL), values.unsafe_offset(target))
        for tile in range(tiles):
            add_product(HEAD, True, queries.unsafe_offset(tile * TALL * DISTANCE), keys, scores)
            for r in range(TALL):
                var row = tile * TALL + r
                var score = scores.unsafe_offset(r * KEYS)
                for t in range(max(live - first, 0), KEYS):
                    score.unsafe_offset(t).unsafe_store(LOWEST)
                var top = tops.unsafe_offset(row)
                var highest = largest(KEYS, score)
                if highest > top.unsafe_load():
                    var scale = exp_nonpositive(Vector(top.unsafe_load() - highest))
                    top.unsafe_store(highest)
                    var sum = sums.unsafe_offset(row * WIDTH)
                    sum.unsafe_store(sum.unsafe_load[width=WIDTH]() * scale)
                    for d in range(0, HEAD, WIDTH):
                        var at = ((tile * (HEAD // COLUMNS) + d // COLUMNS) * TALL + r) * COLUMNS + d % COLUMNS
                        var part = mixed.unsafe_offset(at)
                        part.unsafe_store(part.unsafe_load[width=WIDTH]() * scale)
                var total = sums.unsafe_offset(row * WIDTH).unsafe_load[width=WIDTH]()
                comptime for t in range(0, KEYS, WIDTH):
                    var weight = exp_nonpositive(score.unsafe_offset(t).unsafe_load[width=WIDTH]() - top.unsafe_load())
                    weights.unsafe_offset(r * DISTANCE + t).unsafe_store(weight)
                    total += weight
                sums.unsafe_offset(row * WIDTH).unsafe_store(total)
            comptime for part in range(HEAD // COLUMNS):
                var sum = mixed.unsafe_offset((tile * (HEAD // COLUMNS) + part) * TALL * COLUMNS)
                add_product(count, False, weights, values.unsafe_offset(part * KEYS * COLUMNS), sum)
    for row in range(rows):
        var share = 1 / sums.unsafe_offset(row * WIDTH).unsafe_load[width=WIDTH]().reduce_add()
        for d in range(0, HEAD, WIDTH):
            var part = (row // TALL * (HEAD // COLUMNS) + d // COLUMNS) * TALL + row % TALL
            var value = mixed.unsafe_offset(part * COLUMNS + d % COLUMNS).unsafe_load[width=WIDTH]()
            y.unsafe_offset(row * y_stride + d).unsafe_store(value * share)


@always_inline
def largest(n: Int, row: Pointer[Float32, ...]) -> Float32:
    """Returns the largest of `row` `(n,)`; `n` is a multiple of `PANEL`."""
    var tops = Array[Vector, VECTORS](fill=Vector(LOWEST))
    for t in range(0, n, PANEL):
        comptime for c in range(VECTORS):
            tops[c] = max(tops[c], row.unsafe_offset(t + c * WIDTH).unsafe_load[width=WIDTH]())
    comptime for c in range(1, VECTORS):
        tops[0] = max(tops[0], tops[c])
    return tops[0].reduce_max()


@no_inline
def attend[
    keep: Bool, stored: DType
](
    first: Int,
    last: Int,
    shared: Int,
    slots: Int,
    own: Pointer[Int, ...],
    q: Pointer[Float32, ...],
    q_stride: Int,
    k: Pointer[Scalar[stored], ...],
    v: Pointer[Scalar[stored], ...],
    scores: Pointer[mut=True, Float32, ...],
    y: Pointer[mut=True, Float32, ...],
    y_stride: Int,
    kept: Pointer[mut=True, Float32, ...],
):
    """Writes one head's output for queries `first` to `last`.

    `q`: rows of `HEAD` values, `q_stride` apart; `y` likewise. `k`, `v`: `slots` panels as `PackKeysValues` lays
    them out, in a type that `widen` knows. The first `shared` panels are all queries', and read once for a tile of
    them. The panels after these are a query's own. `own`: `(last, 2)`, how far from `k` and from `v` a query's own are,
    and how many positions it attends to. `scores`: scratch for `ROWS * slots * PANEL` values. With `keep`, the scaled
    scores before the softmax are copied to `kept` `(last, positions)`.
    """
    var stride = slots * PANEL
    var i = first
    comptime for tile in range(len(TILES)):
        comptime rows = TILES[tile]
        while needs_tile(rows, stored) and i + rows <= last:
            # scores = queries @ keys, (rows, stride)
            for p in range(shared):
                var panel = k.unsafe_offset(p * HEAD * PANEL)
                var sums = multiply[rows](q.unsafe_offset(i * q_stride), q_stride, panel, HEAD)
                comptime for r in range(rows):
                    comptime for c in range(VECTORS):
                        scores.unsafe_offset(r * stride + p * PANEL + c * WIDTH).unsafe_store(sums[r * VECTORS + c])

            # weights = exp(SCALE * (scores - highest)), in place
            var shares = Array[Float32, rows](fill=0)  # 1 / sum of a row's weights
            for r in range(rows):
                var distance = own.unsafe_offset(2 * (i + r)).unsafe_load()
                var live = own.unsafe_offset(2 * (i + r) + 1).unsafe_load()
                var n_keys = ceildiv(live, PANEL) * PANEL
                var row = scores.unsafe_offset(r * stride)
                for t in range(shared * PANEL, n_keys, PANEL):
                    var panel = k.unsafe_offset(distance + t * HEAD)
                    var sums = multiply[1](q.unsafe_offset((i + r) * q_stride), 0, panel, HEAD)
                    comptime for c in range(VECTORS):
                        row.unsafe_offset(t + c * WIDTH).unsafe_store(sums[c])
                comptime if keep:
                    var kept_row = kept.unsafe_offset((i + r) * live)
                    for t in range(live):
                        kept_row.unsafe_offset(t).unsafe_store(row.unsafe_offset(t).unsafe_load() * SCALE)
                for t in range(live, n_keys):
                    row.unsafe_offset(t).unsafe_store(LOWEST)  # padding, whose weight is 1e-38 of a value of 0
                shares[r] = 1 / exponentiate(n_keys, row)

            # output = weights @ values * shares, (rows, HEAD)
            comptime for p in range(HEAD_PANELS):
                var panel = v.unsafe_offset(p * slots * PANEL * PANEL)
                var sums = multiply[rows](scores, stride, panel, shared * PANEL)
                for r in range(rows):
                    var distance = own.unsafe_offset(2 * (i + r)).unsafe_load()
                    var live = own.unsafe_offset(2 * (i + r) + 1).unsafe_load()
                    var weights = scores.unsafe_offset(r * stride + shared * PANEL)
                    var rest = panel.unsafe_offset(distance + shared * PANEL * PANEL)
                    var others = multiply[1](weights, 0, rest, (ceildiv(live, PANEL) - shared) * PANEL)
                    comptime for c in range(VECTORS):
                        var at = (i + r) * y_stride + p * PANEL + c * WIDTH
                        y.unsafe_offset(at).unsafe_store((sums[r * VECTORS + c] + others[c]) * shares[r])
            i += rows


@always_inline
def exponentiate(n: Int, row: Pointer[mut=True, Float32, ...]) -> Float32:
    """Replaces `row` `(n,)` by `exp(SCALE * (row - max(row)))` and returns its sum; `n` is a multiple of `PANEL`."""
    var top = largest(n, row) * SCALE
    var sums = Array[Vector, VECTORS](fill=Vector(0))
    for t in range(0, n, PANEL):
        comptime for c in range(VECTORS):
            var at = row.unsafe_offset(t + c * WIDTH)
            var weights = exp_nonpositive(at.unsafe_load[width=WIDTH]().fma(Vector(SCALE), Vector(-top)))
            at.unsafe_store(weights)
            sums[c] += weights
    comptime for c in range(1, VECTORS):
        sums[0] += sums[c]
    return sums[0].reduce_add()


@always_inline
def exp_nonpositive(x: Vector) -> Vector:
    """Returns `exp(max(x, -87))` for `x <= 0`, within 1.4 * 2**-24 of the exact value, relatively.

    `x = n * log(2) + r` with a whole `n` and `|r| <= log(2) / 2` (Cody and Waite's reduction, log(2) in two parts),
    so `exp(x) = 2**n * exp(r)`. The polynomial is the minimax one of its degree for exp(r): relative error 3e-9.
    """
    comptime ROUNDING = Float32(12582912)  # 1.5 * 2**23: a sum with it has no bits left for a fraction
    var clamped = max(x, Vector(-87))  # 2**n stays a normal number
    var rounded = clamped.fma(Vector(1.4426950408889634), Vector(ROUNDING))  # n, in the low bits
    var n = rounded - ROUNDING
    var r = n.fma(Vector(-0.693145751953125), clamped)
    r = n.fma(Vector(-1.4286068203094172e-6), r)
    var p = Vector(0.001381459878757596)
    p = p.fma(r, Vector(0.008368716575205326))
    p = p.fma(r, Vector(0.04166838899254799))
    p = p.fma(r, Vector(0.1666652113199234))
    p = p.fma(r, Vector(0.4999999403953552))
    p = (r * r).fma(p, r) + 1  # exp(r)
    var power = (rounded.to_bits[DType.uint32]() << 23) + 0x3F800000  # the bits of 2**n
    return p * Vector(from_bits=power)
