"""The register tile that every matrix product of a CPU is made of.

A weight matrix `(n_out, depth)` is packed into panels `(ceil(n_out / PANEL), depth, PANEL)`: for each
depth the `PANEL` columns that a tile needs next lie side by side, so the inner loop reads memory in order.
"""

from std.collections import Array
from std.sys import PrefetchOptions, prefetch, simd_width_of, size_of

comptime WIDTH = simd_width_of[DType.float32]()
"""Float32 lanes of one vector register: 16 with AVX-512, 8 with AVX2."""

comptime PANEL = 32
"""Columns of one packed panel, two registers of AVX-512; `weights.py` packs by the same number."""

comptime VECTORS = PANEL // WIDTH
"""Vectors of one row of a panel: 2 with AVX-512, 4 with AVX2."""

comptime REGISTERS = 16 if WIDTH == 8 else 32
"""Vector registers: 16 with AVX2, 32 with AVX-512 and NEON."""

comptime ROWS = 12
"""Rows of the largest tile, those of a step that confirms a whole draft."""

comptime REGISTER_ROWS = 6 if WIDTH == 8 else 12
"""Rows of it that registers hold, whose accumulators are rows * 2 vectors: 24 of 32 registers, 12 of AVX2's 16, so
that the operands have registers too. On AVX2 a tile of 3 * 4 needs 17 and spills: it reaches 43 % of the limit of
multiply-adds, this one 98 %."""

comptime TURN = 32
"""Depths of a panel that one part of a tile takes before the next part's turn. If a part took them all, memory would
wait while the others read them again."""

comptime AHEAD = 96
"""Depths of a panel that are fetched before they are needed, 6 KB of float16: few rows wait for memory, and the
processor's own prefetching stops at each page of 4 KB."""

comptime CACHE_LINE = 64
"""Bytes that are fetched at once."""

comptime LOWEST = Float32(-1e30)
"""Stands for minus infinity: below every score and logit, and finite, so that differences are no NaN."""

comptime TILES = (ROWS, 6, 5, 3, 1) if WIDTH == 16 else (ROWS, 6, 5, 2, 1)
"""Rows of the tiles that cover any number of rows, largest first: steps of few rows read each weight once."""

comptime TALL = 6
"""Rows of the tile of products of many rows, an encoder's: `add_product`."""

comptime BROAD = 4 if REGISTERS == 32 else 2
"""Vectors of its row: 24 accumulators of 32 registers, 12 of 16. The more vectors share a value of a row, the fewer
loads there are between multiply-adds: 8 % of an encoder's time against a tile of 12 rows and two vectors."""

comptime COLUMNS = max(PANEL, BROAD * WIDTH)
"""Columns that a task of many rows multiplies at a time: 64 with AVX-512, 32 with AVX2."""

comptime DEPTHS = 4096 // COLUMNS
"""Depths that a task multiplies at a time: that much of the weights, 16 KB, stays in the first-level cache for all
tiles, also where two hardware threads share it."""

comptime UNROLLED = 4
"""Depths of a round of the inner loop: with one, counting takes 3 of a depth's 23 instructions, and a core whose other
thread is busy is bound by their number."""

comptime DISTANCE = DEPTHS + 16
"""Distance of a packed tile's rows: an odd number of cache lines, so that rows are in different sets of the cache."""

comptime SCALE_ROWS = size_of[DType.float32]()
"""Rows of bytes that hold a scale for each of a panel's columns."""

comptime Vector = SIMD[DType.float32, WIDTH]
comptime Accumulators[rows: Int, vectors: Int] = Array[Vector, rows * vectors]


def needs_tile(rows: Int, stored: DType) -> Bool:
    """Returns whether products with type `stored` have tiles of `rows`: bytes are read for one row at a time."""
    return rows == 1 or (stored != DType.uint8 and stored != DType.int8)


def scale_rows(stored: DType) -> Int:
    """Returns the rows of a panel in type `stored` that hold its columns' scales, in float32; whole bytes have them."""
    return SCALE_ROWS if stored == DType.int8 else 0


def tile_vectors(rows: Int) -> Int:
    """Returns the vectors of a row that registers hold: a whole panel's if they suffice."""
    return VECTORS if (rows + 1) * VECTORS + 1 <= REGISTERS else 2


@always_inline
def widen[dtype: DType, width: Int](values: SIMD[dtype, width]) -> SIMD[DType.float32, width]:
    """Returns `values` in float32, exactly; a `uint8` is the upper byte of a float16 whose lower one is zero."""
    comptime if dtype == DType.uint8:
        return SIMD[DType.float16, width](from_bits=values.cast[DType.uint16]() << 8).cast[DType.float32]()
    else:
        return values.cast[DType.float32]()


@always_inline
def multiply[
    rows: Int, weight: DType
](
    a: Pointer[Float32, ...], row_stride: Int, panel: Pointer[Scalar[weight], ...], depth: Int
) -> Accumulators[rows, VECTORS]:
    """Returns `a @ panel` as vectors `(rows, VECTORS)`.

    `a`: `(rows, depth)`, its rows `row_stride` apart. `panel`: `(depth, PANEL)`, in a type that `widen` takes to
    float32 exactly, in registers. A single row is summed in independent chains, because one chain waits for the
    latency of the multiply-add instead of for memory.
    """
    comptime CHAINS = 8 // VECTORS if rows == 1 else 1
    comptime held = min(rows, REGISTER_ROWS)
    comptime vectors = tile_vectors(held)
    comptime halves = VECTORS // vectors
    comptime parts = rows // held * halves
    var sums = Array[Vector, CHAINS * rows * VECTORS](fill=Vector(0))  # (CHAINS, rows, VECTORS)
    comptime if parts == 1:
        var whole = depth - depth % CHAINS
        for k in range(0, whole, CHAINS):
            comptime for c in range(CHAINS):
                fetch[PANEL](panel.unsafe_offset((k + c + AHEAD) * PANEL))
                var row = panel.unsafe_offset((k + c) * PANEL)
                add_outer[rows, VECTORS, c * VECTORS](a.unsafe_offset(k + c), row_stride, row, sums)
        for k in range(whole, depth):  # depths that CHAINS leaves over
            add_outer[rows, VECTORS, 0](a.unsafe_offset(k), row_stride, panel.unsafe_offset(k * PANEL), sums)
    else:
        for start in range(0, depth, TURN):
            var ahead = panel.unsafe_offset((start + AHEAD) * PANEL)
            comptime for part in range(parts):
                comptime top = part // halves * held
                comptime first = part % halves * vectors
                var left = a.unsafe_offset(top * row_stride)
                var right = panel.unsafe_offset(first * WIDTH)
                var tile = Accumulators[held, vectors](fill=Vector(0))
                comptime for i in range(held * vectors):
                    tile[i] = sums[(top + i // vectors) * VECTORS + first + i % vectors]
                for k in range(start, min(start + TURN, depth)):
                    fetch[PANEL // parts](ahead.unsafe_offset((part * TURN + k - start) * (PANEL // parts)))
                    add_outer[held, vectors, 0](left.unsafe_offset(k), row_stride, right.unsafe_offset(k * PANEL), tile)
                comptime for i in range(held * vectors):
                    sums[(top + i // vectors) * VECTORS + first + i % vectors] = tile[i]
    var total = Accumulators[rows, VECTORS](fill=Vector(0))
    comptime for i in range(rows * VECTORS):
        comptime for c in range(CHAINS):
            total[i] = total[i] + sums[c * rows * VECTORS + i]
    return total^


@always_inline
def fetch[count: Int, dtype: DType](at: Pointer[Scalar[dtype], ...]):
    """Fetches `count` values before they are needed."""
    comptime for value in range(0, count, CACHE_LINE // size_of[dtype]()):
        prefetch[PrefetchOptions().for_read().high_locality().to_data_cache()](at.unsafe_offset(value))


@always_inline
def add_outer[
    rows: Int, vectors: Int, at: Int, weight: DType, size: Int
](
    a: Pointer[Float32, ...], row_stride: Int, panel: Pointer[Scalar[weight], ...], mut sums: Array[Vector, size]
):
    """Adds the products of a column `a` `(rows,)` and a row of a panel `(vectors * WIDTH,)` to `sums` from `at` on."""
    comptime for r in range(rows):
        var left = Vector(a.unsafe_offset(r * row_stride).unsafe_load())
        comptime for v in range(vectors):
            var right = panel.unsafe_offset(v * WIDTH).unsafe_load[width=WIDTH]()
            sums[at + r * vectors + v] = left.fma(widen(right), sums[at + r * vectors + v])


@always_inline
def add_product(
    depth: Int,
    is_first: Bool,
    a: Pointer[Float32, ...],
    weights: Pointer[Float32, ...],
    sums: Pointer[mut=True, Float32, ...],
):
    """Adds the product of a packed tile `a` `(TALL, depth)` and `weights` `(depth, COLUMNS)` to `sums`.

    `is_first`: writes it instead. The rows of `a` are `DISTANCE` apart.
    """
    comptime for part in range(COLUMNS // (BROAD * WIDTH)):
        comptime first = part * BROAD * WIDTH
        var tile = Accumulators[TALL, BROAD](fill=Vector(0))
        if not is_first:
            comptime for r in range(TALL):
                comptime for v in range(BROAD):
                    var at = sums.unsafe_offset(r * COLUMNS + first + v * WIDTH)
                    tile[r * BROAD + v] = at.unsafe_load[width=WIDTH]()
        var whole = depth - depth % UNROLLED
        for start in range(0, whole, UNROLLED):
            comptime for k in range(UNROLLED):
                add_depth(start + k, first, a, weights, tile)
        for k in range(whole, depth):
            add_depth(k, first, a, weights, tile)
        comptime for r in range(TALL):
            comptime for v in range(BROAD):
                sums.unsafe_offset(r * COLUMNS + first + v * WIDTH).unsafe_store(tile[r * BROAD + v])


@always_inline
def add_depth(
    k: Int,
    first: Int,
    a: Pointer[Float32, ...],
    weights: Pointer[Float32, ...],
    mut tile: Accumulators[TALL, BROAD],
):
    """Adds depth `k`'s products with `BROAD` vectors of columns from `first` on to `tile`, for `add_product`."""
    var right = Array[Vector, BROAD](fill=Vector(0))
    comptime for v in range(BROAD):
        right[v] = weights.unsafe_offset(k * COLUMNS + first + v * WIDTH).unsafe_load[width=WIDTH]()
    comptime for r in range(TALL):
        var left = Vector(a.unsafe_offset(r * DISTANCE + k).unsafe_load())
        comptime for v in range(BROAD):
            tile[r * BROAD + v] = left.fma(right[v], tile[r * BROAD + v])


@always_inline
def copy[dtype: DType](count: Int, source: Pointer[Scalar[dtype], ...], target: Pointer[mut=True, Float32, ...]):
    """Copies `count` values as float32."""
    var body = count - count % WIDTH
    for c in range(0, body, WIDTH):
        target.unsafe_offset(c).unsafe_store(source.unsafe_offset(c).unsafe_load[width=WIDTH]().cast[DType.float32]())
    for c in range(body, count):
        target.unsafe_offset(c).unsafe_store(source.unsafe_offset(c).unsafe_load().cast[DType.float32]())


@always_inline
def spread[dtype: DType](rows: Int, panel: Pointer[Scalar[dtype], ...], target: Pointer[mut=True, Float32, ...]):
    """Copies `panel` `(rows, PANEL)` as float32 to rows that are `COLUMNS` apart."""
    for k in range(rows):
        comptime for v in range(VECTORS):
            var values = panel.unsafe_offset(k * PANEL + v * WIDTH).unsafe_load[width=WIDTH]()
            target.unsafe_offset(k * COLUMNS + v * WIDTH).unsafe_store(values.cast[DType.float32]())
