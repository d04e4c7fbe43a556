"""Engines in worker processes over fake handlers, and people who wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from engines import registry
from engines.base import EngineError, Listener, Progress, Segment
from engines.worker import RemoteEngine
from tests.fake_handlers import ENGINE, GATE
from tests.fakes import WORDS, make_clip
from tests.processes import PATIENCE

MakeEngine = Callable[[str], RemoteEngine]


def make_engines() -> Iterator[MakeEngine]:
    """Give a function that makes an engine whose model names its fault; the body of a fixture."""
    made: list[RemoteEngine] = []

    def make(fault: str) -> RemoteEngine:
        made.append(RemoteEngine("cpu", fault, "float32", registry.row("cpu"), ENGINE))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


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


class Hasty(Listener):
    """Wants to stop as soon as the request is under way."""

    asked = 0

    def stopped(self) -> bool:
        self.asked += 1
        return self.asked > 2


def pid(engine: RemoteEngine) -> int:
    return int(engine.worker.process.pid)


def says_its_words(engine: RemoteEngine) -> bool:
    return engine.transcribe(make_clip(1.0)).text.split() == WORDS.split()


class Waiter(Recorder):
    """Waits on a thread of its own for an engine to get ready, and for a run unless `GATE`d."""

    def __init__(self, engine: RemoteEngine, warming: bool = False) -> None:
        super().__init__()
        self.engine, self.warming = engine, warming
        self.outcome: object = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            if self.warming:
                self.outcome = self.engine.prepare()
            elif self.engine.model.startswith(GATE):
                self.outcome = self.engine.prepare(self)
            else:
                self.outcome = self.engine.transcribe(make_clip(1.0), listener=self)
        except EngineError as error:
            self.outcome = error

    def leave(self) -> None:
        """Stop, and wait for the answer."""
        self.stop.set()
        self.thread.join(PATIENCE)
