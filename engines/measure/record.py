"""What a benchmark leaves behind: one record, as a JSON object.

    schema       2; another number once a field changes its meaning
    run          the run's id, which its log has as well
    started      local time, ISO 8601 with its offset
    arguments    what followed `python -m engines.bench`
    machine      see `engines.measure.machine.Machine`; bytes, and versions by package name
    settings     by benchmark: all that was equal on every side (models, beams, repeats, threads, …)
    interrupted  true until all is measured; the results are those that were finished
    results      a list, one object for each contender in each case:
        benchmark   `clips`, `encoder`, `step`, `start`, `kv-cache`
                    or `memory`
        case        what was run: model, clip and beam, or size, or cold and warm, …
        contender   who ran it: an engine's key, or a peer's name
        seconds     by quantity: {samples, median, min, max}; `samples` in the order of the runs
        figures     derived from them: ratios, relative errors, tokens, real-time factor, memory
        error       null, or why this contender failed; what it finished before is kept

`figures.times_faster` is the baseline's median over this contender's: above 1 is faster. As lines
of JSON the same is: one line of `kind` `run` with all but the results, one of `kind` `result` for
each of them as soon as it is there, and one of `kind` `end`. docs/benchmark-record.schema.json is
the schema of both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any, Protocol, TextIO

from engines.base import EngineError
from engines.measure.machine import Machine

SCHEMA = 2

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

    run: str
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
            "run": self.run,
            "started": self.started,
            "arguments": list(self.arguments),
            "machine": asdict(self.machine),
            "settings": {name: dict(settings) for name, settings in self.settings.items()},
            "interrupted": self.interrupted,
            "results": [result.as_json() for result in self.results],
        }


def result_from(each: Mapping[str, Any]) -> Result:
    """The result that a documented object tells of."""
    return Result(
        each["benchmark"],
        each["case"],
        each["contender"],
        {quantity: tuple(s["samples"]) for quantity, s in each["seconds"].items()},
        each["figures"],
        each["error"],
    )


def read(path: Path) -> Record:
    """The record in a file, as it was written; raises `EngineError` for one of another schema."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["schema"] != SCHEMA:
        raise EngineError(f"{path} has schema {content['schema']}, not {SCHEMA}: measure anew.")
    results = [result_from(each) for each in content["results"]]
    return Record(
        run=content["run"],
        started=content["started"],
        arguments=tuple(content["arguments"]),
        machine=Machine(**content["machine"]),
        settings=content["settings"],
        results=tuple(results),
        interrupted=content["interrupted"],
    )


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


def only_finite(result: Result) -> Result:
    """The result without what is infinite or not a number, for which JSON has no word.

    What is left out becomes the contender's error, unless it has one.
    """
    wrong = [name for name, value in result.figures.items() if not _is_finite(value)]
    wrong += [name for name, samples in result.seconds.items() if not all(map(isfinite, samples))]
    if not wrong:
        return result
    return replace(
        result,
        seconds={name: s for name, s in result.seconds.items() if name not in wrong},
        figures={name: value for name, value in result.figures.items() if name not in wrong},
        error=result.error or f"Not finite: {', '.join(wrong)}.",
    )


def _is_finite(value: Figure) -> bool:
    return not isinstance(value, float) or isfinite(value)


class Sink(Protocol):
    """Hears of a benchmark while it goes on."""

    def start(self, record: Record) -> None:
        """Nothing is measured yet."""

    def add(self, record: Record, result: Result) -> None:
        """One more result, which is the record's last."""

    def end(self, record: Record) -> None:
        """All is measured, or the run was interrupted."""


class Lines:
    """Writes the record as lines of JSON, each as soon as it is known."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def start(self, record: Record) -> None:
        """The machine and the settings."""
        head = record.as_json()
        del head["results"], head["interrupted"]
        self._print({"kind": "run", **head})

    def add(self, record: Record, result: Result) -> None:
        """A result."""
        self._print({"kind": "result", "run": record.run, **result.as_json()})

    def end(self, record: Record) -> None:
        """Whether all was measured."""
        count = len(record.results)
        ending = {"interrupted": record.interrupted, "results": count}
        self._print({"kind": "end", "run": record.run, **ending})

    def _print(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, allow_nan=False, ensure_ascii=False)
        print(text, file=self._stream, flush=True)


class SavedRecord:
    """Keeps the record in a file, written anew with each result: whatever ends the program, the
    file has what was finished."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, record: Record) -> None:
        """A file without results would only hide an older one that has some."""

    def add(self, record: Record, result: Result) -> None:
        """One result more."""
        write(record, self._path)

    def end(self, record: Record) -> None:
        """The whole."""
        write(record, self._path)


def write(record: Record, path: Path) -> None:
    """Write the record in one move, so that a broken-off write leaves no half of it."""
    text = json.dumps(record.as_json(), indent=1, allow_nan=False, ensure_ascii=False)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)
