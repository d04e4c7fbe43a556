"""Locks that processes share, kept by files."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

LOOK_SECONDS = 0.2


@contextmanager
def file_lock(path: Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock while the block lasts; no lock where none can be had.

    `wait` is called several times a second while somebody else holds it, in this process or
    another, and may raise to give up. The file stays: whoever removed it would part those who wait
    for it from those who come.
    """
    with ExitStack() as held:
        with suppress(OSError):  # no room, or a network disk that knows no locks
            file = held.enter_context(path.open("w"))
            while not _take(file.fileno()):
                wait()
                time.sleep(LOOK_SECONDS)
        yield


def _take(descriptor: int) -> bool:
    """Whether the lock was free; raises `OSError` where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
