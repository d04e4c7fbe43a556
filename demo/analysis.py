"""Layer inspection, faults and why engines differ: their layout, and the tasks that they start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import gradio as gr

from demo import uploads
from demo.comparison import Analyses, Backend
from demo.jobs import Kind, Task
from demo.limits import format_estimate
from demo.panels import faults, layers, why
from demo.request import (
    CLIP_GONE,
    NO_CLIP,
    OWN_CLIP,
    ComparisonRequest,
    RequestError,
    check,
    check_language,
)
from demo.snapshot import Comparison
from demo.visits import SavedResults
from demo.wiring import QUICK, Component, Drawn, JobPanel
from engines.base import Clip, Listener, PartListener, Progress, Transcript

LAYERS = """<h2>Inspect layers</h2><p class="intro">Two encoders may write the same words and
still differ. Here is how far each is from PyTorch on the processor after every layer; choose one to
see its values.</p>"""
FAULTS = """<h2>Faults</h2><p class="intro">Put a mistake into MAX’s encoder and watch
what it does. Five of them really happened in 2025, in an earlier attempt of this project to write
Whisper in MAX.</p>"""

NO_LAYERS = """<p class="caption">Each stage of the encoders appears here: how far it is from the
baseline, and its histogram.</p>"""
NO_FAULT = """<p class="caption">Choose a fault and run it: the text that comes out appears here
beside the right one, and the stage where the fault first shows.</p>"""

WHY = """<h2>Why they differ</h2><p class="intro">Where an engine’s tokens part from the baseline’s
in the comparison above: the first one that differs, the half of the model behind it, and which of
them is right by the same step in float64.</p>"""
NO_WHY = """<p class="caption">The two candidates appear here, and how likely each half of the model
and PyTorch in float64 find them.</p>"""
NOT_COMPARED = "Compare engines first: here it is asked why their results differ."

Controls = dict[str, Component]
CLIP_CONTROLS = ("sample", "audio", "track", "channel", "model", "language")
"""The comparison's controls that an analysis reads as well."""

State = Literal["running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class AnalysisSnapshot:
    """A task as it stood at one moment.

    `what` it is at; `share` of it that is done, 0 to 1; `seconds` since its `start`; `expected`:
    how many there may be, going by past runs; `result` once it is done; `reason`: a sentence, once
    it failed. Its methods are those that `Task` asks for.
    """

    state: State = "running"
    what: str = "getting ready"
    share: float = 0.0
    start: float = 0.0
    seconds: float = 0.0
    expected: float | None = None
    result: Any = None
    reason: str = ""

    @property
    def left(self) -> float | None:
        """Seconds that it may still take; None where nothing tells."""
        left = (self.expected or 0.0) - self.seconds
        return left if left > 0 else None

    def as_started(self, now: float) -> AnalysisSnapshot:
        return replace(self, start=now)

    def at(self, now: float) -> AnalysisSnapshot:
        return self if self.finished else replace(self, seconds=now - self.start)

    def as_stopped(self) -> AnalysisSnapshot:
        return self if self.finished else replace(self, state="stopped")

    @property
    def finished(self) -> bool:
        return self.state != "running"

    @property
    def over(self) -> bool:
        return self.finished

    @property
    def complete(self) -> bool:
        return self.state == "done"

    def to_save(self) -> AnalysisSnapshot | None:
        return self if self.complete else None


class AnalysisTask(Task):
    """Runs `work(task)`, whose listener it is."""

    def __init__(self, work: Callable[[AnalysisTask], Any], kind: Kind = ()) -> None:
        super().__init__(AnalysisSnapshot(), kind)
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
        what = progress.note or progress.stage
        self.update(lambda last, _: replace(last, what=what, share=share))


def build_layers(backend: Backend, analyses: Analyses, controls: Controls) -> JobPanel:
    """Which encoders to inspect and in which window, and the panel."""
    first, *others = analyses.candidates()
    with gr.Column(elem_classes=["sheet", "lab"]):
        gr.HTML(LAYERS, apply_default_css=False)
        with gr.Row():
            names = gr.CheckboxGroup(
                [(each.label, each.name) for each in others],
                value=[each.name for each in others],
                label=f"Against {first.label}",
                elem_id="specimens",
                elem_classes="pills",
                visible=bool(others),
                scale=3,
            )
            window = gr.Number(
                0,
                label="From second",
                elem_id="window-start",
                minimum=0,
                step=30,
                visible=bool(others),
                scale=1,
                min_width=120,
            )
        ready = "Inspects 30 seconds of the clip above."
        if not others:
            ready = "This machine has no second encoder to inspect."
        start, stop, outputs = build_job(
            "Inspect layers", "inspect", ready, bool(others), "layers", NO_LAYERS
        )

    def make(held: dict[str, Any]) -> Task:
        if not held["names"]:
            raise RequestError("Choose at least one encoder.")
        chosen, at = [first.name, *held["names"]], float(held["window"] or 0)

        def compare(clip: Clip, listener: Listener) -> Any:
            return analyses.compare_layers(chosen, held["model"], clip, listener, at)

        return make_task(backend, "layers", held, compare, False, tuple(chosen))

    draw = partial(draw_analysis, render=layers.render, summarise=layers.summarise)
    inputs = {"names": names, "window": window, **{each: controls[each] for each in CLIP_CONTROLS}}
    return JobPanel("layers", start, stop, inputs, outputs, "status", make, draw, render_message)


def build_faults(backend: Backend, analyses: Analyses, controls: Controls) -> JobPanel:
    """Which fault, its story, and the panel."""
    reason = analyses.why_no_faults()
    stories = {each.key: f'<p class="story">{escape(each.story)}</p>' for each in analyses.faults}
    titles = [(each.title, each.key) for each in analyses.faults]
    first = titles[0][1]
    with gr.Column(elem_classes=["sheet", "lab"]):
        gr.HTML(FAULTS, apply_default_css=False)
        fault = gr.Radio(titles, value=first, label="Fault", elem_id="faults", elem_classes="pills")
        story = gr.HTML(stories[first], elem_id="story", apply_default_css=False)
        ready = "Runs the whole clip above, without the fault and with it."
        if reason is not None:
            ready = f"Faults can’t run here: {reason}."
        start, stop, outputs = build_job(
            "Run the fault", "fault", ready, reason is None, "finding", NO_FAULT
        )

    def make(held: dict[str, Any]) -> Task:
        language = held["language"] or None

        def run(clip: Clip, listener: Listener) -> Any:
            return analyses.run_fault(held["fault"], held["model"], clip, language, listener)

        return make_task(backend, "faults", held, run, True, held["fault"])

    fault.change(lambda key: stories.get(key, ""), fault, story, **QUICK)
    draw = partial(draw_analysis, render=faults.render, summarise=faults.summarise)
    inputs = {"fault": fault, **{each: controls[each] for each in CLIP_CONTROLS}}
    return JobPanel("faults", start, stop, inputs, outputs, "status", make, draw, render_message)


def build_why(
    backend: Backend, analyses: Analyses, saved: SavedResults, visit: gr.Textbox
) -> JobPanel:
    """Which engine to hold against the baseline of the last comparison, and the panel."""
    choices = [(each.label, each.key) for each in backend.choices().engines if each.available][1:]
    with gr.Column(elem_classes=["sheet", "lab"]):
        gr.HTML(WHY, apply_default_css=False)
        engine = gr.Radio(
            choices,
            value=choices[0][1] if choices else None,
            label="Engine",
            elem_id="why-engine",
            elem_classes="pills",
        )
        ready = "Decodes one step of the comparison again."
        if not choices:
            ready = "This machine has no second engine to ask about."
        start, stop, outputs = build_job(
            "Say why", "why", ready, bool(choices), "why-result", NO_WHY
        )

    def make(held: dict[str, Any]) -> Task:
        last = saved.find(held["visit"], "comparison")
        if last is None or not last.finished:
            raise RequestError(NOT_COMPARED)
        found = pick_transcripts(last.snapshot, held["engine"])
        options = last.snapshot.settings.options

        def explain(clip: Clip, listener: Listener) -> Any:
            return analyses.explain(found, clip, options, listener)

        return make_task(backend, "why", last.controls, explain, held["engine"])

    draw = partial(draw_analysis, render=why.render, summarise=why.summarise)
    inputs = {"engine": engine, "visit": visit}
    return JobPanel("why", start, stop, inputs, outputs, "status", make, draw, render_message)


def make_explanation(
    backend: Backend, request: ComparisonRequest, keys: tuple[str, str]
) -> AnalysisTask:
    """Make a task that runs two engines over a request's clip and asks why they differ."""
    sample, analyses = request.find_clip(backend.choices()), backend.analyses
    assert sample is not None and analyses is not None, "only a checked request is run"
    if len(set(keys)) < 2:
        raise RequestError("Name two engines: one does not differ from itself.")

    def work(listener: Listener) -> Any:
        clip = backend.load_clip(str(sample.path), listener, *request.picked)
        found = []
        backend.keep_engines([request.run_of(key) for key in keys])
        for number, key in enumerate(keys):
            engine = backend.get_engine(*request.run_of(key))
            engine.prepare(listener)
            part = PartListener(listener, 0.3 * number, 0.3 * (number + 1), f"running {key}")
            found.append(engine.transcribe(clip, request.options, part))
        part = PartListener(listener, 0.6, 1.0)
        return analyses.explain((found[0], found[1]), clip, request.options, part)

    return AnalysisTask(work, ("why", request.model, request.sample or OWN_CLIP, keys))


def pick_transcripts(comparison: Comparison, key: str | None) -> tuple[Transcript, Transcript]:
    """Return the baseline's transcript and an engine's; raise `RequestError` where one is not
    there."""
    baseline = comparison.baseline
    lane = next((lane for lane in comparison.done if lane.key == key), None)
    if lane is None or lane.transcript is None:
        raise RequestError("This engine has no transcript in the comparison above: choose another.")
    if baseline is None or baseline.transcript is None:
        raise RequestError("The baseline has no transcript in the comparison above: run it again.")
    if lane is baseline:
        raise RequestError(f"{lane.label} is the baseline itself: choose another engine.")
    return baseline.transcript, lane.transcript


def build_job(
    title: str, name: str, ready: str, enabled: bool, result: str, placeholder: str
) -> tuple[gr.Button, gr.Button, Controls]:
    """A button to start and one to stop, the line that says how it stands, the result's place."""
    with gr.Row(elem_classes="lab-actions"):
        start = gr.Button(
            title, variant="primary", elem_id=name, interactive=enabled, scale=0, min_width=220
        )
        stop = gr.Button("Stop", elem_id=f"{name}-stop", interactive=False, scale=0, min_width=96)
    status = gr.HTML(render_status(ready), elem_id=f"{name}-status", apply_default_css=False)
    shown = gr.HTML(placeholder, elem_id=result, apply_default_css=False)
    return start, stop, {"status": status, "result": shown}


def make_task(
    backend: Backend,
    name: str,
    held: dict[str, Any],
    work: Callable[[Clip, AnalysisTask], Any],
    whole: bool,
    *kind: Any,
) -> AnalysisTask:
    """Make a task over the page's clip; raises `RequestError` where there is none.

    `whole`: whether it takes the longer the longer the clip is.
    """
    choices = backend.choices()
    check_language(held["language"], check("model", held["model"], choices))
    sample = choices.find_sample(held["sample"])
    path = str(sample.path) if sample else held["audio"]
    if not path:
        raise RequestError(NO_CLIP)
    path = str(uploads.find_original(path))
    picked = [check(name, held.get(name, 0), choices) for name in ("track", "channel")]
    if not Path(path).is_file():
        raise RequestError(CLIP_GONE)

    def run(task: AnalysisTask) -> Any:
        start, past, named = perf_counter(), backend.past_runs, f"{name} {held['model']}"
        clip = backend.load_clip(path, task, *(picked if any(picked) else ()))
        audio_seconds = clip.seconds if whole else 0.0
        task.expect(past.expect_analysis(named, audio_seconds))
        result = work(clip, task)
        past.note_analysis(named, audio_seconds, perf_counter() - start)
        return result

    return AnalysisTask(run, (name, held["model"], held["sample"], *kind))


def draw_analysis(
    snapshot: AnalysisSnapshot,
    first: bool,
    render: Callable[[Any], str],
    summarise: Callable[[Any], str],
) -> Iterator[Drawn]:
    """Draw the status, and the result once there is one."""
    clock = f"{snapshot.seconds:.1f} s"
    if snapshot.left is not None:
        clock += f", {format_estimate(snapshot.left)} left"
    match snapshot.state:
        case "running":
            what = snapshot.what[:1].upper() + snapshot.what[1:]
            yield {"status": render_status(f"{what} …", snapshot.share, clock=clock)}
        case "stopped":
            yield {"status": render_status("Stopped.")}
        case "failed":
            yield {"status": render_status(snapshot.reason, alert=True)}
        case "done":
            status = render_status(summarise(snapshot.result), clock=f"{snapshot.seconds:.1f} s")
            yield {"status": status, "result": render(snapshot.result)}


def render_message(sentence: str, note: str, alert: bool) -> str:
    """Render a sentence in an analysis's status."""
    return render_status(f"{sentence} {note}".strip(), alert=alert)


def render_status(
    sentence: str, share: float | None = None, alert: bool = False, clock: str = ""
) -> str:
    """Render the line above a result and its bar, as tall when there is none."""
    kind, role = (" alert", "alert") if alert else ("", "status")
    mark = '<span aria-hidden="true">⚠ </span>' if alert else ""
    bar = "" if share is None else f'<span style="width:{100 * share:.0f}%"></span>'
    shown = "bar" if share is not None else "bar bar--none"
    return (
        f'<div class="job-status{kind}"><p><span role="{role}">{mark}{escape(sentence)}</span>'
        f'<span class="clock" aria-hidden="true">{clock}</span></p>'
        f'<div class="{shown}">{bar}</div></div>'
    )
