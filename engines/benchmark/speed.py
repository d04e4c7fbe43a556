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
    drafted             share of these tokens that a draft had guessed
    tokens, equal_tokens                whether every run wrote the baseline's tokens
    unlike_words        most words of a run that differ from the baseline's, as they are written
    times_faster        the baseline's median total over this one's
    peak_memory_bytes   of the engine's own process during a run, or of its GPU
    error               null, or why it failed; from `device` on, a result may then lack all fields
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from itertools import product
from pathlib import Path
from time import sleep
from typing import Any

from engines import logs, registry, worker
from engines.audio import find_clip, load_clip
from engines.base import Dtype, Engine, Options, PrepareSeconds, Transcript, explain
from engines.benchmark import machine
from engines.metrics import compare
from engines.options import WhisperOptions

NO_FALLBACK = WhisperOptions(temperatures=(0.0,))
"""A window that is tried again is sampled, and would be more work for one engine only."""

USUAL = Options(**NO_FALLBACK.values())

SETTLE_SECONDS = 0.25
"""Pause before each run: OpenMP's threads go on spinning for up to 0.2 s after their work
(`KMP_BLOCKTIME`), which would be taken from the next run."""

Result = dict[str, Any]
Say = Callable[[str], None]
"""Called with what is being done now."""


@dataclass(frozen=True)
class Plan:
    """What to run: every engine on every clip, with every model and beam size.

    `engines`: lanes, of which one may name a type or a model of its own. `dtype`: None for each
    engine's default, which is float32 where it has that. `named_baseline`: None for the usual one.
    `options`: of every run, but for the beam size.
    """

    engines: Sequence[str]
    models: Sequence[str]
    clips: Sequence[str]
    beams: Sequence[int] = (1,)
    repeats: int = 5
    warm_ups: int = 1
    dtype: Dtype | None = None
    named_baseline: str | None = None
    options: Options = USUAL

    @property
    def baseline(self) -> str:
        """The one that was named, else the registry's where it takes part, else the first."""
        if self.named_baseline:
            return self.named_baseline
        return registry.BASELINE if registry.BASELINE in self.engines else self.engines[0]


def run(plan: Plan, path: Path | None, say: Say) -> dict[str, Any]:
    """Measure all and return the record, saved to `path` with each result.

    It holds the machine, its limits, the settings and the results, and is `interrupted` until all
    is measured.
    """
    record: dict[str, Any] = {
        "run": logs.current_run(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": asdict(machine.describe()),
        "settings": {**asdict(plan), "baseline": plan.baseline},
        "limits": None,
        "interrupted": True,
        "results": [],
    }
    try:
        say("the machine's limits")
        record["limits"] = machine.measure_limits()
        for result in measure(plan, say):
            record["results"].append(result)
            save(record, path)
        record["interrupted"] = False
    except KeyboardInterrupt:
        pass
    save(record, path)
    return record


def save(record: Mapping[str, Any], path: Path | None) -> None:
    """Write a record in one move, so that what ends the program leaves no half of it."""
    if path is not None:
        unfinished = path.with_name(f".{path.name}.unfinished")
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(path)


def measure(plan: Plan, say: Say) -> Iterator[Result]:
    """Yield a result for each model, clip, beam size and engine.

    Models come one after another, so that only one of them is in memory; warm-ups come with the
    first clip only. Raises `KeyboardInterrupt` after the finished runs if it was interrupted.
    """
    clips = {name: load_clip(find_clip(name)) for name in plan.clips}
    for model in plan.models:
        engines: dict[str, Engine] = {}
        prepared: dict[str, PrepareSeconds] = {}
        broken: dict[str, str] = {}
        for key in plan.engines:
            say(f"{model}, {key}: getting ready")
            try:
                engines[key] = worker.get_engine(key, model, plan.dtype)
                prepared[key] = engines[key].prepare()
            except Exception as error:  # whatever one raises must not end the others
                broken[key] = explain(error)
        warm_ups = dict.fromkeys(plan.beams, plan.warm_ups)
        for (name, clip), beam in product(clips.items(), plan.beams):
            options = replace(plan.options, beam_size=beam)
            runs = {key: partial(each.transcribe, clip, options) for key, each in engines.items()}
            finished: dict[str, list[Transcript]] = {key: [] for key in plan.engines}
            errors, interrupted = dict(broken), False
            try:
                interleave(runs, finished, errors, plan.repeats, warm_ups.pop(beam, 0), say)
            except KeyboardInterrupt:
                interrupted = True
            for key, done in finished.items():
                if done or key in errors:
                    own_model = registry.read_lane(key).model or model
                    result = {"model": own_model, "clip": name, "beam": beam, "engine": key}
                    result["error"] = errors.get(key)
                    yield result | summarise(done, finished[plan.baseline], prepared.get(key))
            if interrupted:
                raise KeyboardInterrupt
        for engine in engines.values():
            engine.close()


def interleave(
    runs: Mapping[str, Callable[[], Transcript]],
    finished: Mapping[str, list[Transcript]],
    errors: dict[str, str],
    repeats: int,
    warm_ups: int,
    say: Say,
) -> None:
    """Run each engine once, then each again: A B C, A B C, …; add to `finished` and `errors`.

    So a machine that gets slower or faster hurts all alike. One that failed is left out from then
    on. Warm-ups are not kept, nor are the encoder's features, tens of megabytes.
    """
    for turn, (key, run_once) in product(range(1 - warm_ups, repeats + 1), runs.items()):
        if key not in errors:
            say(f"{key}: {f'run {turn} of {repeats}' if turn > 0 else 'warming up'}")
            sleep(SETTLE_SECONDS)
            try:
                transcript = run_once().without_features()
                if turn > 0:
                    finished[key].append(transcript)
            except Exception as error:  # nor must this
                errors[key] = explain(error)


def summarise(
    runs: Sequence[Transcript], expected: Sequence[Transcript], prepared: PrepareSeconds | None
) -> Result:
    """Return the figures of one engine's runs, beside the baseline's where it has any."""
    if not runs or prepared is None:
        return {}
    stages = [run.seconds.as_dict() for run in runs]
    seconds = {stage: machine.summarise([each[stage] for each in stages]) for stage in stages[0]}
    median = {stage: figures["median"] for stage, figures in seconds.items()}
    first = runs[0]
    windows = sum(span.stage == "encode" for span in first.spans)
    steps = len(first.tokens) + windows
    result: Result = {
        "load": prepared.load,
        "compile": prepared.compile,
        "device": first.device,
        "dtype": first.dtype,
        "seconds": seconds,
        "audio_seconds": first.audio_seconds,
        "real_time_factor": median["total"] / first.audio_seconds,
        "encode_per_window": median["encode"] / windows if windows else None,
        "decode_per_token": median["decode"] / steps if steps else None,
        "drafted": sum(each.drafted for each in first.windows) / steps if steps else None,
        "tokens": len(first.tokens),
        "peak_memory_bytes": max(run.peak_memory_bytes for run in runs),
    }
    if expected:
        baseline = statistics.median(run.seconds.total for run in expected)
        same = first.model == expected[0].model  # else a number stands for another token
        tokens, text = expected[0].tokens, expected[0].text
        result["equal_tokens"] = all(run.tokens == tokens for run in runs) if same else None
        result["unlike_words"] = max(compare(text, run.text).errors for run in runs)
        result["times_faster"] = baseline / median["total"]
    return result
