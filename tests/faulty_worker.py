"""A worker with an engine that goes wrong as its model's name says; see `test_isolation.py`."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from engines import worker
from engines.base import (
    SILENT,
    Clip,
    EngineUnavailable,
    Listener,
    Options,
    PrepareSeconds,
    Transcript,
)
from tests.fakes import FakeEngine

GATE = "compiles until "
"""A model's name that begins so goes on with the file that is there one day."""

ONCE = " once "
"""A model's name with it goes wrong as its first part says while there is no file at its second."""

BUSY = [sys.executable, "-c", "while True: pass"]


class FaultyEngine(FakeEngine):
    """Says its words, unless its model's name is that of a fault."""

    def prepare(
        self,
        listener: Listener = SILENT,
    ) -> PrepareSeconds:
        """Compile as MAX does, in a process of its own, for as long as it is told."""
        if self.model.startswith(GATE) and not self.prepared.is_set():
            compiler = subprocess.Popen(BUSY)
            listener.report("compiling")
            while not Path(self.model.removeprefix(GATE)).exists():
                time.sleep(0.02)
            compiler.kill()
            compiler.wait()
        return super().prepare(listener)

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """Go wrong, or don't."""
        match self.find_fault():
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
            case "gpu memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            case "disk":
                with open("/dev/full", "w") as file:
                    file.write("x")
            case "pages":
                raise RuntimeError("the compiler says\n" + "one thing after another\n" * 999)
            case "raises":
                raise RuntimeError("a graph did not fit")
        return super().transcribe(clip, options or Options(), listener or Listener())

    def find_fault(self) -> str:
        """What goes wrong now."""
        fault, once, path = self.model.partition(ONCE)
        if once and Path(path).exists():
            return "none"
        if once:
            Path(path).touch()
        return fault


def make(key: str, model: str) -> FaultyEngine:
    """The engine; the model `absent` can't be had."""
    if model == "absent":
        raise EngineUnavailable("no such device here")
    pace = 0.2 if model == "slow" else 0.0
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "cpu")
    return FaultyEngine(key=key, model=model, pace=pace, device=device)


if __name__ == "__main__":
    descriptor, key, model = sys.argv[1:4]
    worker.serve(worker.Line(Connection(int(descriptor))), lambda: make(key, model))
