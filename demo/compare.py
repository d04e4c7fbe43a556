"""Run one clip through several engines and tell of it as immutable snapshots.

No page in here: a `Run` starts a thread for each lane, the lanes report events to a queue, and
`Run.snapshots` folds them into one `Comparison` after another. Whoever draws a snapshot needs no
lock. Lanes don't wait for each other: a slow or failing one leaves the rest alone.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, Protocol

from engines.base import (
    Clip,
    Dtype,
    Engine,
    EngineError,
    Listener,
    Options,
    PrepareSeconds,
    Segment,
    Stopped,
    Transcript,
)

SNAPSHOT_SECONDS = 0.2
"""Time between two snapshots: often enough to look live, seldom enough to cost nothing."""

BASELINE = "cpu"
"""The engine that the others are measured against, wherever it takes part."""

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

logger = logging.getLogger(__name__)


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

    `gpu_dtype` goes to the `gpu` engine alone; the others compute in float32.
    """

    engines: tuple[str, ...] = ()
    model: str = "nano"
    options: Options = field(default_factory=Options)
    schedule: Schedule = "parallel"
    gpu_dtype: Dtype = "float32"

    def dtype_for(self, key: str) -> Dtype:
        """The type that an engine computes in."""
        return self.gpu_dtype if key == "gpu" else "float32"


@dataclass(frozen=True)
class Lane:
    """One engine's part of a comparison, as it stood at one moment.

    `elapsed`: seconds in the present phase, where getting ready by loading, getting ready by
    compiling, and running are a phase each. `device` is known once the engine ran.
    `audio_done`: seconds of audio finished. `note`: a sentence of the engine's own (a download,
    for example); `reason`: why it failed.
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
    transcript: Transcript | None = None

    @property
    def running(self) -> bool:
        """True until the lane is done, failed or stopped."""
        return self.state not in RESTING


@dataclass(frozen=True)
class Comparison:
    """A whole comparison as it stood at one moment.

    `absent`: engines of the project that this machine lacks. `refusal`: why the clip was refused;
    no lane ran then. `reference`: the words really spoken, where they are known.
    """

    settings: Settings
    lanes: tuple[Lane, ...]
    absent: tuple[Status, ...] = ()
    clip_name: str = ""
    audio_seconds: float = 0.0
    reference: str | None = None
    refusal: str | None = None

    @property
    def finished(self) -> bool:
        """True when no lane will change any more."""
        return not any(lane.running for lane in self.lanes)

    @property
    def baseline(self) -> Lane | None:
        """The lane the others are measured against: the CPU's, else the first."""
        first = self.lanes[0] if self.lanes else None
        return next((lane for lane in self.lanes if lane.key == BASELINE), first)

    @property
    def done(self) -> tuple[Lane, ...]:
        """The lanes that have a transcript."""
        return tuple(lane for lane in self.lanes if lane.transcript is not None)


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
    """A lane's engine is ready."""

    key: str
    seconds: PrepareSeconds


@dataclass(frozen=True)
class Finished:
    """A lane has its transcript."""

    key: str
    transcript: Transcript


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
        case Prepared(_, seconds):
            return replace(lane, prepare=seconds)
        case Finished(_, transcript):
            return replace(
                lane,
                state="done",
                note="",
                elapsed=now - lane.phase_start,
                segments=transcript.segments,
                audio_done=transcript.audio_seconds,
                device=transcript.device,
                dtype=transcript.dtype,
                transcript=transcript,
            )
        case Failed(_, reason):
            return replace(
                lane, state="failed", note="", reason=reason, elapsed=now - lane.phase_start
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


class LaneListener(Listener):
    """Passes on what an engine says of its run."""

    def __init__(self, key: str, report: Callable[[Event], None], stop: threading.Event) -> None:
        self._key, self._report, self._stop = key, report, stop

    def segment(self, segment: Segment) -> None:
        """Report a final segment."""
        self._report(Said(self._key, segment))

    def progress(self, stage: str, audio_seconds: float) -> None:
        """Report the stage that the engine is in."""
        state: State = stage if stage in ("mel", "encoding") else "decoding"  # type: ignore[assignment]
        self._report(Changed(self._key, state, audio_done=audio_seconds))

    def stopped(self) -> bool:
        """True once somebody stopped the run."""
        return self._stop.is_set()


class Run:
    """One comparison from start to end; use each object once."""

    def __init__(
        self,
        settings: Settings,
        statuses: Sequence[Status],
        get_engine: Callable[[str, str, Dtype], Engine],
        open_clip: Callable[[], Clip],
        clip_name: str = "clip",
        reference: str | None = None,
    ) -> None:
        """`get_engine(key, model, dtype)` and `open_clip()` may raise any `EngineError`."""
        self._settings = settings
        self._statuses = {status.key: status for status in statuses}
        self._get_engine = get_engine
        self._open_clip = open_clip
        self._start = replace(
            lay_out(settings, statuses, "waiting"), clip_name=clip_name, reference=reference
        )
        self._stop = threading.Event()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def stop(self) -> None:
        """Stop every lane. The snapshots end at once; engines stop before their next token."""
        self._stop.set()
        self._events.put(Woken())

    def snapshots(self) -> Iterator[Comparison]:
        """Yield the comparison about five times a second until every lane rests.

        Lanes run in daemon threads, not in a pool: a pool's threads are joined when the program
        ends, and a compile that can't be interrupted would hold it open for minutes.
        """
        comparison = self._start_clocks()
        spawn(self._conduct)
        try:
            yield comparison
            while not comparison.finished:
                comparison = self._fold_events(comparison)
                if self._stop.is_set():
                    comparison = halt(comparison)
                yield comparison
        finally:
            self._stop.set()

    def _start_clocks(self) -> Comparison:
        now = time.perf_counter()
        lanes = tuple(replace(lane, phase_start=now) for lane in self._start.lanes)
        return replace(self._start, lanes=lanes)

    def _fold_events(self, comparison: Comparison) -> Comparison:
        """Take in what happens until the next snapshot is due or the comparison is over."""
        due = time.perf_counter() + SNAPSHOT_SECONDS
        while not comparison.finished and not self._stop.is_set():
            left = due - time.perf_counter()
            if left <= 0:
                break
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                break
            comparison = advance(comparison, event, time.perf_counter())
        return tick(comparison, time.perf_counter())

    def _conduct(self) -> None:
        """Open the clip, then run the lanes by the chosen schedule."""
        try:
            clip = self._open_clip()
        except EngineError as error:
            self._events.put(Refused(str(error)))
            return
        except Exception:
            logger.exception("a clip could not be opened")
            self._events.put(Refused("This clip could not be read."))
            return
        self._events.put(Opened(clip.seconds))
        keys = [lane.key for lane in self._start.lanes]
        if self._settings.schedule == "parallel":
            for key in keys:
                spawn(partial(self._run_lane, key, clip))
        else:
            self._run_in_turn(keys, clip)

    def _run_in_turn(self, keys: Sequence[str], clip: Clip) -> None:
        """Make every engine ready first, so that no lane's clock runs while another compiles."""
        engines = {key: self._prepare(key) for key in keys}
        for key, engine in engines.items():
            if engine is not None:
                self._transcribe(key, engine, clip)

    def _run_lane(self, key: str, clip: Clip) -> None:
        engine = self._prepare(key)
        if engine is not None:
            self._transcribe(key, engine, clip)

    def _prepare(self, key: str) -> Engine | None:
        """The engine, ready to run; None when it failed or the run was stopped."""
        if self._stop.is_set():
            return None
        status = self._statuses[key]
        if not status.available:
            self._events.put(Failed(key, status.reason or "This machine lacks the engine."))
            return None
        ready: Engine | None = None
        with self._lane_errors(key):
            self._events.put(Changed(key, "loading"))
            engine = self._get_engine(key, self._settings.model, self._settings.dtype_for(key))
            seconds = engine.prepare(partial(self._report_preparation, key))
            self._events.put(Prepared(key, seconds))
            self._events.put(Changed(key, "waiting"))
            ready = engine
        return ready

    def _transcribe(self, key: str, engine: Engine, clip: Clip) -> None:
        if self._stop.is_set():
            return
        listener = LaneListener(key, self._events.put, self._stop)
        with self._lane_errors(key):
            transcript = engine.transcribe(clip, self._settings.options, listener)
            self._events.put(Finished(key, transcript))

    def _report_preparation(self, key: str, message: str) -> None:
        """Engines say `loading`, `compiling`, or a longer sentence about either."""
        state: State = "compiling" if message.lower().startswith("compil") else "loading"
        note = "" if message in PREPARING else message
        self._events.put(Changed(key, state, note))

    @contextmanager
    def _lane_errors(self, key: str) -> Iterator[None]:
        """Turn what goes wrong in one lane into its event, so that the other lanes go on."""
        try:
            yield
        except Stopped:
            self._events.put(Changed(key, "stopped"))
        except EngineError as error:
            self._events.put(Failed(key, str(error)))
        except Exception as error:
            logger.exception("engine %s failed", key)
            self._events.put(Failed(key, f"{type(error).__name__}: {error}"))


def spawn(work: Callable[[], None]) -> None:
    """Start work in a thread that doesn't keep the program alive."""
    threading.Thread(target=work, daemon=True).start()
