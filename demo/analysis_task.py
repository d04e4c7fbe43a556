"""The job of an analysis: layer inspection, a fault, or why two engines differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Generic

from demo import uploads
from demo.comparison import Backend
from demo.job_snapshot import JobSnapshot, Result, State
from demo.jobs import Kind, Task
from demo.request import CLIP_GONE, NO_CLIP, OWN_CLIP, ComparisonRequest, check_model_language
from demo.rules import RequestError, check
from demo.snapshot import Comparison
from engines.analysis.divergence_records import Divergence
from engines.base import Clip, Listener, PartListener, Progress, Transcript


class AnalysisTask(Task[JobSnapshot[Result]], Generic[Result]):
    """Runs `work(task)`, whose listener it is."""

    def __init__(self, work: Callable[[AnalysisTask[Result]], Result], kind: Kind = ()) -> None:
        super().__init__(JobSnapshot(), kind)
        self._work = work

    def work(self) -> None:
        def fail(reason: str | None) -> None:
            state: State = "stopped" if reason is None else "failed"
            self.update(lambda last, _: replace(last, state=state, reason=reason or ""))

        with self.failures(fail):
            result = self._work(self)
            self.update(
                lambda last, now: replace(last.at(now), state="done", share=1.0, result=result)
            )

    def expect(self, seconds: float | None) -> None:
        """Take in how long all of it may take, None where nothing tells."""
        self.update(lambda last, _: replace(last, expected=seconds))

    def progress(self, progress: Progress) -> None:
        known = progress.stage == "comparing" and progress.total
        share = progress.done / progress.total if known else 0.0
        stage = progress.note or progress.stage
        self.update(lambda last, _: replace(last, stage=stage, share=share))


def make_task(
    backend: Backend,
    name: str,
    values: Mapping[str, Any],
    work: Callable[[Clip, AnalysisTask[Result]], Result],
    whole: bool,
    *kind: Any,
) -> AnalysisTask[Result]:
    """Make a task over the page's clip; raises `RequestError` where there is none.

    `values`: of the page's controls. `whole`: whether it takes the longer the longer the clip is.
    """
    choices = backend.choices()
    model = check("model", values["model"], choices)
    check_model_language(values["language"], model)
    sample = choices.find_sample(values["sample"])
    path = str(sample.path) if sample else values["audio"]
    if not path:
        raise RequestError(NO_CLIP)
    path = str(uploads.find_original(path))
    picked = [check(name, values.get(name, 0), choices) for name in ("track", "channel")]
    if not Path(path).is_file():
        raise RequestError(CLIP_GONE)

    def run(task: AnalysisTask[Result]) -> Result:
        start, past, named = perf_counter(), backend.past_runs, f"{name} {model}"
        clip = backend.load_clip(path, task, *(picked if any(picked) else ()))
        audio_seconds = clip.seconds if whole else 0.0
        task.expect(past.expect_analysis(named, audio_seconds))
        result = work(clip, task)
        past.note_analysis(named, audio_seconds, perf_counter() - start)
        return result

    return AnalysisTask(run, (name, model, values["sample"], *kind))


def make_explanation(
    backend: Backend, request: ComparisonRequest, keys: tuple[str, str]
) -> AnalysisTask[Divergence]:
    """Make a task that runs two engines over a request's clip and asks why they differ."""
    sample, analyses = request.find_clip(backend.choices()), backend.analyses
    assert sample is not None and analyses is not None, "only a checked request is run"
    if len(set(keys)) < 2:
        raise RequestError("Name two engines: one does not differ from itself.")

    def work(listener: Listener) -> Divergence:
        clip = backend.load_clip(str(sample.path), listener, *request.picked)
        transcripts = []
        backend.keep_engines([request.run_of(key) for key in keys])
        for number, key in enumerate(keys):
            engine = backend.get_engine(*request.run_of(key))
            engine.prepare(listener)
            part = PartListener(listener, 0.3 * number, 0.3 * (number + 1), f"running {key}")
            transcripts.append(engine.transcribe(clip, request.options, part))
        part = PartListener(listener, 0.6, 1.0)
        first, second = transcripts
        return analyses.explain((first, second), clip, request.options, part)

    return AnalysisTask(work, ("why", request.model, request.sample or OWN_CLIP, keys))


def pick_transcripts(comparison: Comparison, key: str) -> tuple[Transcript, Transcript]:
    """Return the baseline's transcript and an engine's, with "" that of the first that differs from
    it, by the baseline's model if there is one.

    Raises `RequestError` where one is not there, or none differs.
    """
    baseline = comparison.baseline
    if baseline is None or baseline.transcript is None:
        raise RequestError("The baseline has no transcript in the comparison above: run it again.")
    first = baseline.transcript
    others = [
        (lane.key, lane.transcript)
        for lane in comparison.done
        if lane.transcript and lane is not baseline
    ]
    others.sort(key=lambda each: each[1].model != first.model)  # the baseline's model first
    if not key and others:
        others = [each for each in others if each[1].tokens != first.tokens][:1]
        if not others:
            raise RequestError("All engines chose the same tokens: there is nothing to explain.")
    other = next((transcript for name, transcript in others if key in ("", name)), None)
    if other is None:
        which = "This engine" if key else "No other engine"
        raise RequestError(
            f"{which} has no transcript in the comparison above: choose another, or compare again."
        )
    return first, other
