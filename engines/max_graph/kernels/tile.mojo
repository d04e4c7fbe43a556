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

comptime ROWS = 6 if WIDTH == 8 else 12
"""Rows of the large tile, whose accumulators are rows * 2 vectors: 24 of 32 registers, 12 of AVX2's 16, so that the
operands have registers too. On AVX2 a tile of 3 * 4 needs 17 and spills: it reaches 43 % of the
limit of multiply-adds, this one 98 %."""

comptime AHEAD = 96
"""Depths of a panel that are fetched before they are needed, 6 KB of float16: few rows wait for memory, and the
processor's own prefetching stops at each page of 4 KB."""

comptime CACHE_LINE = 64
"""Bytes that are fetched at once."""

comptime LOWEST = Float32(-1e30)
"""Stands for minus infinity: below every score and logit, and finite, so that differences are no NaN."""

comptime TILES = (ROWS, 5, 3, 1) if WIDTH == 16 else (ROWS, 4, 2, 1)
"""Rows of the tiles that cover any number of rows, largest first; 5 are the beams of most beam searches."""

comptime Vector = SIMD[DType.float32, WIDTH]
comptime Accumulators[rows: Int, vectors: Int] = Array[Vector, rows * vectors]


def tile_vectors(rows: Int) -> Int:
    """Returns the vectors of a tile's row: a whole panel if registers suffice, so that weights are read once."""
    return VECTORS if (rows + 1) * VECTORS + 1 <= REGISTERS else 2


@always_inline
def multiply[
    rows: Int, vectors: Int, weight: DType
](
    a: Pointer[Float32, ...], row_stride: Int, panel: Pointer[Scalar[weight], ...], depth: Int
) -> Accumulators[rows, vectors]:
    """Returns the first `vectors * WIDTH` columns of `a @ panel` as registers `(rows, vectors)`.

    `a`: `(rows, depth)`, its rows `row_stride` apart. `panel`: `(depth, PANEL)`, float32 or float16, which is
    widened exactly in registers; a pointer into its first row begins at a later column. A single row is summed in
    independent chains, because one chain waits for the latency of the multiply-add instead of for memory.
    """
    comptime CHAINS = 8 // vectors if rows == 1 else 1
    comptime PER_LINE = CACHE_LINE // size_of[weight]()  # values of a cache line
    var sums = Array[Vector, rows * vectors * CHAINS](fill=Vector(0))  # (CHAINS, rows, vectors)
    var whole = depth - depth % CHAINS
    for k in range(0, whole, CHAINS):
        comptime for c in range(CHAINS):
            comptime for line in range(PANEL // PER_LINE):
                var ahead = panel.unsafe_offset((k + c + AHEAD) * PANEL + line * PER_LINE)
                prefetch[PrefetchOptions().for_read().high_locality().to_data_cache()](ahead)
            comptime for r in range(rows):
                var left = Vector(a.unsafe_offset(r * row_stride + k + c).unsafe_load())
                comptime for v in range(vectors):
                    var right = panel.unsafe_offset((k + c) * PANEL + v * WIDTH).unsafe_load[width=WIDTH]()
                    comptime at = (c * rows + r) * vectors + v
                    sums[at] = left.fma(right.cast[DType.float32](), sums[at])
    for k in range(whole, depth):  # depths that CHAINS leaves over
        comptime for r in range(rows):
            var left = Vector(a.unsafe_offset(r * row_stride + k).unsafe_load())
            comptime for v in range(vectors):
                var right = panel.unsafe_offset(k * PANEL + v * WIDTH).unsafe_load[width=WIDTH]()
                sums[r * vectors + v] = left.fma(right.cast[DType.float32](), sums[r * vectors + v])
    var total = Accumulators[rows, vectors](fill=Vector(0))  # (rows, vectors)
    comptime for i in range(rows * vectors):
        comptime for c in range(CHAINS):
            total[i] = total[i] + sums[c * rows * vectors + i]
    return total^
