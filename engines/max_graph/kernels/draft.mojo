"""A draft's logits, from a vocabulary rounded to 4 bits.

A guess costs little more than reading the weights, and a small model's vocabulary is most of them. Four bits tell
which few tokens come into question; which of those is the likeliest is told by their exact embeddings.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.collections import Array
from std.math import ceildiv

from .attention import largest
from .decoder import VOCABULARY_PANELS_PER_TASK
from .linear import finish
from .tile import AHEAD, LOWEST, PANEL, SCALE_ROWS, VECTORS, WIDTH, Vector, fetch

comptime CANDIDATES = 16
"""Tokens whose logits are computed from their exact embeddings. Of `tiny.en`'s and `base`'s guesses for English speech
0.6 and 1.1 % are not what a step chooses, with four candidates 2.4 and 2.1 %, with 32 0.6 and 1.0 %."""

comptime OFFSET = 8
"""Added to a value of 4 bits, -8 to 7, as it is stored."""


@extensibility.register("whisper_draft_logits")
struct DraftLogits:
    """Logits of one row, exact where they are highest.

    `x`: `(1, n_state)`. `rounded`: `(panels, n_state / 2 + SCALE_ROWS, PANEL)`; a byte holds two depths of a column,
    the first in its lower half, and the last rows its columns' scales. `embedding`: `(panels, n_state, PANEL)`.
    `no_bias`: zeros `(n_vocab,)`. `y`: `(1, n_vocab)`.
    """

    @staticmethod
    def execute[
        target: StaticString, weight: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        rounded: InputTensor[dtype=DType.uint8, rank=3, ...],
        embedding: InputTensor[dtype=weight, rank=3, ...],
        no_bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var n_vocab, n, panels = y.dim_size(1), x.dim_size(1), rounded.dim_size(0)
        var xp = x.unsafe_ptr()
        var wp = rounded.unsafe_ptr()
        var bp = no_bias.unsafe_ptr()
        var yp = y.unsafe_ptr()

        def work(task: Int) raises {imm}:
            var first = task * VOCABULARY_PANELS_PER_TASK
            for p in range(first, min(first + VOCABULARY_PANELS_PER_TASK, panels)):
                write_rounded_panel(p, n, n_vocab, xp, wp, bp, yp)

        sync_parallelize(work, ceildiv(panels, VOCABULARY_PANELS_PER_TASK))
        refine(n, n_vocab, xp, embedding.unsafe_ptr(), yp)


@no_inline
def write_rounded_panel(
    p: Int,
    n: Int,
    n_vocab: Int,
    x: Pointer[Float32, ...],
    rounded: Pointer[UInt8, ...],
    no_bias: Pointer[Float32, ...],
    y: Pointer[mut=True, Float32, ...],
):
    """Writes the logits of panel `p`, as `DraftLogits` has its arguments."""
    var panel = rounded.unsafe_offset(p * (n // 2 + SCALE_ROWS) * PANEL)
    var even = Array[Vector, VECTORS](fill=Vector(0))
    var odd = Array[Vector, VECTORS](fill=Vector(0))
    var total = Float32(0)  # of `x`
    for row in range(n // 2):
        fetch[PANEL](panel.unsafe_offset((row + AHEAD) * PANEL))
        var left = x.unsafe_offset(2 * row).unsafe_load()
        var right = x.unsafe_offset(2 * row + 1).unsafe_load()
        total += left + right
        comptime for v in range(VECTORS):
            var pair = panel.unsafe_offset(row * PANEL + v * WIDTH).unsafe_load[width=WIDTH]().cast[DType.int32]()
            even[v] = Vector(left).fma((pair & 15).cast[DType.float32](), even[v])
            odd[v] = Vector(right).fma((pair >> 4).cast[DType.float32](), odd[v])
    var scales = panel.unsafe_offset(n // 2 * PANEL).unsafe_bitcast[Float32]()
    comptime for v in range(VECTORS):
        var scale = scales.unsafe_offset(v * WIDTH).unsafe_load[width=WIDTH]()
        var product = (even[v] + odd[v] - OFFSET * total) * scale
        finish[False, False](p * PANEL + v * WIDTH, n_vocab, product, no_bias, y.as_unsafe_any_origin(), y)


@no_inline
def refine[
    weight: DType
](
    n: Int,
    n_vocab: Int,
    x: Pointer[Float32, ...],
    embedding: Pointer[Scalar[weight], ...],
    y: Pointer[mut=True, Float32, ...],
):
    """Replaces the highest of `y` `(n_vocab,)` by exact logits."""
    var logits = Array[Float32, CANDIDATES](fill=2 * LOWEST)  # highest first
    var tokens = Array[Int, CANDIDATES](fill=0)
    for first in range(0, n_vocab, PANEL):
        if first + PANEL <= n_vocab and largest(PANEL, y.unsafe_offset(first)) <= logits[CANDIDATES - 1]:
            continue
        for token in range(first, min(first + PANEL, n_vocab)):
            var logit = y.unsafe_offset(token).unsafe_load()
            if logit <= logits[CANDIDATES - 1]:
                continue
            var place = CANDIDATES - 1
            while place > 0 and logits[place - 1] < logit:
                logits[place] = logits[place - 1]
                tokens[place] = tokens[place - 1]
                place -= 1
            logits[place] = logit
            tokens[place] = token
    for i in range(min(CANDIDATES, n_vocab)):
        var column = embedding.unsafe_offset((tokens[i] // PANEL * n) * PANEL + tokens[i] % PANEL)
        var sum = Float32(0)
        for d in range(n):
            sum += x.unsafe_offset(d).unsafe_load() * column.unsafe_offset(d * PANEL).unsafe_load().cast[DType.float32]()
        y.unsafe_offset(tokens[i]).unsafe_store(sum)
