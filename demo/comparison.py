"""Run one clip through several engines, in a thread for each, so that a slow or failing engine does
not disturb the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING

from demo.estimates import PastRuns, add_time_left, name_run
from demo.jobs import Kind, Task, start_thread
from demo.limits import find_run_seconds
from demo.request import OWN_CLIP, ComparisonRequest
from demo.rules import Choices
from demo.samples import Sample, list_samples
from demo.snapshot import Comparison, Lane, Settings, State, new_comparison
from engines import logs, registry, zero_gpu
from engines.analysis.sound import SoundView
from engines.base import (
    Clip,
    Dtype,
    Engine,
    EngineUnavailable,
    Listener,
    Options,
    Progress,
    Segment,
    Span,
    Transcript,
)
from engines.clip_clock import fill_pauses, find_parts, set_clock
from engines.clip_source import UNKNOWN, Source
from engines.registry import EngineStatus

if TYPE_CHECKING:
    from engines.analysis.divergence_records import Divergence
    from engines.analysis.faults import Fault, FaultResult
    from engines.analysis.records import Half, HalfName, Inspection, LayerComparison

logger = logs.logger(__name__)

Finish = Callable[[Lane, Transcript, bool, float], Lane]
"""`Lane.finish_race` or `Lane.finish_repeat`."""


@dataclass(frozen=True)
class Analyses:
    """The part of `engines.analysis` that the page uses; tests put fakes here.

    `compare_halves(inspection, clip, listener)`, `run_fault(key, model, clip, language, listener)`
    and `explain(transcripts, clip, options, listener)`, why two engines differ, raise `EngineError`
    with a sentence for the visitor. `candidates(half)`: the encoders or decoders to inspect, the
    baseline first. `why_no_faults`: why this machine can't run faults, or None.
    """

    candidates: Callable[[HalfName], Sequence[Half]]
    compare_halves: Callable[[Inspection, Clip, Listener], LayerComparison]
    faults: Sequence[Fault]
    run_fault: Callable[[str, str, Clip, str | None, Listener], FaultResult]
    why_no_faults: Callable[[], str | None]
    explain: Callable[[tuple[Transcript, Transcript], Clip, Options, Listener], Divergence]


@dataclass(frozen=True)
class Backend:
    """The engines as the page uses them; tests put fakes here.

    `get_engine(key, model, dtype)` returns a shared engine; `load_clip(path, listener)` reads a
    clip, and takes a track and a channel as well. Both raise `EngineError` with a sentence for the
    visitor. `show_clip(path, copy, track, channel)`: what a clip's file holds, and whether a copy
    was made that browsers can play; None for a page that plays what it gets. `own_checkpoints`: see
    `Choices`. `analyses`: layer inspection and faults, or None for a page without them.
    `keep_engines(kept)` ends those of the same keys that a job won't run.
    `past_runs`: what the time left is estimated from.
    `is_lent_gpu`: whether each run of an engine is a call for a GPU that is lent.
    `describe_sound`: what a clip sounds like, or None for a page that doesn't show it;
    `describing`: held meanwhile, so that no engine is timed beside it.
    """

    statuses: Callable[[], Sequence[EngineStatus]]
    get_engine: Callable[[str, str, Dtype], Engine]
    models: Callable[[], Sequence[str]]
    load_clip: Callable[..., Clip]
    samples: Path
    own_checkpoints: bool = False
    analyses: Analyses | None = None
    past_runs: PastRuns = field(default_factory=PastRuns)
    describe_sound: Callable[[Clip, Listener], SoundView] | None = None
    is_lent_gpu: Callable[[str], bool] = lambda key: False
    describing: Lock = field(default_factory=Lock)
    show_clip: Callable[[str, str, int, int], tuple[Source, bool]] | None = None
    keep_engines: Callable[[Collection[tuple[str, str, Dtype]]], None] = lambda kept: None

    def choices(self) -> Choices:
        """Return what can be asked for now."""
        return Choices(
            samples=list_samples(self.samples),
            engines=tuple(self.statuses()),
            models=tuple(self.models()),
            own_checkpoints=self.own_checkpoints,
        )

    def estimate(self, request: ComparisonRequest, audio_seconds: float) -> float | None:
        """Return the seconds that a request for a clip of that length may take from the click, or
        None where past runs don't tell."""
        return self.past_runs.add_expected(self._plan(request, audio_seconds)).left

    def describe_cost(self, request: ComparisonRequest, audio_seconds: float) -> str:
        """Return what a request takes of a visitor's time on a lent GPU, or nothing."""
        plan = self._plan(request, audio_seconds)
        engines = [registry.read_lane(each).engine for each in request.lanes]
        calls = sum(map(self.is_lent_gpu, engines)) * (plan.runs_alone + plan.at_once)
        if not calls:
            return ""
        seconds = zero_gpu.estimate_seconds(request.model, audio_seconds, request.beam_size)
        return zero_gpu.describe_quota(calls, seconds)

    def _plan(self, request: ComparisonRequest, audio_seconds: float) -> Comparison:
        """Return a comparison that has not begun, of a clip of that length."""
        blank = new_comparison(request, self.statuses(), "waiting")
        return replace(blank, audio_seconds=audio_seconds)

    def start_comparison(self, request: ComparisonRequest) -> ComparisonTask:
        """Make the task of a valid request."""
        clip = request.find_clip(self.choices())
        assert clip is not None, "only a checked request is run"
        alike = replace(request, reference="")  # it takes no time
        kind = ("comparison", request.model, request.sample or OWN_CLIP, alike)
        return ComparisonTask(self, request, clip, kind)


class LaneListener(Listener):
    """Puts what an engine reports into its lane; the words of its first run only."""

    def __init__(self, task: ComparisonTask, key: str) -> None:
        self._task, self._key = task, key

    def segment(self, segment: Segment) -> None:
        segment = set_clock(segment, self._task.source)

        def add(lane: Lane, now: float) -> Lane:
            if lane.transcript is not None:
                return lane
            return replace(lane, segments=(*lane.segments, segment), partial="")

        self._task.update_lane(self._key, add)

    def partial(self, text: str) -> None:
        self._task.update_lane(self._key, lambda lane, now: replace(lane, partial=text))

    def progress(self, progress: Progress) -> None:
        def enter(lane: Lane, now: float) -> Lane:
            if progress.stage in ("mel", "encoding", "decoding"):
                return lane.enter(progress.stage, now, audio_done=progress.done)
            stage: State = "compiling" if progress.stage == "compiling" else "loading"
            return lane.enter(stage, now, progress.note)

        self._task.update_lane(self._key, enter)

    def stopped(self) -> bool:
        return self._task.stopped()


class ComparisonTask(Task[Comparison]):
    """One comparison from start to end."""

    def __init__(self, backend: Backend, settings: Settings, clip: Sample, kind: Kind = ()) -> None:
        statuses = backend.statuses()
        self._first = replace(
            new_comparison(settings, statuses, "waiting"),
            clip_name=clip.title,
            reference=clip.reference,
            run=logs.new_run_id(),
            clip_id=clip.key,
            describing=backend.describe_sound is not None,
        )
        super().__init__(self._first, kind)
        reasons = {status.key: status.reason for status in statuses}
        self._reasons = {
            lane.key: reasons[registry.read_lane(lane.key).engine] for lane in self._first.lanes
        }
        self._backend, self._settings, self._path = backend, settings, str(clip.path)
        self.source = UNKNOWN
        self._engines: dict[str, Engine] = {}  # that are ready, and did not fail

    def snapshots(self) -> Generator[Comparison, None, None]:
        with closing(super().snapshots()) as snapshots:
            for snapshot in snapshots:
                yield add_time_left(snapshot)

    def update_lane(self, key: str, change: Callable[[Lane, float], Lane]) -> None:
        """Replace a lane by `change(lane, now)`."""

        def update(comparison: Comparison, now: float) -> Comparison:
            return comparison.map_lanes(lambda lane: change(lane, now) if lane.key == key else lane)

        self.update(update)

    def work(self) -> None:
        """Open the clip, then run the lanes by the chosen schedule."""
        keys, settings = [lane.key for lane in self._first.lanes], self._settings
        with (
            logs.in_run(self._first.run, model=settings.model, clip=self._first.clip_name),
            self.failures(self._refuse),
        ):
            logger.info("started", engines=keys)
            self._backend.keep_engines([settings.run_of(key) for key in keys])
            clip = self._backend.load_clip(self._path, self, *self._settings.picked)
            self.source = clip.source
            find_parts(clip, settings.clip_timestamps)  # raises for parts that aren't there
            # The last comparison may still describe its sound; it was told to stop.
            while not self._backend.describing.acquire(timeout=0.1):
                self.check_stopped()
            self._backend.describing.release()
            self._limit_by_clip(clip)
            expect = self._backend.past_runs.add_expected
            self.update(
                lambda last, _: expect(
                    replace(last, audio_seconds=clip.seconds, source=clip.source)
                )
            )
            self._run_lanes(keys, clip)
            self._describe_sound(clip)

    def _limit_by_clip(self, clip: Clip) -> None:
        """Shorten the run's limit of time, where it has one, to what this clip needs."""
        if self._longest < math.inf:
            settings, blank = self._settings, replace(self._first, audio_seconds=clip.seconds)
            runs = len(settings.lanes) * (blank.runs_alone + blank.at_once)
            self.limit(find_run_seconds(settings.model, clip.seconds, runs))

    def _describe_sound(self, clip: Clip) -> None:
        """Describe what the clip sounds like, or why it can't be, once no engine is timed."""

        def tell(sound: SoundView | str | None) -> None:
            self.update(lambda comparison, _: replace(comparison, sound=sound, describing=False))

        if self._backend.describe_sound is not None:
            with self.failures(tell), self._backend.describing:
                self.check_stopped()
                tell(self._backend.describe_sound(fill_pauses(clip), self))

    def _refuse(self, reason: str | None) -> None:
        self.update(lambda comparison, _: comparison.as_refused(reason or "Stopped."))

    def _run_lanes(self, keys: Sequence[str], clip: Clip) -> None:
        """Run the engines at once, in turn, or first this and then that.

        In turn none runs while another compiles. Repeats take turns too: what slows the machine for
        a while then slows every engine.
        """
        alone = self._snapshot.runs_alone
        if self._first.at_once:
            race = partial(self._race, clip=clip, last=not alone)
            for thread in [start_thread(partial(race, key)) for key in keys]:
                thread.join()
        else:
            for key in keys:
                with self._lane_failures(key):
                    self._prepare(key)
        for number in range(alone):
            for key in list(self._engines):
                with self._lane_failures(key):
                    live = not number and len(keys) == 1 and self._settings.schedule == "both"
                    self._run(key, clip, number + 1 == alone, [Lane.finish_repeat], live)

    def _race(self, key: str, clip: Clip, last: bool) -> None:
        """Run one engine beside the others: of the schedule "both" once, and its time doesn't count
        as a repeat."""
        repeats = [] if self._settings.schedule == "both" else [Lane.finish_repeat]
        runs = self._settings.repeats if repeats else 1
        with self._lane_failures(key):
            self._prepare(key)
            for number in range(runs):
                finish = repeats if number else [Lane.finish_race, *repeats]
                self._run(key, clip, last and number + 1 == runs, finish, not number, beside=True)

    def _run(
        self,
        key: str,
        clip: Clip,
        last: bool,
        finish: Sequence[Finish],
        live: bool,
        beside: bool = False,
    ) -> None:
        """Run one engine over the clip and `finish` its lane, which is done after the `last` run.

        `live`: with words as they come, which takes time. `beside`: while other engines run.
        """
        self.check_stopped()
        options = replace(self._settings.options, live=live)
        transcript = self._engines[key].transcribe(clip, options, LaneListener(self, key))
        segments = tuple(set_clock(segment, clip.source) for segment in transcript.segments)
        transcript = replace(transcript, segments=segments)
        seconds = transcript.seconds.total - transcript.seconds.audio
        name = name_run(key, self._settings, beside)
        self._backend.past_runs.note(name, clip.seconds, seconds)

        def finish_lane(lane: Lane, now: float) -> Lane:
            for step in finish:
                lane = step(lane, transcript, last, now)
            return lane

        self.update_lane(key, finish_lane)

    def _prepare(self, key: str) -> None:
        self.check_stopped()
        if reason := self._reasons[key]:
            raise EngineUnavailable(reason)
        self.update_lane(key, lambda lane, now: lane.enter("loading", now))
        start = perf_counter()
        settings = self._settings
        engine = self._backend.get_engine(*settings.run_of(key))
        prepare = engine.prepare(LaneListener(self, key))
        ready = Span("prepare", start, perf_counter() - start)
        self._backend.past_runs.note_prepared(key, settings, prepare, ready.seconds)
        self.update_lane(
            key,
            lambda lane, now: replace(lane.enter("waiting", now), prepare=prepare, ready=ready),
        )
        self._engines[key] = engine

    def _lane_failures(self, key: str) -> AbstractContextManager[None]:
        """Turn what goes wrong in one lane into its state, so that the other lanes go on."""

        def fail(reason: str | None) -> None:
            self._engines.pop(key, None)
            state: State = "stopped" if reason is None else "failed"
            self.update_lane(key, lambda lane, now: replace(lane.enter(state, now), reason=reason))

        return self.failures(fail, engine=key)
