"""What was finished on a visit, kept on the server so that a reload of the page loses nothing."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from demo.snapshot import Comparison

NAME_VISIT = "() => [nameVisit()]"
READ_VISIT = "() => [nameVisit(), wasReloaded()]"
"""Functions of `assets/page.js`: the visit's name, and whether its page was reloaded."""

MOST_VISITS = 64
"""Visits kept: some hundred kilobytes each, the longest unused forgotten first."""


@dataclass(frozen=True)
class Kept:
    """What the controls held, and the panels' values or the comparison to draw them from.

    `result` and `features`: the finished comparison, and its encoders' panel as drawn, for the
    files that a visitor takes away.
    """

    controls: tuple[Any, ...]
    values: tuple[Any, ...] = ()
    comparison: Comparison | None = None
    result: Comparison | None = None
    features: tuple[str, ...] = ()


class Keepsakes:
    """The last comparison of each visit, by a name that only the visitor's tab knows, and what the
    other panels showed last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}
        self._panels: dict[str, dict[str, tuple[Any, ...]]] = {}
        self._times: OrderedDict[str, float] = OrderedDict()

    def keep(self, visit: str, kept: Kept) -> None:
        """Replace what the visit had; nothing is kept without a name."""
        if not visit:
            return
        light = kept.comparison and drop_features(kept.comparison)
        result = kept.result and drop_features(kept.result)
        with self._lock:
            self._kept[visit] = replace(kept, comparison=light, result=result)
            self._note(visit)

    def keep_panel(self, visit: str, panel: str, values: tuple[Any, ...]) -> None:
        """Replace what a panel beside the comparison's showed; nothing is kept without a name."""
        if not visit:
            return
        with self._lock:
            self._panels.setdefault(visit, {})[panel] = values
            self._note(visit)

    def _note(self, visit: str) -> None:
        self._times[visit] = time.monotonic()
        self._times.move_to_end(visit)
        while len(self._times) > MOST_VISITS:
            self._drop(next(iter(self._times)))

    def forget(self, seconds: float) -> None:
        """Drop what was kept so long ago."""
        with self._lock:
            last = time.monotonic() - seconds
            for visit in [visit for visit, kept in self._times.items() if kept <= last]:
                self._drop(visit)

    def _drop(self, visit: str) -> None:
        for held in (self._kept, self._panels, self._times):
            held.pop(visit, None)

    def find(self, visit: str) -> Kept | None:
        """What the visit left, if it is still there."""
        with self._lock:
            return self._kept.get(visit)

    def find_panel(self, visit: str, panel: str) -> tuple[Any, ...] | None:
        """What a panel showed last, if it is still there."""
        with self._lock:
            return self._panels.get(visit, {}).get(panel)


def drop_features(comparison: Comparison) -> Comparison:
    """The same comparison without encoder features."""
    lanes = tuple(
        replace(lane, transcript=lane.transcript and lane.transcript.without_features())
        for lane in comparison.lanes
    )
    return replace(comparison, lanes=lanes, features_dropped=True)
