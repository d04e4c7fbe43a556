"""`y = a @ b` in float32 on an accelerator: plain multiply-adds at any size, nothing rounded.

MAX's built-in product of float32 matrices rounds both sides to TF32's 10 bits of mantissa, which
is not the baseline's arithmetic, and does not compile for every NVIDIA GPU. What a block of threads
does is written as what one thread does between two barriers, so that a processor can run the same
code, one thread after another: so it is tested where there is no accelerator.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import barrier, block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_gpu
from max.gpu.memory import AddressSpace
from std.collections import Array
from std.math import ceildiv
from std.memory import unsafe_stack_allocation

comptime THREADS = 256
"""Threads of a block."""

comptime SIDE = 16
"""Threads along each side of a tile of the result."""

comptime EACH = 4
"""Rows, and columns, that one thread has of a tile: every `SIDE`-th."""

comptime TILE = SIDE * EACH
comptime SLICE = 16
"""Depth of what a block holds of `a` and `b` at a time."""

comptime PITCH = TILE + 1
"""Floats from one depth to the next in shared memory; odd, so that threads meet in no bank."""

comptime FEW = 8
"""Up to so many rows, as in a step of the decoder, threads share a column's depth instead."""

comptime SHARERS = 8
comptime COLUMNS = THREADS // SHARERS
"""Columns of a block whose depth `SHARERS` threads share."""

comptime Quad = SIMD[DType.float32, EACH]
comptime Sums = Array[Quad, EACH]
comptime Floats = MutPointer[Float32, MutAnyOrigin]


@extensibility.register("whisper_product")
struct Product:
    """`y`: `(batch, m, n)`. `a`: `(batch, m, depth)`. `b`: `(batch, depth, n)` or, `transposed`,
    `(batch, n, depth)`. All are float32 and row-major."""

    @staticmethod
    def execute[
        target: StaticString, transposed: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        a: InputTensor[dtype=DType.float32, rank=3, ...],
        b: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        var batch = y.dim_size(0)
        var m = y.dim_size(1)
        var n = y.dim_size(2)
        var depth = a.dim_size(2)
        var yp = y.unsafe_ptr()
        var ap = a.unsafe_ptr()
        var bp = b.unsafe_ptr()
        if batch * m * n == 0:
            return

        comptime if is_gpu[target]():
            var few = (ceildiv(n, COLUMNS), 1, batch)
            if m == 1:
                ctx.enqueue_function[few_on_gpu[transposed, 1]](
                    yp, ap, bp, Int64(m), Int64(n), Int64(depth), grid_dim=few, block_dim=THREADS
                )
            elif m <= FEW:
                ctx.enqueue_function[few_on_gpu[transposed, FEW]](
                    yp, ap, bp, Int64(m), Int64(n), Int64(depth), grid_dim=few, block_dim=THREADS
                )
            else:
                var tiles = (ceildiv(n, TILE), ceildiv(m, TILE), batch)
                ctx.enqueue_function[tile_on_gpu[transposed]](
                    yp, ap, bp, Int64(m), Int64(n), Int64(depth), grid_dim=tiles, block_dim=THREADS
                )
        else:
            for i in range(batch):
                var result = yp.unsafe_offset(i * m * n)
                var left = ap.unsafe_offset(i * m * depth)
                var right = bp.unsafe_offset(i * depth * n)
                if m == 1:
                    few_here[transposed, 1](result, left, right, m, n, depth)
                elif m <= FEW:
                    few_here[transposed, FEW](result, left, right, m, n, depth)
                else:
                    tiles_here[transposed](result, left, right, m, n, depth)


def tile_on_gpu[
    transposed: Bool
](y: Floats, a: Floats, b: Floats, rows: Int64, columns: Int64, deep: Int64):
    """A block's tile of one product of the batch."""
    var m, n, depth = Int(rows), Int(columns), Int(deep)
    var thread, row, column, i = thread_idx.x, block_idx.y * TILE, block_idx.x * TILE, block_idx.z
    var left = unsafe_stack_allocation[SLICE * PITCH, Float32, address_space=AddressSpace.SHARED]()
    var right = unsafe_stack_allocation[SLICE * PITCH, Float32, address_space=AddressSpace.SHARED]()
    var mine = a.unsafe_offset(i * m * depth)
    var theirs = b.unsafe_offset(i * depth * n)
    var sums = Sums(fill=Quad(0))
    for begin in range(0, depth, SLICE):
        fetch[False](thread, begin, row, left, mine, m, depth)
        fetch[not transposed](thread, begin, column, right, theirs, n, depth)
        barrier()
        accumulate(thread, left, right, sums)
        barrier()
    store(thread, row, column, sums, y.unsafe_offset(i * m * n), m, n)


def tiles_here[
    transposed: Bool
](y: Floats, a: Floats, b: Floats, m: Int, n: Int, depth: Int):
    """The same on a processor, tile after tile and thread after thread."""
    var left = List[Float32](length=SLICE * PITCH, fill=0)
    var right = List[Float32](length=SLICE * PITCH, fill=0)
    for row in range(0, m, TILE):
        for column in range(0, n, TILE):
            var sums = List[Sums](length=THREADS, fill=Sums(fill=Quad(0)))
            for begin in range(0, depth, SLICE):
                for thread in range(THREADS):
                    fetch[False](thread, begin, row, left.unsafe_ptr(), a, m, depth)
                    fetch[not transposed](thread, begin, column, right.unsafe_ptr(), b, n, depth)
                for thread in range(THREADS):
                    accumulate(thread, left.unsafe_ptr(), right.unsafe_ptr(), sums[thread])
            for thread in range(THREADS):
                store(thread, row, column, sums[thread], y, m, n)


@always_inline
def fetch[
    deep_first: Bool
](
    thread: Int,
    begin: Int,
    first: Int,
    into: Pointer[mut=True, Float32, ...],
    source: Floats,
    count: Int,
    depth: Int,
):
    """A thread's part of `SLICE` depths, from `begin` on, of `TILE` rows or columns of a matrix,
    from `first` on; zeros past its `count` of them and past its depth.

    `source` is `(count, depth)` or, `deep_first`, `(depth, count)`: neighbours in memory are read
    by neighbouring threads.
    """
    comptime for part in range(SLICE * TILE // THREADS):
        var element = part * THREADS + thread
        var d = element // TILE if deep_first else element % SLICE
        var line = element % TILE if deep_first else element // SLICE
        var value = Float32(0)
        if first + line < count and begin + d < depth:
            var at = (begin + d) * count + first + line
            comptime if not deep_first:
                at = (first + line) * depth + begin + d
            value = source.unsafe_offset(at).unsafe_load()
        into.unsafe_offset(d * PITCH + line).unsafe_store(value)


@always_inline
def accumulate(
    thread: Int,
    left: Pointer[Float32, ...],
    right: Pointer[Float32, ...],
    mut sums: Sums,
):
    """Adds the slice's products to a thread's rows and columns of the tile."""
    var row = thread // SIDE
    var column = thread % SIDE
    comptime for d in range(SLICE):
        var theirs = Quad(0)
        comptime for j in range(EACH):
            theirs[j] = right.unsafe_offset(d * PITCH + column + j * SIDE).unsafe_load()
        comptime for i in range(EACH):
            var mine = left.unsafe_offset(d * PITCH + row + i * SIDE).unsafe_load()
            sums[i] = Quad(mine).fma(theirs, sums[i])


@always_inline
def store(thread: Int, row: Int, column: Int, sums: Sums, y: Floats, m: Int, n: Int):
    """Writes a thread's part of the tile that begins at `row` and `column`."""
    comptime for i in range(EACH):
        comptime for j in range(EACH):
            var r = row + thread // SIDE + i * SIDE
            var c = column + thread % SIDE + j * SIDE
            if r < m and c < n:
                y.unsafe_offset(r * n + c).unsafe_store(sums[i][j])


def few_on_gpu[
    transposed: Bool, rows: Int
](y: Floats, a: Floats, b: Floats, m64: Int64, n64: Int64, depth64: Int64):
    """A block's columns of one product of the batch with at most `rows` rows."""
    var m, n, depth = Int(m64), Int(n64), Int(depth64)
    var thread, i = thread_idx.x, block_idx.z
    var shares = unsafe_stack_allocation[rows * THREADS, Float32, address_space=AddressSpace.SHARED]()
    share[transposed, rows](
        thread, block_idx.x * COLUMNS, shares,
        a.unsafe_offset(i * m * depth), b.unsafe_offset(i * depth * n), m, n, depth,
    )
    barrier()
    gather[rows](thread, block_idx.x * COLUMNS, shares, y.unsafe_offset(i * m * n), m, n)


def few_here[
    transposed: Bool, rows: Int
](y: Floats, a: Floats, b: Floats, m: Int, n: Int, depth: Int):
    """The same on a processor."""
    var shares = List[Float32](length=rows * THREADS, fill=0)
    for column in range(0, n, COLUMNS):
        for thread in range(THREADS):
            share[transposed, rows](thread, column, shares.unsafe_ptr(), a, b, m, n, depth)
        for thread in range(THREADS):
            gather[rows](thread, column, shares.unsafe_ptr(), y, m, n)


@always_inline
def share[
    transposed: Bool, rows: Int
](
    thread: Int,
    first: Int,
    shares: Pointer[mut=True, Float32, ...],
    a: Floats,
    b: Floats,
    m: Int,
    n: Int,
    depth: Int,
):
    """One of the `SHARERS` sums over every `SHARERS`-th depth of a column, for every row.

    Rows past `m` repeat the last one, columns past `n` too: reading them is safe and cheap.
    """
    comptime if transposed:
        share_lines[rows](thread // SHARERS, thread % SHARERS, first, shares, a, b, m, n, depth, depth, 1)
    else:
        share_lines[rows](thread % COLUMNS, thread // COLUMNS, first, shares, a, b, m, n, depth, 1, n)


@always_inline
def share_lines[
    rows: Int
](
    line: Int,
    sharer: Int,
    first: Int,
    shares: Pointer[mut=True, Float32, ...],
    a: Floats,
    b: Floats,
    m: Int,
    n: Int,
    depth: Int,
    column_stride: Int,
    depth_stride: Int,
):
    """`share` of column `first + line`, whose values are `depth_stride` apart."""
    var column = b.unsafe_offset(min(first + line, n - 1) * column_stride)
    var sums = SIMD[DType.float32, rows](0)
    for d in range(sharer, depth, SHARERS):
        var right = column.unsafe_offset(d * depth_stride).unsafe_load()
        comptime for r in range(rows):
            sums[r] = a.unsafe_offset(min(r, m - 1) * depth + d).unsafe_load().fma(right, sums[r])
    comptime for r in range(rows):
        shares.unsafe_offset((r * SHARERS + sharer) * COLUMNS + line).unsafe_store(sums[r])


@always_inline
def gather[
    rows: Int
](thread: Int, first: Int, shares: Pointer[Float32, ...], y: Floats, m: Int, n: Int):
    """Adds the shares of one row and column; `THREADS` threads are enough for all."""
    var row = thread // COLUMNS
    var column = first + thread % COLUMNS
    if row < min(rows, m) and column < n:
        var total = Float32(0)
        comptime for sharer in range(SHARERS):
            total += shares.unsafe_offset((row * SHARERS + sharer) * COLUMNS + thread % COLUMNS).unsafe_load()
        y.unsafe_offset(row * n + column).unsafe_store(total)
