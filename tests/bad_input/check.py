"""Puts every file of the corpus through the reader of clips: `python -m tests.bad_input.check`.

Prints what came of them, the longest time that a file took, and each fault. The exit status is 1 if
there was one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines import worker
from engines.base import SAMPLE_RATE, AudioError, Clip, EngineError
from tests.bad_input.corpus import SECONDS, TONE_HZ, Case, list_missing, make_quick, make_slow

NEAR_HERTZ = 4.0
"""Two seconds resolve half a hertz; the coarsest codec (8 kHz AMR) moved the tone by 1."""

BREAKDOWNS = ("broke the program", "takes longer than", "takes more memory", "can't be stored")
"""Parts of sentences that are no answer to a file: it did something to its reader."""


@dataclass(frozen=True)
class Result:
    """What came of one file: a clip or an error."""

    case: Case
    answer: Clip | Exception
    seconds: float = 0.0

    @property
    def fault(self) -> str | None:
        """What is wrong with the answer, or None."""
        if isinstance(self.answer, Clip):
            return find_fault_of_clip(self.case, self.answer)
        return find_fault_of_error(self.case, self.answer)


def find_fault_of_clip(case: Case, clip: Clip) -> str | None:
    """What a clip lacks to be the right one."""
    if not is_sound(clip.samples):
        return "gives samples that are no sound"
    if case.outcome == "refused":
        return f"is taken for a clip of {clip.seconds:.2f} s"
    if case.seconds is not None and abs(clip.seconds - case.seconds) > 0.001:
        return f"has {clip.seconds:.4f} s in place of {case.seconds:.4f} s"
    right = case.outcome == "heard" or case.whole
    if right and abs(find_loudest(clip.samples) - TONE_HZ) > NEAR_HERTZ:
        return f"has its tone at {find_loudest(clip.samples):.1f} Hz"
    if right and not 0.9 * SECONDS < clip.seconds < 1.2 * SECONDS:
        return f"has {clip.seconds:.2f} s"
    return None


def find_fault_of_error(case: Case, error: Exception) -> str | None:
    """A refusal must be due, and one sentence on one line that ends in a full stop."""
    said = str(error)
    if not isinstance(error, AudioError) or any(words in said for words in BREAKDOWNS):
        return f"is no clip and no refusal: {type(error).__name__}: {said}"
    if case.outcome == "heard":
        return f"is refused: {said}"
    if not (said.endswith(".") and said.isprintable() and len(said) < 400):
        return f"is refused in no sentence: {said!r}"
    return None


def find_loudest(samples: np.ndarray) -> float:
    """The frequency with the most energy in the first ten seconds."""
    head = samples[: 10 * SAMPLE_RATE]
    spectrum = np.abs(np.fft.rfft(head * np.hanning(len(head))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(head))


def is_sound(samples: np.ndarray) -> bool:
    """Whether they are what every engine takes: float32, one axis, finite, within [-1, 1]."""
    right = samples.dtype == np.float32 and samples.ndim == 1 and len(samples) > 0
    return bool(right and np.isfinite(samples).all() and np.abs(samples).max() <= 1.0)


def read(case: Case) -> Result:
    """Read a file as the page does."""
    started = time.perf_counter()
    answer: Clip | Exception
    try:
        answer = worker.load_clip(case.path)
    except EngineError as error:
        answer = error
    return Result(case, answer, time.perf_counter() - started)


def describe(results: Sequence[Result]) -> str:
    """The figures, and a line for each fault."""
    heard = sum(isinstance(result.answer, Clip) for result in results)
    faults = [f"FAULT {r.case.name} ({r.case.path.name!r}) {r.fault}" for r in results if r.fault]
    longest = max(results, key=lambda result: result.seconds)
    return "\n".join(
        [
            f"{len(results)} files: {heard} heard, {len(results) - heard} refused, "
            f"{len(faults)} faults",
            f"longest: {longest.seconds:.2f} s ({longest.case.name})",
            *faults,
        ]
    )


def main() -> int:
    """Make the corpus in a temporary folder, read it, print the figures."""
    with tempfile.TemporaryDirectory(prefix="bad-input-") as folder:
        cases = make_quick(Path(folder)) + make_slow(Path(folder))
        results = [read(case) for case in cases]
    print(describe(results))
    if missing := list_missing(cases):
        print(f"not written by this ffmpeg: {', '.join(missing)}")
    return 1 if any(result.fault for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
