"""Runs under way, by visitor, so that each visitor's Stop finds its own."""

from __future__ import annotations

import itertools
import threading

from demo.compare import Run


class Runs:
    """The runs that visitors started or queued for.

    A run lives here and not in `gr.State`, which would copy it. A visitor draws a ticket on
    asking for a run; the run is admitted with that ticket when the queue lets it start.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._active: dict[str, Run] = {}
        self._waiting: dict[str, int] = {}
        self._refused: set[int] = set()

    def draw_ticket(self, visitor: str) -> int:
        """A number for a run that will start when the queue lets it."""
        with self._lock:
            self._waiting[visitor] = next(self._numbers)
            return self._waiting[visitor]

    def admit(self, visitor: str, ticket: int, run: Run) -> bool:
        """Note that a run starts; False when it was stopped while it waited."""
        with self._lock:
            self._waiting.pop(visitor, None)
            if ticket in self._refused:
                self._refused.discard(ticket)
                return False
            self._active[visitor] = run
            return True

    def leave(self, visitor: str, run: Run) -> None:
        """Forget a run that ended."""
        with self._lock:
            if self._active.get(visitor) is run:
                del self._active[visitor]

    def stop(self, visitor: str) -> None:
        """Stop a visitor's run, or the one that still waits."""
        with self._lock:
            if visitor in self._active:
                self._active[visitor].stop()
            elif visitor in self._waiting:
                self._refused.add(self._waiting.pop(visitor))
