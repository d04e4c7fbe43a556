"""Engines in processes of their own: whatever one does, the caller gets a sentence and goes on.

The handlers in the processes are fakes (`tests/fake_handlers.py`), except where it says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from engines import process, worker
from engines.base import EngineError, EngineUnavailable, PrepareSeconds, Stopped
from engines.process import Worker
from engines.worker import RemoteEngine
from tests.fake_handlers import ENGINE, GATE
from tests.fakes import WORDS, make_clip
from tests.processes import PATIENCE, Recorder, Waiter, is_living, needs_proc, wait_until, workers

MakeEngine = Callable[[str], RemoteEngine]


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Makes an engine whose model names its fault."""
    with ExitStack() as made:
        yield lambda fault: made.enter_context(closing(RemoteEngine("cpu", fault, handler=ENGINE)))


def pid(engine: RemoteEngine) -> int:
    return engine.worker.pid or 0


def says_its_words(engine: RemoteEngine) -> bool:
    return engine.transcribe(make_clip(1.0)).text.split() == WORDS.split()


def start_run(engine: RemoteEngine) -> Waiter:
    waiter = Waiter(lambda listener: engine.transcribe(make_clip(1.0), listener=listener))
    wait_until(lambda: waiter in engine.worker._waiting and bool(engine.worker.pid), "a run")
    return waiter


def test_a_run_is_what_it_is_without_the_process(make_engine: MakeEngine) -> None:
    engine, preparing, running = make_engine("sound"), Recorder(), Recorder()
    assert engine.prepare(preparing).load == 0.01 and preparing.stages == ["loading"]
    transcript = engine.transcribe(make_clip(60.0), listener=running)  # more than a pipe takes in
    assert transcript.text.split() == WORDS.split() and engine.device == "fake device"
    assert running.segments == list(transcript.segments)
    assert running.stages[:2] == ["mel", "encoding"]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("segfault", "process of PyTorch CPU ended by SIGSEGV. The next run starts a new one."),
        ("killed", "memory runs out"),
        ("gpu memory", "the GPU has not enough memory"),
        pytest.param("little memory", "there was not enough memory: pick a", marks=needs_proc),
        ("pages", "PyTorch CPU failed: .* the compiler says one thing after another"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_the_next_run_works(
    make_engine: MakeEngine, fault: str, sentence: str, tmp_path: Path
) -> None:
    engine = make_engine(f"{fault} once {tmp_path / 'happened'}")
    with pytest.raises(EngineError, match=sentence) as caught:
        engine.transcribe(make_clip(1.0))
    said = str(caught.value)
    assert "\n" not in said and len(said) < 320 and said.endswith(".")
    assert says_its_words(engine)


def test_an_engine_that_cannot_be_made_says_why(make_engine: MakeEngine) -> None:
    with pytest.raises(EngineUnavailable, match="no such device here"):
        make_engine("absent").prepare()


def test_stop_and_a_death_between_runs_cost_the_next_run_nothing(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine("slow")
    engine.prepare()
    monkeypatch.setattr(process, "STOP_SECONDS", PATIENCE)
    before = pid(engine)
    with pytest.raises(Stopped):
        engine.transcribe(make_clip(2.0), listener=Recorder(enough=1))
    assert says_its_words(engine) and pid(engine) == before, "Stop reached the engine itself"
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    assert says_its_words(engine) and pid(engine) != before


@pytest.mark.parametrize("fault", ["deaf", "hangs"])
def test_one_that_will_not_stop_or_gives_nothing_is_ended(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    engine = make_engine(fault)
    engine.prepare()
    before = pid(engine)
    with pytest.raises(Stopped):
        engine.transcribe(make_clip(1.0), listener=Recorder(patience=2))
    assert engine.worker.pid is None and not is_living(before)
    monkeypatch.setattr(process, "STUCK_SECONDS", 2.0)
    with pytest.raises(EngineError, match=r"PyTorch CPU made no progress for \d s and was ended"):
        engine.transcribe(make_clip(1.0))


@needs_proc
@pytest.mark.parametrize("can_reset", [True, False])
def test_a_run_s_peak_memory_is_no_earlier_one_s(can_reset: bool) -> None:
    """Neither that of the process that started this one, as `ru_maxrss` is, nor of a run before."""
    measure = (
        "from engines import hardware; memory = hardware.PeakMemory(); bytearray(400 << 20);"
        f"hardware.reset_peak = hardware.reset_peak if {can_reset} else lambda: False\n"
        "with memory: held = bytearray(50 << 20); import time; time.sleep(0.1); del held\n"
        "print(memory.peak_bytes)"
    )
    program = (
        "import subprocess, sys; full = bytearray(300 << 20);"
        f"print(subprocess.check_output([sys.executable, '-c', {measure!r}], text=True))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 50 << 20 < int(found.stdout) < 150 << 20


# Getting ready, which can't be interrupted, and several who wait.


@pytest.fixture
def compiling(make_engine: MakeEngine, tmp_path: Path) -> RemoteEngine:
    """An engine that compiles, its compiler beside it, until `tmp_path / "gate"` exists."""
    return make_engine(f"{GATE}{tmp_path / 'gate'}")


def start_compiling(engine: RemoteEngine, warming: bool = False) -> tuple[Waiter, int]:
    """Somebody who waits for the engine, and its process group."""
    waiter = Waiter((lambda _: engine.prepare()) if warming else engine.prepare)
    wait_until(lambda: engine.worker.pid is not None, "a process")
    wait_until(lambda: len(workers(pid(engine))) == 2, "a compiler beside the worker")
    return waiter, pid(engine)


@needs_proc
@pytest.mark.parametrize(("warming", "second_stops"), [(False, False), (False, True), (True, True)])
def test_a_compile_goes_on_until_all_who_wait_for_it_stop(
    compiling: RemoteEngine, tmp_path: Path, warming: bool, second_stops: bool
) -> None:
    """Warming, which nobody waits for, gives way to them."""
    first, group = start_compiling(compiling, warming)
    second = Waiter(compiling.prepare)
    wait_until(lambda: second in compiling.worker._waiting, "two waiting")
    if not warming:
        first.stop.set()
        first.thread.join(5 * process.POLL_SECONDS)
        assert len(workers(group)) == 2
    if second_stops:
        second.leave()
        first.thread.join(PATIENCE)
        assert isinstance(first.outcome, Stopped) and not workers(group)
    (tmp_path / "gate").touch()
    second.thread.join(PATIENCE)
    assert isinstance(second.outcome, Stopped if second_stops else PrepareSeconds)
    assert says_its_words(compiling) and (pid(compiling) == group) is not second_stops


@needs_proc
def test_a_worker_that_is_killed_leaves_no_compiler(compiling: RemoteEngine) -> None:
    waiter, group = start_compiling(compiling)
    os.kill(group, signal.SIGKILL)
    waiter.thread.join(PATIENCE)
    assert "it was killed" in str(waiter.outcome)
    wait_until(lambda: not workers(group), "the end of the compiler")


def test_a_worker_without_requests_ends() -> None:
    idle = Worker("the analysis", ENGINE, "cpu", "sound", "float32", idle_seconds=0.5)
    idle.ask("prepare")
    wait_until(lambda: idle.pid is None, "its end")


def test_one_model_is_kept_for_each_engine_and_who_stops_need_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "pick_class", lambda key: partial(RemoteEngine, handler=ENGINE))
    monkeypatch.setattr(worker, "_engines", {})
    one, deaf, other = (worker.get_engine("cpu", model) for model in ("one", "deaf", "other"))
    for engine in (one, deaf):
        engine.prepare()
    busy, waiting = start_run(deaf), start_run(deaf)
    waiting.leave()
    assert isinstance(waiting.outcome, Stopped) and busy.thread.is_alive()
    worker.keep_engines([("gpu", "other", "float32")])
    held = one.worker.pid
    assert held is not None, "nothing else of the engine is asked for"
    worker.keep_engines([("cpu", "other", "float32"), ("cpu", "another", "float32")])
    assert worker.get_engine("cpu@other", "one") is other
    assert one.worker.pid is None and deaf.worker.pid is not None, "a busy one is left alone"
    busy.leave()
    before = pid(one) if one.prepare() else 0
    worker.close_engines()
    assert not is_living(before)


PARENT = """
import sys, threading
from engines import worker
worker.start_reader()
engine = worker.RemoteEngine("cpu", sys.argv[1], handler=sys.argv[2])
threading.Thread(target=engine.prepare, daemon=True).start()
while engine.worker.pid is None: pass
print(engine.worker.pid, worker.reader.folder, flush=True)
threading.Event().wait()
"""


@needs_proc
def test_nothing_outlives_a_parent_that_is_killed() -> None:
    """Neither a worker whose native code holds Python's lock, nor its compiler, nor samples."""
    command = [sys.executable, "-c", PARENT, f"{GATE}hangs", ENGINE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        group, folder = parent.stdout.readline().split()
        wait_until(lambda: len(workers(int(group))) == 2, "a compiler beside the worker")
        assert Path(folder).stat().st_mode & 0o777 == 0o700
        parent.kill()
    wait_until(lambda: not workers(int(group)), "the end of the worker and its compiler")
    wait_until(lambda: not Path(folder).exists(), "the end of the samples")
