"""Hundreds of odd, broken and hostile files: each a right clip or one sentence, within bounds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bad_input.check import Reader, Result, describe, find_fault, read_all
from tests.bad_input.corpus import Case, make

FEWEST = 200


@pytest.mark.skipif(
    not shutil.which("ffmpeg"), reason="ffmpeg is not installed: it makes the clips"
)
def test_every_file_is_a_right_clip_or_refused_in_a_sentence(tmp_path: Path) -> None:
    cases = make(tmp_path)
    assert len(cases) >= FEWEST and len({case.path for case in cases}) == len(cases)
    results = read_all(cases)
    assert not any(result.fault for result in results), describe(results)
    assert any("sentence" in result.answer for result in results)
    assert any("seconds" in result.answer for result in results)


def case(outcome: str = "heard", seconds: float | None = None, whole: bool = False) -> Case:
    return Case("a clip", Path("clip.wav"), outcome, seconds, whole)  # type: ignore[arg-type]


def heard(**changes: object) -> dict[str, object]:
    return {"seconds": 2.0, "hertz": 440.0, "sound": True} | changes


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (case(), {"fault": "ends the process"}),
        (case(), {"sentence": "It is damaged: try again."}),
        (case(), heard(hertz=220.0)),
        (case(), heard(seconds=1.0)),
        (case(), heard(sound=False)),
        (case("refused"), heard()),
        (case("refused"), {"sentence": "no full stop"}),
        (case("refused"), {"sentence": "Two\nlines."}),
        (case("either", 1.0), heard()),
        (case("either", whole=True), heard(hertz=220.0)),
        (case("either", whole=True), heard(seconds=1.0)),
    ],
)
def test_what_is_wrong_is_called_a_fault(expected: Case, answer: dict[str, object]) -> None:
    assert find_fault(expected, answer)
    assert "FAULT a clip" in describe([Result(expected, answer)])


def test_what_is_right_is_none() -> None:
    assert find_fault(case(), heard()) is None
    assert find_fault(case("either"), {"sentence": "It is damaged: try again."}) is None


def test_a_process_that_ends_is_told_and_replaced(tmp_path: Path) -> None:
    reader = Reader()
    try:
        reader.start().kill()
        assert "process" in reader.read(tmp_path / "gone.wav")["fault"]
        assert "There is no file" in reader.read(tmp_path / "gone.wav")["sentence"]
    finally:
        reader.stop()
