"""Hundreds of odd, broken and hostile files: each a right clip or one sentence, within bounds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines import worker
from engines.base import SAMPLE_RATE, AudioError, Clip, EngineError
from tests.bad_input.corpus import (
    SECONDS,
    TONE_HZ,
    Case,
    decode_by_ffmpeg,
    make_common,
    make_quick,
    make_slow,
    tone,
)

NEAR_HERTZ = 4.0
"""Two seconds resolve half a hertz; the coarsest codec (8 kHz AMR) moved the tone by 1."""

MOST_APART = 0.01
"""Share of the tone by which two versions of FFmpeg may decode and resample unlike; a shift by one
sample is 0.17, one of 16 channels lost in the mix 0.06."""

FRAME = round(2048 / 44_100 * SAMPLE_RATE)
"""Samples of the longest frame of a codec here, WMA's."""

BREAKDOWNS = ("broke the program", "takes longer than", "takes more memory", "can't be stored")
"""Parts of sentences that are no answer to a file: it did something to its reader."""

needs_ffmpeg = pytest.mark.skipif(
    not shutil.which("ffmpeg"), reason="ffmpeg is not installed: it makes the clips"
)


def read(path: Path) -> Clip | EngineError:
    """Read a file as the page does."""
    try:
        return worker.load_clip(path)
    except EngineError as error:
        return error


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
    return compare_with_ffmpeg(case, answer) if case.path.parent.name == "formats" else None


def compare_with_ffmpeg(case: Case, clip: Clip) -> str | None:
    """Return in what a right file's samples are not those of the ffmpeg program, or None."""
    expected, samples = decode_by_ffmpeg(case.path), clip.samples
    if said := clip.source.sentences():
        return f"is read whole, and said to be odd: {said}"
    if abs(len(samples) - len(expected)) > FRAME:
        return f"has {len(samples)} samples in place of {len(expected)}"
    both = min(len(samples), len(expected))
    apart = np.abs(samples[:both] - expected[:both]).max() / np.abs(tone()).max()
    return f"differs from ffmpeg by {apart:.4f} of the tone" if apart > MOST_APART else None


@pytest.mark.parametrize(
    ("make", "fewest"),
    [
        (make_quick, 100),
        pytest.param(make_common, 10, marks=needs_ffmpeg),
        pytest.param(make_slow, 200, marks=[needs_ffmpeg, pytest.mark.slow]),
    ],
)
def test_every_file_is_a_right_clip_or_refused_in_a_sentence(
    make: Callable[[Path], list[Case]], fewest: int, tmp_path: Path
) -> None:
    cases = make(tmp_path)
    answers = {case: read(case.path) for case in cases}
    worker.reader.close()
    heard = sum(isinstance(answer, Clip) for answer in answers.values())
    print(f"\n{len(cases)} files: {heard} heard, {len(cases) - heard} refused")
    faults = {case.name: fault for case in cases if (fault := find_fault(case, answers[case]))}
    assert not faults
    assert len(answers) == len(cases) >= fewest and heard > 0
    formats = sum(case.path.parent.name == "formats" for case in cases)
    assert formats >= 60 or make is not make_slow
