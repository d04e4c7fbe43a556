"""`y = x @ w + b` with optional GELU and residual, for projections and convolutions of width 3."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.math import ceildiv, erf

from .tile import PANEL, ROWS, TILES, VECTORS, WIDTH, multiply, tile_vectors

comptime BLOCK = 8 * ROWS
"""Rows of one task: its part of `x` stays in the second-level cache while all panels pass over it."""


@extensibility.register("whisper_linear")
struct Linear:
    """Matrix product over packed weights, with bias and epilogue.

    `x`: `(rows, columns)`. `w`: `(panels, depth, PANEL)`, float32 or float16, zero-padded past column `n`.
    `b`: `(n,)`. `y`: `(m, n)`. Row `i` of the product reads `depth` contiguous values of `x` from row
    `i * stride` on: with `depth = 3 * columns` that is a convolution of width 3 over a padded sequence.
    `gelu`: exact GELU after the bias. `residual`: adds `r` `(m, n)`, which is not read otherwise.
    `padded`: `y` is `(m + 2, n)` with a row of zeros at both ends.
    """

    @staticmethod
    def execute[
        target: StaticString, weight: DType, stride: Int, gelu: Bool, residual: Bool, padded: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        w: InputTensor[dtype=weight, rank=3, ...],
        b: InputTensor[dtype=DType.float32, rank=1, ...],
        r: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var m = y.dim_size(0) - 2 * Int(padded)
        var n = y.dim_size(1)
        var depth = w.dim_size(1)
        var row_stride = stride * x.dim_size(1)
        var xp = x.unsafe_ptr()
        var wp = w.unsafe_ptr()
        var bp = b.unsafe_ptr()
        var rp = r.unsafe_ptr()
        var yp = y.unsafe_ptr()

        comptime if padded:
            for c in range(n):
                yp.unsafe_offset(c).unsafe_store(Float32(0))
                yp.unsafe_offset((m + 1) * n + c).unsafe_store(Float32(0))
            yp = yp.unsafe_offset(n)

        def work(task: Int) raises {imm}:
            var end = min((task + 1) * BLOCK, m)
            for p in range(ceildiv(n, PANEL)):
                write_panel[gelu, residual](task * BLOCK, end, p, depth, n, row_stride, xp, wp, bp, rp, yp)

        sync_parallelize(work, ceildiv(m, BLOCK))


@always_inline
def write_panel[
    gelu: Bool, residual: Bool, weight: DType
](
    start: Int,
    end: Int,
    p: Int,
    depth: Int,
    n: Int,
    row_stride: Int,
    x: Pointer[Float32, ...],
    w: Pointer[Scalar[weight], ...],
    b: Pointer[Float32, ...],
    r: Pointer[Float32, ...],
    y: Pointer[mut=True, Float32, ...],
):
    """Writes rows `start` to `end` of panel `p`, the columns `p * PANEL` to `(p + 1) * PANEL`, in tiles."""
    var i = start
    comptime for tile in range(len(TILES)):
        comptime rows = TILES[tile]
        comptime vectors = tile_vectors(rows)
        while i + rows <= end:
            comptime for part in range(VECTORS // vectors):
                comptime first = part * vectors * WIDTH  # column of the panel
                var sums = multiply[rows, vectors](
                    x.unsafe_offset(i * row_stride), row_stride, w.unsafe_offset(p * depth * PANEL + first), depth
                )
                comptime for row in range(rows):
                    comptime for v in range(vectors):
                        var column = p * PANEL + first + v * WIDTH
                        var at = (i + row) * n + column
                        if column + WIDTH <= n:
                            var value = sums[row * vectors + v] + b.unsafe_offset(column).unsafe_load[width=WIDTH]()
                            comptime if gelu:
                                value = exact_gelu[WIDTH](value)
                            comptime if residual:
                                value += r.unsafe_offset(at).unsafe_load[width=WIDTH]()
                            y.unsafe_offset(at).unsafe_store(value)
                        else:  # the last panel's padding has no place in `y`
                            for lane in range(n - column):
                                var value = sums[row * vectors + v][lane] + b.unsafe_offset(column + lane).unsafe_load()
                                comptime if gelu:
                                    value = exact_gelu[1](value)
                                comptime if residual:
                                    value += r.unsafe_offset(at + lane).unsafe_load()
                                y.unsafe_offset(at + lane).unsafe_store(value)
            i += rows


@always_inline
def exact_gelu[width: Int](x: SIMD[DType.float32, width]) -> SIMD[DType.float32, width]:
    """Returns GELU by the error function, PyTorch's default, not the tanh approximation."""
    comptime SQRT_HALF = 0.70710678118654752440
    return 0.5 * x * (1 + erf(x * SQRT_HALF))
