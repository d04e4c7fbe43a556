"""Worker processes: `Worker` in the parent, `python -m engines.process` in the child.

A `Worker` starts its process with the first request. It kills it, with all that it started, such as
a compiler, when it dies, makes no progress or won't stop: the caller gets an `EngineError`, and the
next request starts a new process. The process calls methods of a handler: a class named
`module:Class`, whose methods take a `Listener` last.

A request is one pickled tuple `(log fields, method, arguments)`; `STOP` may come while one is under
way. The process answers with pairs that begin with one of these words:

    progress, segment, partial      with what a `Listener`'s method of that name gets
    done                            with the result; this and the following end a request
    refused                         with an `EngineError`
    failed                          with what went wrong, for any other exception
"""

from __future__ import annotations

import logging
import math
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
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, NoReturn

from structlog.contextvars import bound_contextvars, get_contextvars

from engines import logs
from engines.base import SILENT, EngineError, Listener, Progress, Segment, Stopped, describe_error

ROOT = Path(__file__).resolve().parents[1]

Message = tuple[str, Any]
FINAL = ("done", "refused", "failed")
STOP = b"stop"

POLL_SECONDS = 0.1
"""How often a wait for a message checks whether to stop."""
STOP_SECONDS = 0.6
"""How long a worker may take to stop by itself, since Stop on the page promises one second."""
STUCK_SECONDS = 1800.0
"""How long it may go without progress, at one stage of one window or while it gets ready."""

logger = logs.logger(__name__)


class TooLong(EngineError):
    """A request took longer than its limit."""


class Died(EngineError):
    """The process ended by itself, or was killed, while a request was under way."""


class Worker:
    """Sends requests, one at a time, to a process that is started when it is needed.

    `name`: the process's in error messages. `arguments`: the handler's. `idle_seconds`: after so
    long without a request the process ends. It also ends with this process, however that ends, and
    `folder` is removed then. It leads a process group of its own.
    """

    def __init__(
        self, name: str, handler: str, *arguments: str, idle_seconds: float | None = None
    ) -> None:
        self.name, self.handler, self.arguments = name, handler, arguments
        self._title = name[0].upper() + name[1:]
        self.folder = ""
        self._idle_seconds = idle_seconds
        self._idle = threading.Timer(0.0, self.close)
        self._one_at_a_time = threading.RLock()
        self._waiting: list[Listener] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection

    @property
    def pid(self) -> int | None:
        """The number of the process and of its group, None while there is none."""
        return self._process.pid if self._process else None

    def ask(
        self,
        method: str,
        *arguments: Any,
        listener: Listener = SILENT,
        max_seconds: float = math.inf,
    ) -> Any:
        """Call a method of the handler; raise `Stopped`, `TooLong` or another `EngineError`.

        `prepare` can't be interrupted, and several callers may wait for it: the process is killed
        once all of them want to stop. Callers without a listener have no say.
        """
        if listener is not SILENT:
            self._waiting.append(listener)
        try:
            while not self._one_at_a_time.acquire(timeout=POLL_SECONDS):
                if not self._is_given_up():  # else the request before is about to be stopped too
                    listener.check_stopped()
            try:
                listener.check_stopped()
                kind, value = self._exchange(method, arguments, listener, max_seconds)
            finally:
                self._idle.cancel()
                if self._idle_seconds is not None:
                    self._idle = threading.Timer(self._idle_seconds, self.close, [False])
                    self._idle.daemon = True
                    self._idle.start()
                self._one_at_a_time.release()
        finally:
            if listener is not SILENT:
                self._waiting.remove(listener)
        if kind == "done":
            return value
        raise value if kind == "refused" else EngineError(f"{self._title} failed: {value}.")

    def start(self) -> None:
        """Start the process unless there is one; it gets ready for requests by itself."""
        with self._one_at_a_time:
            if self._process is not None and self._process.poll() is None:
                return
            self.close()
            level = logging.getLevelName(logging.getLogger("engines").getEffectiveLevel())
            self._connection, theirs = Pipe()
            command = [sys.executable, "-m", "engines.process", str(theirs.fileno())]
            command += [self.folder, level, self.handler, *self.arguments]
            with theirs:
                try:
                    self._process = subprocess.Popen(
                        command,
                        cwd=ROOT,
                        stdin=subprocess.PIPE,  # open for as long as we live: see `guard_group`
                        pass_fds=[theirs.fileno()],
                        start_new_session=True,
                    )
                except OSError as error:
                    self._connection.close()
                    raise EngineError(
                        f"The process of {self.name} could not be started: {describe_error(error)}."
                    ) from error

    def close(self, wait: bool = True) -> None:
        """End the process and all that it started; the next request starts a new one.

        Without `wait` nothing happens while a request is under way.
        """
        if not self._one_at_a_time.acquire(blocking=wait):
            return
        try:
            if self._process is not None:
                self._connection.close()
                with suppress(ProcessLookupError, PermissionError):  # nothing is left of the group
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.communicate()
                self._process = None
        finally:
            self._one_at_a_time.release()

    def send(self, content: bytes) -> None:
        """Send a request or `STOP`; where the process is dead, `receive` says so."""
        with suppress(OSError):
            self._connection.send_bytes(content)

    def receive(self) -> Message | None:
        """Wait a moment for the next message; a dead process is `refused` with the reason."""
        assert self._process is not None
        try:
            return self._connection.recv() if self._connection.poll(POLL_SECONDS) else None
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            status = self._process.poll() or 0
            self.close()
        how = f" with exit status {status}" if status else ""
        if status == -signal.SIGKILL:
            how = ": it was killed, which is also what happens where memory runs out"
        elif status < 0:
            how = f" by {signal.Signals(-status).name}"
        sentence = f"The process of {self.name} ended{how}. The next run starts a new one."
        return ("refused", Died(sentence))

    def _is_given_up(self) -> bool:
        """Whether all who wait want to stop, and somebody waits."""
        waiting = tuple(self._waiting)
        return bool(waiting) and all(listener.stopped() for listener in waiting)

    def _exchange(
        self, method: str, arguments: tuple[Any, ...], listener: Listener, max_seconds: float
    ) -> Message:
        """Send a request and pass its messages on; return the last one."""
        try:
            self.start()
            self.send(pickle.dumps((get_contextvars(), method, arguments)))
            begun = moved = time.monotonic()
            stop_sent = math.inf
            while True:
                message = self.receive()
                now = time.monotonic()
                if message is not None:
                    moved = now
                    kind, value = message
                    if kind in FINAL:
                        return message
                    getattr(listener, kind)(value)
                if method == "prepare":
                    if self._is_given_up():
                        raise Stopped("stopped")
                elif stop_sent == math.inf and listener.stopped():
                    stop_sent = now
                    self.send(STOP)
                if now - stop_sent > STOP_SECONDS:
                    raise Stopped("stopped")
                if now - begun > max_seconds:
                    raise TooLong(f"{self._title} took longer than {max_seconds:.0f} s.")
                if now - moved > STUCK_SECONDS:
                    raise EngineError(
                        f"{self._title} made no progress for {now - moved:.0f} s and was ended. "
                        "The next run starts it anew."
                    )
        except BaseException:  # the process may still be at work on the request
            self.close()
            raise


# The child process


class Channel(Listener):
    """The process's end of the pipe, and the listener of the request under way."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._receive, daemon=True).start()

    def progress(self, progress: Progress) -> None:
        self.send("progress", progress)

    def segment(self, segment: Segment) -> None:
        self.send("segment", segment)

    def partial(self, text: str) -> None:
        self.send("partial", text)

    def stopped(self) -> bool:
        return self._stop.is_set()

    def send(self, kind: str, value: Any) -> None:
        """Send a message, from any thread; without a parent this process is about to be killed."""
        with self._sending, suppress(OSError):
            self._connection.send((kind, value))

    def serve(self, make_handler: Callable[[], Any]) -> NoReturn:
        """Answer requests until the process is killed.

        A handler that can't be made, or a request that can't be unpickled, is answered `failed`.
        """
        handler = None
        while True:
            content = self._requests.get()
            try:
                fields, method, arguments = pickle.loads(content)
                with bound_contextvars(**fields):
                    handler = handler or make_handler()
                    answer: Message = ("done", getattr(handler, method)(*arguments, self))
            except EngineError as error:
                answer = ("refused", error)
            except Exception as error:
                logger.exception("a request failed")
                answer = ("failed", describe_error(error))
            self.send(*answer)

    def _receive(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                content = self._connection.recv_bytes()
                if content == STOP:
                    self._stop.set()
                else:
                    self._stop.clear()
                    self._requests.put(content)


def guard_group(folder: str) -> None:
    """Let a shell remove `folder` and kill this process group once the parent is gone.

    The shell reads our standard input, a pipe that only the parent holds open. A thread here can't
    do that while native code holds Python's lock, and Linux's PR_SET_PDEATHSIG reaches this process
    alone, and also when only the thread that started it ends.
    """
    subprocess.Popen(["/bin/sh", "-c", 'read _; rm -rf "$0"; kill -KILL 0', folder])


def main() -> None:
    """Serve what the command line names."""
    connection, folder, level, handler, *arguments = sys.argv[1:]
    guard_group(folder)
    logs.set_up(level)
    Channel(Connection(int(connection))).serve(lambda: pkgutil.resolve_name(handler)(*arguments))


if __name__ == "__main__":
    main()
