"""Engines in processes of their own: whatever one does, the caller gets a sentence and goes on.

The handlers in the processes are fakes (`tests/fake_handlers.py`), except where it says so.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engines import microscope, process, registry, worker
from engines.base import (
    EngineError,
    EngineUnavailable,
    Listener,
    PrepareSeconds,
    Progress,
    Segment,
    Stopped,
)
from engines.faults.catalogue import FAULTS as FAULT_CATALOGUE
from engines.process import Worker, WorkerProcess
from engines.worker import RemoteEngine
from tests.fake_handlers import ANALYSIS, ENGINE, FAULTS, GATE
from tests.fakes import WORDS, FakeEngine, make_clip
from tests.processes import PATIENCE, is_gone, needs_proc, wait_until, workers

MakeEngine = Callable[[str], RemoteEngine]
LONG_CLIP = make_clip(60.0)
"""More than a pipe takes in before somebody reads it."""


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Makes an engine whose model names its fault."""
    made: list[RemoteEngine] = []

    def make(fault: str) -> RemoteEngine:
        made.append(RemoteEngine("cpu", fault, "float32", registry.row("cpu"), ENGINE))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


class Recorder(Listener):
    """Remembers what it hears; wants to stop after `enough` segments, or once it is told to."""

    def __init__(self, enough: int = 1000) -> None:
        self.segments: list[Segment] = []
        self.stages: list[str] = []
        self.stop = threading.Event()
        self._enough = enough

    def segment(self, segment: Segment) -> None:
        self.segments.append(segment)

    def progress(self, progress: Progress) -> None:
        self.stages.append(progress.stage)

    def stopped(self) -> bool:
        return self.stop.is_set() or len(self.segments) >= self._enough


class Hasty(Listener):
    """Wants to stop as soon as the request is under way."""

    asked = 0

    def stopped(self) -> bool:
        self.asked += 1
        return self.asked > 2


def pid(engine: RemoteEngine) -> int:
    return int(engine.worker.process.pid)


def says_its_words(engine: RemoteEngine) -> bool:
    return engine.transcribe(make_clip(1.0)).text.split() == WORDS.split()


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


# Getting ready, which cannot be interrupted.


class Waiter(Recorder):
    """Waits on a thread of its own for an engine to get ready, and for a run unless `GATE`d."""

    def __init__(self, engine: RemoteEngine, warming: bool = False) -> None:
        super().__init__()
        self.engine, self.warming = engine, warming
        self.outcome: object = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            if self.warming:
                self.outcome = self.engine.prepare()
            elif self.engine.model.startswith(GATE):
                self.outcome = self.engine.prepare(self)
            else:
                self.outcome = self.engine.transcribe(make_clip(1.0), listener=self)
        except EngineError as error:
            self.outcome = error

    def leave(self) -> None:
        """Stop, and wait for the answer."""
        self.stop.set()
        self.thread.join(PATIENCE)


@pytest.fixture
def compiling(make_engine: MakeEngine, tmp_path: Path) -> RemoteEngine:
    """An engine that compiles, its compiler beside it, until `tmp_path / "gate"` exists."""
    return make_engine(f"{GATE}{tmp_path / 'gate'}")


def start_compiling(engine: RemoteEngine, warming: bool = False) -> tuple[Waiter, int]:
    """Somebody who waits for the engine, and its process group."""
    waiter = Waiter(engine, warming)
    wait_until(lambda: engine.worker.process is not None, "a process")
    wait_until(lambda: len(workers(pid(engine))) == 2, "a compiler beside the worker")
    return waiter, pid(engine)


@needs_proc
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_compile_that_ends_early_leaves_no_compiler(
    compiling: RemoteEngine, tmp_path: Path, how: str
) -> None:
    waiter, group = start_compiling(compiling)
    if how == "killed":
        os.kill(group, signal.SIGKILL)
        waiter.thread.join(PATIENCE)
        assert "it was killed" in str(waiter.outcome)
    else:
        waiter.leave()
        assert isinstance(waiter.outcome, Stopped)
    wait_until(lambda: not workers(group), "the end of the worker and its compiler")
    (tmp_path / "gate").touch()
    assert says_its_words(compiling)


@needs_proc
def test_a_compile_goes_on_while_somebody_else_waits_for_it(
    compiling: RemoteEngine, tmp_path: Path
) -> None:
    first, group = start_compiling(compiling)
    second = Waiter(compiling)
    wait_until(lambda: len(compiling.worker._waiting) == 2, "two waiting")
    first.stop.set()
    first.thread.join(5 * process.POLL_SECONDS)
    assert len(workers(group)) == 2
    (tmp_path / "gate").touch()
    second.thread.join(PATIENCE)
    assert isinstance(second.outcome, PrepareSeconds) and pid(compiling) == group


@needs_proc
@pytest.mark.parametrize("warming", [False, True], ids=["another visitor", "warming"])
def test_the_last_to_stop_ends_a_compile(compiling: RemoteEngine, warming: bool) -> None:
    """Warming, which nobody in particular waits for, gives way."""
    first, group = start_compiling(compiling, warming)
    second = Waiter(compiling)
    wait_until(lambda: second in compiling.worker._waiting, "the second waiting")
    if not warming:
        first.stop.set()
    second.leave()
    first.thread.join(PATIENCE)
    assert isinstance(first.outcome, Stopped) and isinstance(second.outcome, Stopped)
    assert not workers(group) and compiling.worker.process is None


def test_who_stops_while_another_run_is_under_way_need_not_wait(make_engine: MakeEngine) -> None:
    busy = Waiter(make_engine("deaf"))
    wait_until(lambda: busy.engine.worker.process is not None, "a run")
    waiting = Waiter(busy.engine)
    waiting.leave()
    assert isinstance(waiting.outcome, Stopped) and busy.thread.is_alive()
    busy.leave()


def test_after_a_stop_the_rest_is_not_warmed() -> None:
    asked: list[str] = []

    class Engine(FakeEngine):
        def prepare(self, *_: object) -> PrepareSeconds:
            asked.append(self.key)
            raise {"a": EngineError, "b": Stopped}[self.key]("no")

    registry.warm("abc", "tiny.en", lambda key, model: Engine(key)).join(PATIENCE)
    assert asked == ["a", "b"]


PARENT = """
import sys, threading
from engines import registry
from engines.worker import RemoteEngine
engine = RemoteEngine("cpu", sys.argv[1], "float32", registry.row("cpu"), sys.argv[2])
threading.Thread(target=engine.prepare, daemon=True).start()
while engine.worker.process is None: pass
print(engine.worker.process.pid, flush=True)
threading.Event().wait()
"""


@needs_proc
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("work", ["compiles", "hangs"])
def test_nothing_outlives_the_parent(ending: signal.Signals, work: str, tmp_path: Path) -> None:
    """Neither a worker whose native code holds Python's lock, nor its compiler."""
    model = f"{GATE}{'hangs' if work == 'hangs' else tmp_path / 'gate'}"
    command = [sys.executable, "-c", PARENT, model, ENGINE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        wait_until(lambda: len(workers(group)) == 2, "a compiler beside the worker")
        parent.send_signal(ending)
    wait_until(lambda: not workers(group), "the end of the worker and its compiler")


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


# Engines that are borrowed: one model is kept, and nobody's is taken away.


@pytest.fixture
def borrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeEngine]:
    """Borrows `cpu` for a model that doesn't matter, and gets it ready."""
    monkeypatch.setattr(worker, "pick_class", lambda key: partial(RemoteEngine, kind=ENGINE))
    monkeypatch.setattr(worker, "_engines", {})

    def borrow(model: str) -> RemoteEngine:
        engine = worker.borrow_engine("cpu", model)
        assert isinstance(engine, RemoteEngine)
        engine.prepare()
        return engine

    yield borrow
    worker.close_engines()


def test_one_model_is_kept_for_each_engine(borrow: MakeEngine) -> None:
    one = borrow("one")
    worker.release_engine(one)
    assert one.worker.process is not None, "kept for the next run"
    borrow("other")
    assert one.worker.process is None


def test_a_borrowed_engine_is_kept_between_getting_ready_and_running(borrow: MakeEngine) -> None:
    one = borrow("one")
    before, other = pid(one), borrow("other")
    registry.warm(["cpu"], "third", worker.get_engine).join(PATIENCE)
    assert says_its_words(one) and pid(one) == before
    worker.release_engine(one)
    assert one.worker.process is None, "another model was borrowed since"
    assert other.worker.process is not None
    assert worker.borrow_engine("cpu", "other") is other
    third = worker.get_engine("cpu", "third")
    assert isinstance(third, RemoteEngine) and third.worker.process is None


def test_an_engine_whose_process_was_ended_is_not_lost(borrow: MakeEngine) -> None:
    """Whoever got it before may still use it, and `close_engines` finds its process."""
    warmed = worker.get_engine("cpu", "one")
    worker.release_engine(borrow("other"))
    warmed.prepare()
    assert isinstance(warmed, RemoteEngine)
    before = pid(warmed)
    worker.close_engines()
    assert is_gone(before)


def test_a_busy_engine_s_process_is_left_alone(borrow: MakeEngine) -> None:
    one = borrow("deaf")
    worker.release_engine(one)
    busy = Waiter(one)
    wait_until(lambda: busy in one.worker._waiting, "a run")
    borrow("other")
    assert one.worker.process is not None
    busy.leave()


# The analysis.


def compare(analysis: Worker, model: str, listener: Listener | None = None) -> list[object]:
    found: list[object] = analysis.ask(
        "compare_layers", ("cpu",), model, make_clip(), 1.5, listener=listener or Listener()
    )
    return found


def test_the_analysis_reports_fails_in_a_sentence_and_ends_when_idle() -> None:
    start = partial(WorkerProcess, "the analysis", ANALYSIS)
    analysis, listener = Worker("the analysis", start), Recorder()
    assert compare(analysis, "tiny.en", listener)[3] == 1.5
    assert listener.stages == ["comparing"]
    with pytest.raises(EngineError, match=r"process of the analysis ended by SIGSEGV\. The next"):
        compare(analysis, "segfault")
    with pytest.raises(EngineError, match="The clip has 6"):
        compare(analysis, "refuses")
    with pytest.raises(EngineError, match=r"^The analysis failed: .*a graph did not fit"):
        compare(analysis, "raises")
    assert analysis.process is not None
    analysis.close()
    analysis = Worker("the analysis", start, idle_seconds=0.2)
    compare(analysis, "tiny.en")
    wait_until(lambda: analysis.process is None, "its end")


@pytest.mark.parametrize(("model", "ended"), [("patient", False), ("deaf", True)])
def test_stop_ends_the_analysis(model: str, ended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ended:
        monkeypatch.setattr(process, "STOP_SECONDS", PATIENCE)
    analysis = Worker("the analysis", partial(WorkerProcess, "the analysis", ANALYSIS))
    compare(analysis, "tiny.en")
    with pytest.raises(Stopped):
        compare(analysis, model, Hasty())
    assert (analysis.process is None) == ended
    analysis.close()


def test_faults_travel_as_themselves() -> None:
    for fault in FAULT_CATALOGUE:
        assert pickle.loads(pickle.dumps(fault)) is fault


@pytest.mark.max
@pytest.mark.slow
def test_real_layers_and_a_real_fault_are_as_in_this_process() -> None:
    clip = worker.load_clip("audio_samples/jfk.flac")
    names = ["cpu:float32", "max_hybrid:float16"]
    apart = worker.compare_layers(names, "tiny.en", clip)
    found = worker.run_fault("scaled", "tiny.en", clip)
    worker._analysis.close()
    here = microscope.look(names, "tiny.en", clip)
    assert [stage.statistics for stage in apart.stages] == [s.statistics for s in here.stages]
    assert found.fault is next(fault for fault in FAULT_CATALOGUE if fault.key == "scaled")
    assert found.first_stage == "ln_post"
    assert found.right.text.strip() and found.right.features.size == 0
    assert found.faulty is not None and found.faulty.features.size == 0
