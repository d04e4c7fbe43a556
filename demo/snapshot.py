"""What a comparison looks like at one moment, and how an event changes it.

Everything is frozen: an event makes a new `Comparison` out of the old one, so whoever draws a
snapshot needs no lock and no copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from engines import registry
from engines.base import (
    Dtype,
    Options,
    PrepareSeconds,
    Segment,
    Span,
    StageSeconds,
    Transcript,
)

Schedule = Literal["parallel", "one at a time"]
State = Literal[
    "idle",
    "waiting",
    "loading",
    "compiling",
    "mel",
    "encoding",
    "decoding",
    "done",
    "failed",
    "stopped",
]
RESTING: frozenset[State] = frozenset({"idle", "done", "failed", "stopped"})
PREPARING: frozenset[State] = frozenset({"loading", "compiling"})


class Status(Protocol):
    """What the page needs to know of an engine before it runs: `registry.EngineStatus`."""

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def encoder(self) -> str: ...
    @property
    def decoder(self) -> str: ...
    @property
    def available(self) -> bool: ...
    @property
    def reason(self) -> str | None: ...


@dataclass(frozen=True)
class Settings:
    """What a visitor chose; the same for every lane of a run.

    `gpu_dtype` goes to the `gpu` engine alone; the others compute in float32. `repeats`: how often
    each engine transcribes the clip; more than one run gives a median and a spread.
    """

    engines: tuple[str, ...] = ()
    model: str = "base"
    options: Options = field(default_factory=Options)
    schedule: Schedule = "parallel"
    gpu_dtype: Dtype = "float32"
    repeats: int = 1

    def dtype_for(self, key: str) -> Dtype:
        """The type that an engine computes in."""
        return self.gpu_dtype if registry.offers_dtypes(key) else "float32"


@dataclass(frozen=True)
class Lap:
    """The times of one of a lane's runs over the clip."""

    seconds: StageSeconds
    spans: tuple[Span, ...] = ()


def pick_median(laps: Sequence[Lap]) -> Lap:
    """The run whose total is the median, so that its stages still add up; of two the faster."""
    return sorted(laps, key=lambda lap: lap.seconds.total)[(len(laps) - 1) // 2]


@dataclass(frozen=True)
class Lane:
    """One engine's part of a comparison, as it stood at one moment.

    `elapsed`: seconds in the present phase, where getting ready by loading, getting ready by
    compiling, and running are a phase each. `device` is known once the engine ran.
    `audio_done`: seconds of audio finished. `note`: a sentence of the engine's own (a download,
    for example); `reason`: why it failed.

    `ready`: when this run got the engine ready, on the clock of the runs' own spans. `laps`: the
    times of every finished run over the clip. `transcript`: the first run's words and features
    with the times of the median run. `steady`: whether every run wrote the same tokens.
    """

    key: str
    label: str
    dtype: str
    encoder: str
    decoder: str
    device: str = ""
    state: State = "idle"
    note: str = ""
    reason: str | None = None
    phase_start: float = 0.0
    elapsed: float = 0.0
    audio_done: float = 0.0
    segments: tuple[Segment, ...] = ()
    prepare: PrepareSeconds | None = None
    ready: Span | None = None
    laps: tuple[Lap, ...] = ()
    transcript: Transcript | None = None
    steady: bool = True

    @property
    def running(self) -> bool:
        """True until the lane is done, failed or stopped."""
        return self.state not in RESTING


@dataclass(frozen=True)
class Comparison:
    """A whole comparison as it stood at one moment.

    `absent`: engines of the project that this machine lacks. `refusal`: why the clip was refused;
    no lane ran then. `reference`: the words really spoken, where they are known. `start`: when it
    began, on the clock of `time.perf_counter`, which is the spans' as well. `run`: the id that
    the run's log has too. `clip_id`: by which the page knows whether the player has this clip.
    `features_dropped`: whether the encoders' features were given up when this was kept.
    """

    settings: Settings
    lanes: tuple[Lane, ...]
    absent: tuple[Status, ...] = ()
    clip_name: str = ""
    audio_seconds: float = 0.0
    reference: str | None = None
    refusal: str | None = None
    start: float = 0.0
    run: str = ""
    clip_id: str = ""
    features_dropped: bool = False

    @property
    def shared(self) -> bool:
        """Whether lanes ran at the same time, so that none had the machine for itself."""
        return self.settings.schedule == "parallel" and len(self.lanes) > 1

    @property
    def finished(self) -> bool:
        """True when no lane will change any more."""
        return not any(lane.running for lane in self.lanes)

    @property
    def complete(self) -> bool:
        """True when every lane has run to its end."""
        return bool(self.lanes) and all(lane.state == "done" for lane in self.lanes)

    @property
    def baseline(self) -> Lane | None:
        """The lane the others are measured against: the CPU's, else the first."""
        first = self.lanes[0] if self.lanes else None
        return next((lane for lane in self.lanes if lane.key == registry.BASELINE), first)

    @property
    def done(self) -> tuple[Lane, ...]:
        """The lanes that have a transcript."""
        return tuple(lane for lane in self.lanes if lane.transcript is not None)

    def to_save(self) -> Comparison | None:
        """What a reload of the page shall find: finished lanes, without encoder features."""
        if not self.done:
            return None
        lanes = tuple(
            replace(lane, transcript=lane.transcript and lane.transcript.without_features())
            for lane in halt(self).lanes
        )
        return replace(self, lanes=lanes, features_dropped=True)


@dataclass(frozen=True)
class Opened:
    """The clip was read."""

    seconds: float


@dataclass(frozen=True)
class Refused:
    """The clip can't be used; `reason` is a sentence."""

    reason: str


@dataclass(frozen=True)
class Changed:
    """A lane entered a state, or went on in it."""

    key: str
    state: State
    note: str = ""
    audio_done: float | None = None


@dataclass(frozen=True)
class Said:
    """A segment of a lane is final."""

    key: str
    segment: Segment


@dataclass(frozen=True)
class Prepared:
    """A lane's engine is ready: what that took when it was first done, and when it was now."""

    key: str
    seconds: PrepareSeconds
    span: Span | None = None


@dataclass(frozen=True)
class Finished:
    """A lane has run over the clip; `last` unless it will run again."""

    key: str
    transcript: Transcript
    last: bool = True


@dataclass(frozen=True)
class Failed:
    """A lane can't go on; `reason` is a sentence."""

    key: str
    reason: str


@dataclass(frozen=True)
class Woken:
    """Nothing happened, but somebody wants the queue's reader to look up."""


LaneEvent = Changed | Said | Prepared | Finished | Failed
Event = Opened | Refused | LaneEvent | Woken


def advance(comparison: Comparison, event: Event, now: float) -> Comparison:
    """The comparison after an event; `now` is the clock of `time.perf_counter`."""
    match event:
        case Opened(seconds):
            return replace(comparison, audio_seconds=seconds)
        case Refused(reason):
            lanes = tuple(replace(lane, state="idle") for lane in comparison.lanes)
            return replace(comparison, lanes=lanes, refusal=reason)
        case Woken():
            return comparison
        case _:
            lanes = tuple(
                advance_lane(lane, event, now) if lane.key == event.key else lane
                for lane in comparison.lanes
            )
            return replace(comparison, lanes=lanes)


def advance_lane(lane: Lane, event: LaneEvent, now: float) -> Lane:
    """The lane after an event of its own."""
    match event:
        case Changed(_, state, note, audio_done):
            same = phase(lane.state) == phase(state)
            return replace(
                lane,
                state=state,
                note=note,
                phase_start=lane.phase_start if same else now,
                audio_done=lane.audio_done if audio_done is None else audio_done,
            )
        case Said(_, segment):
            return replace(lane, segments=(*lane.segments, segment))
        case Prepared(_, seconds, span):
            return replace(lane, prepare=seconds, ready=span)
        case Finished(_, transcript, last):
            return finish_lap(lane, transcript, last, now)
        case Failed(_, reason):
            return replace(
                lane, state="failed", note="", reason=reason, elapsed=now - lane.phase_start
            )


def finish_lap(lane: Lane, transcript: Transcript, last: bool, now: float) -> Lane:
    """The lane after one more run over the clip."""
    laps = (*lane.laps, Lap(transcript.seconds, transcript.spans))
    first, median = lane.transcript or transcript, pick_median(laps)
    return replace(
        lane,
        state="done" if last else "waiting",
        note="",
        phase_start=now,
        elapsed=now - lane.phase_start,
        segments=first.segments,
        audio_done=transcript.audio_seconds,
        device=transcript.device,
        dtype=transcript.dtype,
        laps=laps,
        transcript=replace(first, seconds=median.seconds, spans=median.spans),
        steady=lane.steady and transcript.tokens == first.tokens,
    )


def phase(state: State) -> str:
    """The phase whose clock a state belongs to; all states of a run share one."""
    return "run" if state in ("mel", "encoding", "decoding") else state


def tick(comparison: Comparison, now: float) -> Comparison:
    """The same comparison with the clocks of its running lanes set to `now`."""
    lanes = tuple(
        replace(lane, elapsed=now - lane.phase_start) if lane.running else lane
        for lane in comparison.lanes
    )
    return replace(comparison, lanes=lanes)


def halt(comparison: Comparison) -> Comparison:
    """The comparison with every running lane stopped; finished lanes keep what they have."""
    lanes = tuple(
        replace(lane, state="stopped", note="") if lane.running else lane
        for lane in comparison.lanes
    )
    return replace(comparison, lanes=lanes)


def lay_out(settings: Settings, statuses: Sequence[Status], state: State = "idle") -> Comparison:
    """A comparison before anything ran: a lane for each chosen engine, in the registry's order."""
    lanes = tuple(
        Lane(
            key=status.key,
            label=status.label,
            dtype=settings.dtype_for(status.key),
            encoder=status.encoder,
            decoder=status.decoder,
            state=state,
        )
        for status in statuses
        if status.key in settings.engines
    )
    absent = tuple(
        status for status in statuses if not status.available and status.key not in settings.engines
    )
    return Comparison(settings=settings, lanes=lanes, absent=absent)
