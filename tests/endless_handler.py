"""The real `cpu` engine in a worker, one stage of which goes on and on; see `test_stop.py`.

Its model's name is `STAGE FILE`: the stage's own work is done again and again, and the file made
once that has begun.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import whisper.audio
import whisper.timing
from whisper.model import AudioEncoder, TextDecoder

from engines import checkpoints
from engines.worker import EngineHandler

ENDLESS = "tests.endless_handler:EndlessHandler"

STAGES: dict[str, tuple[Any, str]] = {
    "loading": (checkpoints, "_load"),
    "mel": (whisper.audio, "log_mel_spectrogram"),
    "encoding": (AudioEncoder, "forward"),
    "decoding": (TextDecoder, "forward"),
    "word times": (whisper.timing, "find_alignment"),
}
"""What computes in each stage."""


class EndlessHandler(EngineHandler):
    """Runs `cpu`, but for that stage."""

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
