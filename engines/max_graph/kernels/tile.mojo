"""The register tile that every matrix product here is made of."""

from std.collections import Array
from std.sys import simd_width_of

comptime WIDTH = simd_width_of[DType.float32]()
"""Float32 lanes of one vector register: 16 with AVX-512, 8 with AVX2."""

comptime PANEL = 32
"""Columns of one packed panel; `weights.py` packs by the same number."""

comptime VECTORS = PANEL // WIDTH

comptime ROWS = 12 if WIDTH == 16 else 3
"""Rows of one tile: with AVX-512 its 24 accumulators leave 8 registers for operands."""

comptime FEW_ROWS = 4 if WIDTH == 16 else 2
"""Rows of the smaller tile, for beams and for what is left over."""

comptime Vector = SIMD[DType.float32, WIDTH]
comptime Accumulators[rows: Int] = Array[Vector, rows * VECTORS]


@always_inline
def multiply[
    rows: Int, weight: DType
](
    a: Pointer[Float32, ...], row_stride: Int, panel: Pointer[Scalar[weight], ...], depth: Int
) -> Accumulators[rows]:
    """Returns `a @ panel`: `a` is `(rows, depth)` with `row_stride`, `panel` `(depth, PANEL)`.

    Float16 weights are widened in registers, which is exact. Few rows are summed in several
    chains, since one chain would wait for the adder rather than for memory.
    """
    comptime CHAINS = 4 if rows == 1 else 1
    var sums = Array[Vector, rows * VECTORS * CHAINS](fill=Vector(0))
    var whole = depth - depth % CHAINS
    for k in range(0, whole, CHAINS):
        comptime for c in range(CHAINS):
            comptime for r in range(rows):
                var left = Vector(a.unsafe_offset(r * row_stride + k + c).unsafe_load())
                comptime for v in range(VECTORS):
                    var right = panel.unsafe_offset((k + c) * PANEL + v * WIDTH).unsafe_load[width=WIDTH]()
                    comptime at = (c * rows + r) * VECTORS + v
                    sums[at] = left.fma(right.cast[DType.float32](), sums[at])
    for k in range(whole, depth):
        comptime for r in range(rows):
            var left = Vector(a.unsafe_offset(r * row_stride + k).unsafe_load())
            comptime for v in range(VECTORS):
                var right = panel.unsafe_offset(k * PANEL + v * WIDTH).unsafe_load[width=WIDTH]()
                sums[r * VECTORS + v] = left.fma(right.cast[DType.float32](), sums[r * VECTORS + v])
    var total = Accumulators[rows](fill=Vector(0))
    comptime for i in range(rows * VECTORS):
        comptime for c in range(CHAINS):
            total[i] = total[i] + sums[c * rows * VECTORS + i]
    return total^
