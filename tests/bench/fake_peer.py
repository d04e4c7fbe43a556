"""Engines for the benchmark's own processes that need no model, found as any peer is.

`steady` takes a few milliseconds. `doomed` kills its process in the middle of its third run.
`slow` waits for a minute on every clip but `short`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.base import Clip, Listener, Options
from engines.checkpoints import Checkpoint
from tests.fakes import FakeEngine, Transcript

KEYS = ("steady", "doomed", "slow")
WRITERS = ()


def writers(checkpoint: Checkpoint, threads: int) -> dict[str, Callable[[], Any]]:
    """None."""
    return {}


class Peer(FakeEngine):
    """A fake that counts its runs."""

    runs = 0

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """The words, unless this engine has other plans."""
        self.runs += 1
        if self.key == "doomed" and self.runs == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.key == "slow" and Path(clip.name).stem != "short":
            time.sleep(60)
        return super().transcribe(clip, options or Options())


def engine(key: str, model: str) -> Peer | None:
    """One of the three."""
    return Peer(key=key, label=key, model=model) if key in KEYS else None
