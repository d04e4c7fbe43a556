"""The laboratory's process: whatever happens in it, the page's side gets a sentence and goes on."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Iterator

import pytest

from engines import microscope
from engines.audio import load_clip
from engines.base import EngineError, Listener, Progress, Stopped
from engines.faults.catalogue import FAULTS
from engines.laboratory import Laboratory
from tests.fake_lab import make_examination
from tests.fakes import make_clip
from tests.processes import wait_until

COMMAND = (sys.executable, "-m", "tests.faulty_laboratory")
CLIP = "audio_samples/jfk.flac"


class Watcher(Listener):
    """Remembers what it was told, and wants to stop once it was told something."""

    def __init__(self, impatient: bool = False) -> None:
        self.told: list[tuple[str, float]] = []
        self._impatient = impatient

    def progress(self, progress: Progress) -> None:
        self.told.append((progress.note, progress.done))

    def stopped(self) -> bool:
        return self._impatient and bool(self.told)


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    """One with a process that goes wrong when it is asked to."""
    made = Laboratory(COMMAND)
    yield made
    made.close()


def test_what_was_seen_and_how_far_it_got_come_back(laboratory: Laboratory) -> None:
    watcher = Watcher()
    seen = laboratory.look(["cpu"], "tiny.en", make_clip(), watcher)
    assert watcher.told == [("looking at stage 1", 0.25)]
    assert seen.specimens == make_examination().specimens
    assert [stage.name for stage in seen.stages][-1] == "ln_post"


def test_a_crash_is_a_sentence_and_the_next_look_starts_anew(laboratory: Laboratory) -> None:
    with pytest.raises(EngineError, match=r"process of the laboratory ended by SIGSEGV\. The next"):
        laboratory.look(["cpu"], "segfault", make_clip())
    with pytest.raises(EngineError, match="The clip has 6"):
        laboratory.look(["cpu"], "refuses", make_clip())
    with pytest.raises(EngineError, match="a graph did not fit"):
        laboratory.look(["cpu"], "raises", make_clip())


@pytest.mark.parametrize("model", ["patient", "deaf"])
def test_stop_ends_it_soon(laboratory: Laboratory, model: str) -> None:
    laboratory.look(["cpu"], "tiny.en", make_clip())
    start = time.monotonic()
    with pytest.raises(Stopped):
        laboratory.look(["cpu"], model, make_clip(), Watcher(impatient=True))
    assert time.monotonic() - start < 5  # one second, and what a busy machine adds
    assert (laboratory._worker is None) == (model == "deaf")


def test_it_ends_when_nobody_asks_anything() -> None:
    laboratory = Laboratory(COMMAND, idle_seconds=0.2)
    laboratory.look(["cpu"], "tiny.en", make_clip())
    wait_until(lambda: laboratory._worker is None, "its end")


def test_faults_travel_as_themselves() -> None:
    for fault in FAULTS:
        assert pickle.loads(pickle.dumps(fault)) is fault


@pytest.mark.max
def test_a_look_and_a_fault_are_as_in_this_process() -> None:
    laboratory, clip = Laboratory(), load_clip(CLIP)
    names = ["cpu:float32", "max_hybrid:float16"]
    seen = laboratory.look(names, "tiny.en", clip)
    found = laboratory.run_fault("scaled", "tiny.en", clip)
    laboratory.close()
    here = microscope.look(names, "tiny.en", clip)
    assert [stage.statistics for stage in seen.stages] == [s.statistics for s in here.stages]
    assert found.fault is next(fault for fault in FAULTS if fault.key == "scaled")
    assert found.first_stage == "ln_post"
    assert found.right.text.strip() and found.right.features.size == 0
    assert found.faulty is not None and found.faulty.features.size == 0
