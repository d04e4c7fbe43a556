"""Which token comes next: what Whisper's filters leave of a row of logits, and the best of that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.base import FloatArray

IntArray = npt.NDArray[np.int64]

MASKED = np.float32(-1e30)
"""Added to a logit that must not be chosen: far below every other, and finite."""

BLOCK = 64
"""Values of which only the largest is looked at first; a matter of speed alone."""


@dataclass(frozen=True)
class Rules:
    """Which tokens a step may choose.

    `mask`: float32 `(n_vocab,)`, 0 or `MASKED`. `weigh`: whether timestamps that are together
    likelier than any text token rule text out, as in `whisper.decoding.ApplyTimestampRules`.
    """

    mask: FloatArray
    weigh: bool


def select_best(
    logits: FloatArray, rules: Rules, ranges: IntArray, best: int
) -> tuple[IntArray, FloatArray]:
    """The `best` tokens of each row and their log-probabilities, best first, both `(m, best)`.

    `logits`: `(m, n_vocab)`. `ranges`: `(m, 4)`: where timestamps begin, the first text token
    allowed, the first timestamp allowed and one past the last. Ties go to the lower token; a token
    is -1 where fewer are allowed. `max_graph/kernels/select.mojo` computes the same.
    """
    chosen = np.full((len(logits), best), -1, np.int64)
    logprobs = np.full((len(logits), best), MASKED, np.float32)
    for row, (begin, text, first, last) in enumerate(ranges):
        words = logits[row, text:begin] + rules.mask[text:begin]
        times = logits[row, first:last] + rules.mask[first:last]
        only_times = rules.weigh and times.size and _log_sum_exp(times) > words.max(initial=-np.inf)
        left = times if only_times else np.concatenate([words, times])
        places = _largest(left, best)
        skipped = 0 if only_times else len(words)
        tokens = np.where(places < skipped, text + places, first + places - skipped)
        chosen[row, : len(places)] = tokens
        logprobs[row, : len(places)] = left[places] - _log_sum_exp(left)
    return chosen, logprobs


def _largest(values: FloatArray, count: int) -> IntArray:
    """Places of the `count` largest finite values, largest first, of equals the first."""
    if count == 1:
        order = np.array([values.argmax()])
        return order[np.isfinite(values[order])]
    tops = np.sort(values[: len(values) // BLOCK * BLOCK].reshape(-1, BLOCK).max(1))
    least = tops[-count] if count <= len(tops) else -np.inf  # as many values are no smaller
    candidates = np.flatnonzero((values >= least) & np.isfinite(values))
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]


def _log_sum_exp(values: FloatArray) -> np.float32:
    top = values.max()
    return np.float32(top + np.log(np.exp(values - top).sum()))
