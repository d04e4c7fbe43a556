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

from .tile import LOWEST, PANEL, ROWS, TILES, VECTORS, WIDTH, Vector, multiply, tile_vectors

comptime HEAD = 64
"""Width of a head in every Whisper checkpoint."""

comptime HEAD_PANELS = HEAD // PANEL
"""Panels of one head's columns."""

comptime SCALE = Float32(0.125)
"""1 / sqrt(HEAD)."""

comptime QUERIES = 8 * ROWS
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
                    var value = v.unsafe_offset(((d // PANEL) * panels * PANEL + t) * PANEL + d % PANEL)
                    value.unsafe_store(live * row.unsafe_offset(n_state + d).unsafe_load())

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
            var last = min(first + QUERIES, n_ctx)
            var size = panels * HEAD * PANEL
            var k = kp.unsafe_offset(head * size)
            var v = vp.unsafe_offset(head * size)
            var q = qp.unsafe_offset(head * HEAD)
            var out = yp.unsafe_offset(head * HEAD)
            var scratch = List[Float32](unsafe_uninit_length=ROWS * panels * PANEL)  # scores of a tile
            var scores = scratch.unsafe_ptr()
            var unused = scores.as_unsafe_any_origin()
            attend[False](first, last, n_ctx, panels, q, 3 * n_state, k, v, scores, out, n_state, unused)

        sync_parallelize(work, keys.dim_size(1) * blocks)


@always_inline
def attend[
    keep: Bool
](
    first: Int,
    last: Int,
    live: Int,
    slots: Int,
    q: Pointer[Float32, ...],
    q_stride: Int,
    k: Pointer[Float32, ...],
    v: Pointer[Float32, ...],
    scores: Pointer[mut=True, Float32, ...],
    y: Pointer[mut=True, Float32, ...],
    y_stride: Int,
    kept: Pointer[mut=True, Float32, ...],
):
    """Writes one head's output for queries `first` to `last`.

    `q`: rows of `HEAD` values, `q_stride` apart; `y` likewise. `k`, `v`: `slots` panels as `PackKeysValues` lays
    them out, of which the first `live` positions count. `scores`: scratch for `ROWS * slots * PANEL` values. With
    `keep`, the scaled scores before the softmax are copied to `kept` `(last, live)`.
    """
    var panels = ceildiv(live, PANEL)
    var n_keys = panels * PANEL
    var i = first
    comptime for tile in range(len(TILES)):
        comptime rows = TILES[tile]
        comptime vectors = tile_vectors(rows)
        comptime parts = VECTORS // vectors
        while i + rows <= last:
            # scores = queries @ keys, (rows, n_keys)
            for p in range(panels):
                comptime for part in range(parts):
                    var column = part * vectors * WIDTH
                    var panel = k.unsafe_offset(p * HEAD * PANEL + column)
                    var sums = multiply[rows, vectors](q.unsafe_offset(i * q_stride), q_stride, panel, HEAD)
                    comptime for r in range(rows):
                        comptime for c in range(vectors):
                            var at = r * n_keys + p * PANEL + column + c * WIDTH
                            scores.unsafe_offset(at).unsafe_store(sums[r * vectors + c])

            # weights = exp(SCALE * (scores - highest)), in place
            var shares = Array[Float32, rows](fill=0)  # 1 / sum of a row's weights
            for r in range(rows):
                var row = scores.unsafe_offset(r * n_keys)
                comptime if keep:
                    var kept_row = kept.unsafe_offset((i + r) * live)
                    for t in range(live):
                        kept_row.unsafe_offset(t).unsafe_store(row.unsafe_offset(t).unsafe_load() * SCALE)
                for t in range(live, n_keys):
                    row.unsafe_offset(t).unsafe_store(LOWEST)  # padding, whose weight is 1e-38 of a value of 0
                shares[r] = 1 / exponentiate(n_keys, row)

            # output = weights @ values * shares, (rows, HEAD)
            comptime for p in range(HEAD_PANELS):
                comptime for part in range(parts):
                    comptime column = part * vectors * WIDTH
                    var panel = v.unsafe_offset(p * slots * PANEL * PANEL + column)
                    var sums = multiply[rows, vectors](scores, n_keys, panel, n_keys)
                    comptime for r in range(rows):
                        comptime for c in range(vectors):
                            var at = (i + r) * y_stride + p * PANEL + column + c * WIDTH
                            y.unsafe_offset(at).unsafe_store(sums[r * vectors + c] * shares[r])
            i += rows


@always_inline
def exponentiate(n: Int, row: Pointer[mut=True, Float32, ...]) -> Float32:
    """Replaces `row` `(n,)` by `exp(SCALE * (row - max(row)))` and returns its sum; `n` is a multiple of `PANEL`."""
    var tops = Array[Vector, VECTORS](fill=Vector(LOWEST))
    for t in range(0, n, PANEL):
        comptime for c in range(VECTORS):
            tops[c] = max(tops[c], row.unsafe_offset(t + c * WIDTH).unsafe_load[width=WIDTH]())
    comptime for c in range(1, VECTORS):
        tops[0] = max(tops[0], tops[c])
    var top = tops[0].reduce_max() * SCALE
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
