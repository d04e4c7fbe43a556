"""Whole runs: clips through engines, one run at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from engines import registry
from engines.audio import load_clip
from engines.base import Engine, Options, Transcript
from engines.measure import peers, tables
from engines.measure.record import Case, Figure, Result, with_ratios
from engines.measure.turns import Say, Turns, prefixed, ready, take_turns

BENCHMARK = "clips"
SAMPLES = Path(__file__).parents[2] / "audio_samples"
QUANTITIES = ("audio", "mel", "encode", "decode", "total")
WARM_UPS = 1
TEMPERATURES = (0.0,)
"""No fallback: a retried window would be sampled, and would be more work for one side only."""

Get = Callable[[str, str], Engine]


def settings(
    engines: Sequence[str], clips: Sequence[str], beams: Sequence[int], repeats: int, model: str
) -> dict[str, Any]:
    """What is equal on all sides."""
    return {
        "engines": list(engines),
        "clips": list(clips),
        "beams": list(beams),
        "repeats": repeats,
        "warm_ups": WARM_UPS,
        "model": model,
        "dtype": "float32",
        "temperatures": list(TEMPERATURES),
        "schedule": "one at a time",
        "baseline": baseline_of(engines),
    }


def baseline_of(engines: Sequence[str]) -> str:
    """`cpu` where it takes part, else the first engine."""
    return registry.BASELINE if registry.BASELINE in engines else engines[0]


def measure(
    engines: Sequence[str],
    clips: Sequence[str],
    beams: Sequence[int],
    repeats: int,
    model: str,
    say: Say,
    get: Get = peers.get,
) -> Iterator[Result]:
    """One result for each clip, beam size and engine; warm-ups come with the first clip only."""
    transcribers = {key: ready(partial(prepare, key, model, say, get)) for key in engines}
    warm_ups = dict.fromkeys(beams, WARM_UPS)
    for name, beam in product(clips, beams):
        runs = {
            key: partial(transcribe, clip_path(name), options_for(beam))
            for key, transcribe in transcribers.items()
        }
        tell = prefixed(say, f"{name}, beam {beam}")
        turns = take_turns(runs, repeats, warm_ups.pop(beam, 0), tell)
        case: Case = {"clip": name, "beam": beam, "model": model}
        yield from results(case, turns, baseline_of(engines))
        if turns.interrupted:
            raise KeyboardInterrupt


def prepare(key: str, model: str, say: Say, get: Get) -> Callable[[Path, Options], Transcript]:
    """The engine, loaded and compiled, as a function that runs a whole clip, its reading too."""
    engine = get(key, model)
    engine.prepare(prefixed(say, key))
    return lambda path, options: engine.transcribe(load_clip(path), options)


def options_for(beam: int) -> Options:
    """The options of every engine at this beam size; 1 is greedy."""
    return Options(beam_size=beam if beam > 1 else None, temperatures=TEMPERATURES)


def clip_path(name: str) -> Path:
    """A sample's file, or the path itself."""
    sample = SAMPLES / f"{name}.flac"
    return sample if sample.is_file() else Path(name)


def results(case: Case, turns: Turns[Transcript], baseline: str) -> list[Result]:
    """One result for each engine, compared with the baseline's tokens and total."""
    expected = turns.outcomes.get(baseline, [])
    found = [
        Result(
            BENCHMARK,
            case,
            key,
            stage_seconds(transcripts),
            figures(transcripts, expected[0] if expected else None),
            turns.errors.get(key),
        )
        for key, transcripts in turns.outcomes.items()
    ]
    return with_ratios(found, "total", baseline)


def stage_seconds(transcripts: Sequence[Transcript]) -> dict[str, tuple[float, ...]]:
    """Samples of each stage and of the total; nothing where no run was finished."""
    stages = [transcript.seconds.as_dict() for transcript in transcripts]
    return {q: tuple(stage[q] for stage in stages) for q in QUANTITIES} if stages else {}


def figures(transcripts: Sequence[Transcript], expected: Transcript | None) -> dict[str, Figure]:
    """What follows from the medians; `equal_tokens`: every run wrote the baseline's tokens.

    `tokens_per_second` is by the time in the decode loop, timestamps counted; the real-time
    factor is by the whole run.
    """
    if not transcripts:
        return {}
    first = transcripts[0]
    decode = median(transcript.seconds.decode for transcript in transcripts)
    total = median(transcript.seconds.total for transcript in transcripts)
    same = all(expected is not None and t.tokens == expected.tokens for t in transcripts)
    return {
        "audio_seconds": first.audio_seconds,
        "device": first.device,
        "dtype": first.dtype,
        "tokens": len(first.tokens),
        "tokens_per_second": len(first.tokens) / decode if decode else None,
        "real_time_factor": total / first.audio_seconds if first.audio_seconds else None,
        "equal_tokens": same if expected is not None else None,
    }


def columns(baseline: str) -> tuple[tables.Column, ...]:
    """The table's columns."""
    return (
        tables.of_case("clip"),
        tables.of_case("beam", numeric=True),
        tables.contender("engine"),
        *(tables.seconds(quantity) for quantity in QUANTITIES),
        tables.spread("total"),
        tables.runs("total"),
        tables.figure("real_time_factor", "real-time factor", ".3f"),
        tables.figure("tokens_per_second", "tokens/s", ".0f"),
        tables.times_faster(baseline),
        tables.figure("equal_tokens", "same tokens"),
    )
