"""The process of a worker: `python -m engines.worker_process`, started by `engines.worker`.

Its arguments are the numbers of its end of the pipe and of a pipe that ends with its parent, a log
level, what it does (a key of `HANDLERS`, or `module:Class`), and the arguments of that class. A
request is one pickled tuple `(log fields, method, arguments)` and calls that method; `STOP` may
come while one is under way. Messages go back as tuples that begin with one of these words:

    alive                 every second, so that a hang in native code can be told from work
    progress, segment     with the record, as an `engines.base.Listener` gets it
    done                  with the result; this and the following end a request
    stopped               with a sentence
    refused               with the name of an `EngineError` and its sentence
    failed                with what went wrong, for any other exception

The process ends with its parent, however that ends.
"""

from __future__ import annotations

import os
import pickle
import pkgutil
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import structlog

from engines import errors, logs, memory
from engines.base import EngineError, Listener, Progress, Segment, Stopped

Message = tuple[Any, ...]
ALIVE: Message = ("alive",)
STOP: Message = ("stop",)
FINAL = ("done", "stopped", "refused", "failed")
"""Words of the messages that end a request."""

POLL_SECONDS = 0.1
"""How often whoever waits for a message looks whether to stop."""
BEAT_SECONDS = 1.0

logger = logs.logger(__name__)


HANDLERS = {
    "engine": "engines.worker_handlers:EngineHandler",
    "clips": "engines.worker_handlers:ClipHandler",
    "analysis": "engines.worker_handlers:AnalysisHandler",
}


def dump(message: Message) -> bytes:
    """Pickle a message to the process, the same bytes each time."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


class Channel(Listener):
    """This end of the pipe, and the listener of a request; any thread may send, one receives."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._receive, daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def progress(self, progress: Progress) -> None:
        """Send where the task stands."""
        self.send("progress", progress)

    def segment(self, segment: Segment) -> None:
        """Send a final segment."""
        self.send("segment", segment)

    def stopped(self) -> bool:
        """Return True once the parent asked for it."""
        return self._stop.is_set()

    def send(self, *message: Any) -> None:
        """Send a message."""
        with self._sending:
            self._connection.send(message)

    def next_request(self) -> bytes:
        """Wait for a request, still pickled: what is wrong with its content is an answer to it."""
        return self._requests.get()

    def _receive(self) -> None:
        """Take in requests, and wishes to stop the one under way."""
        stop = dump(STOP)
        while True:
            try:
                content = self._connection.recv_bytes()
            except (EOFError, OSError):
                end_group()
            if content == stop:
                self._stop.set()
            else:
                self._stop.clear()
                self._requests.put(content)

    def _beat(self) -> None:
        """Send a sign of life at once, for which the first request waits, and then every second."""
        while True:
            try:
                self.send(*ALIVE)
            except OSError:
                end_group()
            time.sleep(BEAT_SECONDS)


def serve(channel: Channel, make_handler: Callable[[], Any]) -> NoReturn:
    """Answer requests until the process is ended; a handler that can't be made is an answer."""
    handler = None
    while True:
        content = channel.next_request()
        try:
            fields, method, arguments = pickle.loads(content)
            with structlog.contextvars.bound_contextvars(**fields):
                handler = handler or make_handler()
                answer: Message = ("done", getattr(handler, method)(*arguments, channel))
        except Stopped as error:
            answer = ("stopped", str(error))
        except EngineError as error:
            answer = ("refused", type(error).__name__, str(error))
        except Exception as error:
            logger.exception("a request failed")
            answer = ("failed", errors.describe_error(error))
        channel.send(*answer)


def guard_group(lifeline: int) -> None:
    """Let a shell kill this process group, compilers included, once the parent is gone.

    The shell reads a pipe that only the parent holds open. A thread here can't do that while native
    code holds Python's lock, and Linux's PR_SET_PDEATHSIG reaches this process alone, and also when
    only the thread that started it ends.
    """
    if os.getpgrp() == os.getpid():
        subprocess.Popen(["/bin/sh", "-c", "read _; kill -KILL 0"], stdin=lifeline)
    os.close(lifeline)


def end_group() -> NoReturn:
    """End this process and all that it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main() -> None:
    """Serve what the command line names."""
    connection, lifeline, level, kind, *arguments = sys.argv[1:]
    guard_group(int(lifeline))
    logs.set_up(level)
    memory.reset_peak_resident()
    channel = Channel(Connection(int(connection)))
    serve(channel, lambda: pkgutil.resolve_name(HANDLERS.get(kind, kind))(*arguments))


if __name__ == "__main__":
    main()
