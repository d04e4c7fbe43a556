"""Cold and warm start of each engine, from a new process to ready.

Cold: the cache of compiled graphs, MAX's own included, is an empty folder. Warm: it is the folder
that a cold start filled. Files that a process reads, such as PyTorch's, are in memory in both:
each engine's imports are run once before anything is timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from engines.base import EngineError
from engines.measure import tables
from engines.measure.record import Result
from engines.measure.turns import Say, Turns, prefixed, take_turns

BENCHMARK = "start"
LONGEST_START = 1800.0
"""Seconds after which a start is given up."""

ROOT = Path(__file__).parents[2]
QUANTITIES = ("ready", "python", "imports", "prepare", "load", "compile")
"""`ready`: from the new process to ready, which is the sum of `python` (the interpreter),
`imports` and `prepare`. `load` and `compile`: `prepare` as the engine itself divides it."""


@dataclass(frozen=True)
class Start:
    """One start: seconds by quantity, and the memory that preparing added.

    `memory_bytes`: resident bytes once ready, less those after the imports; None where unknown.
    A cold start's has what compiling left behind.
    """

    seconds: dict[str, float]
    memory_bytes: int | None = None


def settings(engines: Sequence[str], model: str, cold: int, warm: int) -> dict[str, Any]:
    """What is equal on all sides."""
    return {"engines": list(engines), "model": model, "cold": cold, "warm": warm}


def measure(engines: Sequence[str], model: str, cold: int, warm: int, say: Say) -> Iterator[Result]:
    """All cold starts in turn, then all warm ones."""
    with tempfile.TemporaryDirectory(prefix="max-whisper-start-") as root:
        folders: dict[str, Path] = {}

        def start_cold(key: str) -> Start:
            folders[key] = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=root))
            return start(key, model, folders[key])

        def read_files(key: str) -> Start:
            return start(key, model, Path(root), "--imports-only")

        def start_warm(key: str) -> Start:
            return start(key, model, folders[key])

        for case, run, repeats in (
            ("imports", read_files, 1),
            ("cold", start_cold, cold),
            ("warm", start_warm, warm),
        ):
            runs = {key: partial(run, key) for key in engines}
            turns = take_turns(runs, repeats, 0, prefixed(say, case))
            if case != "imports":
                yield from results(case, model, turns)
            if turns.interrupted:
                raise KeyboardInterrupt


def start(key: str, model: str, cache: Path, *arguments: str) -> Start:
    """Start one engine in a new process; raises `EngineError` with what it said when it fails."""
    environment = {**os.environ, "MAX_WHISPER_CACHE": str(cache)}
    environment.pop("MODULAR_CACHE_DIR", None)  # MAX's own cache then goes into the same folder
    command = [sys.executable, "-m", "engines.measure.ready", key, model, *arguments]
    started = monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_START,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{key} was not ready after {LONGEST_START:.0f} s.") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise EngineError(said[-1])
    if not done.stdout:
        return Start({})
    child = json.loads(done.stdout)
    return Start(divide(started, child), child["memory_bytes"])


def divide(started: float, child: dict[str, float]) -> dict[str, float]:
    """The seconds between a child's readings of the clock."""
    return {
        "ready": child["ready"] - started,
        "python": child["entered"] - started,
        "imports": child["imported"] - child["entered"],
        "prepare": child["ready"] - child["imported"],
        "load": child["load"],
        "compile": child["compile"],
    }


def results(case: str, model: str, turns: Turns[Start]) -> list[Result]:
    """One result for each engine."""
    return [
        Result(
            BENCHMARK,
            {"start": case, "model": model},
            key,
            {q: tuple(start.seconds[q] for start in starts) for q in QUANTITIES} if starts else {},
            {"memory_bytes": memory(starts)},
            turns.errors.get(key),
        )
        for key, starts in turns.outcomes.items()
    ]


def memory(starts: Sequence[Start]) -> float | None:
    """The median of what preparing added, in bytes."""
    known = [start.memory_bytes for start in starts if start.memory_bytes is not None]
    return median(known) if known else None


COLUMNS = (
    tables.of_case("start"),
    tables.contender("engine"),
    tables.seconds("ready"),
    tables.spread("ready"),
    tables.runs("ready"),
    tables.seconds("python"),
    tables.seconds("imports"),
    tables.seconds("load"),
    tables.seconds("compile"),
    tables.figure("memory_bytes", "memory MB", ".0f", 1e-6),
)
