"""What a process group does, and people who wait for a worker."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from engines.base import EngineError, Listener, Progress, Segment

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="sees every process on Linux only")

PATIENCE = 60.0
"""Seconds after which a condition that hasn't come true never will."""


def is_living(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def children(parent: int) -> list[int]:
    """The living processes that a process started."""
    with suppress(psutil.NoSuchProcess):
        return [each.pid for each in psutil.Process(parent).children() if is_living(each.pid)]
    return []


def workers(group: int) -> list[int]:
    """The living processes of a worker's group but the shell that ends it with its parent."""
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(ProcessLookupError):
            ours = os.getpgid(process.pid) == group and process.info["name"] != "sh"
            found += [process.pid] * (ours and is_living(process.pid))
    return found


def wait_until(true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition; fails the test when it doesn't come true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.02)


class Recorder(Listener):
    """Remembers what it hears; wants to stop once it is told to, has `enough` segments, or was
    `asked` more often than it has `patience`."""

    def __init__(self, enough: int = 1000, patience: int = 10**9) -> None:
        self.segments: list[Segment] = []
        self.sent: list[Progress] = []
        self.stages: list[str] = []
        self.stop = threading.Event()
        self.asked, self._enough, self._patience = 0, enough, patience

    def segment(self, segment: Segment) -> None:
        self.segments.append(segment)

    def progress(self, progress: Progress) -> None:
        self.sent.append(progress)
        self.stages.append(progress.stage)

    def stopped(self) -> bool:
        self.asked += 1
        enough = len(self.segments) >= self._enough or self.asked > self._patience
        return self.stop.is_set() or enough


class Waiter(Recorder):
    """Does work on a thread of its own, told of its progress, and keeps what came of it."""

    def __init__(self, work: Callable[[Listener], object]) -> None:
        super().__init__()
        self._work = work
        self.outcome: object = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self._work(self)
        except EngineError as error:
            self.outcome = error

    def leave(self) -> None:
        """Stop, and wait for the answer."""
        self.stop.set()
        self.thread.join(PATIENCE)
