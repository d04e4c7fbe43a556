"""Puts every file of the corpus through the reader of clips: `python -m tests.bad_input.check`.

Prints what came of them, the longest time that a file took, and each fault. The exit status is 1 if
there was one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from engines import worker
from engines.base import SAMPLE_RATE, AudioError, Clip, EngineError
from tests.bad_input.corpus import SECONDS, TONE_HZ, Case, make_quick, make_slow

NEAR_HERTZ = 4.0
"""Two seconds resolve half a hertz; the coarsest codec (8 kHz AMR) moved the tone by 1."""

BREAKDOWNS = ("broke the program", "takes longer than", "takes more memory", "can't be stored")
"""Parts of sentences that are no answer to a file: it did something to its reader."""


def find_fault(case: Case, answer: Clip | EngineError) -> str | None:
    """Return what is wrong with the answer to a file, or None."""
    if isinstance(answer, EngineError):
        said = str(answer)
        if not isinstance(answer, AudioError) or any(words in said for words in BREAKDOWNS):
            return f"is no clip and no refusal: {type(answer).__name__}: {said}"
        if case.outcome == "heard":
            return f"is refused: {said}"
        sentence = said.endswith(".") and said.isprintable() and len(said) < 400
        return None if sentence else f"is refused in no sentence: {said!r}"
    samples, seconds = answer.samples, answer.seconds
    if samples.dtype != np.float32 or samples.ndim != 1 or not np.abs(samples).max() <= 1:
        return "gives samples that are no sound"
    if case.outcome == "refused":
        return f"is taken for a clip of {seconds:.2f} s"
    if case.seconds is not None and abs(seconds - case.seconds) > 0.001:
        return f"has {seconds:.4f} s in place of {case.seconds:.4f} s"
    if case.outcome == "heard":
        head = samples[: 10 * SAMPLE_RATE]
        spectrum = np.abs(np.fft.rfft(head * np.hanning(len(head))))
        hertz = float(np.argmax(spectrum) * SAMPLE_RATE / len(head))
        if abs(hertz - TONE_HZ) > NEAR_HERTZ or not 0.9 * SECONDS < seconds < 1.2 * SECONDS:
            return f"has {seconds:.2f} s of {hertz:.1f} Hz"
    return None


def check(cases: Iterable[Case]) -> tuple[str, list[str]]:
    """Read each file as the page does; return a line of figures, and a line for each fault."""
    heard, times, faults = 0, dict[str, float](), []
    for case in cases:
        started = time.perf_counter()
        answer: Clip | EngineError
        try:
            answer = worker.load_clip(case.path)
        except EngineError as error:
            answer = error
        times[case.name] = time.perf_counter() - started
        heard += isinstance(answer, Clip)
        if fault := find_fault(case, answer):
            faults.append(f"FAULT {case.name} {fault}")
    longest = max(times, key=times.__getitem__)
    figures = (
        f"{len(times)} files: {heard} heard, {len(times) - heard} refused, {len(faults)} faults; "
        f"longest: {times[longest]:.2f} s ({longest})"
    )
    return figures, faults


def main() -> int:
    """Make the corpus in a temporary folder, read it, print the figures."""
    with tempfile.TemporaryDirectory(prefix="bad-input-") as folder:
        figures, faults = check(make_quick(Path(folder)) + make_slow(Path(folder)))
    print("\n".join([figures, *faults]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
