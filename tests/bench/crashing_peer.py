"""A peer whose only writer ends the process that it is in, as a fault in native code does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from engines.base import FloatArray
from engines.checkpoints import Checkpoint

KEYS = ()
WRITERS = ("crashing",)


class Crashing:
    """Dies inside native code, as far as its process can tell."""

    device, dtype = "cpu", "float32"

    def write(self, features: FloatArray, prompt: Sequence[int], n_tokens: int) -> int:
        """Nothing is written."""
        signal.raise_signal(signal.SIGSEGV)
        return n_tokens


def engine(key: str, model: str) -> None:
    """There is none."""


def writers(checkpoint: Checkpoint, threads: int) -> dict[str, Callable[[], Crashing]]:
    """The one."""
    return {"crashing": Crashing}
