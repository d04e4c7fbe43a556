"""Whole runs of engines that take turns: models, clips and beam sizes, as one record.

Every engine has a process of its own and the same number of threads. The encoder's time for a 30 s
window and the decoder's for a token come from the same runs, measured inside that process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from engines import registry
from engines.audio import load_clip
from engines.base import (
    Clip,
    Dtype,
    Engine,
    EngineError,
    Listener,
    Options,
    PrepareSeconds,
    Progress,
    Transcript,
)
from engines.benchmark import machine, processes
from engines.benchmark.interleave import Say, Turns, interleave
from engines.benchmark.tables import Column, number

SAMPLES = Path(__file__).parents[2] / "audio_samples"
TEMPERATURES = (0.0,)
"""No fallback: a retried window is sampled, and would be more work for one engine only."""

Run = Mapping[str, Any]
GetEngine = Callable[[str, str, Dtype], Engine]


@dataclass(frozen=True)
class Plan:
    """What to run: every engine on every clip, with every model and beam size."""

    engines: Sequence[str]
    models: Sequence[str]
    clips: Sequence[str]
    beams: Sequence[int] = (1,)
    repeats: int = 5
    warm_ups: int = 1
    dtype: Dtype = "float32"

    @property
    def baseline(self) -> str:
        """The registry's baseline where it takes part, else the first engine."""
        return registry.BASELINE if registry.BASELINE in self.engines else self.engines[0]


@dataclass(frozen=True)
class Result:
    """One engine on one clip: samples in seconds by stage, and what follows from them.

    `prepare`: seconds to load the weights and to compile, or to read what was compiled before.
    `windows`: how often the encoder ran, on 30 s each time. `equal_tokens`: every run wrote the
    baseline's tokens. Memory is the peak of the engine's own process so far, or of its GPU.
    `error`: why it failed; what it finished before is kept.
    """

    model: str
    clip: str
    beam: int
    engine: str
    device: str = ""
    dtype: str = ""
    prepare: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    audio_seconds: float | None = None
    windows: int | None = None
    tokens: int | None = None
    equal_tokens: bool | None = None
    times_faster: float | None = None
    peak_memory_bytes: int | None = None
    error: str | None = None

    def median(self, stage: str) -> float | None:
        """Return a stage's median seconds; None where no run was finished."""
        return median(self.seconds[stage]) if self.seconds.get(stage) else None

    @property
    def real_time_factor(self) -> float | None:
        """Processing seconds per second of audio."""
        return _ratio(self.median("total"), self.audio_seconds)

    @property
    def encode_seconds_per_window(self) -> float | None:
        """Median seconds in the encoder for each 30 s window."""
        return _ratio(self.median("encode"), self.windows)

    @property
    def decode_seconds_per_token(self) -> float | None:
        """Median seconds in the loop over tokens for each, the end of each window counted."""
        steps = None if self.tokens is None else self.tokens + (self.windows or 0)
        return _ratio(self.median("decode"), steps)

    def as_json(self) -> dict[str, Any]:
        """Return the object of a record: each stage's samples with median, least and most."""
        derived = (
            "real_time_factor",
            "encode_seconds_per_window",
            "decode_seconds_per_token",
        )
        seconds = {
            stage: {"samples": list(samples), **machine.summarise(samples)}
            for stage, samples in self.seconds.items()
        }
        return {
            **asdict(self),
            "seconds": seconds,
            **{name: getattr(self, name) for name in derived},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Result:
        """Return the result that an object of a record tells of."""
        fields = {name: found[name] for name in cls.__dataclass_fields__}
        samples = {stage: each["samples"] for stage, each in found["seconds"].items()}
        return cls(**{**fields, "seconds": samples})


def _ratio(value: float | None, by: float | None) -> float | None:
    return value / by if value is not None and by else None


def measure(
    plan: Plan, say: Say = lambda text: None, get_engine: GetEngine = processes.get_engine
) -> Iterator[Result]:
    """Yield a result for each model, clip, beam size and engine.

    Models come one after another, so that only one of them is in memory. Ends with
    `KeyboardInterrupt`, after the finished runs, if it was interrupted.
    """
    clips = {name: load_clip(find_clip(name)) for name in plan.clips}
    for model in plan.models:
        engines = {key: _Contender(key, model, plan.dtype, get_engine, say) for key in plan.engines}
        warm_ups = dict.fromkeys(plan.beams, plan.warm_ups)
        try:
            for (name, clip), beam in product(clips.items(), plan.beams):
                options = Options(
                    beam_size=beam if beam > 1 else None, temperatures=TEMPERATURES
                )
                runs = {
                    key: partial(engine.run, clip, options) for key, engine in engines.items()
                }
                case = f"{model}, {name}, beam {beam}"
                tell = partial(lambda case, text: say(f"{case}, {text}"), case)
                turns = interleave(runs, plan.repeats, warm_ups.pop(beam, 0), tell)
                blank = Result(model, name, beam, "")
                yield from collect(blank, turns, engines, plan.baseline)
                if turns.interrupted:
                    raise KeyboardInterrupt
        finally:
            for engine in engines.values():
                engine.close()


class _Contender:
    """An engine that its first run makes ready."""

    def __init__(
        self, key: str, model: str, dtype: Dtype, get_engine: GetEngine, say: Say
    ) -> None:
        self._make = partial(get_engine, key, model, dtype)
        self._listener = _PrepareListener(f"{model}, {key}", say)
        self._engine: Engine | None = None
        self.prepared = PrepareSeconds()

    def run(self, clip: Clip, options: Options) -> Transcript:
        """Run a clip; the features, tens of megabytes, are not kept."""
        if self._engine is None:
            self._engine = self._make()
            self.prepared = self._engine.prepare(self._listener)
        return self._engine.transcribe(clip, options).without_features()

    def close(self) -> None:
        """Give the memory back."""
        if self._engine is not None:
            self._engine.close()


class _PrepareListener(Listener):
    def __init__(self, what: str, say: Say) -> None:
        self._what, self._say = what, say

    def progress(self, progress: Progress) -> None:
        """Say the stage."""
        self._say(f"{self._what}: {progress.note or progress.stage}")


def find_clip(name: str) -> Path:
    """Return a sample's file, or the path itself."""
    sample = SAMPLES / f"{name}.flac"
    return sample if sample.is_file() else Path(name)


def collect(
    blank: Result,
    turns: Turns[Transcript],
    engines: Mapping[str, Any],
    baseline: str,
) -> list[Result]:
    """Return one result for each engine, compared with the baseline's tokens and time."""
    expected = next(iter(turns.outcomes.get(baseline, [])), None)
    found = []
    for key, runs in turns.outcomes.items():
        result = replace(blank, engine=key, error=turns.errors.get(key))
        if runs:
            prepared = engines[key].prepared
            stages = [run.seconds.as_dict() for run in runs]
            same = [run.tokens == expected.tokens for run in runs] if expected else []
            result = replace(
                result,
                device=runs[0].device,
                dtype=runs[0].dtype,
                prepare={"load": prepared.load, "compile": prepared.compile},
                seconds={stage: [each[stage] for each in stages] for stage in stages[0]},
                audio_seconds=runs[0].audio_seconds,
                windows=sum(span.stage == "encode" for span in runs[0].spans),
                tokens=len(runs[0].tokens),
                equal_tokens=all(same) if expected else None,
                peak_memory_bytes=runs[-1].peak_memory_bytes,
            )
        found.append(result)
    of_baseline = next((each.median("total") for each in found if each.engine == baseline), None)
    return [replace(each, times_faster=_ratio(of_baseline, each.median("total"))) for each in found]


# The record.


@dataclass(frozen=True)
class Record:
    """A whole benchmark; `limits`: see `machine.measure_limits`.

    `interrupted`: true until all is measured; the results are those that were finished.
    """

    started: str
    arguments: Sequence[str]
    machine: machine.Machine
    settings: Mapping[str, Any]
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    results: Sequence[Result] = ()
    interrupted: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the object that `save` writes."""
        return {**asdict(self), "results": [result.as_json() for result in self.results]}

    def save(self, path: Path) -> None:
        """Write it in one move, so that what ends the program leaves no half of it."""
        text = json.dumps(self.as_json(), indent=1, allow_nan=False, ensure_ascii=False)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(path)


def read(path: Path) -> Record:
    """Read a saved record; raises `EngineError` for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        results = [Result.from_json(each) for each in found["results"]]
        return Record(**{**found, "machine": machine.Machine(**found["machine"]), "results": results})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{path} holds no record of a benchmark: {error}.") from error


# Tables.

SPEED = (
    Column("model", lambda r: r.model, numeric=False),
    Column("clip", lambda r: r.clip, numeric=False),
    Column("beam", lambda r: str(r.beam)),
    Column("engine", lambda r: r.engine, numeric=False),
    Column("device", lambda r: f"{r.device} {r.dtype}", numeric=False),
    Column("times faster", lambda r: number(r.times_faster, ".2f")),
    Column("seconds", lambda r: number(r.median("total"), ".2f")),
    Column("least to most", lambda r: spread(r.seconds.get("total", ()))),
    Column("mel s", lambda r: number(r.median("mel"), ".2f")),
    Column("encode s", lambda r: number(r.median("encode"), ".2f")),
    Column("decode s", lambda r: number(r.median("decode"), ".2f")),
    Column("real-time factor", lambda r: number(r.real_time_factor, ".3f")),
    Column("same tokens", lambda r: {True: "yes", False: "no", None: "–"}[r.equal_tokens]),
)
PARTS = (
    *SPEED[:5],
    Column("encoder, ms for 30 s", lambda r: number(r.encode_seconds_per_window, ".1f", 1e3)),
    Column("decoder, ms a token", lambda r: number(r.decode_seconds_per_token, ".2f", 1e3)),
    Column("load s", lambda r: number(r.prepare.get("load"), ".2f")),
    Column("compile s", lambda r: number(r.prepare.get("compile"), ".2f")),
    Column("peak MB", lambda r: number(r.peak_memory_bytes, ".0f", 1e-6)),
)


def spread(samples: Sequence[float]) -> str:
    """Return least and most for a table."""
    return f"{min(samples):.2f} to {max(samples):.2f}" if samples else "–"


def describe_limits(limits: Mapping[str, Mapping[str, float]]) -> str:
    """Return a line about the machine's limits."""
    read, compute = limits["read_bytes_per_second"], limits["multiply_add_flops"]
    parts = [
        f"{name} {found['median'] / 1e9:.0f} {unit} ({found['min'] / 1e9:.0f} to "
        f"{found['max'] / 1e9:.0f})"
        for name, found, unit in (
            ("plain read", read, "GB/s"),
            ("multiply-add loop", compute, "GFLOP/s in float32"),
        )
    ]
    return " · ".join(parts)
