"""Softmax attention over heads of 64, one head and a block of queries at a time.

Keys and values are laid out as packed panels (see `tile.mojo`), so both products of attention are the register
tile's: scores = queries @ keys over panels of `PANEL` positions, output = weights @ values over panels of columns.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.math import ceildiv, exp

from .tile import LOWEST, PANEL, ROWS, TILES, VECTORS, WIDTH, Vector, multiply

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
        while i + rows <= last:
            # scores = queries @ keys, (rows, n_keys)
            for p in range(panels):
                var panel = k.unsafe_offset(p * HEAD * PANEL)
                var sums = multiply[rows](q.unsafe_offset(i * q_stride), q_stride, panel, HEAD)
                comptime for r in range(rows):
                    comptime for c in range(VECTORS):
                        scores.unsafe_offset(r * n_keys + p * PANEL + c * WIDTH).unsafe_store(sums[r * VECTORS + c])

            # weights = softmax(scores * SCALE), in place
            for r in range(rows):
                var row = scores.unsafe_offset(r * n_keys)
                comptime if keep:
                    var kept_row = kept.unsafe_offset((i + r) * live)
                    for t in range(live):
                        kept_row.unsafe_offset(t).unsafe_store(row.unsafe_offset(t).unsafe_load() * SCALE)
                for t in range(live, n_keys):
                    row.unsafe_offset(t).unsafe_store(LOWEST)  # padding, whose weight becomes exactly 0
                softmax(n_keys, row)

            # output = weights @ values, (rows, HEAD)
            comptime for p in range(HEAD_PANELS):
                var sums = multiply[rows](scores, n_keys, v.unsafe_offset(p * slots * PANEL * PANEL), n_keys)
                comptime for r in range(rows):
                    comptime for c in range(VECTORS):
                        var at = (i + r) * y_stride + p * PANEL + c * WIDTH
                        y.unsafe_offset(at).unsafe_store(sums[r * VECTORS + c])
            i += rows


@always_inline
def softmax(n: Int, row: Pointer[mut=True, Float32, ...]):
    """Replaces `row` `(n,)` by the softmax of `SCALE * row`; `n` is a multiple of `WIDTH`."""
    var tops = row.unsafe_load[width=WIDTH]()
    for t in range(WIDTH, n, WIDTH):
        tops = max(tops, row.unsafe_offset(t).unsafe_load[width=WIDTH]())
    var top = tops.reduce_max()
    var sums = Vector(0)
    for t in range(0, n, WIDTH):
        var e = exp((row.unsafe_offset(t).unsafe_load[width=WIDTH]() - top) * SCALE)
        row.unsafe_offset(t).unsafe_store(e)
        sums += e
    var scale = 1 / sums.reduce_add()
    for t in range(0, n, WIDTH):
        row.unsafe_offset(t).unsafe_store(row.unsafe_offset(t).unsafe_load[width=WIDTH]() * scale)
