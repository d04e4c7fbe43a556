"""Top k tokens under Whisper's filters, with log-softmax.

`select_top_k` in `engines/token_selection.py` is the reference in NumPy.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.math import exp, log

from .tile import LOWEST, WIDTH, Vector


@extensibility.register("whisper_select")
struct Select:
    """Top k tokens of each row with their log-probabilities, best first.

    `logits`: `(m, n_vocab)`. `mask`: `(n_vocab,)`, 0 or a large negative number, added to the logits.
    `ranges`: `(m, 4)`: where timestamps begin, the first text token allowed, the first timestamp allowed and one
    past the last. `timestamps_dominate`: `(1,)`, whether timestamps that are together likelier than any text token
    rule out text, as in `whisper.decoding.ApplyTimestampRules`. `tokens`, `logprobs`: `(m, k)`; ties go to the
    lower token, and a token is -1 where fewer than k are allowed.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        tokens: OutputTensor[dtype=DType.int64, rank=2, ...],
        logprobs: OutputTensor[dtype=DType.float32, rank=2, ...],
        logits: InputTensor[dtype=DType.float32, rank=2, ...],
        mask: InputTensor[dtype=DType.float32, rank=1, ...],
        ranges: InputTensor[dtype=DType.int64, rank=2, ...],
        timestamps_dominate: InputTensor[dtype=DType.int64, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var m, n, k = logits.dim_size(0), logits.dim_size(1), tokens.dim_size(1)
        var lp = logits.unsafe_ptr()
        var mp = mask.unsafe_ptr()
        var rp = ranges.unsafe_ptr()
        var tp = tokens.unsafe_ptr()
        var pp = logprobs.unsafe_ptr()
        var may_dominate = timestamps_dominate.unsafe_ptr().unsafe_load() != 0

        def work(row: Int) raises {imm}:
            var x = lp.unsafe_offset(row * n)  # (n_vocab,)
            var r = rp.unsafe_offset(row * 4)
            var begin = Int(r.unsafe_load())
            var text = Int(r.unsafe_offset(1).unsafe_load())
            var first = Int(r.unsafe_offset(2).unsafe_load())
            var last = Int(r.unsafe_offset(3).unsafe_load())
            var text_top = largest_logit(text, begin, x, mp)
            var time_top = largest_logit(first, last, x, mp)
            var highest = max(text_top, time_top)  # subtracted before exp, which can't overflow then
            var text_sum = exp_sum(text, begin, highest, x, mp)
            var time_sum = exp_sum(first, last, highest, x, mp)
            var only_time = may_dominate and time_sum > 0 and log(time_sum) + highest > text_top
            var norm = highest + log(time_sum if only_time else text_sum + time_sum)
            for i in range(k):
                var start = begin if only_time else text
                var chosen = tp.unsafe_offset(row * k)
                write_best(i, start, begin, first, last, norm, x, mp, chosen, pp.unsafe_offset(row * k))

        sync_parallelize(work, m)


@always_inline
def masked[width: Int](t: Int, x: Pointer[Float32, ...], mask: Pointer[Float32, ...]) -> SIMD[DType.float32, width]:
    """Returns the masked logits of tokens `t` to `t + width`."""
    return x.unsafe_offset(t).unsafe_load[width=width]() + mask.unsafe_offset(t).unsafe_load[width=width]()


@always_inline
def largest_logit(start: Int, end: Int, x: Pointer[Float32, ...], mask: Pointer[Float32, ...]) -> Float32:
    """Returns the largest masked logit of tokens `start` to `end`."""
    var tops = Vector(LOWEST)
    var t = start
    while t + WIDTH <= end:
        tops = max(tops, masked[WIDTH](t, x, mask))
        t += WIDTH
    var result = tops.reduce_max()
    for last in range(t, end):
        result = max(result, masked[1](last, x, mask))
    return result


@always_inline
def exp_sum(start: Int, end: Int, shift: Float32, x: Pointer[Float32, ...], mask: Pointer[Float32, ...]) -> Float32:
    """Returns the sum of `exp(masked logit - shift)` over tokens `start` to `end`."""
    var sums = Vector(0)
    var t = start
    while t + WIDTH <= end:
        sums += exp(masked[WIDTH](t, x, mask) - shift)
        t += WIDTH
    var result = sums.reduce_add()
    for last in range(t, end):
        result += exp(masked[1](last, x, mask) - shift)
    return result


@always_inline
def write_best(
    i: Int,
    text: Int,
    begin: Int,
    first: Int,
    last: Int,
    norm: Float32,
    x: Pointer[Float32, ...],
    mask: Pointer[Float32, ...],
    tokens: Pointer[mut=True, Int64, ...],
    logprobs: Pointer[mut=True, Float32, ...],
):
    """Writes the `i`-th best token: the largest of those not chosen yet.

    A pass per token over the row; k is a few beams, and most vectors are skipped by their maximum.
    """
    var chosen = -1
    var value = Float32(2) * LOWEST
    comptime for part in range(2):
        var t = text if part == 0 else first
        var end = begin if part == 0 else last
        while t < end:
            if t + WIDTH <= end and masked[WIDTH](t, x, mask).reduce_max() <= value:
                t += WIDTH
                continue
            for lane in range(min(WIDTH, end - t)):
                var v = masked[1](t + lane, x, mask)
                if v > value and not is_chosen(i, t + lane, tokens):
                    value = v
                    chosen = t + lane
            t += WIDTH
    tokens.unsafe_offset(i).unsafe_store(Int64(chosen))
    logprobs.unsafe_offset(i).unsafe_store(value - norm)


@always_inline
def is_chosen(i: Int, token: Int, tokens: Pointer[Int64, ...]) -> Bool:
    """Returns whether `token` is one of the first `i` chosen tokens."""
    for j in range(i):
        if Int(tokens.unsafe_offset(j).unsafe_load()) == token:
            return True
    return False
