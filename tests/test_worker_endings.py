"""Workers that are ended while they get ready, or with their parent: nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import process, registry
from engines.base import EngineError, PrepareSeconds, Stopped
from engines.worker import RemoteEngine
from tests.fake_handlers import ENGINE, GATE
from tests.fakes import FakeEngine
from tests.processes import PATIENCE, needs_proc, wait_until, workers
from tests.workers import MakeEngine, Waiter, make_engines, pid, says_its_words


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Makes an engine whose model names its fault."""
    yield from make_engines()


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
