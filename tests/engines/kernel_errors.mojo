"""Compare products, attention and its exponential with float64 at odd sizes; prints the vectors' width and errors.

Those on AMX come last, and are -1 where Linux doesn't give it.

`tests/engines/test_kernels.py` builds this for several processors.
"""

from kernels.amx import LEFT, SPAN, STEP, TILE, Bits, align, begin, end, pack_rows
from kernels.amx_attention import attend_span, pack_values
from kernels.attention import HEAD, attend, attend_block, exp_nonpositive
from kernels.linear import write_block, write_block_on_amx, write_panel
from kernels.tile import PANEL, ROWS, WIDTH, Vector, scale_rows
from std.ffi import external_call
from std.math import ceildiv, exp, sqrt
from std.memory import bitcast
from std.random import randn_float64

comptime FEW = 0
"""Tiles of few rows."""

comptime BLOCK = 1
"""Blocks of many rows."""

comptime AMX = 2
"""Intel's matrix unit."""


def random(count: Int) -> List[Float32]:
    var values = List[Float32](length=count, fill=0)
    for i in range(count):
        values[i] = Float32(randn_float64())
    return values^


def product_error[road: Int, weight: DType](rows: Int, depth: Int, n: Int) raises -> Float64:
    """Relative L2 error of `x @ w + b` with weights in float16, float32 or, for one row, bytes with scales."""
    var panels, height = ceildiv(n, PANEL), depth + scale_rows(weight)
    var x = random(rows * depth)
    var b = random(n)
    var w = List[Scalar[weight]](length=panels * height * PANEL, fill=0)
    for i in range(len(w)):
        w[i] = Scalar[weight](40 * randn_float64()) if scale_rows(weight) > 0 else Scalar[weight](randn_float64())
    var scales = List[Float32](length=panels * PANEL, fill=1)
    comptime if scale_rows(weight) > 0:
        for i in range(len(scales)):
            scales[i] = Float32(randn_float64())
            var ends = w.unsafe_ptr().unsafe_offset((i // PANEL * height + depth) * PANEL).unsafe_bitcast[Float32]()
            ends.unsafe_offset(i % PANEL).unsafe_store(scales[i])
    var y = List[Float32](length=rows * n, fill=0)
    var unused = y.unsafe_ptr().as_unsafe_any_origin()
    comptime if road == AMX:
        comptime terms = 2 if weight == DType.float16 else 3
        var steps = ceildiv(depth, STEP)
        var list = List[Bits](length=panels * steps * terms * 2 * TILE + 32, fill=0)
        var tiles = align(list.unsafe_ptr())
        for i in range(len(w)):
            var column, d = i // PANEL // depth * PANEL + i % PANEL, i // PANEL % depth
            var at = (column // SPAN * steps + d // STEP) * terms * 2 + column % SPAN // 16
            var rest = w[i].cast[DType.float32]()
            for term in range(terms):
                var head = rest.cast[DType.bfloat16]()
                var place = (at + term * 2) * TILE + d % STEP // 2 * 32 + column % 16 * 2 + d % 2
                tiles.unsafe_offset(place).unsafe_store(bitcast[DType.uint16](head))
                rest -= head.cast[DType.float32]()
        write_block_on_amx[terms, False, False](
            0, rows, depth, n, depth, x.unsafe_ptr(), tiles, b.unsafe_ptr(), unused, y.unsafe_ptr()
        )
    elif road == BLOCK:
        write_block[False, False](
            0, rows, depth, n, depth, x.unsafe_ptr(), w.unsafe_ptr(), b.unsafe_ptr(), unused, y.unsafe_ptr()
        )
    else:
        for p in range(panels):
            write_panel[False, False](
                0, rows, p, depth, n, depth, x.unsafe_ptr(), w.unsafe_ptr(), b.unsafe_ptr(), unused, y.unsafe_ptr()
            )
    var wrong, size = Float64(0), Float64(0)
    for i in range(rows):
        for j in range(n):
            var exact = b[j].cast[DType.float64]()
            for d in range(depth):
                var stored = w[((j // PANEL) * height + d) * PANEL + j % PANEL]
                var value = stored.cast[DType.float64]() * scales[j].cast[DType.float64]()
                exact += x[i * depth + d].cast[DType.float64]() * value
            wrong += (y[i * n + j].cast[DType.float64]() - exact) ** 2
            size += exact**2
    return sqrt(wrong / size)


def attention_error[road: Int](rows: Int, live: Int, slots: Int) raises -> Tuple[Float64, Float64]:
    """Relative L2 errors of attention to the first `live` positions of `slots` panels: ours, and plain float32's."""
    var q = random(rows * HEAD)
    var keys = random(live * HEAD)
    var values = random(live * HEAD)
    var size = slots * PANEL * HEAD
    var k = List[Float32](length=2 * size, fill=0)
    var v = List[Float32](length=2 * size, fill=0)
    for t in range(live):
        for d in range(HEAD):
            var at_key = ((t // PANEL) * HEAD + d) * PANEL + t % PANEL
            var at_value = ((d // PANEL) * slots * PANEL + t) * PANEL + d % PANEL
            k[at_key] = keys[t * HEAD + d]
            v[at_value] = values[t * HEAD + d]
            if t >= PANEL:
                k[size + at_key] = keys[t * HEAD + d]
                v[size + at_value] = values[t * HEAD + d]
    var scores = List[Float32](length=ROWS * slots * PANEL, fill=0)
    var y = List[Float32](length=rows * HEAD, fill=0)
    comptime if road == AMX:
        var list = List[Bits](length=2 * ceildiv(live, SPAN) * HEAD // SPAN * LEFT + 32, fill=0)
        var packed = align(list.unsafe_ptr())
        pack_rows(live, HEAD, keys.unsafe_ptr(), HEAD, packed)
        var behind = ceildiv(live, SPAN) * (HEAD // SPAN) * LEFT
        pack_values(live, values.unsafe_ptr(), HEAD, packed.unsafe_offset(behind))
        begin()
        attend_span(rows, live, q.unsafe_ptr(), HEAD, packed, y.unsafe_ptr(), HEAD)
        end()
    elif road == BLOCK:
        attend_block(
            rows, live, slots, q.unsafe_ptr(), HEAD, k.unsafe_ptr(), v.unsafe_ptr(), y.unsafe_ptr(), HEAD
        )
    else:
        # All but the first panel are each query's own; every other query has them behind those of the rest.
        var own = List[Int](length=2 * rows, fill=live)
        for i in range(rows):
            own[2 * i] = i % 2 * size
        attend[False](
            0, rows, 1, slots, own.unsafe_ptr(), q.unsafe_ptr(), HEAD, k.unsafe_ptr(), v.unsafe_ptr(),
            scores.unsafe_ptr(), y.unsafe_ptr(), HEAD, scores.unsafe_ptr().as_unsafe_any_origin(),
        )
    var exact = attend_plainly[DType.float64](rows, live, q, keys, values)
    var plain = attend_plainly[DType.float32](rows, live, q, keys, values)
    var norm, ours, theirs = Float64(0), Float64(0), Float64(0)
    for i in range(rows * HEAD):
        norm += exact[i] ** 2
        ours += (y[i].cast[DType.float64]() - exact[i]) ** 2
        theirs += (plain[i].cast[DType.float64]() - exact[i]) ** 2
    return sqrt(ours / norm), sqrt(theirs / norm)


def attend_plainly[
    dtype: DType
](
    rows: Int, live: Int, q: List[Float32], keys: List[Float32], values: List[Float32]
) -> List[Scalar[dtype]] where dtype.is_floating_point():
    """Softmax attention in loops; `q` `(rows, HEAD)`, `keys` and `values` `(live, HEAD)`."""
    var y = List[Scalar[dtype]](length=rows * HEAD, fill=0)
    for i in range(rows):
        var total = Scalar[dtype](0)
        for t in range(live):
            var score = Scalar[dtype](0)
            for d in range(HEAD):
                score += q[i * HEAD + d].cast[dtype]() * keys[t * HEAD + d].cast[dtype]()
            var weight = exp(score / 8)
            total += weight
            for d in range(HEAD):
                y[i * HEAD + d] += weight * values[t * HEAD + d].cast[dtype]()
        for d in range(HEAD):
            y[i * HEAD + d] /= total
    return y^


def exp_error() -> Float64:
    """Largest relative error of the exponential, in units of 2**-24."""
    var worst = Float64(0)
    for i in range(870000):
        var x = Float32(i) * Float32(-1e-4)
        var found = exp_nonpositive(Vector(x))[0].cast[DType.float64]()
        worst = max(worst, abs(found / exp(x.cast[DType.float64]()) - 1))
    return worst * Float64(2**24)


def measure[road: Int]() raises -> Tuple[Float64, Float64, Float64]:
    """Worst errors of products, of attention and of plain float32's attention at odd sizes."""
    var product, ours, plain = Float64(0), Float64(0), Float64(0)
    for rows in [1, 2, 5, 13, 31]:
        product = max(product, product_error[road, DType.float16](rows, 133, 77))
        product = max(product, product_error[road, DType.float32](rows, 133, 77))
        comptime if road == FEW:
            product = max(product, product_error[road, DType.int8](1, 133, 77))
        var errors = attention_error[road](rows, 75, 4)
        ours = max(ours, errors[0])
        plain = max(plain, errors[1])
    return product, ours, plain


def main() raises:
    var few, block = measure[FEW](), measure[BLOCK]()
    print(WIDTH, max(few[0], block[0]), max(few[1], block[1]), max(few[2], block[2]), exp_error())
    comptime if WIDTH == 16:
        if external_call["syscall", Int](Int(158), Int(0x1023), Int(18)) == 0:
            var amx = measure[AMX]()
            print(amx[0], amx[1], amx[2])
            return
    print(-1, -1, 0)
