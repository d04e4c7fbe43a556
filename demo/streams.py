"""Who still listens: a job whose caller closed its event stream, or opened none, is stopped.

Gradio marks the events of a closed stream and lets what runs for them run on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 10.0
"""Time in which a caller who has asked for a job opens the stream of its events."""

CLOSED_SECONDS = 2.0
"""Time without a stream after which a caller who had one open has left."""

LOOK_SECONDS = 0.2


class Streams:
    """Event streams that are open, by Gradio's name for the session."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def listen(self, session: str) -> Iterator[None]:
        """Count a stream of a session as open."""
        self._open[session] += 1
        try:
            yield
        finally:
            self._open[session] -= 1
            if self._open[session] <= 0:
                del self._open[session]

    async def wait_until_left(self, session: str | None) -> None:
        """Return once a caller has had no stream open for too long.

        Gradio's clients close theirs whenever nothing is pending, and open another for the next
        event, so one that has just been closed says nothing yet.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(LOOK_SECONDS)
            if session in self._open:
                until = time.monotonic() + CLOSED_SECONDS
