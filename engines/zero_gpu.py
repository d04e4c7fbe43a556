"""Hugging Face ZeroGPU: a GPU is there only in calls of functions wrapped by `spaces.GPU`.

One generator is wrapped for all engines. `spaces` runs it in a process forked from the page's;
there it starts the same worker as elsewhere, a program of its own, so that neither PyTorch's
threads nor a MAX session is carried over a fork. The worker ends with the call, and all that it
held on the GPU with it: each run loads the model anew, before its clock starts. Spaces brings the
package `spaces` itself, and nothing needs it elsewhere.

    SPACES_ZERO_GPU   set by Spaces
    DEMO_GPU_SECONDS  the most that a call asks for, which is counted by its clip and model: 120
    DEMO_GPU_ARCHITECTURE   what MAX's graphs are compiled for before the first call: sm_120a;
                            `none` leaves that to the call
"""

from __future__ import annotations

import importlib
import math
import os
import queue
import re
import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from contextvars import copy_context
from functools import cache
from typing import Any

from engines import logs
from engines.base import EngineError, describe_error
from engines.models import estimate_megabytes
from engines.process import FINAL, POLL_SECONDS, STOP, Message, Worker

SECONDS, CALL_SECONDS = "DEMO_GPU_SECONDS", 120
ARCHITECTURE, BLACKWELL = "DEMO_GPU_ARCHITECTURE", "sm_120a"
QUOTA_MINUTES = (2, 5, 40)
"""What a visitor has of the GPU in a day: without an account, with one, with a paid one."""

logger = logs.logger(__name__)


def is_here() -> bool:
    """Whether this Space has ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def is_usable() -> bool:
    """Whether calls can have the GPU."""
    return is_here() and why_not() is None


def why_not() -> str | None:
    """Return why ZeroGPU's GPU can't be used; None where it can, and where there is no ZeroGPU."""
    package = load_spaces() if is_here() else None
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


@cache
def register() -> Callable[..., Generator[Message | None]]:
    """Wrap `answer_one` with the GPU; Spaces wants that done before the page is served."""
    return load_spaces().GPU(duration=take_seconds)(answer_one)


def take_seconds(*arguments: Any) -> int:
    """Return the seconds that a call of `answer_one` asks for."""
    return int(arguments[-1])


def estimate_seconds(model: str, audio_seconds: float, beam_size: int = 1) -> int:
    """Return the seconds to ask for, by the model's size and the clip: they come off the visitor's
    day, and shorter calls wait less. An estimate: nobody has measured it on ZeroGPU yet."""
    most, megabytes = int(os.environ.get(SECONDS) or CALL_SECONDS), estimate_megabytes(model)
    start = 20.0 + megabytes / 150  # a process, its imports, the weights
    run = audio_seconds * (0.05 + megabytes / 20_000) * (2 if beam_size > 1 else 1)
    return min(math.ceil(start + run), most)


def describe_quota(calls: int, seconds: int) -> str:
    """Return what a comparison takes of a visitor's day, and how many a day buys."""
    first, second, third = QUOTA_MINUTES
    without, free, paid = (60 * each // (calls * seconds) or "none" for each in QUOTA_MINUTES)
    each = f"{seconds} s" if calls == 1 else f"{calls} times {seconds} s"
    return (
        f"Asks for {each} of the GPU. A day's quota ({first}, {second} or {third} minutes) buys "
        f"{without} of these without a Hugging Face account, {free} with one, {paid} with a paid "
        "one."
    )


def answer_one(
    name: str, handler: str, arguments: tuple[str, ...], request: bytes, seconds: int
) -> Generator[Message | None]:
    """Start a worker, send it one request, and yield what it says, or None several times a second;
    the last message ends the request."""
    worker = Worker(name, handler, *arguments)
    try:
        worker.start()
        worker.send(request)
        message = None
        while message is None or message[0] not in FINAL:
            message = worker.receive()
            yield message
    except EngineError as error:
        yield ("refused", error)
    finally:
        worker.close()


class GpuWorker(Worker):
    """A worker each of whose requests is a call that has the GPU, on a thread of its own, since
    each of its steps may wait for long."""

    seconds = CALL_SECONDS
    """What the next call asks for."""

    def start(self) -> None:
        """Have room for a new call's messages."""
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._over = threading.Event()

    def send(self, content: bytes) -> None:
        """Start the call with a request; `STOP` ends it."""
        if content == STOP:
            self._over.set()
            return
        context = copy_context()  # Spaces counts the seconds on the visitor's account
        call = (self._call, content, self.seconds, self._messages, self._over)
        threading.Thread(target=context.run, args=call, daemon=True).start()

    def receive(self) -> Message | None:
        with suppress(queue.Empty):
            return self._messages.get(timeout=POLL_SECONDS)
        return None

    def close(self, wait: bool = True) -> None:
        """End the call that is under way, and with it the worker."""
        if hasattr(self, "_over"):
            self._over.set()

    def _call(
        self,
        request: bytes,
        seconds: int,
        messages: queue.SimpleQueue[Message],
        over: threading.Event,
    ) -> None:
        last: Message = ("failed", "the call ended without an answer")
        try:
            call = (self.name, self.handler, self.arguments, request, seconds)
            with closing(register()(*call)) as answers:
                for message in answers:
                    if over.is_set():
                        return
                    if message is not None and message[0] in FINAL:
                        last = message  # told once the GPU is released
                    elif message is not None:
                        messages.put(message)
        except Exception as error:  # no GPU is free, or there was one for too short a time
            logger.warning("a call for the GPU failed", error=str(error))
            text = getattr(error, "message", None) or describe_error(error)  # Spaces' has markup
            words = " ".join(re.sub(r"<[^>]*>", " ", str(text)).split()).rstrip(".")
            sentence = f"ZeroGPU gave no GPU, or took it back: {words}."
            last = ("refused", EngineError(sentence))
        messages.put(last)
