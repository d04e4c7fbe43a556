"""Frozen snapshots of a comparison.

A change makes a new `Comparison` out of the old one, so that drawing one needs no lock and no copy.
Times are seconds on the clock of `time.perf_counter`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from engines import registry
from engines.base import Dtype, Options, PrepareSeconds, Segment, Span, StageSeconds, Transcript
from engines.registry import EngineStatus

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


@dataclass(frozen=True)
class Settings:
    """Settings that all lanes share.

    `language`: a code, or "" to detect it. `repeats`: how often each engine transcribes the clip.
    """

    engines: tuple[str, ...] = ()
    model: str = "base"
    language: str = ""
    beam_size: int = 1
    schedule: Schedule = "parallel"
    word_timestamps: bool = False
    gpu_dtype: Dtype = "float32"
    repeats: int = 1

    @property
    def options(self) -> Options:
        """Options of the engines' runs."""
        return Options(self.language or None, self.beam_size, self.word_timestamps)

    def dtype_for(self, key: str) -> Dtype:
        """The type that an engine computes in: float32 where it offers no other."""
        return self.gpu_dtype if registry.offers_dtypes(key) else "float32"


@dataclass(frozen=True)
class Repeat:
    """The times of one of a lane's runs over the clip."""

    seconds: StageSeconds
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Lane:
    """One engine's part of a comparison.

    `elapsed`: seconds in the present phase: waiting, loading, compiling or transcribing. `device`
    is known once the engine ran. `audio_done`: seconds of audio finished. `note`: a sentence of the
    engine's own (a download, for example); `reason`: why it failed. `ready`: when this run got the
    engine ready. `transcript`: the first run's words and features with the median run's times.
    `steady`: whether every run wrote the same tokens.
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
    repeats: tuple[Repeat, ...] = ()
    transcript: Transcript | None = None
    steady: bool = True

    @property
    def running(self) -> bool:
        """True until the lane is done, failed or stopped."""
        return self.state not in ("idle", "done", "failed", "stopped")

    def enter(
        self, state: State, now: float, note: str = "", audio_done: float | None = None
    ) -> Lane:
        """Enter a state, or go on in it; the clock starts anew with each phase."""
        same_phase = state == self.state or {state, self.state} <= {"mel", "encoding", "decoding"}
        return replace(
            self.at(now),
            state=state,
            note=note,
            phase_start=self.phase_start if same_phase else now,
            audio_done=self.audio_done if audio_done is None else audio_done,
        )

    def finish_repeat(self, transcript: Transcript, last: bool, now: float) -> Lane:
        """Take in one more run over the clip; after the `last` the lane is done."""
        repeats = (*self.repeats, Repeat(transcript.seconds, transcript.spans))
        by_total = sorted(repeats, key=lambda repeat: repeat.seconds.total)
        median = by_total[(len(repeats) - 1) // 2]  # of two the faster: its stages must add up
        first = self.transcript or transcript
        return replace(
            self.enter("done" if last else "waiting", now, audio_done=transcript.audio_seconds),
            segments=first.segments,
            device=transcript.device,
            dtype=transcript.dtype,
            repeats=repeats,
            transcript=replace(first, seconds=median.seconds, spans=median.spans),
            steady=self.steady and transcript.tokens == first.tokens,
        )

    def at(self, now: float) -> Lane:
        """Set the clock, while the lane runs."""
        return replace(self, elapsed=now - self.phase_start) if self.running else self


@dataclass(frozen=True)
class Comparison:
    """A whole comparison.

    `absent`: engines of the project that this machine lacks. `refusal`: why the clip was refused;
    no lane ran then. `reference`: the words really spoken, where they are known. `run`: the id that
    the run's log has too. `clip_id`: by which the page knows whether the player has this clip.
    `features_dropped`: whether the encoders' features were given up when this was kept.
    """

    settings: Settings
    lanes: tuple[Lane, ...]
    absent: tuple[EngineStatus, ...] = ()
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
        """True where lanes ran at the same time, so that none had the machine for itself."""
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

    def map_lanes(self, change: Callable[[Lane], Lane]) -> Comparison:
        """Change every lane."""
        return replace(self, lanes=tuple(map(change, self.lanes)))

    def as_started(self, now: float) -> Comparison:
        """Start the clocks."""
        return replace(self.map_lanes(lambda lane: replace(lane, phase_start=now)), start=now)

    def at(self, now: float) -> Comparison:
        """Set the clocks of the running lanes."""
        return self.map_lanes(lambda lane: lane.at(now))

    def as_stopped(self) -> Comparison:
        """Stop every running lane; finished ones keep what they have."""
        return self.map_lanes(
            lambda lane: replace(lane, state="stopped", note="") if lane.running else lane
        )

    def as_refused(self, reason: str) -> Comparison:
        """Put every lane to rest because the clip can't be used."""
        idle = self.map_lanes(lambda lane: replace(lane, state="idle"))
        return replace(idle, refusal=reason)

    def to_save(self) -> Comparison | None:
        """Return what a reload of the page finds: finished lanes, without encoder features."""
        if not self.done:
            return None
        light = self.as_stopped().map_lanes(
            lambda lane: replace(
                lane, transcript=lane.transcript and lane.transcript.without_features()
            )
        )
        return replace(light, features_dropped=True)


def new_comparison(
    settings: Settings, statuses: Sequence[EngineStatus], state: State = "idle"
) -> Comparison:
    """Make a comparison before it runs: a lane for each chosen engine, in the registry's order."""
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
