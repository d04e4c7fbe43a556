"""Whole runs of engines that take turns: models, clips and beam sizes.

Every engine has a process of its own and the same number of threads. The encoder's time for a 30 s
window and the decoder's for a token come from the same runs, measured inside that process. A
result, one engine on one clip, is the object that the record in JSON has of it:

    model, clip, beam, engine, device, dtype
    seconds             by stage and in `total`: {samples, median, min, max}
    load, compile       seconds to read the weights, and to compile or to read what was compiled
    audio_seconds, real_time_factor     length of the clip; median total over length
    encode_per_window   median seconds in the encoder for each 30 s window
    decode_per_token    median seconds in the loop over tokens for each one, ends of windows counted
    tokens, equal_tokens                whether every run wrote the baseline's tokens
    times_faster        the baseline's median total over this one's
    peak_memory_bytes   of the engine's own process so far, or of its GPU
    error               null, or why it failed; from `device` on, a result may then lack all fields
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from engines import registry, worker
from engines.audio import load_clip
from engines.base import Clip, Dtype, Engine, Listener, Options, PrepareSeconds, Progress
from engines.base import Transcript as Run
from engines.benchmark.interleave import Say, Turns, interleave
from engines.benchmark.machine import summarise
from engines.benchmark.tables import Column, number

SAMPLES = Path(__file__).parents[2] / "audio_samples"
TEMPERATURES = (0.0,)
"""No fallback: a retried window is sampled, and would be more work for one engine only."""

Result = dict[str, Any]
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

    def settings(self) -> dict[str, Any]:
        """Return what is equal for all engines."""
        return {**asdict(self), "baseline": self.baseline, "temperatures": TEMPERATURES}


def find_clip(name: str) -> Path:
    """Return a sample's file, or the path itself."""
    sample = SAMPLES / f"{name}.flac"
    return sample if sample.is_file() else Path(name)


def measure(
    plan: Plan, say: Say = lambda text: None, get_engine: GetEngine | None = None
) -> Iterator[Result]:
    """Yield a result for each model, clip, beam size and engine.

    Models come one after another, so that only one of them is in memory; warm-ups come with the
    first clip only. Raises `KeyboardInterrupt` after the finished runs if it was interrupted.
    """
    clips = {name: load_clip(find_clip(name)) for name in plan.clips}
    get_engine = get_engine or worker.get_engine
    for model in plan.models:
        engines = {
            key: _Contender(partial(get_engine, key, model, plan.dtype), f"{model}, {key}", say)
            for key in plan.engines
        }
        warm_ups = dict.fromkeys(plan.beams, plan.warm_ups)
        try:
            for (name, clip), beam in product(clips.items(), plan.beams):
                options = Options(beam_size=beam if beam > 1 else None, temperatures=TEMPERATURES)
                runs = {key: partial(engine.run, clip, options) for key, engine in engines.items()}
                turns = interleave(runs, plan.repeats, warm_ups.pop(beam, 0), say)
                case = {"model": model, "clip": name, "beam": beam}
                yield from collect(case, turns, engines, plan.baseline)
                if turns.interrupted:
                    raise KeyboardInterrupt
        finally:
            for engine in engines.values():
                engine.close()


class _Contender(Listener):
    """An engine that its first run makes ready, and the listener of that."""

    def __init__(self, make: Callable[[], Engine], what: str, say: Say) -> None:
        self._make, self._what, self._say = make, what, say
        self._engine: Engine | None = None
        self.prepared = PrepareSeconds()

    def run(self, clip: Clip, options: Options) -> Run:
        """Run a clip; the features, tens of megabytes, are not kept."""
        if self._engine is None:
            engine = self._make()
            self.prepared = engine.prepare(self)
            self._engine = engine
        return self._engine.transcribe(clip, options).without_features()

    def progress(self, progress: Progress) -> None:
        """Say what getting ready is at."""
        self._say(f"{self._what}: {progress.note or progress.stage}")

    def close(self) -> None:
        """Give the memory back."""
        if self._engine is not None:
            self._engine.close()


def collect(
    case: Result, turns: Turns[Run], engines: dict[str, Any], baseline: str
) -> list[Result]:
    """Return one result for each engine, compared with the baseline's tokens and time.

    One that an interrupt left without a single run has none.
    """
    expected = next(iter(turns.outcomes.get(baseline, [])), None)
    results = []
    for key, runs in turns.outcomes.items():
        if not runs and key not in turns.errors:
            continue
        result = {**case, "engine": key, "error": turns.errors.get(key)}
        if runs:
            prepared: PrepareSeconds = engines[key].prepared
            result |= {"load": prepared.load, "compile": prepared.compile, **summarise_runs(runs)}
        if runs and expected:
            result["equal_tokens"] = all(run.tokens == expected.tokens for run in runs)
            of_baseline = summarise([run.seconds.total for run in turns.outcomes[baseline]])
            result["times_faster"] = of_baseline["median"] / result["seconds"]["total"]["median"]
        results.append(result)
    return results


def summarise_runs(runs: Sequence[Run]) -> Result:
    """Return the fields that follow from one engine's runs alone."""
    stages = [run.seconds.as_dict() for run in runs]
    seconds = {stage: summarise([each[stage] for each in stages]) for stage in stages[0]}
    first = runs[0]
    windows = sum(span.stage == "encode" for span in first.spans)
    return {
        "device": first.device,
        "dtype": first.dtype,
        "seconds": seconds,
        "audio_seconds": first.audio_seconds,
        "real_time_factor": _ratio(seconds["total"]["median"], first.audio_seconds),
        "encode_per_window": _ratio(seconds["encode"]["median"], windows),
        "decode_per_token": _ratio(seconds["decode"]["median"], len(first.tokens) + windows),
        "tokens": len(first.tokens),
        "peak_memory_bytes": runs[-1].peak_memory_bytes,
    }


def _ratio(value: float, by: float) -> float | None:
    return value / by if by else None


# Tables.


def _median(stage: str) -> Column:
    return Column(f"{stage} s", lambda r: number(_seconds(r, stage, "median"), ".2f"))


def _figure(title: str, field: str, form: str, factor: float = 1.0) -> Column:
    return Column(title, lambda r: number(r.get(field), form, factor))


def _seconds(result: Result, stage: str, which: str) -> float | None:
    return result.get("seconds", {}).get(stage, {}).get(which)


def _spread(result: Result) -> str:
    return " to ".join(number(_seconds(result, "total", each), ".2f") for each in ("min", "max"))


CASE = (
    Column("model", lambda r: r["model"], numeric=False),
    Column("clip", lambda r: r["clip"], numeric=False),
    Column("beam", lambda r: str(r["beam"])),
    Column("engine", lambda r: r["engine"], numeric=False),
    Column("device", lambda r: f"{r.get('device', '–')} {r.get('dtype', '')}", numeric=False),
)
RUNS = (
    *CASE,
    _figure("times faster", "times_faster", ".2f"),
    _median("total"),
    Column("least to most", _spread),
    *map(_median, ("mel", "encode", "decode")),
    _figure("real-time factor", "real_time_factor", ".3f"),
    Column("same tokens", lambda r: {True: "yes", False: "no"}.get(r.get("equal_tokens"), "–")),
)
PARTS = (
    *CASE,
    _figure("encoder, ms for 30 s", "encode_per_window", ".1f", 1e3),
    _figure("decoder, ms a token", "decode_per_token", ".2f", 1e3),
    _figure("load s", "load", ".2f"),
    _figure("compile s", "compile", ".2f"),
    _figure("peak MB", "peak_memory_bytes", ".0f", 1e-6),
)
