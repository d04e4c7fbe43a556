"""Hundreds of odd, broken and hostile files: each a right clip or one sentence, within bounds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engines import worker
from tests.bad_input.check import check
from tests.bad_input.corpus import Case, make_quick, make_slow

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
    figures, faults = check(cases)
    worker.reader.close()
    assert not faults, "\n".join([figures, *faults])
    assert " 0 heard" not in figures and " 0 refused" not in figures
