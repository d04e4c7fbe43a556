"""A worker with the real `cpu` engine, one stage of which goes on and on; see `test_stop.py`.

Its model's name is `STAGE FILE`: the stage's own work is done again and again, and the file made
once that has begun.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import whisper.audio
import whisper.timing
from whisper.model import AudioEncoder, TextDecoder

from engines import checkpoints, registry, worker
from engines.base import Engine

STAGES: dict[str, tuple[Any, str]] = {
    "loading": (checkpoints, "_load"),
    "mel": (whisper.audio, "log_mel_spectrogram"),
    "encoding": (AudioEncoder, "forward"),
    "decoding": (TextDecoder, "forward"),
    "word times": (whisper.timing, "find_alignment"),
}
"""What computes in each stage."""


def repeat(work: Callable[..., Any], begun: Path) -> Callable[..., Any]:
    """The same work for ever."""

    def work_on(*arguments: Any, **named: Any) -> None:
        while True:
            work(*arguments, **named)
            begun.touch()

    return work_on


def make(key: str, stage: str, begun: Path) -> Engine:
    """The real engine, but for that stage."""
    holder, name = STAGES[stage]
    setattr(holder, name, repeat(getattr(holder, name), begun))
    return registry.get(key)


if __name__ == "__main__":
    descriptor, key, model = sys.argv[1:4]
    stage, _, file = model.partition(" /")
    worker.serve(
        worker.Line(Connection(int(descriptor))), lambda: make(key, stage, Path(f"/{file}"))
    )
