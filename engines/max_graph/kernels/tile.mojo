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

comptime Vector = SIMD[DType.float32, WIDTH]
comptime Accumulators[rows: Int] = Array[Vector, rows * VECTORS]


@always_inline
def multiply[
    rows: Int
](a: Pointer[Float32, ...], row_stride: Int, panel: Pointer[Float32, ...], depth: Int) -> Accumulators[rows]:
    """Returns `a @ panel`: `a` is `(rows, depth)` with `row_stride`, `panel` `(depth, PANEL)`."""
    var sums = Accumulators[rows](fill=Vector(0))
    for k in range(depth):
        comptime for r in range(rows):
            var left = Vector(a.unsafe_offset(r * row_stride + k).unsafe_load())
            comptime for v in range(VECTORS):
                var right = panel.unsafe_offset(k * PANEL + v * WIDTH).unsafe_load[width=WIDTH]()
                sums[r * VECTORS + v] = left.fma(right, sums[r * VECTORS + v])
    return sums^
