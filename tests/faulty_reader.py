"""A reader that goes wrong as its clip's name says; see `test_reading.py`."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from engines import audio, reader, worker
from engines.base import Clip
from tests.fakes import make_clip

MOST_BYTES = 2**30


def go_wrong(path: str, stopped: Callable[[], bool]) -> Clip:
    """In place of `audio.load_clip`."""
    match Path(path).stem:
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hangs":
            time.sleep(600)
        case "large":
            np.ones(2 * MOST_BYTES, np.uint8)
        case "refused":
            return audio.load_clip(path, stopped)
    return make_clip()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    reader.load_clip = go_wrong  # type: ignore[assignment]
    descriptor = int(sys.argv[1])
    worker.serve(worker.Line(Connection(descriptor)), reader.Desk, reader.Desk.answer)
