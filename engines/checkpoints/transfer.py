"""What the sources of checkpoints share: the progress of a transfer, and why one failed."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from engines.base import Listener
from engines.errors import describe_error


class SourceFailed(Exception):
    """One source could not bring a checkpoint; the text says why, to follow the source's name."""


def cache_home() -> Path:
    """Return the user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


class Transfer:
    """Reports the bytes of one transfer, with the megabytes and the time left in words."""

    def __init__(self, name: str, source: str, total: int, listener: Listener, done: int = 0):
        self._name, self._source, self._listener = name, source, listener
        self.total, self.done = total, done
        self._first, self._start, self._said = done, time.monotonic(), 0.0

    def add(self, n_bytes: int) -> None:
        """Count bytes, and report them a few times a second; raises `Stopped`."""
        self.done += n_bytes
        now = time.monotonic()
        if now - self._said < 0.25 and self.done != self.total:
            return
        self._said = now
        note = f"Downloading {self._name} from {self._source}: {self.done / 1e6:.0f}"
        note += f" of {self.total / 1e6:.0f} MB" if self.total else " MB"
        rate = (self.done - self._first) / max(now - self._start, 1e-3)
        if self.total > self.done and rate:
            note += f", {(self.total - self.done) / rate:.0f} s left"
        self._listener.report("downloading", self.done, self.total, note)


def describe(error: BaseException) -> str:
    """Return why a source failed in a few words."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        error = reason
    text = describe_error(error)
    for pattern, words in (
        (r"name resolution|not known|resolve host|getaddrinfo|nodename", "no connection"),
        (r"[Cc]onnection refused", "the connection was refused"),
        (r"timed? ?out", "no answer in time"),
        (r"\b404\b|Repository Not Found|not found", "it is not there"),
    ):
        if re.search(pattern, text):
            return words
    return text
