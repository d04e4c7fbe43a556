"""Engines in processes of their own: whatever one does, the caller gets a sentence and goes on.

The handlers in the processes are fakes (`tests/fake_handlers.py`), except where it says so.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engines import process, registry, worker
from engines.base import EngineError, EngineUnavailable, Listener, Segment, Stopped
from engines.process import Worker, WorkerProcess
from tests.fake_handlers import FAULTS
from tests.fakes import WORDS, make_clip
from tests.processes import PATIENCE, is_gone, needs_proc, wait_until
from tests.workers import Hasty, MakeEngine, Recorder, Waiter, make_engines, pid, says_its_words

LONG_CLIP = make_clip(60.0)
"""More than a pipe takes in before somebody reads it."""


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Makes an engine whose model names its fault."""
    yield from make_engines()


def test_a_run_is_what_it_is_without_the_process(make_engine: MakeEngine) -> None:
    engine, preparing, running = make_engine("sound"), Recorder(), Recorder()
    assert engine.prepare(preparing).load == 0.01 and preparing.stages == ["loading"]
    assert engine.device == "fake device"
    transcript = engine.transcribe(make_clip(2.0), listener=running)
    assert transcript.text.split() == WORDS.split()
    assert running.segments == list(transcript.segments)
    assert running.stages[:2] == ["mel", "encoding"]


@pytest.mark.parametrize(("fault", "sentence"), FAULTS.items())
def test_what_goes_wrong_is_one_sentence_and_the_next_run_works(
    make_engine: MakeEngine, fault: str, sentence: str, tmp_path: Path
) -> None:
    engine = make_engine(f"{fault} once {tmp_path / 'happened'}")
    with pytest.raises(EngineError, match=sentence) as caught:
        engine.transcribe(make_clip(1.0))
    said = str(caught.value)
    assert "\n" not in said and len(said) < 320 and said.endswith(".")
    assert says_its_words(engine)


def test_the_next_run_after_a_death_between_runs_works(make_engine: MakeEngine) -> None:
    engine = make_engine("sound")
    engine.prepare()
    first = pid(engine)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not engine.worker.process.is_alive(), "its end")
    assert says_its_words(engine) and pid(engine) != first


def test_an_engine_that_cannot_be_made_or_had_says_why(make_engine: MakeEngine) -> None:
    with pytest.raises(EngineUnavailable, match="no such device here"):
        make_engine("absent").prepare()
    for status in registry.statuses():
        if not status.available:
            with pytest.raises(EngineUnavailable):
                worker.get_engine(status.key)
    with pytest.raises(EngineError, match="no engine"):
        worker.get_engine("abacus")


def test_a_run_stopped_before_its_turn_starts_no_process(make_engine: MakeEngine) -> None:
    engine = make_engine("sound")
    with pytest.raises(Stopped):
        engine.transcribe(make_clip(2.0), listener=Recorder(enough=0))
    assert engine.worker.process is None


def test_stop_reaches_the_engine_and_keeps_its_process(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine("slow")
    engine.prepare()
    monkeypatch.setattr(process, "STOP_SECONDS", PATIENCE)
    before = pid(engine)
    with pytest.raises(Stopped):
        engine.transcribe(make_clip(2.0), listener=Recorder(enough=1))
    assert says_its_words(engine) and pid(engine) == before


def test_a_listener_that_fails_ends_the_request(make_engine: MakeEngine) -> None:
    """Else the next request would get the answer to this one."""

    class Broken(Listener):
        def segment(self, segment: Segment) -> None:
            raise ZeroDivisionError

    engine = make_engine("slow")
    with pytest.raises(ZeroDivisionError):
        engine.transcribe(make_clip(2.0), listener=Broken())
    assert engine.worker.process is None and says_its_words(engine)


@pytest.mark.parametrize("fault", ["deaf", "hangs"])
def test_one_that_will_not_stop_is_ended(make_engine: MakeEngine, fault: str) -> None:
    engine = make_engine(fault)
    engine.prepare()
    before = pid(engine)
    with pytest.raises(Stopped):
        engine.transcribe(make_clip(1.0), listener=Hasty())
    assert engine.worker.process is None and is_gone(before)


@pytest.mark.parametrize(
    ("fault", "limit", "sentence"),
    [("hangs", "SILENT_SECONDS", "no sign of life"), ("deaf", "STUCK_SECONDS", "no headway")],
)
def test_one_that_gives_nothing_is_ended(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, fault: str, limit: str, sentence: str
) -> None:
    engine = make_engine(fault)
    engine.prepare()
    monkeypatch.setattr(process, limit, 3.0)
    with pytest.raises(EngineError, match=sentence):
        engine.transcribe(make_clip(1.0))


class Mute(WorkerProcess):
    """A process that never says that it is ready."""

    command = (sys.executable, "-c", "import time; time.sleep(600)")


def test_one_that_never_comes_up_can_be_stopped_and_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mute = Worker("mute", partial(Mute, "mute", ""))
    with pytest.raises(Stopped):
        mute.ask("read", LONG_CLIP, listener=Hasty())
    assert mute.process is None
    monkeypatch.setattr(process, "SILENT_SECONDS", 0.5)
    with pytest.raises(EngineError, match="Mute gave no sign of life"):
        mute.ask("read", LONG_CLIP)


def test_a_process_that_cannot_be_started_is_told(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(EngineError, match=r"could not be started: .*temporarily unavailable"):
        make_engine("sound").prepare()


def test_shut_down_ends_everything_and_lets_nothing_start(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_closing", threading.Event())
    busy, idle = Waiter(make_engine("deaf")), make_engine("sound")
    idle.prepare()
    wait_until(lambda: busy.engine.worker.process is not None, "a run")
    ended = [pid(busy.engine), pid(idle)]
    worker.shut_down()
    busy.thread.join(PATIENCE)
    assert isinstance(busy.outcome, Stopped) and all(map(is_gone, ended))
    with pytest.raises(Stopped):
        idle.prepare()


@needs_proc
def test_a_worker_counts_its_own_memory(tmp_path: Path) -> None:
    """Not that of the process that started it, as `ru_maxrss` does."""
    program = (
        "import subprocess, sys; full = bytearray(300 << 20); print(subprocess.check_output("
        "[sys.executable, '-c', 'from engines import memory; "
        "print(memory.peak_resident_bytes())'], text=True))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 1 << 20 < int(found.stdout) < 200 << 20


def test_the_real_engine_gives_the_same_in_its_process() -> None:
    mel = np.zeros((1, 80, 3000), np.float32)
    try:
        apart = worker.get_engine("cpu", "tiny.en").encode(mel)
    finally:
        worker.close_engines()
    assert np.array_equal(apart, registry.get("cpu", "tiny.en").encode(mel))
