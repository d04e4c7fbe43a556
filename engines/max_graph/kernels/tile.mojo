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
"""Registers of one row of a panel."""

comptime ROWS = 12 if WIDTH == 16 else 3
"""Rows of one tile, so that its accumulators fit the register file: with AVX-512 12 * 2 of 32, which leaves 8
for operands; with AVX2 3 * 4 of 16."""

comptime FEW_ROWS = 4 if WIDTH == 16 else 2
"""Rows of the smaller tile, for the decoder's few beams and for the rows that `ROWS` leaves over."""

comptime LOWEST = Float32(-1e30)
"""Stands for minus infinity: below every score and logit, and finite, so that differences are no NaN."""

comptime TILES = (ROWS, FEW_ROWS, 1)
"""Rows of the tiles that cover any number of rows, largest first."""

comptime Vector = SIMD[DType.float32, WIDTH]
comptime Accumulators[rows: Int] = Array[Vector, rows * VECTORS]


@always_inline
def multiply[
    rows: Int, weight: DType
](
    a: Pointer[Float32, ...], row_stride: Int, panel: Pointer[Scalar[weight], ...], depth: Int
) -> Accumulators[rows]:
    """Returns `a @ panel`, `(rows, PANEL)`, as registers.

    `a`: `(rows, depth)`, its rows `row_stride` apart. `panel`: `(depth, PANEL)`, float32 or float16, which is
    widened exactly in registers. A single row is summed in 4 independent chains, because one chain waits for the
    latency of the multiply-add instead of for memory.
    """
    comptime CHAINS = 4 if rows == 1 else 1
    var sums = Array[Vector, rows * VECTORS * CHAINS](fill=Vector(0))  # (CHAINS, rows, VECTORS)
    var whole = depth - depth % CHAINS
    for k in range(0, whole, CHAINS):
        comptime for c in range(CHAINS):
            comptime for r in range(rows):
                var left = Vector(a.unsafe_offset(r * row_stride + k + c).unsafe_load())
                comptime for v in range(VECTORS):
                    var right = panel.unsafe_offset((k + c) * PANEL + v * WIDTH).unsafe_load[width=WIDTH]()
                    comptime at = (c * rows + r) * VECTORS + v
                    sums[at] = left.fma(right.cast[DType.float32](), sums[at])
    for k in range(whole, depth):  # depths that CHAINS leaves over
        comptime for r in range(rows):
            var left = Vector(a.unsafe_offset(r * row_stride + k).unsafe_load())
            comptime for v in range(VECTORS):
                var right = panel.unsafe_offset(k * PANEL + v * WIDTH).unsafe_load[width=WIDTH]()
                sums[r * VECTORS + v] = left.fma(right.cast[DType.float32](), sums[r * VECTORS + v])
    var total = Accumulators[rows](fill=Vector(0))  # (rows, VECTORS)
    comptime for i in range(rows * VECTORS):
        comptime for c in range(CHAINS):
            total[i] = total[i] + sums[c * rows * VECTORS + i]
    return total^
