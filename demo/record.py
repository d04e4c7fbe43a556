"""A finished comparison as a record: what the API, the MCP tools, the JSON file and the report say.

Times are in seconds, sizes in bytes, rates are shares (0.05 is 5 %). `docs/api.md` explains every
field. Records are frozen and hold plain values only, so `as_json` can't fail.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from functools import cache
from typing import Any

from demo.panels.headline import score_lane, summarise
from demo.snapshot import Comparison, Lane, Settings
from engines.analysis.divergence_records import Divergence
from engines.base import Segment
from engines.clip_source import Track
from engines.metrics import Score
from engines.registry import EngineStatus

FORMAT = "one clip, every engine: comparison 1"
"""Names the fields and their meaning; a change that breaks a reader gets another number."""


@dataclass(frozen=True)
class EngineRecord:
    """One engine of the project; `reason`: why this machine can't run it, else None."""

    engine: str
    label: str
    encoder: str
    decoder: str
    available: bool
    reason: str | None


@dataclass(frozen=True)
class LaneRecord:
    """What one engine made of the clip; everything after `reason` is empty unless it is done.

    `engine`: the lane's name, which is the engine's key unless it has a type or a model of its own.
    `own_loop`: what the loop of its runtime does otherwise than whisper's; empty for whisper's.
    `state`: `done`, `failed` or `stopped`; `reason`: why it failed. `seconds`: the stages and their
    total of the median of `runs`, the totals of the runs whose times count; of the race where there
    is none. `race_seconds`: of the run at the same time as others; `shared_with`: those of them on
    the same device. `prepare_seconds`: loading and compiling, no part of a run; `notes`: see below.
    """

    engine: str
    label: str
    encoder: str
    decoder: str
    own_loop: str
    device: str
    dtype: str
    model: str
    state: str
    reason: str | None
    language: str = ""
    language_probability: float | None = None
    text: str = ""
    segments: tuple[Segment, ...] = ()
    tokens: tuple[int, ...] = ()
    seconds: dict[str, float] | None = None
    runs: tuple[float, ...] = ()
    race_seconds: dict[str, float] | None = None
    shared_with: tuple[str, ...] = ()
    prepare_seconds: float | None = None
    real_time_factor: float | None = None
    peak_memory_bytes: int | None = None
    against_baseline: Score | None = None
    against_reference: Score | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComparisonRecord:
    """One clip through several engines.

    `run`: the run's id, which its log has too. `made`: when the record was made, ISO 8601 in UTC.
    `shared_processor`: whether `seconds` are of lanes that ran at the same time on one device, so
    that they are no speed-ups.
    `reference`: the words really spoken, where they are known. `baseline`: the engine the others
    are held against. `settings`: what every lane was told. `absent`: engines that this machine
    can't run. `tracks`: the clip's audio tracks; `track`: the number of the one that was read;
    `notes`: sentences about what is odd about the clip, such as an end that can't be read.
    `machine`: where it ran, with versions by package, None where one isn't installed.
    """

    format: str
    run: str
    made: str
    headline: str
    clip: str
    audio_seconds: float
    reference: str | None
    shared_processor: bool
    baseline: str | None
    settings: dict[str, Any]
    lanes: list[LaneRecord]
    absent: list[EngineRecord]
    machine: dict[str, Any]
    tracks: tuple[Track, ...] = ()
    track: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DivergenceRecord(Divergence):
    """Why two engines differ; `right_engine`: the key of the one that is right by the judge, else
    None; `summary`: all of it in sentences."""

    right_engine: str | None = None
    summary: tuple[str, ...] = ()


def describe_divergence(divergence: Divergence) -> DivergenceRecord:
    """Return the record of why two engines differ."""
    plain = {each.name: getattr(divergence, each.name) for each in fields(divergence)}
    right = None if divergence.right is None else divergence.engines[divergence.right]
    return DivergenceRecord(**plain, right_engine=right, summary=divergence.sentences())


def describe(comparison: Comparison) -> ComparisonRecord:
    """Return the record of a comparison in which no lane runs any more."""
    settings, baseline = comparison.settings, comparison.baseline
    told = {each.name: getattr(settings, each.name) for each in fields(Settings)}
    return ComparisonRecord(
        format=FORMAT,
        run=comparison.run,
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        headline=summarise(comparison).sentence,
        clip=comparison.clip_name,
        audio_seconds=comparison.audio_seconds,
        reference=comparison.reference,
        shared_processor=comparison.shared,
        baseline=baseline.key if baseline else None,
        settings={**told, "language": settings.language or None},
        lanes=[describe_lane(lane, comparison) for lane in comparison.lanes],
        absent=[describe_engine(status) for status in comparison.absent],
        machine=describe_machine(),
        tracks=comparison.source.tracks,
        track=comparison.source.track,
        notes=comparison.source.sentences(),
    )


def describe_engine(status: EngineStatus) -> EngineRecord:
    """Return the record of one engine of the registry."""
    return EngineRecord(
        status.key, status.label, status.encoder, status.decoder, status.available, status.reason
    )


def describe_lane(lane: Lane, comparison: Comparison) -> LaneRecord:
    """Return the record of one lane, its words held against the baseline's and the reference."""
    blank = LaneRecord(
        engine=lane.key,
        label=lane.label,
        encoder=lane.encoder,
        decoder=lane.decoder,
        own_loop=lane.own_loop,
        device=lane.device,
        dtype=lane.dtype,
        model=comparison.settings.model_for(lane.key),
        state=lane.state,
        reason=lane.reason,
    )
    done, baseline = lane.transcript, comparison.baseline
    if done is None:
        return blank
    expected = baseline.transcript if baseline and baseline.key != lane.key else None
    reference = comparison.reference
    return replace(
        blank,
        language=done.language,
        language_probability=done.language_probability,
        text=done.text,
        segments=done.segments,
        tokens=done.tokens,
        seconds=done.seconds.as_dict(),
        runs=tuple(repeat.seconds.total for repeat in lane.repeats),
        race_seconds=lane.race.as_dict() if lane.race else None,
        notes=comparison.source.sentences(),
        shared_with=tuple(
            other.key
            for lanes in comparison.sharing
            for other in lanes
            if lane in lanes and other is not lane
        ),
        prepare_seconds=lane.prepare.total if lane.prepare else None,
        real_time_factor=done.real_time_factor if done.audio_seconds else None,
        peak_memory_bytes=done.peak_memory_bytes,
        against_baseline=score_lane(lane, expected.text) if expected else None,
        against_reference=None if reference is None else score_lane(lane, reference),
    )


@cache
def describe_machine() -> dict[str, Any]:
    """Return this machine's parts, threads and versions."""
    from engines.benchmark import machine

    here = asdict(machine.describe())
    del here["load_average"]  # of the moment when it was first asked
    here["versions"]["gradio"] = machine.version_of("gradio")
    return here


def as_json(record: ComparisonRecord) -> str:
    """Return the record as a JSON text of UTF-8."""
    return json.dumps(asdict(record), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
