"""Run one clip through several engines and fold their events into frozen snapshots.

A `ComparisonTask` starts a thread for each lane, the lanes put events into a queue, and
`snapshots` folds them into one `Comparison` after another, so nothing that draws one needs a lock.
A slow or failing lane leaves the others alone.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from demo.analysis import SNAPSHOT_SECONDS, Analyses, spawn
from demo.request import Choices, ComparisonRequest
from demo.samples import list_samples
from demo.snapshot import (
    Changed,
    Comparison,
    Event,
    Failed,
    Finished,
    Opened,
    Prepared,
    Refused,
    Said,
    Settings,
    State,
    Status,
    Woken,
    advance,
    halt,
    lay_out,
    tick,
)
from engines import logs
from engines.base import (
    Clip,
    Dtype,
    Engine,
    EngineError,
    Listener,
    Progress,
    Segment,
    Span,
    Stopped,
)

logger = logs.logger(__name__)


@dataclass(frozen=True)
class Backend:
    """What the page asks of the engines; tests put fakes here.

    `get_engine(key, model, dtype)` returns a shared engine, which goes to `release_engine` at the
    end of the task; `load_clip(path, listener)` reads a clip. Both raise `EngineError` with a
    sentence for the visitor. `own_checkpoints` and `is_multilingual`: see `Choices`. `analyses`:
    layer inspection and faults, or None for a page without them.
    """

    statuses: Callable[[], Sequence[Status]]
    get_engine: Callable[[str, str, Dtype], Engine]
    models: Callable[[], Sequence[str]]
    load_clip: Callable[[str, Listener], Clip]
    samples: Path
    own_checkpoints: bool = False
    is_multilingual: Callable[[str], bool] = lambda name: not name.endswith(".en")
    release_engine: Callable[[Engine], None] = lambda engine: None
    analyses: Analyses | None = None

    def choices(self) -> Choices:
        """What can be asked for now."""
        return Choices(
            samples=list_samples(self.samples),
            engines=tuple(self.statuses()),
            models=tuple(self.models()),
            own_checkpoints=self.own_checkpoints,
            is_multilingual=self.is_multilingual,
        )

    def start_comparison(self, request: ComparisonRequest) -> ComparisonTask:
        """The task that a valid request asks for."""
        choices = self.choices()
        clip = request.find_clip(choices)
        assert clip is not None, "only a validated request is run"
        return ComparisonTask(
            request.settings,
            choices.engines,
            self.get_engine,
            partial(self.load_clip, str(clip.path)),
            clip_name=clip.title,
            reference=clip.reference,
            clip_id=clip.key,
            release_engine=self.release_engine,
            kind=request.kind,
        )


class StopListener(Listener):
    """Tells a task that it was stopped, and ignores the rest."""

    def __init__(self, stop: threading.Event) -> None:
        self.stopped = stop.is_set  # type: ignore[method-assign]


class LaneListener(Listener):
    """Turns what an engine reports into events; of a repeat not the segments, which are known."""

    def __init__(
        self,
        key: str,
        report: Callable[[Event], None],
        stop: threading.Event,
        repeated: bool = False,
    ) -> None:
        self._key, self._report, self._stop, self._repeated = key, report, stop, repeated

    def segment(self, segment: Segment) -> None:
        """Report a final segment."""
        if not self._repeated:
            self._report(Said(self._key, segment))

    def progress(self, progress: Progress) -> None:
        """Report the stage that the engine is in."""
        if progress.stage in ("mel", "encoding", "decoding"):
            self._report(Changed(self._key, progress.stage, audio_done=progress.done))
        else:
            state: State = "compiling" if progress.stage == "compiling" else "loading"
            self._report(Changed(self._key, state, progress.note))

    def stopped(self) -> bool:
        """True once somebody stopped the run."""
        return self._stop.is_set()


class ComparisonTask:
    """One comparison from start to end; use each object once."""

    def __init__(
        self,
        settings: Settings,
        statuses: Sequence[Status],
        get_engine: Callable[[str, str, Dtype], Engine],
        open_clip: Callable[[Listener], Clip],
        clip_name: str = "clip",
        reference: str | None = None,
        clip_id: str = "",
        release_engine: Callable[[Engine], None] = lambda engine: None,
        kind: tuple[Any, ...] = (),
    ) -> None:
        """`get_engine(key, model, dtype)` and `open_clip(listener)` may raise any `EngineError`.

        Each engine is released after its last run. `kind`: what tells how long the task takes.
        """
        self.kind = kind
        self._settings = settings
        self._statuses = {status.key: status for status in statuses}
        self._get_engine = get_engine
        self._release_engine = release_engine
        self._open_clip = open_clip
        self.id = logs.new_run_id()
        self._start = replace(
            lay_out(settings, statuses, "waiting"),
            clip_name=clip_name,
            reference=reference,
            run=self.id,
            clip_id=clip_id,
        )
        self._stop = threading.Event()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def stop(self) -> None:
        """End the snapshots at once; engines stop before their next token."""
        self._stop.set()
        self._events.put(Woken())

    def snapshots(self) -> Iterator[Comparison]:
        """Yield the comparison about five times a second until every lane rests.

        Lanes run in daemon threads, not in a pool: a pool's threads are joined when the program
        ends, and a compile that can't be interrupted would hold it open for minutes.
        """
        comparison = self._start_clocks()
        with logs.in_run(self.id, model=self._settings.model, clip=self._start.clip_name):
            logger.info("started", engines=list(self._settings.engines))
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
        return replace(self._start, lanes=lanes, start=now)

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
            clip = self._open_clip(StopListener(self._stop))
        except Stopped:
            return
        except EngineError as error:
            logger.warning("refused", error=str(error))
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
        """Make every engine ready first, so that no lane's clock runs while another compiles.

        Repeats take turns too: what slows the machine for a while then slows every engine.
        """
        with ExitStack() as held:
            prepared = {key: self._prepare(key, held) for key in keys}
            engines = {key: engine for key, engine in prepared.items() if engine is not None}
            for lap in range(self._settings.repeats):
                for key in list(engines):
                    if not self._transcribe(key, engines[key], clip, lap):
                        del engines[key]

    def _run_lane(self, key: str, clip: Clip) -> None:
        with ExitStack() as held:
            engine = self._prepare(key, held)
            if engine is not None:
                for lap in range(self._settings.repeats):
                    if not self._transcribe(key, engine, clip, lap):
                        break

    def _prepare(self, key: str, held: ExitStack) -> Engine | None:
        """The engine, ready to run, and given back with what is held; None when it failed or the
        run was stopped."""
        if self._stop.is_set():
            return None
        status = self._statuses[key]
        if not status.available:
            self._events.put(Failed(key, status.reason or "This machine lacks the engine."))
            return None
        ready: Engine | None = None
        with self._lane_errors(key):
            self._events.put(Changed(key, "loading"))
            start = time.perf_counter()
            engine = self._get_engine(key, self._settings.model, self._settings.dtype_for(key))
            held.callback(self._release_engine, engine)
            seconds = engine.prepare(LaneListener(key, self._events.put, self._stop))
            span = Span("prepare", start, time.perf_counter() - start)
            self._events.put(Prepared(key, seconds, span))
            self._events.put(Changed(key, "waiting"))
            ready = engine
        return ready

    def _transcribe(self, key: str, engine: Engine, clip: Clip, lap: int) -> bool:
        """Run an engine over the clip, for the `lap`-th time from 0; False when that failed."""
        if self._stop.is_set():
            return False
        listener = LaneListener(key, self._events.put, self._stop, repeated=lap > 0)
        finished = False
        with self._lane_errors(key):
            transcript = engine.transcribe(clip, self._settings.options, listener)
            last = lap + 1 == self._settings.repeats
            self._events.put(Finished(key, transcript, last))
            finished = True
        return finished

    @contextmanager
    def _lane_errors(self, key: str) -> Iterator[None]:
        """Turn what goes wrong in one lane into its event, so that the other lanes go on."""
        try:
            yield
        except Stopped:
            self._events.put(Changed(key, "stopped"))
        except EngineError as error:
            logger.error("failed", engine=key, error=str(error))
            self._events.put(Failed(key, str(error)))
        except Exception as error:
            logger.exception("failed", engine=key, error=f"{type(error).__name__}: {error}")
            self._events.put(Failed(key, f"{type(error).__name__}: {error}"))
