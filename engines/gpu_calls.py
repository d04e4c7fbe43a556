"""Engines on ZeroGPU, where every run asks for the GPU anew; see `engines.zero_gpu`.

One generator is wrapped for all engines that can use a GPU. `spaces` runs it in a process that it
forks from the page's; there it starts the same worker as elsewhere, a program of its own, so that
neither PyTorch's threads nor a MAX session is ever carried over a fork. The worker ends with the
call, and all that it held on the GPU with it. Loading, and compiling where the cache has nothing,
happen inside the call, before the run's clock starts.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from contextvars import copy_context
from functools import cache
from time import perf_counter
from typing import Any

from engines import checkpoints, logs, mishaps, zero_gpu
from engines.base import SILENT, EngineError, Listener, PrepareSeconds
from engines.isolation import LISTEN_SECONDS, IsolatedEngine, Worker, WorkerLost

Message = tuple[Any, ...]
Messages = Generator[Message, None, None]

LAST = ("done", "stopped", "refused", "broke")
ALIVE: Message = ("alive",)

logger = logs.logger(__name__)


def converse(command: Sequence[str], engine: Sequence[str], request: Message) -> Messages:
    """Start a worker, put one request to it, and pass on what it says; several times a second."""
    try:
        worker = Worker(engine[0], list(command), list(engine))
    except EngineError as error:
        yield ("refused", type(error).__name__, str(error))
        return
    try:
        while not worker.is_up:
            yield worker.receive(LISTEN_SECONDS) or ALIVE
        worker.send(request)
        message = ALIVE
        while message[0] not in LAST:
            message = worker.receive(LISTEN_SECONDS) or ALIVE
            yield message
    except WorkerLost as lost:
        yield ("refused", type(lost.cause).__name__, str(lost.cause))
    finally:
        worker.end()


@cache
def set_up() -> Callable[..., Messages]:
    """`converse` with the GPU around it; Spaces wants it wrapped before the page is served."""
    return zero_gpu.wrap(converse)


class ZeroEngine(IsolatedEngine):
    """An engine whose runs are calls."""

    def prepare(self, listener: Listener = SILENT) -> PrepareSeconds:
        """Download the checkpoint, if need be; the rest takes a GPU, which only a run has."""
        start = perf_counter()
        checkpoints.fetch(self.model, listener)
        return PrepareSeconds(load=perf_counter() - start)

    def _start_worker(self) -> Call:
        return Call(self._command, [self.key, self.model, self.dtype])


class Call:
    """One call, with the face of a `Worker` that answers one request."""

    is_up = True

    def __init__(self, command: Sequence[str], engine: Sequence[str]) -> None:
        self._command, self._engine = command, engine
        self._heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._over = threading.Event()
        self._asked = self._answered = False

    def is_alive(self) -> bool:
        """Whether it can take a request."""
        return not self._asked

    def send(self, message: Message) -> None:
        """Send the request; a wish to stop ends the call."""
        if message == ("stop",):
            self._over.set()
            return
        self._asked = True
        context = copy_context()  # Spaces counts the seconds on the visitor's account
        threading.Thread(target=context.run, args=(self._hold, message), daemon=True).start()

    def receive(self, seconds: float) -> Message | None:
        """The next message, or None after so many seconds; waiting for a GPU is a sign of life."""
        try:
            message = self._heard.get(timeout=seconds)
            self._answered = True
            return message
        except queue.Empty:
            return None if self._answered else ALIVE

    def end(self) -> None:
        """End the call, and with it the worker."""
        self._over.set()

    def _hold(self, request: Message) -> None:
        """Iterate over the call in a thread of its own: each step may wait for long."""
        try:
            message = ALIVE
            with closing(set_up()(self._command, self._engine, request)) as messages:
                for message in messages:
                    if self._over.is_set():
                        message = ("stopped", "stopped")
                        break
                    if message[0] not in LAST:
                        self._heard.put(message)
            self._heard.put(message)  # the last one, now that the GPU is given back
        except Exception as error:  # no GPU is free, or there was one for too short a time
            logger.warning("a call for the GPU failed", error=str(error))
            self._heard.put(("refused", EngineError.__name__, tell(error)))


def tell(error: Exception) -> str:
    """What Spaces says of a call that failed: its own errors carry a message, with markup."""
    said = getattr(error, "message", None) or mishaps.tell(error)
    words = re.sub(r"<[^>]*>", " ", str(said)).split()
    return f"ZeroGPU gave no GPU, or took it back: {' '.join(words).rstrip('.')}."
