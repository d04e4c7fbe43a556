"""What a benchmark leaves behind: one record, as a JSON object.

    schema       1; another number once a field changes its meaning
    started      local time, ISO 8601 with its offset
    arguments    what followed `python -m engines.bench`
    machine      see `engines.measure.machine.Machine`; bytes, and versions by package name
    settings     by benchmark: all that was equal on every side (model, beams, repeats, threads, …)
    interrupted  true when the run was broken off; the results are those that were finished
    results      a list, one object for each contender in each case:
        benchmark   `encoder`, `start`, `clips` or `step`
        case        what was run: size, or clip and beam, or cold and warm
        contender   who ran it: an engine's key, or a peer's name
        seconds     by quantity: {samples, median, min, max}; `samples` in the order of the runs
        figures     derived from them: ratios, relative errors, tokens, real-time factor
        error       null, or why this contender failed; what it finished before is kept

`figures.times_faster` is the baseline's median over this contender's: above 1 is faster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from engines.measure.machine import Machine

SCHEMA = 1

Case = Mapping[str, str | int | float]
Figure = float | int | bool | str | None


@dataclass(frozen=True)
class Result:
    """One contender in one case; `seconds` has the raw samples of each quantity."""

    benchmark: str
    case: Case
    contender: str
    seconds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    error: str | None = None

    def median(self, quantity: str) -> float | None:
        """Median seconds of a quantity; None where it was never finished."""
        samples = self.seconds.get(quantity)
        return median(samples) if samples else None

    def as_json(self) -> dict[str, Any]:
        """The documented object."""
        return {**asdict(self), "seconds": {q: summary(s) for q, s in self.seconds.items()}}


@dataclass(frozen=True)
class Record:
    """A whole benchmark run; fields as documented above."""

    started: str
    arguments: tuple[str, ...]
    machine: Machine
    settings: Mapping[str, Mapping[str, Any]]
    results: tuple[Result, ...]
    interrupted: bool = False

    def as_json(self) -> dict[str, Any]:
        """The documented object."""
        return {
            "schema": SCHEMA,
            "started": self.started,
            "arguments": list(self.arguments),
            "machine": asdict(self.machine),
            "settings": {name: dict(settings) for name, settings in self.settings.items()},
            "interrupted": self.interrupted,
            "results": [result.as_json() for result in self.results],
        }


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """The samples with their median, minimum and maximum, in seconds; at least one sample."""
    return {
        "samples": list(samples),
        "median": median(samples),
        "min": min(samples),
        "max": max(samples),
    }


def with_ratios(results: Sequence[Result], quantity: str, baseline: str) -> list[Result]:
    """The results of one case, each with `times_faster` than `baseline`, by medians."""
    of_baseline = next((r.median(quantity) for r in results if r.contender == baseline), None)

    def ratio(result: Result) -> float | None:
        own = result.median(quantity)
        return of_baseline / own if of_baseline and own else None

    return [replace(r, figures={"times_faster": ratio(r), **r.figures}) for r in results]


def write(record: Record, path: Path) -> None:
    """Write the record in one move, so that a broken-off write leaves no half of it."""
    text = json.dumps(record.as_json(), indent=1, allow_nan=False, ensure_ascii=False)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)
