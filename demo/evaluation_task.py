"""The job of many clips: each through every engine, alone, a line of JSON as `evaluate` has it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any

from demo import uploads
from demo.clip_set import NO_CLIPS, Results, read_set
from demo.comparison import Backend
from demo.job_snapshot import JobSnapshot, State
from demo.jobs import Task
from demo.limits import format_wait
from demo.request import OWN_CLIP, ComparisonRequest
from demo.rules import RequestError
from demo.snapshot import Lane, new_comparison
from engines import logs, registry
from engines.base import Clip, Engine, EngineError, EngineUnavailable, Stopped, explain
from engines.benchmark import evaluation_lines, machine
from engines.benchmark.clip_list import ListedClip
from engines.benchmark.evaluation_lines import Line

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class EvaluationSnapshot(JobSnapshot[Results]):
    """An evaluation as it stood at one moment; `result`: what there is so far."""

    @property
    def results(self) -> Results:
        """What there is so far."""
        assert self.result is not None
        return self.result

    def to_save(self) -> Self | None:
        return self if any(self.results.lines) else None


@dataclass
class Ready:
    """Engines that are ready, and why others can't be, by lane."""

    engines: dict[str, Engine] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


class EvaluationTask(Task[EvaluationSnapshot]):
    """Runs every clip through every lane that has no line of it yet."""

    def __init__(
        self,
        backend: Backend,
        request: ComparisonRequest,
        clips: Sequence[ListedClip],
        earlier: Sequence[Line],
    ) -> None:
        """`request`: of any of the clips. `earlier`: lines of past runs, to go on from."""
        blank = new_comparison(request, backend.statuses())
        lanes = [name_lane(request, lane.key) for lane in blank.lanes]
        threads = len(machine.list_cores())
        tasks = evaluation_lines.make_tasks(lanes, clips, request.options, threads, 1)
        done = {evaluation_lines.key_of(line): line for line in earlier if line["error"] is None}
        lines = tuple(done.get(evaluation_lines.key_of(vars(task))) for task in tasks)
        baseline = blank.lanes.index(blank.baseline) if blank.baseline else 0
        results = Results(clips, blank.lanes, baseline, tasks, lines)
        kind = ("evaluation", request.model, len(clips), request.lanes)
        super().__init__(EvaluationSnapshot(result=results), kind)
        self._backend, self._request, self._ready = backend, request, Ready()
        self._spent, self._runs = 0.0, 0

    @property
    def results(self) -> Results:
        return self.snapshot.results

    def work(self) -> None:
        with (
            logs.in_run(logs.new_run_id(), model=self._request.model),
            self.failures(self._end),
        ):
            self._backend.keep_engines([self._request.run_of(x.key) for x in self.results.lanes])
            with self._backend.describing:  # what the run before left behind was told to stop
                pass
            for number, clip in enumerate(self.results.clips):
                for other in self.results.clips[number:]:
                    uploads.touch(str(other.path))
                if None in self.results.of_clip(number):
                    self._run_clip(number, clip)
            self.update(lambda last, now: replace(last.at(now), state="done", share=1.0))

    def _end(self, reason: str | None) -> None:
        state: State = "stopped" if reason is None else "failed"
        if reason is not None and time.monotonic() > self._deadline:
            longest = format_wait(self._longest)
            reason = f"Ended after {longest}, the longest that a run may take: start it to go on."
        self._put(None, state=state, reason=reason or "")

    def _run_clip(self, number: int, listed: ListedClip) -> None:
        """Run the lanes that have no line of a clip, one after another."""
        clip: Clip | EngineError
        try:
            clip = self._backend.load_clip(str(listed.path), self)
        except Stopped:
            raise
        except EngineError as error:
            clip = error
        for place in range(number, len(self.results.tasks), len(self.results.clips)):
            if self.results.lines[place] is None:
                self.check_stopped()
                lane = self.results.lanes[place // len(self.results.clips)]
                self._put(place, stage=f"{listed.name}, {lane.label}")
                line = self._run(self.results.tasks[place], lane, clip)
                lines = self.results.lines
                self._put(None, (*lines[:place], line, *lines[place + 1 :]))

    def _run(self, task: evaluation_lines.Task, lane: Lane, clip: Clip | EngineError) -> Line:
        """Return the line of one clip and one lane, which says so where there is no text."""
        if isinstance(clip, EngineError):
            return evaluation_lines.fail(task, str(clip))
        try:
            engine = self._prepare(lane)
            start = perf_counter()
            transcript = engine.transcribe(clip, self._request.options, self)
            self._spent, self._runs = self._spent + perf_counter() - start, self._runs + 1
            return evaluation_lines.write_line(task, transcript)
        except Stopped:
            raise
        except Exception as error:
            return evaluation_lines.fail(task, explain(error))

    def _prepare(self, lane: Lane) -> Engine:
        """Return an engine that is ready; raise what it raised the first time."""
        ready, status = self._ready, {each.key: each for each in self._backend.statuses()}
        if lane.key not in (*ready.engines, *ready.errors):
            try:
                if reason := status[registry.read_lane(lane.key).engine].reason:
                    raise EngineUnavailable(reason)
                engine = self._backend.get_engine(*self._request.run_of(lane.key))
                engine.prepare(self)
                ready.engines[lane.key] = engine
            except Stopped:
                raise
            except Exception as error:
                ready.errors[lane.key] = explain(error)
        if lane.key in ready.errors:
            raise EngineError(ready.errors[lane.key])
        return ready.engines[lane.key]

    def _put(
        self, current: int | None, lines: tuple[Line | None, ...] | None = None, **changes: Any
    ) -> None:
        """Set which task runs now and what is done, and with that the time left."""

        def change(last: EvaluationSnapshot, now: float) -> EvaluationSnapshot:
            results = last.results
            results = replace(results, current=current, lines=lines or results.lines)
            left, seconds = results.lines.count(None), now - last.start
            expected = None
            if self._runs:
                expected = seconds + left * self._spent / self._runs
            share = 1 - left / len(results.lines)
            return replace(last.at(now), result=results, expected=expected, share=share, **changes)

        self.update(change)


def name_lane(request: ComparisonRequest, lane: str) -> tuple[str, str]:
    """Return a lane's engine, with its type unless that is the usual one, and its model."""
    key, model, dtype = request.run_of(lane)
    return key if dtype == registry.row(key).dtypes[0] else f"{key}:{dtype}", model


def make_task(
    backend: Backend, values: Mapping[str, Any], earlier: EvaluationSnapshot | None
) -> EvaluationTask:
    """Make the task that the page's controls ask for; raise `RequestError` with a sentence.

    `values`: of the controls. `earlier`: the visit's last evaluation, to go on from.
    """
    try:
        files = read_set(values["files"] or (), backend.samples.resolve())
    except EngineError as error:
        raise RequestError(str(error)) from error
    if not files.clips:
        raise RequestError(NO_CLIPS)
    clip = {"sample": OWN_CLIP, "audio": str(files.clips[0].path), "track": 0, "channel": 0}
    request = ComparisonRequest.from_controls({**values, **clip}, backend.choices())
    past = [line for line in earlier.results.lines if line] if earlier else []
    return EvaluationTask(backend, request, files.clips, list(chain(files.lines, past)))
