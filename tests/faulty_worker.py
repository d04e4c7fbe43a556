"""A worker with an engine that goes wrong as its model's name says; see `test_isolation.py`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from multiprocessing.connection import Connection

from engines import worker
from engines.base import Clip, EngineUnavailable, Listener, Options, Transcript
from tests.fakes import FakeEngine


class FaultyEngine(FakeEngine):
    """Says its words, unless its model's name is that of a fault."""

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """Go wrong, or don't."""
        match self.model:
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "deaf":
                time.sleep(600)
            case "hangs":
                ctypes.PyDLL(None).sleep(600)  # a PyDLL's functions keep Python's lock
            case "memory":
                raise MemoryError
            case "raises":
                raise RuntimeError("a graph did not fit")
        return super().transcribe(clip, options or Options(), listener or Listener())


def make(key: str, model: str) -> FaultyEngine:
    """The engine; the model `absent` can't be had."""
    if model == "absent":
        raise EngineUnavailable("no such device here")
    return FaultyEngine(key=key, model=model, pace=0.2 if model == "slow" else 0.0)


if __name__ == "__main__":
    descriptor, key, model = sys.argv[1:4]
    worker.serve(worker.Line(Connection(int(descriptor))), lambda: make(key, model))
