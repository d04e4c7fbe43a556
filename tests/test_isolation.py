"""Engines in processes of their own: whatever one does, the caller gets a sentence and goes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from engines import isolation, registry
from engines.base import EngineError, EngineUnavailable, Listener, Segment, Stopped
from engines.isolation import IsolatedEngine
from tests.fakes import WORDS, make_clip

COMMAND = (sys.executable, "-m", "tests.faulty_worker")
MakeEngine = Callable[[str], IsolatedEngine]


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Makes an isolated engine whose model names its fault."""
    made: list[IsolatedEngine] = []

    def make(fault: str) -> IsolatedEngine:
        made.append(IsolatedEngine("cpu", fault, "float32", registry.row("cpu"), COMMAND))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


class Ear(Listener):
    """Remembers what it hears, and wants to stop after `enough` segments."""

    def __init__(self, enough: int = 1000) -> None:
        self.segments: list[Segment] = []
        self.stages: list[str] = []
        self._enough = enough

    def segment(self, segment: Segment) -> None:
        self.segments.append(segment)

    def progress(self, stage: str, audio_seconds: float) -> None:
        self.stages.append(stage)

    def stopped(self) -> bool:
        return len(self.segments) >= self._enough


def pid(engine: IsolatedEngine) -> int:
    assert engine._worker is not None
    return engine._worker.pid


def test_a_run_is_what_it_is_without_the_process(make_engine: MakeEngine) -> None:
    engine, ear = make_engine("sound"), Ear()
    stages: list[str] = []
    assert engine.prepare(stages.append).load == 0.01
    transcript = engine.transcribe(make_clip(2.0), listener=ear)
    assert transcript.text.split() == WORDS.split()
    assert [s.text for s in ear.segments] == [s.text for s in transcript.segments]
    assert stages == ["loading"]
    assert ear.stages[:2] == ["mel", "encoding"]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("segfault", "ended by SIGSEGV"),
        ("killed", "memory runs out"),
        ("memory", "not enough memory"),
        ("raises", "a graph did not fit"),
    ],
)
def test_what_goes_wrong_is_told_in_a_sentence(
    make_engine: MakeEngine, fault: str, sentence: str
) -> None:
    with pytest.raises(EngineError, match=sentence):
        make_engine(fault).transcribe(make_clip(1.0))


def test_the_next_run_after_a_death_works(make_engine: MakeEngine) -> None:
    engine = make_engine("sound")
    engine.prepare()
    first = pid(engine)
    os.kill(first, signal.SIGKILL)
    while engine._worker is not None and engine._worker.is_alive():
        time.sleep(0.01)
    assert engine.transcribe(make_clip(1.0)).text.split() == WORDS.split()
    assert pid(engine) != first


def test_an_engine_that_cannot_be_made_says_why(make_engine: MakeEngine) -> None:
    with pytest.raises(EngineUnavailable, match="no such device here"):
        make_engine("absent").prepare()


def test_stop_reaches_the_engine_and_keeps_its_process(make_engine: MakeEngine) -> None:
    engine = make_engine("slow")
    engine.prepare()
    before = pid(engine)
    with pytest.raises(Stopped):
        engine.transcribe(make_clip(2.0), listener=Ear(enough=1))
    assert pid(engine) == before
    assert engine.transcribe(make_clip(2.0)).text.split() == WORDS.split()


@pytest.mark.parametrize("fault", ["deaf", "hangs"])
def test_one_that_will_not_stop_is_ended(make_engine: MakeEngine, fault: str) -> None:
    engine = make_engine(fault)
    engine.prepare()
    before = pid(engine)
    with pytest.raises(Stopped):
        engine.transcribe(make_clip(1.0), listener=Ear(enough=0))
    assert engine._worker is None
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


def test_one_that_hangs_is_ended(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine("hangs")
    engine.prepare()
    monkeypatch.setattr(isolation, "SILENT_SECONDS", 3.0)
    with pytest.raises(EngineError, match="no sign of life"):
        engine.transcribe(make_clip(1.0))


def test_one_that_makes_no_headway_is_ended(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine("deaf")
    engine.prepare()
    monkeypatch.setattr(isolation, "STUCK_SECONDS", 3.0)
    with pytest.raises(EngineError, match="no headway"):
        engine.transcribe(make_clip(1.0))


def test_a_worker_does_not_outlive_its_engine(make_engine: MakeEngine) -> None:
    engine = make_engine("sound")
    engine.prepare()
    before = pid(engine)
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


def test_the_real_engine_gives_the_same_in_its_process() -> None:
    mel = np.zeros((1, 80, 3000), np.float32)
    try:
        apart = isolation.get("cpu").encode(mel)
    finally:
        isolation.close_all()
    assert np.array_equal(apart, registry.get("cpu").encode(mel))


def test_one_model_is_kept_for_each_engine() -> None:
    try:
        nano, other = isolation.get("cpu", "nano"), isolation.get("cpu", "tiny.en")
        assert isolation.get("cpu", "tiny.en") is other
        assert isolation.get("cpu", "nano") is not nano
    finally:
        isolation.close_all()


def test_a_model_in_use_is_left_alone() -> None:
    try:
        nano = isolation.get("cpu", "nano")
        assert isinstance(nano, IsolatedEngine)
        using, done = threading.Event(), threading.Event()

        def use() -> None:
            with nano._one_at_a_time:
                using.set()
                done.wait(60)

        threading.Thread(target=use, daemon=True).start()
        using.wait(60)
        isolation.get("cpu", "tiny.en")
        done.set()
        assert ("cpu", "nano", "float32") in isolation._engines
    finally:
        isolation.close_all()


def test_unavailable_engines_are_refused_before_a_process_starts() -> None:
    for status in registry.statuses():
        if not status.available:
            with pytest.raises(EngineUnavailable):
                isolation.get(status.key)
    with pytest.raises(EngineError, match="no engine"):
        isolation.get("abacus")
