"""People who wait for a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable

from engines.base import EngineError, Listener, Progress, Segment
from tests.processes import PATIENCE


class Recorder(Listener):
    """Remembers what it hears; wants to stop after `enough` segments, or once it is told to."""

    def __init__(self, enough: int = 1000) -> None:
        self.segments: list[Segment] = []
        self.stages: list[str] = []
        self.stop = threading.Event()
        self._enough = enough

    def segment(self, segment: Segment) -> None:
        self.segments.append(segment)

    def progress(self, progress: Progress) -> None:
        self.stages.append(progress.stage)

    def stopped(self) -> bool:
        return self.stop.is_set() or len(self.segments) >= self._enough


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
