"""What was finished on a visit, kept on the server so that a reload of the page loses nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from demo.snapshot import Comparison

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
    """The last comparison of each visit, by a name that only the visitor's tab knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def keep(self, visit: str, kept: Kept) -> None:
        """Replace what the visit had; nothing is kept without a name."""
        if not visit:
            return
        light = kept.comparison and drop_features(kept.comparison)
        result = kept.result and drop_features(kept.result)
        with self._lock:
            self._kept[visit] = replace(kept, comparison=light, result=result)
            self._kept.move_to_end(visit)
            while len(self._kept) > MOST_VISITS:
                self._kept.popitem(last=False)

    def find(self, visit: str) -> Kept | None:
        """What the visit left, if it is still there."""
        with self._lock:
            return self._kept.get(visit)


def drop_features(comparison: Comparison) -> Comparison:
    """The same comparison without encoder features, which may hold hundreds of megabytes."""
    lanes = tuple(
        replace(
            lane,
            transcript=replace(
                lane.transcript, features=np.zeros((0, 0, 0), np.float32), window_starts=()
            ),
        )
        if lane.transcript is not None
        else lane
        for lane in comparison.lanes
    )
    return replace(comparison, lanes=lanes)
