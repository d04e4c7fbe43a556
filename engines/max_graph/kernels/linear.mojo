"""`y = x @ w + b` with optional GELU and residual, for projections and convolutions of width 3."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.math import ceildiv, erf

from .amx import (
    LEFT,
    SPAN,
    STEP,
    TILE,
    Bits,
    add_step,
    align,
    begin,
    clear_sums,
    end,
    pack_step,
    store_sums,
)
from .tile import (
    COLUMNS,
    DEPTHS,
    DISTANCE,
    PANEL,
    TALL,
    TILES,
    VECTORS,
    WIDTH,
    Vector,
    add_product,
    copy,
    multiply,
    needs_tile,
    scale_rows,
    spread,
)

comptime BLOCK = 16 * TALL
"""Rows of one task: its part of `x` stays in the second-level cache while all weights pass over it."""


@extensibility.register("whisper_linear")
struct Linear:
    """Matrix product over packed weights, with bias and epilogue.

    `x`: `(rows, columns)`. `w`: `(panels, depth, PANEL)`, float32 or float16, zero-padded past column `n`; with
    `terms`, 2 or 3, the right operand of `amx.mojo`, `(panels, steps, terms * 2 * TILE)`.
    `b`: `(n,)`. `y`: `(m, n)`. Row `i` of the product reads `depth = taps * columns` contiguous values of `x` from
    row `i * stride` on: with three taps that is a convolution of width 3 over a padded sequence.
    `gelu`: exact GELU after the bias. `residual`: adds `r` `(m, n)`, which is not read otherwise.
    `padded`: `y` is `(m + 2, n)` with a row of zeros at both ends.
    """

    @staticmethod
    def execute[
        target: StaticString,
        weight: DType,
        terms: Int,
        taps: Int,
        stride: Int,
        gelu: Bool,
        residual: Bool,
        padded: Bool,
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
        var depth = taps * x.dim_size(1)
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
            var first = task * BLOCK
            var rows = min(BLOCK, m - first)
            comptime if terms > 0:
                var bits = wp.unsafe_bitcast[Bits]()
                write_block_on_amx[terms, gelu, residual](first, rows, depth, n, row_stride, xp, bits, bp, rp, yp)
            else:
                write_block[gelu, residual](first, rows, depth, n, row_stride, xp, wp, bp, rp, yp)

        sync_parallelize(work, ceildiv(m, BLOCK))


@no_inline
def write_block[
    gelu: Bool, residual: Bool, weight: DType
](
    first: Int,
    rows: Int,
    depth: Int,
    n: Int,
    row_stride: Int,
    x: Pointer[Float32, ...],
    w: Pointer[Scalar[weight], ...],
    b: Pointer[Float32, ...],
    r: Pointer[Float32, ...],
    y: Pointer[mut=True, Float32, ...],
):
    """Writes `rows` rows from `first` on, all columns: their part of `x` is packed and each weight widened once."""
    var tiles, steps, panels = ceildiv(rows, TALL), ceildiv(depth, DEPTHS), ceildiv(n, PANEL)
    var packed_list = List[Float32](unsafe_uninit_length=tiles * steps * TALL * DISTANCE)
    var packed = packed_list.unsafe_ptr()  # the rows of `x`, (tiles, steps, TALL, DISTANCE)
    var wide_list = List[Float32](unsafe_uninit_length=DEPTHS * COLUMNS)
    var wide = wide_list.unsafe_ptr()  # weights in float32, (DEPTHS, COLUMNS)
    var sums_list = List[Float32](unsafe_uninit_length=tiles * TALL * COLUMNS)
    var sums = sums_list.unsafe_ptr()  # of the depths so far, (tiles, TALL, COLUMNS)
    for row in range(tiles * TALL):
        for step in range(steps):
            var at = ((row // TALL * steps + step) * TALL + row % TALL) * DISTANCE
            var count = min(DEPTHS, depth - step * DEPTHS)
            # Rows past the end repeat the last one; what they come to is not written.
            var source = (first + min(row, rows - 1)) * row_stride + step * DEPTHS
            copy(count, x.unsafe_offset(source), packed.unsafe_offset(at))
    for column in range(0, n, COLUMNS):
        for step in range(steps):
            var count = min(DEPTHS, depth - step * DEPTHS)
            comptime for part in range(COLUMNS // PANEL):
                # A panel that there is none of repeats the last one; it is not written either.
                var panel = min(column // PANEL + part, panels - 1)
                var source = w.unsafe_offset((panel * depth + step * DEPTHS) * PANEL)
                spread(count, source, wide.unsafe_offset(part * PANEL))
            for tile in range(tiles):
                var a = packed.unsafe_offset((tile * steps + step) * TALL * DISTANCE)
                add_product(count, step == 0, a, wide, sums.unsafe_offset(tile * TALL * COLUMNS))
        for row in range(rows):
            var y_row = y.unsafe_offset((first + row) * n)
            var r_row = r.unsafe_offset((first + row) * n if residual else 0)
            comptime for c in range(0, COLUMNS, WIDTH):
                var product = sums.unsafe_offset(row * COLUMNS + c).unsafe_load[width=WIDTH]()
                finish[gelu, residual](column + c, n, product, b, r_row, y_row)


@no_inline
def write_block_on_amx[
    terms: Int, gelu: Bool, residual: Bool
](
    first: Int,
    rows: Int,
    depth: Int,
    n: Int,
    row_stride: Int,
    x: Pointer[Float32, ...],
    w: Pointer[Bits, ...],
    b: Pointer[Float32, ...],
    r: Pointer[Float32, ...],
    y: Pointer[mut=True, Float32, ...],
):
    """Does what `write_block` does, on AMX; while it multiplies, vectors pack the next rows and finish the sums before."""
    var spans, steps, panels = ceildiv(rows, SPAN), ceildiv(depth, STEP), ceildiv(n, SPAN)
    var packed_list = List[Bits](unsafe_uninit_length=spans * steps * LEFT + 32)
    var packed = align(packed_list.unsafe_ptr())
    var sums_list = List[Float32](unsafe_uninit_length=2 * SPAN * SPAN + 16)
    var sums = align(sums_list.unsafe_ptr())  # of this product and the one before, (2, SPAN, SPAN)
    var source = x.unsafe_offset(first * row_stride)
    for step in range(steps):
        pack_step(rows, depth, 0, step, source, row_stride, packed)
    begin()
    for product in range(panels * spans + 1):
        var panel, span = product // spans, product % spans
        var before = product - 1
        var live = min(SPAN, rows - before % spans * SPAN) if product > 0 else 0
        var done = 0
        if panel < panels:
            clear_sums()
        for step in range(steps):
            if panel < panels:
                if panel == 0 and span + 1 < spans:
                    pack_step(rows, depth, span + 1, step, source, row_stride, packed)
                add_step[terms](
                    packed.unsafe_offset((span * steps + step) * LEFT),
                    w.unsafe_offset((panel * steps + step) * terms * 2 * TILE),
                )
            var until = live * (step + 1) // steps
            for row in range(done, until):
                var at = first + before % spans * SPAN + row
                var y_row = y.unsafe_offset(at * n)
                var r_row = r.unsafe_offset(at * n if residual else 0)
                comptime for c in range(0, SPAN, WIDTH):
                    var sum = sums.unsafe_offset((before % 2 * SPAN + row) * SPAN + c).unsafe_load[width=WIDTH]()
                    finish[gelu, residual](before // spans * SPAN + c, n, sum, b, r_row, y_row)
            done = until
        if panel < panels:
            store_sums(sums.unsafe_offset(product % 2 * SPAN * SPAN))
    end()


@always_inline
def finish[
    gelu: Bool, residual: Bool
](
    column: Int,
    n: Int,
    product: Vector,
    b: Pointer[Float32, ...],
    r: Pointer[Float32, ...],
    y: Pointer[mut=True, Float32, ...],
):
    """Writes `column` and those beside it of a row `y` `(n,)`: the product with bias, GELU and residual."""
    if column + WIDTH <= n:
        store[WIDTH, gelu, residual](column, product, b, r, y)
    else:  # the last panel's padding has no place in `y`
        for lane in range(n - column):
            store[1, gelu, residual](column + lane, product[lane], b, r, y)


@always_inline
def store[
    width: Int, gelu: Bool, residual: Bool
](
    column: Int,
    product: SIMD[DType.float32, width],
    b: Pointer[Float32, ...],
    r: Pointer[Float32, ...],
    y: Pointer[mut=True, Float32, ...],
):
    """Writes columns of a row for `finish`."""
    var value = product + b.unsafe_offset(column).unsafe_load[width=width]()
    comptime if gelu:
        value = exact_gelu[width](value)
    comptime if residual:
        value += r.unsafe_offset(column).unsafe_load[width=width]()
    y.unsafe_offset(column).unsafe_store(value)


@no_inline
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
    """Writes rows `start` to `end` of panel `p`, the columns `p * PANEL` to `(p + 1) * PANEL`, in tiles.

    `w`: `(panels, depth, PANEL)`; whole bytes are followed in each panel by their columns' scales.
    """
    var panel = w.unsafe_offset(p * (depth + scale_rows(weight)) * PANEL)
    var scales = panel.unsafe_offset(depth * PANEL).unsafe_bitcast[Float32]()
    var i = start
    comptime for tile in range(len(TILES)):
        comptime rows = TILES[tile]
        while needs_tile(rows, weight) and i + rows <= end:
            var sums = multiply[rows](x.unsafe_offset(i * row_stride), row_stride, panel, depth)
            comptime for row in range(rows):
                var y_row = y.unsafe_offset((i + row) * n)
                var r_row = r.unsafe_offset((i + row) * n if residual else 0)
                comptime for v in range(VECTORS):
                    var product = sums[row * VECTORS + v]
                    comptime if scale_rows(weight) > 0:
                        product *= scales.unsafe_offset(v * WIDTH).unsafe_load[width=WIDTH]()
                    finish[gelu, residual](p * PANEL + v * WIDTH, n, product, b, r_row, y_row)
            i += rows


@always_inline
def exact_gelu[width: Int](x: SIMD[DType.float32, width]) -> SIMD[DType.float32, width]:
    """Returns GELU by the error function, PyTorch's default, not the tanh approximation."""
    comptime SQRT_HALF = 0.70710678118654752440
    return 0.5 * x * (1 + erf(x * SQRT_HALF))
