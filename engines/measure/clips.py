"""Whole runs: engines, models, clips and beam sizes, each engine in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from engines import registry
from engines.base import Options, PrepareSeconds
from engines.checkpoints import DEFAULT_MODEL
from engines.measure import peers, tables
from engines.measure.record import Case, Figure, Result, with_ratios
from engines.measure.turns import Say, Turns, prefixed, ready, take_turns
from engines.measure.worker import EngineProcess, Run

BENCHMARK = "clips"
SAMPLES = Path(__file__).parents[2] / "audio_samples"
QUANTITIES = ("audio", "mel", "encode", "decode", "total")
TEMPERATURES = (0.0,)
"""No fallback: a retried window would be sampled, and would be more work for one side only."""


class Process(Protocol):
    """What runs one engine: an `EngineProcess`, or a test's stand-in."""

    def prepare(self, engine: str, model: str, progress: Say = ...) -> PrepareSeconds:
        """Load and compile."""
        ...

    def transcribe(self, engine: str, model: str, clip: Path, options: Options) -> Run:
        """Read and run a clip."""
        ...

    def close(self) -> None:
        """End it, even in the middle of a run."""
        ...


@dataclass(frozen=True)
class Plan:
    """What to run: every engine on every clip, with every model and beam size.

    `threads`: of every engine. `peers`: modules with other projects' engines.
    """

    engines: Sequence[str]
    clips: Sequence[str]
    models: Sequence[str] = (DEFAULT_MODEL,)
    beams: Sequence[int] = (1,)
    repeats: int = 3
    warm_ups: int = 1
    threads: int | None = None
    peers: Sequence[str] = peers.NAMES

    @property
    def baseline(self) -> str:
        """`cpu` where it takes part, else the first engine."""
        return registry.BASELINE if registry.BASELINE in self.engines else self.engines[0]

    @property
    def results(self) -> int:
        """How many results there will be."""
        return len(self.engines) * len(self.clips) * len(self.models) * len(self.beams)

    def settings(self) -> dict[str, Any]:
        """What is equal on all sides."""
        return {
            "engines": list(self.engines),
            "models": list(self.models),
            "clips": list(self.clips),
            "beams": list(self.beams),
            "repeats": self.repeats,
            "warm_ups": self.warm_ups,
            "temperatures": list(TEMPERATURES),
            "schedule": "one at a time, in turn",
            "baseline": self.baseline,
            "threads": self.threads,
        }


@dataclass(frozen=True)
class Contender:
    """An engine that is ready: how to run a clip, and what getting ready took."""

    run: Callable[[Path, Options], Run]
    prepared: PrepareSeconds


def measure(
    plan: Plan, say: Say, open_process: Callable[[], Process] | None = None
) -> Iterator[Result]:
    """One result for each model, clip, beam size and engine.

    Models come one after another, so that only one of them is in memory. Warm-ups come with the
    first clip only. Ends with `KeyboardInterrupt` if it was interrupted.
    """
    open_process = open_process or partial(EngineProcess, plan.threads, plan.peers)
    for model in plan.models:
        with ExitStack() as processes:
            yield from measure_model(plan, model, say, open_process, processes)


def measure_model(
    plan: Plan,
    model: str,
    say: Say,
    open_process: Callable[[], Process],
    processes: ExitStack,
) -> Iterator[Result]:
    """The results of one model; its processes are left to `processes` to close."""
    prepared: dict[str, PrepareSeconds] = {}

    def start(key: str) -> Callable[[Path, Options], Run]:
        process = open_process()
        processes.callback(process.close)
        prepared[key] = process.prepare(key, model, prefixed(say, f"{model}, {key}"))
        return partial(process.transcribe, key, model)

    transcribers = {key: ready(partial(start, key)) for key in plan.engines}
    warm_ups = dict.fromkeys(plan.beams, plan.warm_ups)
    for name, beam in product(plan.clips, plan.beams):
        runs = {
            key: partial(transcribe, clip_path(name), options_for(beam))
            for key, transcribe in transcribers.items()
        }
        tell = prefixed(say, f"{model}, {name}, beam {beam}")
        turns = take_turns(runs, plan.repeats, warm_ups.pop(beam, 0), tell)
        case: Case = {"model": model, "clip": name, "beam": beam}
        yield from results(case, turns, prepared, plan.baseline)
        if turns.interrupted:
            raise KeyboardInterrupt


def options_for(beam: int) -> Options:
    """The options of every engine at this beam size; 1 is greedy."""
    return Options(beam_size=beam if beam > 1 else None, temperatures=TEMPERATURES)


def clip_path(name: str) -> Path:
    """A sample's file, or the path itself."""
    sample = SAMPLES / f"{name}.flac"
    return sample if sample.is_file() else Path(name)


def results(
    case: Case, turns: Turns[Run], prepared: dict[str, PrepareSeconds], baseline: str
) -> list[Result]:
    """One result for each engine, compared with the baseline's tokens and total."""
    expected = turns.outcomes.get(baseline, [])
    found = [
        Result(
            BENCHMARK,
            case,
            key,
            stage_seconds(runs, prepared.get(key)),
            figures(runs, expected[0] if expected else None),
            turns.errors.get(key),
        )
        for key, runs in turns.outcomes.items()
    ]
    return with_ratios(found, "total", baseline)


def stage_seconds(
    runs: Sequence[Run], prepared: PrepareSeconds | None
) -> dict[str, tuple[float, ...]]:
    """Samples of each stage and of the total, and the one sample of getting ready.

    Nothing where no run was finished.
    """
    if not runs:
        return {}
    stages = {q: tuple(run.seconds[q] for run in runs) for q in QUANTITIES}
    return {"prepare": (prepared.total,), **stages} if prepared else stages


def figures(runs: Sequence[Run], expected: Run | None) -> dict[str, Figure]:
    """What follows from the medians; `equal_tokens`: every run wrote the baseline's tokens.

    `tokens_per_second` is by the time in the decode loop, timestamps counted; the real-time
    factor is by the whole run. Memory is the peak of the engine's own process so far.
    """
    if not runs:
        return {}
    first = runs[0]
    decode = median(run.seconds["decode"] for run in runs)
    total = median(run.seconds["total"] for run in runs)
    same = all(expected is not None and run.tokens == expected.tokens for run in runs)
    return {
        "audio_seconds": first.audio_seconds,
        "device": first.device,
        "dtype": first.dtype,
        "tokens": len(first.tokens),
        "tokens_per_second": len(first.tokens) / decode if decode else None,
        "real_time_factor": total / first.audio_seconds if first.audio_seconds else None,
        "equal_tokens": same if expected is not None else None,
        "peak_memory_bytes": runs[-1].peak_memory_bytes,
        "device_memory_bytes": runs[-1].device_memory_bytes,
    }


def columns(baseline: str) -> tuple[tables.Column, ...]:
    """The table's columns, ratios first."""
    return (
        tables.of_case("model"),
        tables.of_case("clip"),
        tables.of_case("beam", numeric=True),
        tables.contender("engine"),
        tables.figure("dtype", "type"),
        tables.times_faster(baseline),
        tables.seconds("total"),
        tables.spread("total"),
        tables.runs("total"),
        *(tables.seconds(quantity) for quantity in ("prepare", "mel", "encode", "decode")),
        tables.figure("real_time_factor", "real-time factor", ".3f"),
        tables.figure("tokens_per_second", "tokens/s", ".0f"),
        tables.figure("peak_memory_bytes", "peak MB", ".0f", 1e-6),
        tables.figure("equal_tokens", "same tokens"),
    )
