"""`python -m engines.worker`: one engine in a process of its own, told what to do over a pipe.

Started by `engines.isolation`, which says what the messages are. A thread of its own says every
second that the process is alive, so that one that hangs inside native code can be told from one
that works; it also ends the process when the other side is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import structlog

from engines import logs, mishaps
from engines.base import Engine, EngineError, Listener, Progress, Segment, Stopped

BEAT_SECONDS = 1.0

logger = logs.logger(__name__)


class Line:
    """The worker's end of the pipe; any thread may speak, one reads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._speaking = threading.Lock()
        self.stop = threading.Event()
        self.requests: list[tuple[Any, ...]] = []
        self._arrived = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def say(self, *message: Any) -> None:
        """Send a message."""
        with self._speaking:
            self._connection.send(message)

    def hear(self) -> tuple[Any, ...]:
        """The next request, as soon as there is one."""
        with self._arrived:
            self._arrived.wait_for(lambda: self.requests)
            return self.requests.pop(0)

    def _read(self) -> None:
        """Take requests in, and wishes to stop, which may come while a request is under way."""
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                end_all()
            if message == ("stop",):
                self.stop.set()
                continue
            self.stop.clear()
            with self._arrived:
                self.requests.append(message)
                self._arrived.notify()

    def _beat(self) -> None:
        """Say so at once, since the first request waits for it, and then every second."""
        while True:
            try:
                self.say("alive")
            except OSError:
                end_all()
            time.sleep(BEAT_SECONDS)


class DistantListener(Listener):
    """Passes on to the other side what an engine says of its run."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def segment(self, segment: Segment) -> None:
        """Send a final segment."""
        self._line.say("segment", segment)

    def progress(self, progress: Progress) -> None:
        """Send where the task stands."""
        self._line.say("progress", progress)

    def stopped(self) -> bool:
        """True once the other side asked for it."""
        return self._line.stop.is_set()


def answer(engine: Engine, line: Line, request: tuple[Any, ...]) -> Any:
    """What the engine gives for a request."""
    match request:
        case ("prepare",):
            return engine.prepare(DistantListener(line))
        case ("transcribe", clip, options):
            return engine.transcribe(clip, options, DistantListener(line))
        case ("encode", mel):
            return engine.encode(mel)
    raise ValueError(f"no such request: {request[0]}")


def serve(
    line: Line,
    make: Callable[[], Any],
    answer: Callable[[Any, Line, tuple[Any, ...]], Any] = answer,
) -> None:
    """Answer requests until the other side hangs up; an engine that can't be made is an answer.

    `answer(engine, line, request)` gives the answer of what `make` made.
    """
    engine = None
    while True:
        fields, request = line.hear()
        try:
            with structlog.contextvars.bound_contextvars(**fields):
                engine = engine or make()
                line.say("about", engine.device)
                result = answer(engine, line, request)
        except Stopped as error:
            line.say("stopped", str(error))
        except EngineError as error:
            line.say("refused", type(error).__name__, str(error))
        except Exception as error:
            logger.exception("an engine broke")
            line.say("broke", mishaps.tell(error))
        else:
            line.say("done", result)


def end_all() -> NoReturn:
    """End this process, and with it what it started: a compiler runs as a process of its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main() -> None:
    """Serve the engine that the command line names, over the pipe that it names."""
    from engines import registry  # and PyTorch with it, which `engines.reader` does without

    descriptor, key, model, dtype, level = sys.argv[1:6]
    logs.set_up(level)
    line = Line(Connection(int(descriptor)))
    serve(line, lambda: registry.get(key, model, dtype))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
