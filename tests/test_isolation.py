"""Engines in processes of their own: whatever one does, the caller gets a sentence and goes on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engines import isolation, registry
from engines.base import (
    EngineError,
    EngineUnavailable,
    Listener,
    PrepareSeconds,
    Progress,
    Segment,
    Stopped,
)
from engines.isolation import IsolatedEngine
from tests.fakes import WORDS, FakeEngine, make_clip
from tests.faulty_worker import GATE
from tests.processes import PATIENCE, members, needs_proc, wait_until

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

    def progress(self, progress: Progress) -> None:
        self.stages.append(progress.stage)

    def stopped(self) -> bool:
        return len(self.segments) >= self._enough


class Hasty(Listener):
    """Wants to stop as soon as the run is under way."""

    asked = 0

    def stopped(self) -> bool:
        self.asked += 1
        return self.asked > 1


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
        ("memory", "there was not enough memory"),
        ("gpu memory", "the GPU has not enough memory"),
        ("disk", "the disk is full"),
        ("raises", "a graph did not fit"),
        ("pages", "the compiler says one thing after another"),
    ],
)
def test_what_goes_wrong_is_told_in_a_sentence(
    make_engine: MakeEngine, fault: str, sentence: str
) -> None:
    with pytest.raises(EngineError, match=sentence) as caught:
        make_engine(fault).transcribe(make_clip(1.0))
    said = str(caught.value)
    assert "\n" not in said and len(said) < 320 and said.endswith(".")


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


def test_a_run_stopped_before_its_turn_starts_no_worker(make_engine: MakeEngine) -> None:
    engine = make_engine("sound")
    with pytest.raises(Stopped):
        engine.transcribe(make_clip(2.0), listener=Ear(enough=0))
    assert engine._worker is None


def test_stop_reaches_the_engine_and_keeps_its_process(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine("slow")
    engine.prepare()
    monkeypatch.setattr(isolation, "STOP_SECONDS", PATIENCE)
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
        engine.transcribe(make_clip(1.0), listener=Hasty())
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


class Visitor:
    """Somebody who waits for an engine to get ready, in a thread of its own."""

    def __init__(self, engine: IsolatedEngine, warming: bool = False) -> None:
        self.wants_to_stop = threading.Event()
        self.heard: list[str] = []
        self.outcome: PrepareSeconds | EngineError | None = None
        stopped = None if warming else self.wants_to_stop.is_set
        self.thread = threading.Thread(target=self._wait, args=(engine, stopped), daemon=True)
        self.thread.start()

    def _wait(self, engine: IsolatedEngine, stopped: Callable[[], bool] | None) -> None:
        try:
            self.outcome = engine.prepare(self.heard.append, stopped)
        except EngineError as error:
            self.outcome = error

    def leave(self) -> None:
        """Stop, and wait for the answer."""
        self.wants_to_stop.set()
        self.thread.join(PATIENCE)


def start_compiling(engine: IsolatedEngine, warming: bool = False) -> Visitor:
    """A visitor whose engine compiles, the compiler beside it."""
    visitor = Visitor(engine, warming)
    wait_until(lambda: "compiling" in visitor.heard, "compiling")
    assert len(members(pid(engine))) == 2
    return visitor


@needs_proc
def test_stop_while_compiling_ends_the_worker_and_its_compiler(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    engine = make_engine(f"{GATE}{tmp_path / 'gate'}")
    visitor, worker = start_compiling(engine), pid(engine)
    visitor.leave()
    wait_until(lambda: not members(worker), "the end of the worker and its compiler")
    assert isinstance(visitor.outcome, Stopped)
    (tmp_path / "gate").touch()
    assert engine.transcribe(make_clip(1.0)).text.split() == WORDS.split()


@needs_proc
def test_a_compile_goes_on_while_another_visitor_waits_for_it(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    engine = make_engine(f"{GATE}{tmp_path / 'gate'}")
    first, worker = start_compiling(engine), pid(engine)
    second = Visitor(engine)
    wait_until(lambda: len(engine._waiting) == 2, "two waiting")
    first.wants_to_stop.set()
    time.sleep(5 * isolation.LISTEN_SECONDS)
    assert len(members(worker)) == 2
    (tmp_path / "gate").touch()
    second.thread.join(PATIENCE)
    assert isinstance(second.outcome, PrepareSeconds) and pid(engine) == worker


@needs_proc
def test_the_last_to_stop_ends_a_compile(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine = make_engine(f"{GATE}{tmp_path / 'gate'}")
    first, worker = start_compiling(engine), pid(engine)
    second = Visitor(engine)
    wait_until(lambda: len(engine._waiting) == 2, "two waiting")
    first.wants_to_stop.set()
    second.leave()
    first.leave()
    assert isinstance(first.outcome, Stopped) and isinstance(second.outcome, Stopped)
    assert not members(worker) and engine._worker is None


@needs_proc
def test_warming_gives_way_to_a_visitor_who_stops(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine = make_engine(f"{GATE}{tmp_path / 'gate'}")
    warming, worker = start_compiling(engine, warming=True), pid(engine)
    visitor = Visitor(engine)
    wait_until(lambda: len(engine._waiting) == 1, "the visitor waiting")
    visitor.leave()
    warming.thread.join(PATIENCE)
    assert isinstance(warming.outcome, Stopped) and isinstance(visitor.outcome, Stopped)
    assert not members(worker)


def test_after_a_stop_the_rest_is_not_warmed() -> None:
    asked: list[str] = []

    class Engine(FakeEngine):
        def prepare(self, *_: object) -> PrepareSeconds:
            asked.append(self.key)
            raise {"a": EngineError, "b": Stopped}[self.key]("no")

    registry.warm("abc", "tiny.en", lambda key, model: Engine(key)).join(PATIENCE)
    assert asked == ["a", "b"]


@needs_proc
def test_one_killed_while_compiling_leaves_no_compiler(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    engine = make_engine(f"{GATE}{tmp_path / 'gate'}")
    visitor, worker = start_compiling(engine), pid(engine)
    os.kill(worker, signal.SIGKILL)
    visitor.thread.join(PATIENCE)
    assert "it was killed" in str(visitor.outcome)
    wait_until(lambda: not members(worker), "the end of the compiler")
    (tmp_path / "gate").touch()
    assert engine.transcribe(make_clip(1.0)).text.split() == WORDS.split()


ABANDON = """
import sys, threading, time
from engines import registry
from engines.isolation import IsolatedEngine
engine = IsolatedEngine("cpu", sys.argv[1], "float32", registry.row("cpu"), sys.argv[2:])
engine.prepare(lambda stage: print(engine._worker.pid, flush=True))
"""


@needs_proc
def test_a_killed_page_leaves_neither_worker_nor_compiler(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ABANDON, f"{GATE}{tmp_path / 'gate'}", *COMMAND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        worker = int(page.stdout.readline())
        assert len(members(worker)) == 2
        page.kill()
    wait_until(lambda: not members(worker), "the end of the worker and its compiler")


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


SILENT = (sys.executable, "-c", "import time; time.sleep(600)")
LONG_CLIP = make_clip(60.0)
"""More than a pipe takes in before somebody reads it."""


def test_stop_reaches_a_worker_that_never_comes_up() -> None:
    engine = IsolatedEngine("cpu", "tiny.en", "float32", registry.row("cpu"), SILENT)
    outcomes: list[str] = []

    def ask() -> None:
        try:
            engine.transcribe(LONG_CLIP, listener=Hasty())
        except Stopped:
            outcomes.append("stopped")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert outcomes == ["stopped"] and engine._worker is None


def test_a_worker_that_never_comes_up_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "SILENT_SECONDS", 1.0)
    engine = IsolatedEngine("cpu", "tiny.en", "float32", registry.row("cpu"), SILENT)
    with pytest.raises(EngineError, match="no sign of life"):
        engine.transcribe(LONG_CLIP)


def test_a_process_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(isolation, "start", start)
    with pytest.raises(EngineError, match=r"could not be started: .*temporarily unavailable"):
        IsolatedEngine("cpu", "tiny.en", "float32", registry.row("cpu"), SILENT).prepare()


def test_unavailable_engines_are_refused_before_a_process_starts() -> None:
    for status in registry.statuses():
        if not status.available:
            with pytest.raises(EngineUnavailable):
                isolation.get(status.key)
    with pytest.raises(EngineError, match="no engine"):
        isolation.get("abacus")
