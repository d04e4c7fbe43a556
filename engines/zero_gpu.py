"""Hugging Face ZeroGPU: a GPU is there only in calls of functions wrapped by `spaces.GPU`.

One generator is wrapped for all engines. `spaces` runs it in a process forked from the page's;
there it starts the same worker as elsewhere, a program of its own, so that neither PyTorch's
threads nor a MAX session is carried over a fork. The worker ends with the call, and all that it
held on the GPU with it: each run loads the model anew, before its clock starts. Spaces brings the
package `spaces` itself, and nothing needs it elsewhere.

    SPACES_ZERO_GPU   set by Spaces
    DEMO_GPU_SECONDS  how long a call may keep the GPU: 120 unless set
"""

from __future__ import annotations

import importlib
import os
import queue
import re
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from contextvars import copy_context
from functools import cache
from typing import Any

from engines import logs
from engines.base import EngineError
from engines.errors import describe_error
from engines.worker_process import ALIVE, FINAL, POLL_SECONDS, STOP, Message

SECONDS, CALL_SECONDS = "DEMO_GPU_SECONDS", 120

logger = logs.logger(__name__)


def is_here() -> bool:
    """Whether this Space has ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def is_usable() -> bool:
    """Whether calls can have the GPU."""
    return is_here() and why_not() is None


def why_not() -> str | None:
    """Return why ZeroGPU's GPU can't be used; None where it can, and where there is no ZeroGPU."""
    if not is_here():
        return None
    package = load_spaces()
    return package if isinstance(package, str) else None


@cache
def load_spaces() -> Any:
    """Import the package `spaces`, which changes PyTorch; return the reason where it can't be."""
    try:
        return importlib.import_module("spaces")
    except ImportError:
        return "ZeroGPU needs the package spaces, which is not installed"
    except Exception as error:  # it asks the machine for much, and raises what it likes
        return f"ZeroGPU could not be set up: {describe_error(error)}"


def read_seconds() -> int:
    """Read how long a call may keep the GPU; raise `ValueError` with a sentence for no number."""
    text = os.environ.get(SECONDS, "").strip()
    if not text:
        return CALL_SECONDS
    if not text.isdecimal() or int(text[:9]) < 1:
        raise ValueError(f"{SECONDS} must be a whole number from 1 up, and {text!r} isn't.")
    return int(text[:9])


@cache
def register() -> Callable[..., Generator[Message]]:
    """Wrap `answer_one` with the GPU; Spaces wants that done before the page is served."""
    wrapped: Callable[..., Generator[Message]]
    wrapped = load_spaces().GPU(duration=read_seconds())(answer_one)
    return wrapped


def answer_one(start: Callable[[], Any], request: Message) -> Generator[Message]:
    """Start a worker, send it one request, and yield its messages, several times a second."""
    try:
        process = start()
    except EngineError as error:
        yield ("refused", type(error).__name__, str(error))
        return
    try:
        message, sent = ALIVE, False
        while message[0] not in FINAL:
            if process.is_ready and not sent:
                process.send(request)
                sent = True
            message = process.receive(POLL_SECONDS) or ALIVE
            yield message
    finally:
        process.end()


class GpuCall:
    """One call with the interface of a `WorkerProcess` that answers a single request.

    `start` makes the worker's process inside the call; it must be picklable.
    """

    is_ready = True

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._over = threading.Event()
        self._asked = self._answered = False

    def is_alive(self) -> bool:
        """Whether it can take a request."""
        return not self._asked

    def send(self, message: Message) -> None:
        """Start the call with a request; `STOP` ends it."""
        if message == STOP:
            self._over.set()
            return
        self._asked = True
        context = copy_context()  # Spaces counts the seconds on the visitor's account
        threading.Thread(target=context.run, args=(self._iterate, message), daemon=True).start()

    def receive(self, seconds: float) -> Message | None:
        """Wait for the next message; until the first one, waiting for a GPU is a sign of life."""
        try:
            message = self._messages.get(timeout=seconds)
            self._answered = True
            return message
        except queue.Empty:
            return None if self._answered else ALIVE

    def end(self) -> None:
        """End the call, and with it the worker."""
        self._over.set()

    def _iterate(self, request: Message) -> None:
        """Run the call on a thread of its own: each step may wait for long."""
        try:
            message = ALIVE
            with closing(register()(self._start, request)) as messages:
                for message in messages:
                    if self._over.is_set():
                        message = ("stopped", "stopped")
                        break
                    if message[0] not in FINAL:
                        self._messages.put(message)
            self._messages.put(message)  # the last one, now that the GPU is released
        except Exception as error:  # no GPU is free, or there was one for too short a time
            logger.warning("a call for the GPU failed", error=str(error))
            self._messages.put(("refused", EngineError.__name__, describe(error)))


def describe(error: Exception) -> str:
    """Return why a call failed; Spaces' own errors carry a message, with markup."""
    said = getattr(error, "message", None) or describe_error(error)
    words = re.sub(r"<[^>]*>", " ", str(said)).split()
    return f"ZeroGPU gave no GPU, or took it back: {' '.join(words).rstrip('.')}."
