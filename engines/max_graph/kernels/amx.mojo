"""Products of float32 matrices on AMX, the matrix unit of Intel's server processors, with float32's accuracy.

AMX multiplies bfloat16 only, of 8 significant bits, 16 times as fast as vectors multiply float32. So each value is
split into bfloat16 terms whose sum it is: three for float32's 24 bits, two for float16's 11. A product of values is
the sum of the products of their terms, which are exact; those below 2**-26 of the whole are left out. That is five
products for a weight of float16, six for two values of float32. Sums are float32, and AMX adds 32 depths before it
rounds to a sum, so the result is nearer to the exact one than a loop's of multiply-adds.

Left operand `(rows, depth)`: `(ceil(rows / SPAN), steps, LEFT_TERMS, 2, SIDE, STEP)`, two tiles of 16 rows side by side.
Right operand `(depth, columns)`: `(ceil(columns / SPAN), steps, terms, 2, SIDE, 2 * SIDE)`, two tiles of 16 columns; row
`i` of a tile has depths `2 * i` and `2 * i + 1` of each column side by side. Past the depth both are zeros.
Infinities become NaN.

Linux must have been asked for the unit by this process: `engines.hardware.request_amx`.
"""

from std.collections import Array
from std.math import ceildiv
from std.memory import bitcast
from std.sys import inlined_assembly, size_of

from .tile import WIDTH, Vector

comptime SIDE = 16
"""Rows of a tile register, each of 64 bytes; float32 columns of a tile of sums."""

comptime STEP = 32
"""Depths of a tile of bfloat16."""

comptime SPAN = 2 * SIDE
"""Rows, and columns, of the part of a product that four tiles of sums hold; two tiles of each operand are loaded for
four multiplications."""

comptime TILE = SIDE * STEP
"""Values of a tile of bfloat16."""

comptime LEFT_TERMS = 3
"""Terms of each value of the left operand, which is float32."""

comptime LEFT = LEFT_TERMS * 2 * TILE
"""Values of the left operand for one step."""

comptime Bits = UInt16
"""A bfloat16 value: the upper half of a float32."""


@always_inline
def begin():
    """Gives this thread's tile registers their shape; `end` must follow."""
    var table = Array[UInt8, 64](fill=0)
    table[0] = 1  # the only palette there is
    comptime for register in range(8):
        table[16 + 2 * register] = 64  # bytes of a row
        table[48 + register] = UInt8(SIDE)
    inlined_assembly["ldtilecfg ($0)", NoneType, constraints="r,~{memory}", has_side_effect=True](table.unsafe_ptr())
    _ = table^  # not freed before


@always_inline
def end():
    """Gives the tile registers back: otherwise each change of threads saves their 8 KB."""
    inlined_assembly["tilerelease", NoneType, constraints="~{memory}", has_side_effect=True]()


@always_inline
def clear_sums():
    """Sets the sums, tiles 0 to 3, to zero."""
    inlined_assembly[
        "tilezero %tmm0\n tilezero %tmm1\n tilezero %tmm2\n tilezero %tmm3",
        NoneType, constraints="~{memory}", has_side_effect=True,
    ]()


@always_inline
def load_sums(sums: Pointer[Float32, ...]):
    """Loads the sums from `(SPAN, SPAN)`, rows of 128 bytes; a tile is 64 wide and 16 rows, 2,048 bytes, high."""
    inlined_assembly[
        "tileloadd ($0,$1,1), %tmm0\n tileloadd 64($0,$1,1), %tmm1\n"
        " tileloadd 2048($0,$1,1), %tmm2\n tileloadd 2112($0,$1,1), %tmm3",
        NoneType, constraints="r,r,~{memory}", has_side_effect=True,
    ](sums, Int(128))


@always_inline
def store_sums(sums: Pointer[mut=True, Float32, ...]):
    """Writes the sums to `(SPAN, SPAN)`, as `load_sums` reads them."""
    inlined_assembly[
        "tilestored %tmm0, ($0,$1,1)\n tilestored %tmm1, 64($0,$1,1)\n"
        " tilestored %tmm2, 2048($0,$1,1)\n tilestored %tmm3, 2112($0,$1,1)",
        NoneType, constraints="r,r,~{memory}", has_side_effect=True,
    ](sums, Int(128))


comptime PRODUCTS = [(2, 0), (1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]
"""Terms of the left and the right operand that are multiplied, one of them changing at a time; the last is for three
terms of the right operand."""


def write_product(product: Int, terms: Int, streams: Bool) -> String:
    """Returns instructions that multiply two terms: left operand at `$0`, right operand at `$1`, 64 in `$2`.

    Tiles 4 and 5 are the left operand's, 6 and 7 the right one's. Between multiplications the next step's operands are
    fetched, the right one if it `streams` from memory: where another hardware thread shares the core and its caches, a
    tile that is not there when it is needed stops everything.
    """
    var fetched = List[String]()
    for line in range(0, LEFT_TERMS * 2 * TILE * 2, 64):
        fetched.append(String(t"prefetcht0 {LEFT * 2 + line}($0)\n"))
    for line in range(0, terms * 2 * TILE * 2 if streams else 0, 64):
        fetched.append(String(t"prefetcht0 {terms * 2 * TILE * 2 + line}($1)\n"))
    var text, slots = String(), (terms + 3) * 4
    var products = materialize[PRODUCTS]()
    var left, right = products[product]
    var last_left, last_right = products[product - 1] if product > 0 else (-1, -1)
    for sum in range(4):  # its rows are those of tile `sum // 2` of the left operand, its columns `sum % 2`'s of the right
        if right != last_right and sum < 2:
            text += String(t"tileloadd {(right * 2 + sum) * TILE * 2}($1,$2,1), %tmm{6 + sum}\n")
        if left != last_left and sum % 2 == 0:
            text += String(t"tileloadd {(left * 2 + sum // 2) * TILE * 2}($0,$2,1), %tmm{4 + sum // 2}\n")
        text += String(t"tdpbf16ps %tmm{6 + sum % 2}, %tmm{4 + sum // 2}, %tmm{sum}\n")
        var slot = product * 4 + sum
        for i in range(len(fetched) * slot // slots, len(fetched) * (slot + 1) // slots):
            text += fetched[i]
    return text


@always_inline
def add_product[
    product: Int, terms: Int, streams: Bool
](left: Pointer[Bits, ...], right: Pointer[Bits, ...]):
    """Adds one of a step's products of terms to the sums; the products of a step follow one another."""
    comptime TEXT = write_product(product, terms, streams)
    inlined_assembly[TEXT, NoneType, constraints="r,r,r,~{memory}", has_side_effect=True](left, right, Int(64))


@always_inline
def add_step[terms: Int](left: Pointer[Bits, ...], right: Pointer[Bits, ...]):
    """Adds the products of one step's depths to the sums, of terms `i` and `j` where `i + j <= 2`."""
    comptime for product in range(terms + 3):
        add_product[product, terms, True](left, right)


@always_inline
def split(x: Vector) -> Tuple[Vector, Vector, Vector]:
    """Returns three vectors of bfloat16 values whose sum is `x`; near 1e-38 the last has more bits."""
    var first = round_to_bfloat16(x)
    var rest = x - first
    var second = round_to_bfloat16(rest)
    return first, second, rest - second


@always_inline
def round_to_bfloat16(x: Vector) -> Vector:
    """Returns the nearest value that has 8 significant bits."""
    var bits = bitcast[DType.uint32, WIDTH](x)
    return bitcast[DType.float32, WIDTH]((bits + 0x8000) & 0xFFFF0000)


@always_inline
def store_row(x: Vector, target: Pointer[mut=True, Bits, ...]):
    """Writes the terms of 16 depths of a row to `target`, a place in the left operand's first tile."""
    var terms = split(x)
    comptime for term in range(LEFT_TERMS):
        var bits = bitcast[DType.uint32, WIDTH](terms[term]) >> 16
        target.unsafe_offset(term * 2 * TILE).unsafe_store(bits.cast[DType.uint16]())


@always_inline
def store_pair(even: Vector, odd: Vector, target: Pointer[mut=True, Bits, ...]):
    """Writes the terms of two depths of 16 columns to `target`, a row of the right operand's first tile."""
    var low, high = split(even), split(odd)
    comptime for term in range(3):
        var bits = bitcast[DType.uint32, WIDTH](low[term]) >> 16
        bits |= bitcast[DType.uint32, WIDTH](high[term]) & 0xFFFF0000  # the last has more bits near 1e-38
        target.unsafe_offset(term * 2 * TILE).unsafe_store(bitcast[DType.uint16, 2 * WIDTH](bits))


def pack_rows(
    rows: Int, depth: Int, x: Pointer[Float32, ...], stride: Int, packed: Pointer[mut=True, Bits, ...]
):
    """Writes `x` `(rows, depth)`, its rows `stride` apart, as a left operand."""
    var steps = ceildiv(depth, STEP)
    for span in range(ceildiv(rows, SPAN)):
        for step in range(steps):
            pack_step(rows, depth, span, step, x, stride, packed)


@always_inline
def pack_step(
    rows: Int,
    depth: Int,
    span: Int,
    step: Int,
    x: Pointer[Float32, ...],
    stride: Int,
    packed: Pointer[mut=True, Bits, ...],
):
    """Writes one step of `SPAN` rows.

    Rows past the end repeat the last one: what they come to is for no one to read.
    """
    var steps = ceildiv(depth, STEP)
    var target = packed.unsafe_offset((span * steps + step) * LEFT)
    for row in range(SPAN):
        var source = x.unsafe_offset(min(span * SPAN + row, rows - 1) * stride + step * STEP)
        if step * STEP + STEP <= depth:
            comptime for half in range(2):
                var values = source.unsafe_offset(half * SIDE).unsafe_load[width=WIDTH]()
                store_row(values, target.unsafe_offset(row * STEP + half * SIDE))
        else:
            var part = Array[Float32, STEP](fill=0)
            for d in range(depth - step * STEP):
                part[d] = source.unsafe_offset(d).unsafe_load()
            comptime for half in range(2):
                var values = part.unsafe_ptr().unsafe_offset(half * SIDE).unsafe_load[width=WIDTH]()
                store_row(values, target.unsafe_offset(row * STEP + half * SIDE))


@always_inline
def align[dtype: DType, origin: MutOrigin](pointer: Pointer[Scalar[dtype], origin]) -> Pointer[Scalar[dtype], origin]:
    """Returns the first place from `pointer` on where a cache line begins: each row of a tile is one."""
    return pointer.unsafe_offset((64 - Int(pointer) % 64) % 64 // size_of[dtype]())
