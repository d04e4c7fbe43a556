"""Estimates of the time left, from how long engines took on this machine before.

A small JSON file in the cache folder has the last durations as pairs, the clip's seconds and those
of the run, by engine, model, type and what else a run depends on. Where it is damaged or can't be
written there are no estimates; nothing else fails.
"""

from __future__ import annotations

import json
import math
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo.snapshot import AT_WORK, Comparison, Expected, Lane, Settings
from engines.base import PrepareSeconds

MOST_KEYS, MOST_PAIRS = 300, 6
FIXED_SECONDS = 10.0
"""A clip takes about as long as one that is shorter by so much, since a window is encoded whole."""

Pairs = list[tuple[float, float]]


class PastRuns:
    """The last durations by name, the newest last; without a `path` they end with the program."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._ready: dict[str, str] = {}  # what each engine has loaded, as far as is known
        self._pairs: dict[str, Pairs] = {}
        if path is not None:
            with suppress(OSError, ValueError, TypeError, AttributeError):
                self._pairs = read_pairs(json.loads(path.read_text(encoding="utf-8")))

    def note_prepared(
        self, key: str, settings: Settings, prepared: PrepareSeconds, waited: float
    ) -> None:
        """Record that an engine is ready, and how long that took if it was not ready before."""
        self._ready[key] = name = name_engine(key, settings)
        if waited > prepared.total / 2:
            self.note(f"{name} load", 0.0, prepared.load)
            self.note(f"{name} compile", 0.0, prepared.compile)

    def note(self, name: str, audio_seconds: float, seconds: float) -> None:
        """Record how long something took, with the length of its clip if it depends on that."""
        with self._lock:
            pairs = [*self._pairs.pop(name, []), (audio_seconds, seconds)]
            self._pairs[name] = pairs[-MOST_PAIRS:]
            while len(self._pairs) > MOST_KEYS:
                del self._pairs[next(iter(self._pairs))]
            if self._path is not None:
                unfinished = self._path.with_suffix(".part")
                with suppress(OSError):
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    unfinished.write_text(json.dumps(self._pairs), encoding="utf-8")
                    unfinished.replace(self._path)

    def find(self, name: str, audio_seconds: float = 0.0, most: bool = False) -> float | None:
        """Return the seconds recorded for the clip nearest in length, scaled to this length; with
        `most` the longest recorded. None where there are none."""
        with self._lock:
            pairs = self._pairs.get(name)
        if not pairs:
            return None
        if most:
            return max(seconds for _, seconds in pairs)
        past, seconds = min(reversed(pairs), key=lambda pair: abs(pair[0] - audio_seconds))
        return seconds * (audio_seconds + FIXED_SECONDS) / (past + FIXED_SECONDS)

    def expect_analysis(self, name: str, audio_seconds: float) -> float | None:
        """Return how long an analysis took before; the first since the program's start is apart."""
        return self.find(self._name_analysis(name), audio_seconds)

    def note_analysis(self, name: str, audio_seconds: float, seconds: float) -> None:
        """Record how long an analysis took; the next one finds its encoders loaded."""
        self.note(self._name_analysis(name), audio_seconds, seconds)
        self._ready[name] = name

    def _name_analysis(self, name: str) -> str:
        return f"{name} again" if name in self._ready else name

    def add_expected(self, comparison: Comparison) -> Comparison:
        """Set what each lane may take, for a clip whose length is known, and the time left."""
        settings, audio = comparison.settings, comparison.audio_seconds

        def expect(lane: Lane) -> Lane:
            name = name_engine(lane.key, settings)
            is_ready = self._ready.get(lane.key) == name
            expected = Expected(
                load=0.0 if is_ready else self.find(f"{name} load"),
                compile=0.0 if is_ready else self.find(f"{name} compile", most=True),
                race=self.find(name_run(lane.key, settings, True), audio),
                alone=self.find(name_run(lane.key, settings, False), audio),
            )
            return replace(lane, expected=expected)

        return add_time_left(comparison.map_lanes(expect))


def add_time_left(comparison: Comparison) -> Comparison:
    """Set the seconds left, of each lane's present run and of the whole comparison.

    Lanes race at the same time, so the slowest one counts; runs alone follow one another.
    """
    runs_alone, audio, lanes = comparison.runs_alone, comparison.audio_seconds, []
    racing = comparison.racing or not runs_alone
    slowest_race, rest = 0.0, 0.0
    for lane in comparison.lanes:
        race, alone = or_unknown(lane.expected.race), or_unknown(lane.expected.alone)
        left = estimate_lane(lane, race if racing else alone, audio) if lane.running else 0.0
        shown = lane.running and lane.state != "waiting" and math.isfinite(left)
        lanes.append(replace(lane, left=left if shown else None))
        if lane.running and racing:
            later = 0 if runs_alone else comparison.settings.repeats - len(lane.repeats) - 1
            has_raced = later < 0 or (runs_alone and lane.race is not None)
            slowest_race = max(slowest_race, (0.0 if has_raced else left) + multiply(later, race))
            rest += multiply(runs_alone, alone)
        elif lane.running:
            rest += left + multiply(runs_alone - len(lane.repeats) - 1, alone)
    left = slowest_race + rest
    known = not comparison.finished and math.isfinite(left)
    return replace(comparison, lanes=tuple(lanes), left=left if known else None)


def estimate_lane(lane: Lane, run: float, audio_seconds: float) -> float:
    """Return the seconds until a lane's present run ends, or while there is none its next one.

    `run`: the seconds of one run. Compiling counts once it has begun: until then the graphs are
    taken to be in the cache. Infinity is unknown; 0 is for a lane that takes longer than before.
    """
    if lane.state in AT_WORK:
        if lane.pace is not None and lane.audio_done >= audio_seconds / 5:
            run = lane.pace * audio_seconds
        return max(run - lane.elapsed, 0.0)
    if lane.ready is not None:
        return run
    if lane.state == "compiling":
        return max(or_unknown(lane.expected.compile) - lane.elapsed, 0.0) + run
    load = or_unknown(lane.expected.load)
    return max(load - lane.elapsed * (lane.state == "loading"), 0.0) + run


def or_unknown(seconds: float | None) -> float:
    """Return infinity for None."""
    return math.inf if seconds is None else seconds


def multiply(count: int, seconds: float) -> float:
    """Return the seconds of so many runs: 0 for none of them, also where one is unknown."""
    return count * seconds if count > 0 else 0.0


def name_engine(key: str, settings: Settings) -> str:
    """Name a lane's engine with what it has loaded."""
    return " ".join(settings.run_of(key))


def name_run(key: str, settings: Settings, beside: bool) -> str:
    """Name a run by what its duration depends on, but for the clip."""
    words = " words" if settings.word_timestamps else ""
    others = [f" {name}={str(value)[:40]}" for name, value in sorted(settings.changed().items())]
    how = "race" if beside else "alone"
    return f"{name_engine(key, settings)} beam {settings.beam_size}{words}{''.join(others)} {how}"


def read_pairs(content: Any) -> dict[str, Pairs]:
    """Return what a file holds; raises for anything that this module did not write."""
    pairs_by_name = {
        name: [(float(audio), float(seconds)) for audio, seconds in pairs][-MOST_PAIRS:]
        for name, pairs in list(content.items())[-MOST_KEYS:]
    }
    figures = [figure for pairs in pairs_by_name.values() for pair in pairs for figure in pair]
    if not all(math.isfinite(figure) and figure >= 0 for figure in figures):
        raise ValueError("a figure is no duration")
    return pairs_by_name
