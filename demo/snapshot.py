"""Frozen snapshots of a comparison.

A change makes a new `Comparison` out of the old one, so that drawing one needs no lock and no copy.
Times are seconds on the clock of `time.perf_counter`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from engines import registry
from engines.analysis.sound import SoundView
from engines.base import Dtype, Options, PrepareSeconds, Segment, Span, StageSeconds, Transcript
from engines.clip_source import UNKNOWN, Source
from engines.metrics import join_names
from engines.options import WhisperOptions
from engines.registry import EngineStatus

Schedule = Literal["both", "parallel", "one at a time"]
"""Both: all at once, then each alone; parallel: all at once; one at a time: each alone."""

LONGEST_TIMED = 60.0
"""Seconds of audio up to which "both" runs each engine alone as well: a longer clip would keep
visitors waiting for minutes."""

AT_WORK = {"mel", "encoding", "decoding"}
"""The states of a lane during a run."""

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
class Settings(WhisperOptions):
    """Settings that all lanes share, Whisper's options among them.

    `language`: a code, or "" to detect it. `repeats`: how often each engine transcribes the clip.
    `track` and `channel`: which of the clip's, from 1; 0 is the default track, all channels mixed.
    `engines`: keys, or names of lanes with a type or a model of their own (`registry.LaneName`).
    `other_model`: with which every engine runs a second time, "" for none. `baseline`: the lane
    that the others are held against, "" for the usual one.
    """

    engines: tuple[str, ...] = ()
    model: str = "base"
    language: str = ""
    beam_size: int = 1
    schedule: Schedule = "both"
    word_timestamps: bool = False
    gpu_dtype: Dtype = "float32"
    repeats: int = 1
    track: int = 0
    channel: int = 0
    other_model: str = ""
    baseline: str = ""

    @property
    def lanes(self) -> tuple[str, ...]:
        """The names of all lanes, one for each engine, type and model."""
        others = [each for each in self.engines if "@" not in each and self.other_model]
        names = (*self.engines, *(f"{each}@{self.other_model}" for each in others))
        runs = {self.run_of(name): name for name in reversed(names)}
        return tuple(name for name in names if runs[self.run_of(name)] == name)

    @property
    def models(self) -> str:
        """The models of all lanes, for people."""
        return join_names(list(dict.fromkeys(map(self.model_for, self.lanes))) or [self.model])

    def run_of(self, lane: str) -> tuple[str, str, Dtype]:
        """The key of a lane's engine, its model and its type: its own, else those of all lanes."""
        offers_dtypes = registry.row(registry.read_lane(lane).engine).offers_dtypes
        return registry.resolve_lane(lane, self.model, self.gpu_dtype if offers_dtypes else None)

    def model_for(self, lane: str) -> str:
        """The model that a lane runs."""
        return self.run_of(lane)[1]

    @property
    def picked(self) -> tuple[int, ...]:
        """The track and the channel, where they aren't the usual ones."""
        return (self.track, self.channel) if self.track or self.channel else ()

    @property
    def options(self) -> Options:
        """Options of the engines' runs."""
        own = (self.language or None, self.beam_size, self.word_timestamps)
        return Options(*own, **self.values())


@dataclass(frozen=True)
class Repeat:
    """The times of one of a lane's runs over the clip."""

    seconds: StageSeconds
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Expected:
    """Seconds that an engine may take, going by past runs; None where there were none.

    `load` and `compile` until it is ready, 0 if it is, the latter the most there was; `race`: one
    run over the clip beside other engines; `alone`: one while they rest.
    """

    load: float | None = None
    compile: float | None = None
    race: float | None = None
    alone: float | None = None


@dataclass(frozen=True)
class Lane:
    """One engine's part of a comparison.

    `elapsed`: seconds in the present phase: waiting, loading, compiling or transcribing. `device`
    is known once the engine ran. `audio_done`: seconds of audio finished. `note`: a sentence of the
    engine's own (a download, for example); `reason`: why it failed. `own_loop`: as `EngineRow` has
    it. `ready`: when this run got the engine ready. `partial`: words of the window that is being
    decoded. `race`: the times of the first run beside other engines. `repeats`: the runs whose
    times count, of "both" those alone.
    `transcript`: the first run's words and features with the times of the median of `repeats`, else
    of the race. `steady`: whether every run wrote the same tokens. `expected`: what past runs tell;
    `pace`: seconds for a second of audio, as far as the present run tells. `left`: seconds that
    getting ready and the present run may still take; None where nothing tells, or while waiting.
    """

    key: str
    label: str
    dtype: str
    encoder: str
    decoder: str
    own_loop: str = ""
    device: str = ""
    state: State = "idle"
    note: str = ""
    reason: str | None = None
    phase_start: float = 0.0
    elapsed: float = 0.0
    audio_done: float = 0.0
    segments: tuple[Segment, ...] = ()
    partial: str = ""
    prepare: PrepareSeconds | None = None
    ready: Span | None = None
    race: StageSeconds | None = None
    race_spans: tuple[Span, ...] = ()
    repeats: tuple[Repeat, ...] = ()
    transcript: Transcript | None = None
    steady: bool = True
    expected: Expected = Expected()
    pace: float | None = None
    left: float | None = None

    @property
    def colour(self) -> str:
        """The colour that stands for it everywhere, `#rrggbb`: its engine's, darker with a type or
        a model of its own."""
        lane = registry.read_lane(self.key)
        colour = registry.row(lane.engine).colour
        if not (lane.dtype or lane.model):
            return colour
        parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        return "#" + "".join(f"{round(0.6 * part):02x}" for part in parts)

    @property
    def text(self) -> str:
        """What the engine wrote, "" until it has a transcript."""
        return self.transcript.text if self.transcript else ""

    @property
    def total_seconds(self) -> float:
        """The seconds of its run, infinity until it has a transcript."""
        return self.transcript.seconds.total if self.transcript else math.inf

    @property
    def running(self) -> bool:
        """True until the lane is done, failed or stopped."""
        return self.state not in ("idle", "done", "failed", "stopped")

    def enter(
        self, state: State, now: float, note: str = "", audio_done: float | None = None
    ) -> Lane:
        """Enter a state, or go on in it; the clock starts anew with each phase."""
        same_phase = state == self.state or {state, self.state} <= AT_WORK
        lane, pace = self.at(now), self.pace if same_phase else None
        if same_phase and audio_done and audio_done > self.audio_done:
            pace = lane.elapsed / audio_done
        return replace(
            lane,
            state=state,
            note=note,
            phase_start=self.phase_start if same_phase else now,
            pace=pace,
            partial=self.partial if state == "decoding" else "",
            audio_done=self.audio_done if audio_done is None else audio_done,
        )

    def finish_race(self, transcript: Transcript, last: bool, now: float) -> Lane:
        """Take in a first run beside other engines; if it is the `last` the lane is done."""
        raced = replace(self, race=transcript.seconds, race_spans=transcript.spans)
        return raced._finish(transcript, last, now)

    def finish_repeat(self, transcript: Transcript, last: bool, now: float) -> Lane:
        """Take in one more run whose times count; after the `last` the lane is done."""
        repeat = Repeat(transcript.seconds, transcript.spans)
        lane = replace(self, repeats=(*self.repeats, repeat))._finish(transcript, last, now)
        by_total = sorted(lane.repeats, key=lambda repeat: repeat.seconds.total)
        median = by_total[(len(by_total) - 1) // 2]  # of two the faster: its stages must add up
        assert lane.transcript is not None
        timed = replace(lane.transcript, seconds=median.seconds, spans=median.spans)
        return replace(lane, transcript=timed)

    def _finish(self, transcript: Transcript, last: bool, now: float) -> Lane:
        first = self.transcript or transcript
        return replace(
            self.enter("done" if last else "waiting", now, audio_done=transcript.audio_seconds),
            segments=first.segments,
            device=transcript.device,
            dtype=transcript.dtype,
            transcript=first,
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
    `features_dropped`: whether the encoders' features were given up when this was kept. `sound`:
    what the clip sounds like, or why that isn't known; `describing`: whether it is still to come.
    `left`: seconds that it may still take, None where past runs don't tell. `source`: what is
    known of the clip's file.
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
    left: float | None = None
    sound: SoundView | str | None = None
    describing: bool = False
    source: Source = UNKNOWN

    @property
    def at_once(self) -> bool:
        """True where the engines run at the same time, at first at least."""
        return self.settings.schedule != "one at a time" and len(self.lanes) > 1

    @property
    def runs_alone(self) -> int:
        """How often each engine runs while the others rest."""
        short = self.settings.schedule == "both" and self.audio_seconds <= LONGEST_TIMED
        return self.settings.repeats if short or not self.at_once else 0

    @property
    def racing(self) -> bool:
        """True until every lane has ended its run beside the others."""
        return self.at_once and any(lane.running and lane.race is None for lane in self.lanes)

    @property
    def sharing(self) -> tuple[tuple[Lane, ...], ...]:
        """The lanes that raced on one device, by device; engines on others don't disturb them.

        A lane's device is known once it ran: of MAX and PyTorch all but the processor is one GPU.
        """
        raced = self.done if self.at_once else ()
        devices = (tuple(x for x in raced if (x.device == "cpu") is cpu) for cpu in (True, False))
        return tuple(lanes for lanes in devices if len(lanes) > 1)

    @property
    def shared(self) -> bool:
        """True where the times shown are of engines that ran at once on one device, so that none
        had it for itself: there is no ratio of such times."""
        if not self.at_once:
            return False
        if self.settings.schedule == "both" and self.done and all(x.repeats for x in self.done):
            return False
        return self.racing or bool(self.sharing) or not self.done

    @property
    def can_time(self) -> bool:
        """True where a run of each engine alone would give the ratio that there is none of yet."""
        return self.finished and self.shared and len(self.done) > 1

    @property
    def finished(self) -> bool:
        """True when no lane will change any more."""
        return not any(lane.running for lane in self.lanes)

    @property
    def over(self) -> bool:
        """True when nothing at all will change any more."""
        return self.finished and not self.describing

    @property
    def complete(self) -> bool:
        """True when every lane has run to its end."""
        return bool(self.lanes) and all(lane.state == "done" for lane in self.lanes)

    @property
    def baseline(self) -> Lane | None:
        """The lane the others are measured against: the one asked for, else the CPU's, else the
        first."""
        first = self.lanes[0] if self.lanes else None
        wanted = self.settings.baseline or registry.BASELINE
        return next((lane for lane in self.lanes if lane.key == wanted), first)

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
        stopped = self.map_lanes(
            lambda lane: replace(lane, state="stopped", note="") if lane.running else lane
        )
        return replace(stopped, describing=False)

    def as_refused(self, reason: str) -> Comparison:
        """Put every lane to rest because the clip can't be used."""
        idle = self.map_lanes(lambda lane: replace(lane, state="idle"))
        return replace(idle, refusal=reason, describing=False)

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
    """Make a comparison before it runs: its lanes, engines in the registry's order."""
    lanes = tuple(
        Lane(
            key=name,
            label=lane_name.label(status.label),
            dtype=settings.run_of(name)[2],
            encoder=status.encoder,
            decoder=status.decoder,
            own_loop=status.own_loop,
            state=state,
        )
        for status in statuses
        for name in settings.lanes
        if (lane_name := registry.read_lane(name)).engine == status.key
    )
    chosen = {registry.read_lane(name).engine for name in settings.lanes}
    absent = tuple(
        status for status in statuses if not status.available and status.key not in chosen
    )
    return Comparison(settings=settings, lanes=lanes, absent=absent)
