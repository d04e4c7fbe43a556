"""Handlers for worker processes that go wrong as a word of their request says."""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from engines import audio
from engines.base import Clip, EngineUnavailable, Listener, Options
from engines.worker import ClipHandler
from tests.fakes import FakeEngine

ENGINE = "tests.fake_handlers:FakeEngineHandler"
CLIPS = "tests.fake_handlers:FakeClipHandler"

GATE = "compiles until "
"""A model's name that begins so goes on with a file; `prepare` waits until that exists."""

ONCE = " once "
"""A fault followed by this and a file happens while the file is not there."""

MAX_BYTES = 2**30


class OutOfMemoryError(RuntimeError):
    """Has the name of PyTorch's error."""


def go_wrong(fault: str) -> None:
    """Do what the fault's name says; nothing for a name that is none."""
    fault, once, path = fault.partition(ONCE)
    if once and Path(path).exists():
        return
    if once:
        Path(path).touch()
    match fault:
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "deaf":
            time.sleep(600)
        case "hangs":
            ctypes.PyDLL(None).sleep(600)  # a PyDLL's functions keep Python's lock
        case "large":
            np.ones(2 * MAX_BYTES, np.uint8)
        case "gpu memory":
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        case "little memory":  # too little to import what has not been yet
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES // 8, hard))
            try:
                importlib.import_module("torch")
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        case "disk":
            Path("/dev/full").write_text("x")
        case "raises":
            raise RuntimeError("a graph did not fit")
        case "pages":
            raise RuntimeError("the compiler says\n" + "one thing after another\n" * 999)


class FakeEngineHandler:
    """Says its words, unless its model's name is that of a fault; `absent` can't be made."""

    def __init__(self, key: str, model: str, dtype: str) -> None:
        if model == "absent":
            raise EngineUnavailable("no such device here")
        device = os.environ.get("CUDA_VISIBLE_DEVICES", "fake device")
        pace = 0.2 if model == "slow" else 0.0
        self.engine = FakeEngine(key=key, model=model, pace=pace, device=device)

    def prepare(self, listener: Listener) -> Any:
        """Compile as MAX does, in a process of its own, for as long as the gate is shut."""
        _, gate, file = self.engine.model.partition(GATE)
        if gate and not self.engine.prepared.is_set():
            compiler = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            listener.report("compiling")
            if file == "hangs":
                go_wrong("hangs")
            while not Path(file).exists():
                time.sleep(0.02)
            compiler.kill()
            compiler.wait()
        return self.engine.prepare(listener)

    def transcribe(self, clip: Clip, options: Options, listener: Listener) -> Any:
        go_wrong(self.engine.model)
        return self.engine.transcribe(clip, options, listener)


class FakeClipHandler(ClipHandler):
    """Breaks on a clip whose name is that of a fault, and reads a second of silence from others."""

    def __init__(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
        audio.load_clip = self._load  # type: ignore[assignment]

    def _load(self, path: str, listener: Listener, **_: int) -> Clip:
        go_wrong(Path(path).stem)
        return Clip(np.zeros(16_000, np.float32), Path(path).name, 0.01)
