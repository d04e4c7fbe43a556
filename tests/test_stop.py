"""Stop at every stage of a real engine frees the processor, the compiler's included.

A page's Stop promises a second. How long a second is depends on how crowded the machine is; what
the engine's processes still spend after a Stop does not, so that is what is held here. The seconds
by the clock are printed: `python -m pytest tests/test_stop.py -m slow -rP`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import whisper.audio
import whisper.timing
from whisper.model import AudioEncoder, TextDecoder

from engines import checkpoints
from engines.audio import load_clip
from engines.base import Listener, Options, Stopped, Transcript
from engines.worker import EngineHandler, RemoteEngine
from tests.processes import PATIENCE, Waiter, is_idle, members, needs_proc, wait_until, workers

SPENT_SECONDS = 1.5
"""Of each core, at most, after a Stop: the promised second, and half of one for seeing it."""

pytestmark = [needs_proc, pytest.mark.slow]

ENDLESS = "tests.test_stop:EndlessHandler"

STAGES: dict[str, tuple[Any, str]] = {
    "loading": (checkpoints, "_read"),
    "mel": (whisper.audio, "log_mel_spectrogram"),
    "encoding": (AudioEncoder, "forward"),
    "decoding": (TextDecoder, "forward"),
    "word times": (whisper.timing, "find_alignment"),
}
"""What computes in each stage."""


class EndlessHandler(EngineHandler):
    """The real `cpu` engine, one stage of which goes on and on.

    Its model's name is `STAGE FILE`: the stage's own work is done again and again, and the file
    made once that has begun.
    """

    def __init__(self, key: str, model: str, dtype: Any) -> None:
        stage, _, file = model.partition(" /")
        holder, name = STAGES[stage]
        setattr(holder, name, repeat(getattr(holder, name), Path(f"/{file}")))
        super().__init__(key, "tiny.en", dtype)


def repeat(work: Callable[..., Any], begun: Path) -> Callable[..., Any]:
    """The same work for ever."""

    def work_on(*arguments: Any, **named: Any) -> None:
        while True:
            work(*arguments, **named)
            begun.touch()

    return work_on


class Visitor(Waiter):
    """Asks for a run, and may stop it."""

    def __init__(self, engine: RemoteEngine) -> None:
        self.engine = engine
        super().__init__(self._ask)

    def _ask(self, listener: Listener) -> Transcript:
        options = Options(temperatures=(0.0,), word_timestamps=True)
        self.engine.prepare(listener)
        return self.engine.transcribe(load_clip("audio_samples/jfk.flac"), options, listener)

    def leave_in_time(self, group: int) -> None:
        """Stop, see the group come to rest, and count the processor time it took for that."""
        before = members(group)
        spent = dict(before)

        def is_over() -> bool:
            spent.update(members(group))
            return not self.thread.is_alive()

        begun = time.monotonic()
        self.stop.set()
        wait_until(is_over, "the end of the run")
        waited = time.monotonic() - begun
        wait_until(lambda: is_idle(group), "rest")
        spent.update(members(group))
        assert isinstance(self.outcome, Stopped)
        took = sum(seconds - before.get(member, 0.0) for member, seconds in spent.items())
        print(f"over {waited:.2f} s after Stop, {took:.2f} s of the processors spent")
        assert took < SPENT_SECONDS * len(os.sched_getaffinity(0))


@pytest.mark.parametrize("stage", STAGES)
def test_stop_frees_the_processor(stage: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    engine = RemoteEngine("cpu", f"{stage} {begun}", handler=ENDLESS)
    try:
        visitor = Visitor(engine)
        wait_until(begun.exists, stage)
        group = engine.worker.pid or 0
        wait_until(lambda: not is_idle(group), "work, since the stage goes on")
        visitor.leave_in_time(group)
    finally:
        engine.close()
    assert stage in visitor.stages or stage == "word times"


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteEngine]:
    """`max_hybrid`, with nothing compiled."""
    pytest.importorskip("max.engine")
    monkeypatch.setenv("MAX_WHISPER_CACHE", str(tmp_path / "cache"))
    engine = RemoteEngine("max_hybrid", "tiny.en")
    yield engine
    engine.close()


def start_compiling(engine: RemoteEngine) -> tuple[Visitor, int]:
    """A visitor, and the group in which MAX's compiler runs beside the worker."""
    visitor = Visitor(engine)
    wait_until(lambda: "compiling" in visitor.stages, "compiling", 300)
    group = engine.worker.pid or 0
    wait_until(lambda: len(workers(group)) > 1, "a compiler's process", 300)
    return visitor, group


@pytest.mark.max
def test_a_compile_is_stopped_killed_and_started_anew(cold: RemoteEngine) -> None:
    visitor, group = start_compiling(cold)
    visitor.leave_in_time(group)
    assert not members(group)
    visitor, group = start_compiling(cold)
    os.kill(group, signal.SIGKILL)
    visitor.thread.join(PATIENCE)
    assert "it was killed" in str(visitor.outcome)
    wait_until(lambda: not members(group), "the end of the compiler")
    visitor, group = start_compiling(cold)
    visitor.leave_in_time(group)
