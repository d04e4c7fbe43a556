"""Processes that work on request: started, asked, stopped, watched and ended from here.

`engines.worker_process` is the other side, and describes the messages. A process that dies, falls
silent, makes no headway or won't stop is killed with all that it started, such as a compiler; the
caller gets one sentence, and the next request starts a new process.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from engines import base, errors, logs
from engines.base import SILENT, EngineError, Listener, Stopped
from engines.worker_process import FINAL, POLL_SECONDS, STOP, Message, dump

ROOT = Path(__file__).resolve().parents[1]
STOP_SECONDS = 0.6
"""How long a worker may take to stop by itself; a page's Stop promises one second."""
SILENT_SECONDS = 90.0
"""How long a worker may go without a sign of life. It gives one each second, but not while native
code holds Python's lock, as reading a large checkpoint can for a while."""
STUCK_SECONDS = 1800.0
"""How long it may work at one stage of one window, or at getting ready, without progress."""

_closing = threading.Event()
_processes: set[WorkerProcess] = set()


class WorkerProcess:
    """A process that leads a group of its own, and this end of its pipe.

    `is_ready` once it has sent something; before that, a large request would fill the pipe and
    block. Raises `EngineError` where no process can be started.
    """

    command: Sequence[str] = (sys.executable, "-m", "engines.worker_process")

    def __init__(self, name: str, kind: str, *arguments: str) -> None:
        if _closing.is_set():
            raise Stopped("stopped")
        self._name = name
        try:
            self._start(_log_level(), kind, *arguments)
        except OSError as error:
            raise EngineError(
                f"The process of {name} could not be started: {errors.describe_error(error)}."
            ) from error
        self.is_ready = self._ended = False
        atexit.register(self.end)
        _processes.add(self)
        if _closing.is_set():
            self.end()
            raise Stopped("stopped")

    def _start(self, *arguments: str) -> None:
        ours, theirs = socket.socketpair()
        lifeline, held = os.pipe()  # (read, write): ends with this process
        self._lifeline = os.fdopen(held, "wb", buffering=0)
        try:
            with ours, theirs:
                descriptors = theirs.fileno(), lifeline
                self._process = subprocess.Popen(
                    [*self.command, *map(str, descriptors), *arguments],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    start_new_session=True,
                )
                self._connection = Connection(ours.detach())
        except OSError:
            self._lifeline.close()
            raise
        finally:
            os.close(lifeline)

    @property
    def pid(self) -> int:
        """The process's number, and its group's."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it can take requests."""
        return not self._ended and self._process.poll() is None

    def send(self, message: Message) -> None:
        """Send a message; `receive` tells when nobody is there to take it."""
        with suppress(OSError):
            self._connection.send_bytes(dump(message))

    def receive(self, seconds: float) -> Message | None:
        """Wait for the next message; a process that has died is `refused` with the reason."""
        try:
            if not self._connection.poll(seconds):
                return None
            message: Message = self._connection.recv()
            self.is_ready = True
            return message
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            status = self._process.poll() or 0
            self.end()
        if _closing.is_set():
            return ("stopped", "stopped")
        return (
            "refused",
            EngineError.__name__,
            f"The process of {self._name} ended{describe_status(status)}. "
            "The next run starts a new one.",
        )

    def end(self) -> None:
        """Kill the process and all that it started, and close the pipe; again does nothing."""
        if self._ended:
            return
        self._ended = True
        atexit.unregister(self.end)
        _processes.discard(self)
        with suppress(OSError):
            self._connection.close()
        with suppress(ProcessLookupError, PermissionError):  # nothing is left of the group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._lifeline.close()


def describe_status(status: int) -> str:
    """Describe a process's exit status; negative ones are signals."""
    if status == -signal.SIGKILL:
        return ": it was killed, which is also what happens where memory runs out"
    if status < 0:
        return f" by {signal.Signals(-status).name}"
    return f" with exit status {status}" if status else ""


def _log_level() -> str:
    """The level that this process logs from, for its workers."""
    level = logging.getLogger("engines").getEffectiveLevel()
    return next((name for name, value in logs.LEVELS.items() if value >= level), "error")


class TooLong(EngineError):
    """A request took longer than it may."""


class Worker:
    """Sends requests, one at a time, to a process that is started when it is needed.

    `name` is what sentences about it begin with. The process ends after `idle_seconds` without a
    request, where that is given.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Any],
        idle_seconds: float | None = None,
    ) -> None:
        self._name = name[0].upper() + name[1:]
        self._start_process = start
        self._idle_seconds = idle_seconds
        self._idle: threading.Timer | None = None
        self._one_at_a_time = threading.RLock()
        self._waiting: list[Listener] = []
        self.process: Any = None  # a `WorkerProcess`, or a `zero_gpu.GpuCall`

    def ask(
        self,
        method: str,
        *arguments: Any,
        listener: Listener = SILENT,
        max_seconds: float = math.inf,
    ) -> Any:
        """Call a method of the handler; raise `Stopped`, `TooLong` or another `EngineError`.

        `prepare` can't be interrupted, and others may wait for it: the process is ended once all
        who wait want to stop. Those without a listener of their own go along with them.
        """
        with self._turn(listener):
            self.start()
            try:
                kind, *rest = self._exchange(method, arguments, listener, max_seconds)
            except BaseException:  # the process may still be at work on the request
                self.close()
                raise
            finally:
                self._end_when_idle()
        match kind:
            case "done":
                return rest[0]
            case "stopped":
                raise Stopped(rest[0])
            case "refused":
                raise getattr(base, rest[0], EngineError)(rest[1])
        raise EngineError(f"{self._name} failed: {rest[0]}.")

    def start(self) -> None:
        """Start the process unless there is one; it gets ready for requests by itself."""
        with self._one_at_a_time:
            if self.process is not None and not self.process.is_alive():
                self.close()
            if self.process is None:
                self.process = self._start_process()

    def close(self) -> None:
        """End the process, and with it all that it holds; the next request starts a new one."""
        with self._one_at_a_time:
            if self.process is not None:
                self.process.end()
                self.process = None

    def close_if_idle(self) -> None:
        """`close`, unless a request is under way."""
        if self._one_at_a_time.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._one_at_a_time.release()

    @contextmanager
    def _turn(self, listener: Listener) -> Iterator[None]:
        """Wait for the requests before; raise `Stopped` when the listener asks for it."""
        if listener is not SILENT:
            self._waiting.append(listener)
        try:
            while not self._one_at_a_time.acquire(timeout=POLL_SECONDS):
                if not self._is_given_up():  # else the request before is about to be stopped too
                    listener.check_stopped()
            try:
                listener.check_stopped()
                yield
            finally:
                self._one_at_a_time.release()
        finally:
            if listener is not SILENT:
                self._waiting.remove(listener)

    def _is_given_up(self) -> bool:
        """Whether all who wait want to stop, and somebody waits."""
        waiting = tuple(self._waiting)
        return bool(waiting) and all(listener.stopped() for listener in waiting)

    def _exchange(
        self, method: str, arguments: tuple[Any, ...], listener: Listener, max_seconds: float
    ) -> Message:
        """Send a request and pass its messages on; return the last one."""
        process = self.process
        begun = heard = moved = time.monotonic()
        stop_sent: float | None = None
        sent = False
        while True:
            if process.is_ready and not sent:
                process.send((structlog.contextvars.get_contextvars(), method, arguments))
                sent = True
            message: Message | None = process.receive(POLL_SECONDS)
            now = time.monotonic()
            if message is not None:
                heard = now
                moved = moved if message[0] == "alive" else now
                if message[0] in FINAL:
                    return message
                if message[0] == "progress":
                    listener.progress(message[1])
                elif message[0] == "segment":
                    listener.segment(message[1])
            if method == "prepare":
                if self._is_given_up():
                    raise Stopped("stopped")
            elif stop_sent is None and listener.stopped():
                if not sent:
                    raise Stopped("stopped")
                stop_sent = now
                process.send(STOP)
            if stop_sent is not None and now - stop_sent > STOP_SECONDS:
                raise Stopped("stopped")
            if now - begun > max_seconds:
                raise TooLong(f"{self._name} took longer than {max_seconds:.0f} s.")
            self._check_headway(now - heard, now - moved)

    def _check_headway(self, silent: float, stuck: float) -> None:
        for what, seconds, limit in (
            ("no sign of life", silent, SILENT_SECONDS),
            ("no headway", stuck, STUCK_SECONDS),
        ):
            if seconds > limit:
                raise EngineError(
                    f"{self._name} gave {what} for {seconds:.0f} s and was ended. "
                    "The next run starts it anew."
                )

    def _end_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._idle_seconds is not None:
            self._idle = threading.Timer(self._idle_seconds, self.close_if_idle)
            self._idle.daemon = True
            self._idle.start()


def shut_down() -> None:
    """End every process at once, whatever it does, and start none any more."""
    _closing.set()
    for process in tuple(_processes):
        process.end()
