"""Stop at every stage of a real engine frees the processor, the compiler's included.

A page's Stop promises a second. How long a second is depends on how crowded the machine is; what
the engine's processes still spend after a Stop does not, so that is what is held here. The seconds
by the clock are printed: `python -m pytest tests/test_stop.py -rP`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import registry
from engines.audio import load_clip
from engines.base import (
    EngineError,
    Listener,
    Options,
    PrepareSeconds,
    Progress,
    Stopped,
    Transcript,
)
from engines.isolation import IsolatedEngine
from tests.endless_worker import STAGES
from tests.processes import PATIENCE, is_idle, members, needs_proc, wait_until

COMMAND = (sys.executable, "-m", "tests.endless_worker")
SPENT_SECONDS = 1.5
"""Of each core, at most, after a Stop: the promised second, and half of one for seeing it."""

pytestmark = needs_proc


class Visitor(Listener):
    """Asks for a run in a thread of its own, and may stop it."""

    def __init__(self, engine: IsolatedEngine) -> None:
        self.wants_to_stop = threading.Event()
        self.stages: list[str] = []
        self.outcome: Transcript | PrepareSeconds | EngineError | None = None
        self.thread = threading.Thread(target=self._run, args=(engine,), daemon=True)
        self.thread.start()

    def stopped(self) -> bool:
        return self.wants_to_stop.is_set()

    def progress(self, progress: Progress) -> None:
        self.stages.append(progress.stage)

    def _run(self, engine: IsolatedEngine) -> None:
        options = Options(temperatures=(0.0,), word_timestamps=True)
        try:
            engine.prepare(self)
            clip = load_clip("audio_samples/jfk.flac")
            self.outcome = engine.transcribe(clip, options, self)
        except EngineError as error:
            self.outcome = error

    def stop(self, group: int, stage: str) -> None:
        """Stop, see the group come to rest, and count the processor time it took for that."""
        before = members(group)
        spent = dict(before)

        def is_over() -> bool:
            spent.update(members(group))
            return not self.thread.is_alive()

        begun = time.monotonic()
        self.wants_to_stop.set()
        wait_until(is_over, "the end of the run")
        waited = time.monotonic() - begun
        wait_until(lambda: is_idle(group), "rest")
        spent.update(members(group))
        assert isinstance(self.outcome, Stopped)
        took = sum(seconds - before.get(member, 0.0) for member, seconds in spent.items())
        print(f"{stage}: over {waited:.2f} s after Stop, {took:.2f} s of the processors spent")
        assert took < SPENT_SECONDS * len(os.sched_getaffinity(0))


def group_of(engine: IsolatedEngine) -> int:
    """The process group that its worker leads."""
    assert engine._worker is not None
    return engine._worker.pid


@pytest.mark.parametrize("stage", STAGES)
def test_stop_frees_the_processor(stage: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    engine = IsolatedEngine("cpu", f"{stage} {begun}", "float32", registry.row("cpu"), COMMAND)
    try:
        visitor = Visitor(engine)
        wait_until(begun.exists, stage)
        worker = group_of(engine)
        wait_until(lambda: not is_idle(worker), "work, since the stage goes on")
        visitor.stop(worker, stage)
    finally:
        engine.close()
    assert stage in visitor.stages or stage == "word times"


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IsolatedEngine]:
    """`max_hybrid`, with nothing compiled."""
    pytest.importorskip("max.engine")
    monkeypatch.setenv("MAX_WHISPER_CACHE", str(tmp_path / "cache"))
    row = registry.row("max_hybrid")
    engine = IsolatedEngine("max_hybrid", "tiny.en", "float32", row)
    yield engine
    engine.close()


def start_compiling(engine: IsolatedEngine) -> tuple[Visitor, int]:
    """A visitor, and the group in which MAX's compiler runs beside the worker."""
    visitor = Visitor(engine)
    wait_until(lambda: "compiling" in visitor.stages, "compiling", 300)
    worker = group_of(engine)
    wait_until(lambda: len(members(worker)) > 1, "a compiler's process", 300)
    return visitor, worker


@pytest.mark.max
def test_a_compile_is_stopped_killed_and_started_anew(cold: IsolatedEngine, tmp_path: Path) -> None:
    """With an entry in the cache that is cut in half: it is compiled anew, not read."""
    from engines.max_graph.session import cache_folder

    visitor, worker = start_compiling(cold)
    visitor.stop(worker, "compiling")
    assert not members(worker)

    visitor, worker = start_compiling(cold)
    os.kill(worker, signal.SIGKILL)
    visitor.thread.join(PATIENCE)
    assert "it was killed" in str(visitor.outcome)
    wait_until(lambda: not members(worker), "the end of the compiler")

    kept = compile_in_ordinary_cache()
    for path in kept:
        content = path.read_bytes()
        (cache_folder() / path.name).write_bytes(content[: len(content) // 2])
    visitor, worker = start_compiling(cold)
    visitor.stop(worker, "compiling")

    for path in kept:
        shutil.copy(path, cache_folder() / path.name)
    found = cold.transcribe(load_clip("audio_samples/jfk.flac"), Options(temperatures=(0.0,)))
    assert (
        found.tokens
        == registry.get("cpu")
        .transcribe(load_clip("audio_samples/jfk.flac"), Options(temperatures=(0.0,)))
        .tokens
    )


def compile_in_ordinary_cache() -> list[Path]:
    """The compiled entries where every other test has them, compiled now if need be."""
    from engines.max_graph.session import cache_folder

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MAX_WHISPER_CACHE")
        registry.release("tiny.en")
        registry.get("max_hybrid").prepare()
        return list(cache_folder().glob("*.mef"))
