"""Runs under way, by visitor, so that each visitor's Stop finds its own."""

from __future__ import annotations

import itertools
import threading
from typing import Protocol


class Stoppable(Protocol):
    """Whatever a visitor can start and stop: a comparison, a look, a run of the fault lab."""

    def stop(self) -> None:
        """End it soon."""
        ...


class Runs:
    """The runs that visitors started or queued for.

    A run lives here and not in `gr.State`, which would copy it. A visitor draws a ticket on
    asking for a run, and takes a turn with it when the queue lets the run start.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._active: dict[str, Stoppable] = {}
        self._waiting: dict[str, int] = {}
        self._refused: set[int] = set()

    def draw_ticket(self, visitor: str) -> int:
        """A number for a run that will start when the queue lets it."""
        with self._lock:
            self._waiting[visitor] = next(self._numbers)
            return self._waiting[visitor]

    def take_turn(self, visitor: str, ticket: int) -> bool:
        """The queue lets a run start; False when it was stopped while it waited."""
        with self._lock:
            self._waiting.pop(visitor, None)
            refused = ticket in self._refused
            self._refused.discard(ticket)
            return not refused

    def enter(self, visitor: str, run: Stoppable) -> None:
        """Note that a run starts."""
        with self._lock:
            self._active[visitor] = run

    def leave(self, visitor: str, run: Stoppable) -> None:
        """Forget a run that ended."""
        with self._lock:
            if self._active.get(visitor) is run:
                del self._active[visitor]

    def count_others(self, visitor: str) -> int:
        """Other visitors' runs that go on or wait: those that come first."""
        with self._lock:
            return len({*self._active, *self._waiting} - {visitor})

    def stop(self, visitor: str) -> bool:
        """Stop a visitor's run; True when it was still waiting, and so will never start."""
        with self._lock:
            if visitor in self._active:
                self._active[visitor].stop()
            elif visitor in self._waiting:
                self._refused.add(self._waiting.pop(visitor))
                return True
            return False
