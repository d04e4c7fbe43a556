"""`y = a @ b` in float32 on an accelerator, at any size.

MAX's built-in product of float32 matrices rounds both operands to TF32's 10 bits of mantissa, which is not the
baseline's arithmetic, and it does not compile for every NVIDIA GPU. The code of a block of threads is split at its
barriers into functions of one thread, so a CPU can run the same code one thread after another: that is how it is
tested without an accelerator.

More than `FEW` rows: a block computes a tile of `TILE` by `TILE`, `SLICE` depths at a time, from shared memory.
Up to `FEW` rows, as in the decoder's steps: `SHARERS` threads split the depth of a column, whose weights are read once.
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
"""Threads of a block: 8 warps."""

comptime SIDE = 16
"""Threads along each side of a tile of the result."""

comptime EACH = 4
"""Rows, and columns, of one thread: every `SIDE`-th of the tile, so 16 sums for 8 reads of shared memory."""

comptime TILE = SIDE * EACH
"""Rows, and columns, of a block's tile."""

comptime SLICE = 16
"""Depth of `a` and `b` in shared memory at a time: 8.3 KB for both, so many blocks fit on a processor."""

comptime PITCH = TILE + 1
"""Floats from one depth to the next in shared memory; odd, which avoids bank conflicts."""

comptime FEW = 8
"""Largest number of rows for which threads share a column's depth."""

comptime SHARERS = 8
"""Threads that share the depth of a column."""

comptime COLUMNS = THREADS // SHARERS
"""Columns of a block with few rows."""

comptime Quad = SIMD[DType.float32, EACH]
comptime Sums = Array[Quad, EACH]
comptime Floats = MutPointer[Float32, MutAnyOrigin]


@extensibility.register("whisper_product")
struct Product:
    """Batched float32 matrix product.

    `y`: `(batch, m, n)`. `a`: `(batch, m, depth)`. `b`: `(batch, depth, n)` or, `transposed`, `(batch, n, depth)`.
    """

    @staticmethod
    def execute[
        target: StaticString, transposed: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        a: InputTensor[dtype=DType.float32, rank=3, ...],
        b: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        var batch, m, n = y.dim_size(0), y.dim_size(1), y.dim_size(2)
        var depth = a.dim_size(2)
        var yp = y.unsafe_ptr()
        var ap = a.unsafe_ptr()
        var bp = b.unsafe_ptr()

        comptime if is_gpu[target]():
            var m64, n64, deep = Int64(m), Int64(n), Int64(depth)
            var few = (ceildiv(n, COLUMNS), 1, batch)
            var tiles = (ceildiv(n, TILE), ceildiv(m, TILE), batch)
            if m == 1:
                ctx.enqueue_function[few_on_gpu[transposed, 1]](
                    yp, ap, bp, m64, n64, deep, grid_dim=few, block_dim=THREADS
                )
            elif m <= FEW:
                ctx.enqueue_function[few_on_gpu[transposed, FEW]](
                    yp, ap, bp, m64, n64, deep, grid_dim=few, block_dim=THREADS
                )
            else:
                ctx.enqueue_function[tile_on_gpu[transposed]](
                    yp, ap, bp, m64, n64, deep, grid_dim=tiles, block_dim=THREADS
                )
        else:
            for i in range(batch):
                var result = yp.unsafe_offset(i * m * n)
                var left = ap.unsafe_offset(i * m * depth)
                var right = bp.unsafe_offset(i * depth * n)
                if m == 1:
                    few_on_cpu[transposed, 1](result, left, right, m, n, depth)
                elif m <= FEW:
                    few_on_cpu[transposed, FEW](result, left, right, m, n, depth)
                else:
                    tiles_on_cpu[transposed](result, left, right, m, n, depth)


def tile_on_gpu[
    transposed: Bool
](y: Floats, a: Floats, b: Floats, rows: Int64, columns: Int64, deep: Int64):
    """Computes a block's tile of one product of the batch."""
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


def tiles_on_cpu[
    transposed: Bool
](y: Floats, a: Floats, b: Floats, m: Int, n: Int, depth: Int):
    """Does the same on a CPU, tile after tile and thread after thread."""
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
    """Copies one thread's part of a slice to shared memory `into` `(SLICE, PITCH)`.

    The slice is `SLICE` depths from `begin` on, of `TILE` rows (or columns) from `first` on, zero past `count` and
    `depth`. `source`: `(count, depth)` or, `deep_first`, `(depth, count)`. Neighbouring threads read neighbours in
    memory.
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
    """Adds the slice's products to one thread's sums `(EACH, EACH)`."""
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
    """Writes one thread's part of the tile that begins at `row` and `column`."""
    comptime for i in range(EACH):
        comptime for j in range(EACH):
            var r = row + thread // SIDE + i * SIDE
            var c = column + thread % SIDE + j * SIDE
            if r < m and c < n:
                y.unsafe_offset(r * n + c).unsafe_store(sums[i][j])


def few_on_gpu[
    transposed: Bool, rows: Int
](y: Floats, a: Floats, b: Floats, m64: Int64, n64: Int64, depth64: Int64):
    """Computes a block's columns of one product of the batch with at most `rows` rows."""
    var m, n, depth = Int(m64), Int(n64), Int(depth64)
    var thread, i = thread_idx.x, block_idx.z
    # (rows, SHARERS, COLUMNS)
    var partial_sums = unsafe_stack_allocation[rows * THREADS, Float32, address_space=AddressSpace.SHARED]()
    partial_sum[transposed, rows](
        thread, block_idx.x * COLUMNS, partial_sums,
        a.unsafe_offset(i * m * depth), b.unsafe_offset(i * depth * n), m, n, depth,
    )
    barrier()
    add_partial_sums[rows](thread, block_idx.x * COLUMNS, partial_sums, y.unsafe_offset(i * m * n), m, n)


def few_on_cpu[
    transposed: Bool, rows: Int
](y: Floats, a: Floats, b: Floats, m: Int, n: Int, depth: Int):
    """Does the same on a CPU."""
    var partial_sums = List[Float32](length=rows * THREADS, fill=0)
    for column in range(0, n, COLUMNS):
        for thread in range(THREADS):
            partial_sum[transposed, rows](thread, column, partial_sums.unsafe_ptr(), a, b, m, n, depth)
        for thread in range(THREADS):
            add_partial_sums[rows](thread, column, partial_sums.unsafe_ptr(), y, m, n)


@always_inline
def partial_sum[
    transposed: Bool, rows: Int
](
    thread: Int,
    first: Int,
    partial_sums: Pointer[mut=True, Float32, ...],
    a: Floats,
    b: Floats,
    m: Int,
    n: Int,
    depth: Int,
):
    """Computes one of the `SHARERS` partial sums of a column, over every `SHARERS`-th depth, for every row.

    Rows past `m` and columns past `n` repeat the last one, which is safe to read and never stored. Neighbouring
    threads read neighbours in memory: depths of one column with `transposed`, else columns of one depth.
    """
    var line = thread // SHARERS if transposed else thread % COLUMNS
    var sharer = thread % SHARERS if transposed else thread // COLUMNS
    var depth_stride = 1 if transposed else n
    var column = b.unsafe_offset(min(first + line, n - 1) * (depth if transposed else 1))
    var sums = SIMD[DType.float32, rows](0)
    for d in range(sharer, depth, SHARERS):
        var right = column.unsafe_offset(d * depth_stride).unsafe_load()
        comptime for r in range(rows):
            sums[r] = a.unsafe_offset(min(r, m - 1) * depth + d).unsafe_load().fma(right, sums[r])
    comptime for r in range(rows):
        partial_sums.unsafe_offset((r * SHARERS + sharer) * COLUMNS + line).unsafe_store(sums[r])


@always_inline
def add_partial_sums[
    rows: Int
](thread: Int, first: Int, partial_sums: Pointer[Float32, ...], y: Floats, m: Int, n: Int):
    """Adds the partial sums of one row and column and writes the result; `THREADS` threads cover all."""
    var row = thread // COLUMNS
    var column = first + thread % COLUMNS
    if row < min(rows, m) and column < n:
        var total = Float32(0)
        comptime for sharer in range(SHARERS):
            total += partial_sums.unsafe_offset((row * SHARERS + sharer) * COLUMNS + thread % COLUMNS).unsafe_load()
        y.unsafe_offset(row * n + column).unsafe_store(total)
