"""Engines in processes of their own, so that native code that dies takes only its lane with it.

`get` gives the same engine as `engines.registry.get`, behind a pipe. Each engine and model has one
worker process (`engines.worker`), started on first use and kept while nobody borrows the same
engine for another model. Requests go one way as `(log fields, request)`, once the worker has said
that it is there; back come `about` (the device), `progress`, `segment`,
`alive`, and one of `done`, `stopped`, `refused` (an `EngineError`) and `broke` (anything else).

A worker that dies, falls silent, makes no headway, or won't stop is ended, which frees its
processor and memory at once; the run gets a sentence, and the next run starts a new worker. It
leads a process group of its own, so that what it started, such as a compiler, ends with it.

Getting ready can't be interrupted, so whoever stops then has the worker ended too, unless somebody
else waits for the same engine. What the start-up warms for nobody in particular keeps no worker.
"""

from __future__ import annotations

import atexit
import logging
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

from engines import base, logs, mishaps, registry, zero_gpu
from engines.base import (
    SILENT,
    Clip,
    Dtype,
    Engine,
    EngineError,
    FloatArray,
    Listener,
    Options,
    PrepareSeconds,
    Stopped,
    Transcript,
)
from engines.checkpoints import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parents[1]
STOP_SECONDS = 0.6
"""How long a worker may take to stop by itself; a page's Stop promises one second."""
SILENT_SECONDS = 90.0
"""How long a worker may go without a sign of life. It gives one each second, but not while native
code holds Python's lock, as reading a large checkpoint can for a while."""
STUCK_SECONDS = 1800.0
"""How long it may work at one stage of one window, or at getting ready, without saying so."""
LISTEN_SECONDS = 0.1

StopAsked = Callable[[], bool]
"""Whether somebody who waits wants to stop."""

_engines: dict[tuple[str, str, str], IsolatedEngine] = {}
_last_borrowed: dict[str, IsolatedEngine] = {}
_lock = threading.Lock()
_workers: set[Worker] = set()
_closing = threading.Event()


class IsolatedEngine:
    """An engine whose work is done by another process; see `engines.base.Engine`."""

    def __init__(
        self,
        key: str,
        model: str,
        dtype: Dtype,
        row: registry.Row,
        command: Sequence[str] = (sys.executable, "-m", "engines.worker"),
    ) -> None:
        self.key, self.model, self.dtype = key, model, dtype
        self.label, self.encoder, self.decoder = row.label, row.encoder, row.decoder
        self.device = "cpu"
        self.borrowers = 0
        self._command = tuple(command)
        self._one_at_a_time = threading.RLock()
        self._worker: Worker | None = None
        self._waiting: list[StopAsked] = []

    def prepare(self, listener: Listener = SILENT) -> PrepareSeconds:
        """Load and compile; a second call returns the first one's figures at once.

        Once all who wait for this engine want to stop, the worker is ended and `Stopped` raised;
        who gave no listener goes along with them.
        """

        def hear(kind: str, *rest: Any) -> None:
            if kind == "progress":
                listener.progress(*rest)

        stopped = None if listener is SILENT else listener.stopped
        prepared: PrepareSeconds = self._ask(("prepare",), hear, stopped)
        return prepared

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """Run the whole clip; raises `Stopped`, or another `EngineError`."""
        listener = listener or Listener()

        def hear(kind: str, *rest: Any) -> None:
            if kind == "segment":
                listener.segment(*rest)
            elif kind == "progress":
                listener.progress(*rest)

        request = ("transcribe", clip, options or Options())
        transcript: Transcript = self._ask(request, hear, listener.stopped)
        return transcript

    def encode(self, mel: FloatArray) -> FloatArray:
        """Encode log-mel windows `(batch, n_mels, 3000)` to `(batch, n_audio_ctx, n_state)`."""
        features: FloatArray = self._ask(("encode", mel), lambda *message: None)
        return features

    def private_bytes(self) -> int:
        """Memory that the worker shares with no other process, from Linux's /proc."""
        assert self._worker is not None, "no worker is running"
        rollup = Path(f"/proc/{self._worker.pid}/smaps_rollup").read_text()
        private = [line.split() for line in rollup.splitlines() if line.startswith("Private_")]
        return sum(int(words[1]) for words in private) * 1024

    def close(self) -> None:
        """End the worker, and with it all that it holds; the engine can be prepared again."""
        with self._one_at_a_time:
            if self._worker is not None:
                self._worker.end()
                self._worker = None

    def close_if_idle(self) -> bool:
        """`close`, unless somebody is using the engine; whether it was done."""
        if not self._one_at_a_time.acquire(blocking=False):
            return False
        try:
            self.close()
        finally:
            self._one_at_a_time.release()
        return True

    def _ask(
        self,
        request: tuple[Any, ...],
        hear: Callable[..., None],
        stopped: StopAsked | None = None,
    ) -> Any:
        with self._waits(stopped), self._one_at_a_time:
            if stopped is not None and stopped():
                raise Stopped("stopped")
            self.start()
            assert self._worker is not None
            try:
                return self._wait(self._worker, request, hear, stopped)
            except WorkerLost as error:
                self._worker.end()
                self._worker = None
                raise error.cause from None

    def start(self) -> None:
        """Start the worker unless one is there; it gets ready for requests by itself."""
        with self._one_at_a_time:
            if self._worker is not None and not self._worker.is_alive():
                self._worker.end()
                self._worker = None
            if self._worker is None:
                self._worker = self._start_worker()

    def _start_worker(self) -> Any:
        """A `Worker`, or what has its face."""
        return Worker(self.key, [*self._command], [self.key, self.model, self.dtype])

    @contextmanager
    def _waits(self, stopped: StopAsked | None) -> Iterator[None]:
        """Somebody waits for this engine, and can say whether he still does."""
        if stopped is None:
            yield
            return
        self._waiting.append(stopped)
        try:
            yield
        finally:
            self._waiting.remove(stopped)

    def _is_given_up(self) -> bool:
        """Whether all who wait for this engine want to stop, and somebody does."""
        waiting = tuple(self._waiting)
        return bool(waiting) and all(stopped() for stopped in waiting)

    def _wait(
        self,
        worker: Worker,
        request: tuple[Any, ...],
        hear: Callable[..., None],
        stopped: StopAsked | None,
    ) -> Any:
        heard = moved = time.monotonic()
        asked_to_stop: float | None = None
        sent = False
        while True:
            if worker.is_up and not sent:  # before, a clip would fill the pipe and wait unseen
                worker.send((structlog.contextvars.get_contextvars(), request))
                sent = True
            message = worker.receive(LISTEN_SECONDS)
            now = time.monotonic()
            if message is not None:
                heard = now
                moved = moved if message[0] == "alive" else now
                match message:
                    case ("done", result):
                        return result
                    case ("stopped", sentence):
                        raise Stopped(sentence)
                    case ("refused", kind, sentence):
                        raise getattr(base, kind, EngineError)(sentence)
                    case ("broke", sentence):
                        raise EngineError(f"{self.label} failed: {sentence}.")
                    case ("about", device):
                        self.device = device
                    case (kind, *rest):
                        hear(kind, *rest)
            if request == ("prepare",):
                if self._is_given_up():
                    raise WorkerLost(Stopped("stopped"))
            elif asked_to_stop is None and stopped is not None and stopped():
                if not sent:
                    raise WorkerLost(Stopped("stopped"))
                asked_to_stop = now
                worker.send(("stop",))
            if asked_to_stop is not None and now - asked_to_stop > STOP_SECONDS:
                raise WorkerLost(Stopped("stopped"))
            if now - heard > SILENT_SECONDS:
                raise WorkerLost(EngineError(give_up(self.label, "no sign of life", now - heard)))
            if now - moved > STUCK_SECONDS:
                raise WorkerLost(EngineError(give_up(self.label, "no headway", now - moved)))


class WorkerLost(Exception):
    """A worker that is of no more use; `cause` is what the run shall hear."""

    def __init__(self, cause: EngineError) -> None:
        self.cause = cause


class Worker:
    """A process and this end of its pipe; `is_up` once it has said something.

    Raises `EngineError` where no process can be started.
    """

    def __init__(self, key: str, command: list[str], engine: list[str]) -> None:
        if _closing.is_set():
            raise Stopped("stopped")
        self._key = key
        try:
            self._process, self._connection = start(command, [*engine, log_level()])
        except OSError as error:
            raise EngineError(
                f"The process of {key} could not be started: {mishaps.tell(error)}."
            ) from error
        self.is_up = self._ended = False
        atexit.register(self.end)
        _workers.add(self)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def send(self, message: tuple[Any, ...]) -> None:
        """Send a message; raises `WorkerLost`."""
        try:
            self._connection.send(message)
        except OSError:
            raise self._died() from None

    def receive(self, seconds: float) -> tuple[Any, ...] | None:
        """The next message, or None after so many seconds; raises `WorkerLost`."""
        try:
            if not self._connection.poll(seconds):
                return None
            message: tuple[Any, ...] = self._connection.recv()
            self.is_up = True
            return message
        except (EOFError, OSError):
            raise self._died() from None

    def end(self) -> None:
        """Kill the process and all that it started, and close the pipe; again does nothing."""
        if self._ended:
            return
        self._ended = True
        atexit.unregister(self.end)
        _workers.discard(self)
        with suppress(OSError):
            self._connection.close()
        with suppress(ProcessLookupError, PermissionError):  # nothing is left of the group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _died(self) -> WorkerLost:
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            status = 0
        if _closing.is_set():
            return WorkerLost(Stopped("stopped"))
        why = tell_status(status)
        return WorkerLost(
            EngineError(f"The process of {self._key} ended{why}. The next run starts a new one.")
        )


def start(command: list[str], arguments: list[str]) -> tuple[subprocess.Popen[bytes], Connection]:
    """A process, told the number of its end of a pipe, and ours; raises `OSError`."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # The child gets a number it may keep open; Python closes all others in it.
        process = subprocess.Popen(
            [*command, str(theirs.fileno()), *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        return process, Connection(ours.detach())


def tell_status(status: int) -> str:
    """A process's exit status in words; negative ones are signals."""
    if status == -signal.SIGKILL:
        return ": it was killed, which is also what happens where memory runs out"
    if status < 0:
        return f" by {signal.Signals(-status).name}"
    return f" with exit status {status}" if status else ""


def give_up(label: str, what: str, seconds: float) -> str:
    """Why a worker was ended."""
    return f"{label} gave {what} for {seconds:.0f} s and was ended. The next run starts it anew."


def log_level() -> str:
    """The level that this process logs from, for its workers."""
    level = logging.getLogger("engines").getEffectiveLevel()
    return next((name for name, value in logs.LEVELS.items() if value >= level), "error")


def get(key: str, model: str = DEFAULT_MODEL, dtype: Dtype = "float32") -> Engine:
    """The engine `key` for `model` in a process of its own, the same object each time.

    Raises as `registry.get` does.
    """
    with _lock:
        return _find(key, model, dtype)


def borrow(key: str, model: str = DEFAULT_MODEL, dtype: Dtype = "float32") -> Engine:
    """`get` for a run, which gives the engine back at its end; till then nobody ends its process.

    One model is kept for each engine: another one's process ends, as soon as no run has borrowed
    it, since visitors who try model after model would else fill the memory.
    """
    with _lock:
        engine = _find(key, model, dtype)
        engine.borrowers += 1
        _last_borrowed[key] = engine
        for other in _engines.values():
            if other.key == key and other is not engine and not other.borrowers:
                other.close_if_idle()
        return engine


def give_back(engine: Engine) -> None:
    """End the process of a borrowed engine if another model was borrowed since."""
    assert isinstance(engine, IsolatedEngine)
    with _lock:
        engine.borrowers -= 1
        if not engine.borrowers and _last_borrowed.get(engine.key) is not engine:
            engine.close_if_idle()


def _find(key: str, model: str, dtype: Dtype) -> IsolatedEngine:
    """An engine, made if need be, and kept for good: without a process it takes no room."""
    row = registry.row(key)
    if reason := row.why_not():
        raise base.EngineUnavailable(reason)
    name = (key, model, dtype)
    if name not in _engines:
        _engines[name] = pick_kind(key)(key, model, dtype, row)
    return _engines[name]


def pick_kind(key: str) -> type[IsolatedEngine]:
    """How an engine's worker is reached: on ZeroGPU a GPU's engines are reached by calls."""
    if key == registry.BASELINE or not zero_gpu.is_usable():
        return IsolatedEngine
    from engines.gpu_calls import ZeroEngine

    return ZeroEngine


def end_for_good() -> None:
    """End every worker at once, whatever it does, and start none any more: the program ends."""
    _closing.set()
    for worker in tuple(_workers):
        worker.end()


def close_all() -> None:
    """End every worker."""
    with _lock:
        for engine in _engines.values():
            engine.close()
        _engines.clear()
        _last_borrowed.clear()
