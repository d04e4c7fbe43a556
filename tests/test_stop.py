"""Stop at every stage of a real engine frees the processor.

A page's Stop promises a second. How long a second is depends on how crowded the machine is; what
the engine's processes still spend after a Stop does not, so that is what is held here. The seconds
by the clock are printed: `python -m pytest tests/test_stop.py -m slow -rP`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
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
from tests.processes import Waiter, is_idle, members, needs_proc, wait_until

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


def transcribe(engine: RemoteEngine, listener: Listener) -> Transcript:
    """One run with word times."""
    options = Options(temperatures=(0.0,), word_timestamps=True)
    engine.prepare(listener)
    return engine.transcribe(load_clip("audio_samples/jfk.flac"), options, listener)


@pytest.mark.parametrize("stage", STAGES)
def test_stop_frees_the_processor(stage: str, tmp_path: Path) -> None:
    """See the engine's processes come to rest, and count the processor time it took for that."""
    begun = tmp_path / "begun"
    with closing(RemoteEngine("cpu", f"{stage} {begun}", handler=ENDLESS)) as engine:
        visitor = Waiter(partial(transcribe, engine))
        wait_until(begun.exists, stage)
        group = engine.worker.pid or 0
        wait_until(lambda: not is_idle(group), "work, since the stage goes on")
        before = members(group)
        last, stopped = dict(before), time.monotonic()

        def is_over() -> bool:
            last.update(members(group))  # also of a process that is ended for not stopping
            return not visitor.thread.is_alive()

        visitor.stop.set()
        wait_until(is_over, "the end of the run")
        waited = time.monotonic() - stopped
        wait_until(lambda: is_idle(group), "rest")
        last.update(members(group))
    assert isinstance(visitor.outcome, Stopped)
    spent = sum(seconds - before.get(pid, 0.0) for pid, seconds in last.items())
    print(f"over {waited:.2f} s after Stop, {spent:.2f} s of the processors spent")
    assert spent < SPENT_SECONDS * len(os.sched_getaffinity(0))
    assert stage in visitor.stages or stage == "word times"
