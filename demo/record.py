"""A finished comparison as a record: what the API, the MCP tools, the JSON file and the report say.

Times are in seconds, sizes in bytes, rates are shares (0.05 is 5 %). `docs/api.md` explains every
field. Records are frozen and hold plain values only, so `as_json` can't fail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import cache

from demo.panels.headline import summarise
from demo.snapshot import Comparison, Lane, Settings
from engines.base import Segment
from engines.metrics import score as score_words
from engines.registry import EngineStatus

FORMAT = "one clip, every engine: comparison 1"
"""Names the fields and their meaning; a change that breaks a reader gets another number."""


@dataclass(frozen=True)
class WordRecord:
    """One word with its times."""

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True)
class SegmentRecord:
    """One of Whisper's segments; `words` only where word times were asked for."""

    start: float
    end: float
    text: str
    words: list[WordRecord] | None = None


@dataclass(frozen=True)
class SecondsRecord:
    """The median run's stages and their total."""

    audio: float
    mel: float
    encode: float
    decode: float
    total: float


@dataclass(frozen=True)
class ErrorsRecord:
    """A lane's words held against others, as written; rates are None where nothing was expected.

    The two `normalised_` rates: after the normaliser of the Whisper paper.
    """

    words: int
    substituted: int
    inserted: int
    deleted: int
    word_error_rate: float | None
    character_error_rate: float | None
    normalised_word_error_rate: float | None
    normalised_character_error_rate: float | None


@dataclass(frozen=True)
class LaneRecord:
    """What one engine made of the clip; everything after `reason` is empty unless it is done.

    `state`: `done`, `failed` or `stopped`; `reason`: why it failed. `prepare_seconds`: loading and
    compiling, no part of a run. `runs`: the total of every run; `seconds` are the median run's.
    """

    engine: str
    label: str
    encoder: str
    decoder: str
    device: str
    dtype: str
    state: str
    reason: str | None
    language: str = ""
    text: str = ""
    segments: list[SegmentRecord] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    seconds: SecondsRecord | None = None
    runs: list[float] = field(default_factory=list)
    prepare_seconds: float | None = None
    real_time_factor: float | None = None
    peak_memory_bytes: int | None = None
    against_baseline: ErrorsRecord | None = None
    against_reference: ErrorsRecord | None = None


@dataclass(frozen=True)
class SettingsRecord:
    """What every lane was told."""

    model: str
    engines: list[str]
    language: str | None
    beam_size: int
    word_timestamps: bool
    schedule: str
    gpu_dtype: str
    repeats: int


@dataclass(frozen=True)
class MachineRecord:
    """Where it ran; `versions` by package, None where one isn't installed."""

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    gpu: str | None
    system: str
    python: str
    versions: dict[str, str | None]


@dataclass(frozen=True)
class AbsentRecord:
    """An engine that this machine can't run."""

    engine: str
    label: str
    reason: str


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
class ComparisonRecord:
    """One clip through several engines.

    `run`: the run's id, which its log has too. `made`: when the record was made, ISO 8601 in UTC.
    `shared_processor`: whether lanes ran at the same time, so that their times are no speed-ups.
    `reference`: the words really spoken, where they are known. `baseline`: the engine the others
    are held against.
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
    settings: SettingsRecord
    lanes: list[LaneRecord]
    absent: list[AbsentRecord]
    machine: MachineRecord


def describe(comparison: Comparison) -> ComparisonRecord:
    """The record of a comparison in which no lane runs any more."""
    baseline = comparison.baseline
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
        settings=describe_settings(comparison.settings),
        lanes=[describe_lane(lane, comparison) for lane in comparison.lanes],
        absent=[
            AbsentRecord(status.key, status.label, status.reason or "")
            for status in comparison.absent
        ],
        machine=describe_machine(),
    )


def describe_engine(status: EngineStatus) -> EngineRecord:
    """One engine of the registry."""
    return EngineRecord(
        status.key, status.label, status.encoder, status.decoder, status.available, status.reason
    )


def describe_settings(settings: Settings) -> SettingsRecord:
    """What was chosen, with the defaults spelled out."""
    return SettingsRecord(
        model=settings.model,
        engines=list(settings.engines),
        language=settings.options.language,
        beam_size=settings.options.beam_size or 1,
        word_timestamps=settings.options.word_timestamps,
        schedule=settings.schedule,
        gpu_dtype=settings.gpu_dtype,
        repeats=settings.repeats,
    )


def describe_lane(lane: Lane, comparison: Comparison) -> LaneRecord:
    """One lane, with its words held against the baseline's and the reference."""
    blank = LaneRecord(
        engine=lane.key,
        label=lane.label,
        encoder=lane.encoder,
        decoder=lane.decoder,
        device=lane.device,
        dtype=lane.dtype,
        state=lane.state,
        reason=lane.reason,
    )
    done = lane.transcript
    if done is None:
        return blank
    return replace(
        blank,
        language=done.language,
        text=done.text,
        segments=[describe_segment(segment) for segment in done.segments],
        tokens=list(done.tokens),
        seconds=SecondsRecord(**done.seconds.as_dict()),
        runs=[repeat.seconds.total for repeat in lane.repeats],
        prepare_seconds=lane.prepare.total if lane.prepare else None,
        real_time_factor=done.real_time_factor if done.audio_seconds else None,
        peak_memory_bytes=done.peak_memory_bytes,
        against_baseline=compare_to_baseline(lane, comparison),
        against_reference=count_errors(comparison.reference, lane),
    )


def describe_segment(segment: Segment) -> SegmentRecord:
    """One segment, its tokens left to the lane."""
    words = segment.words and [
        WordRecord(word.start, word.end, word.text, word.probability) for word in segment.words
    ]
    return SegmentRecord(segment.start, segment.end, segment.text, words or None)


def compare_to_baseline(lane: Lane, comparison: Comparison) -> ErrorsRecord | None:
    """Disagreement with the baseline; None for the baseline itself, or where it has no words."""
    baseline = comparison.baseline
    if baseline is None or baseline.transcript is None or lane.key == baseline.key:
        return None
    return count_errors(baseline.transcript.text, lane)


def count_errors(expected: str | None, lane: Lane) -> ErrorsRecord | None:
    """A lane's words against expected ones."""
    if expected is None or lane.transcript is None:
        return None
    score = score_words(expected, lane.transcript.text, lane.transcript.language)
    return ErrorsRecord(
        words=score.raw.expected_words,
        substituted=score.raw.count("replace"),
        inserted=score.raw.count("insert"),
        deleted=score.raw.count("delete"),
        word_error_rate=score.raw.word_error_rate,
        character_error_rate=score.raw_characters,
        normalised_word_error_rate=score.normalised.word_error_rate,
        normalised_character_error_rate=score.normalised_characters,
    )


@cache
def describe_machine() -> MachineRecord:
    """This machine."""
    from engines.benchmark.machine import describe as look
    from engines.benchmark.machine import version_of

    here = look()
    versions: Mapping[str, str | None] = {**here.versions, "gradio": version_of("gradio")}
    return MachineRecord(
        cpu=here.cpu,
        cores=here.cores,
        threads=here.threads,
        memory_bytes=here.memory_bytes,
        gpu=here.gpu,
        system=here.system,
        python=here.python,
        versions=dict(versions),
    )


def as_json(record: ComparisonRecord) -> str:
    """The record as a JSON text of UTF-8."""
    return json.dumps(asdict(record), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
