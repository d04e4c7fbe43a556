"""The register tile that every matrix product of a CPU is made of.

A weight matrix `(n_out, depth)` is packed into panels `(ceil(n_out / PANEL), depth, PANEL)`: for each
depth the `PANEL` columns that a tile needs next lie side by side, so the inner loop reads memory in order.
"""

from std.collections import Array
from std.sys import simd_width_of

comptime WIDTH = simd_width_of[DType.float32]()
"""Float32 lanes of one vector register: 16 with AVX-512, 8 with AVX2."""

comptime PANEL = 32
"""Columns of one packed panel, two registers of AVX-512; `weights.py` packs by the same number."""

comptime VECTORS = PANEL // WIDTH
"""Vectors of one row of a panel: 2 with AVX-512, 4 with AVX2."""

comptime ROWS = 6 if WIDTH == 8 else 12
"""Rows of the large tile, whose accumulators are rows * 2 vectors: 24 of the 32 registers of AVX-512 and NEON, 12 of
AVX2's 16, so that the operands have registers too. On AVX2 a tile of 3 * 4 needs 17 and spills: it reaches 43 % of the
limit of multiply-adds, this one 98 %."""

comptime FEW_ROWS = 4 if WIDTH == 16 else 2
"""Rows of the smaller tile, for the decoder's few beams and for the rows that `ROWS` leaves over."""

comptime LOWEST = Float32(-1e30)
"""Stands for minus infinity: below every score and logit, and finite, so that differences are no NaN."""

comptime TILES = (ROWS, FEW_ROWS, 1)
"""Rows of the tiles that cover any number of rows, largest first."""

comptime Vector = SIMD[DType.float32, WIDTH]
comptime Accumulators[rows: Int, vectors: Int] = Array[Vector, rows * vectors]


def tile_vectors(rows: Int) -> Int:
    """Returns the vectors of a tile's row: 2 in the large tile, else a whole panel, so that weights are read once."""
    return 2 if rows == ROWS else VECTORS


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
    var sums = Array[Vector, rows * vectors * CHAINS](fill=Vector(0))  # (CHAINS, rows, vectors)
    var whole = depth - depth % CHAINS
    for k in range(0, whole, CHAINS):
        comptime for c in range(CHAINS):
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
