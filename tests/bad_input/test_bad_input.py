"""Hundreds of odd, broken and hostile files: each a right clip or one sentence, within bounds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines import worker
from engines.base import AudioError, Clip, EngineError
from tests.bad_input.check import Result, describe, read
from tests.bad_input.corpus import Case, make_quick, make_slow, tone

needs_ffmpeg = pytest.mark.skipif(
    not shutil.which("ffmpeg"), reason="ffmpeg is not installed: it makes the clips"
)


@pytest.mark.parametrize(
    ("make", "fewest"),
    [(make_quick, 100), pytest.param(make_slow, 200, marks=[needs_ffmpeg, pytest.mark.slow])],
)
def test_every_file_is_a_right_clip_or_refused_in_a_sentence(
    make: Callable[[Path], list[Case]], fewest: int, tmp_path: Path
) -> None:
    cases = make(tmp_path)
    assert len(cases) >= fewest and len({case.path for case in cases}) == len(cases)
    results = [read(case) for case in cases]
    worker.reader.close()
    assert not any(result.fault for result in results), describe(results)
    assert {type(result.answer) for result in results} == {Clip, AudioError}


def case(outcome: str = "heard", seconds: float | None = None, whole: bool = False) -> Case:
    return Case("a clip", Path("clip.wav"), outcome, seconds, whole)  # type: ignore[arg-type]


def heard(seconds: float = 2.0, gain: float = 1.0) -> Clip:
    return Clip((gain * tone(seconds)).astype(np.float32))


OTHER_TONE = Clip(heard().samples[::2].repeat(2) * np.resize([1.0, -1.0], 32_000).astype("f4"))
DAMAGED = AudioError("It is damaged: try again.")


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (case("refused"), EngineError("The process of the clip reader ended by SIGSEGV.")),
        (case("refused"), AudioError("clip.wav broke the program that reads clips: try again.")),
        (case(), DAMAGED),
        (case(), OTHER_TONE),
        (case(), heard(1.0)),
        (case(), heard(gain=8.0)),
        (case("refused"), heard()),
        (case("refused"), AudioError("no full stop")),
        (case("refused"), AudioError("Two\nlines.")),
        (case("either", 1.0), heard()),
        (case("either", whole=True), OTHER_TONE),
        (case("either", whole=True), heard(1.0)),
    ],
)
def test_what_is_wrong_is_called_a_fault(expected: Case, answer: Clip | Exception) -> None:
    result = Result(expected, answer)
    assert result.fault and "FAULT a clip" in describe([result])


def test_what_is_right_is_none() -> None:
    assert Result(case(), heard()).fault is None
    assert Result(case("either"), DAMAGED).fault is None
