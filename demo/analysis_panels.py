"""Layer inspection and faults on the page: their layout, and the tasks that they start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from demo.analysis import NO_ENCODER, AnalysisSnapshot, AnalysisTask
from demo.comparison import Analyses, Backend
from demo.jobs import Task
from demo.panels import faults, layers
from demo.request import CLIP_GONE, NO_CLIP, RequestError, check_language
from demo.wiring import QUICK, Component, Drawn, JobPanel
from engines.base import Clip, Listener

INTRODUCTION = """<h2>Inspect layers</h2><p class="intro">Two encoders may write the same words and
still differ. Here is how far each is from PyTorch on the processor after every layer; choose one to
see its values.</p>"""
FAULTS_INTRODUCTION = """<h2>Faults</h2><p class="intro">Put a mistake into MAX’s encoder and watch
what it does. The first five really happened in 2025, in an earlier attempt of this project to write
Whisper in MAX.</p>"""

LAYERS_READY = "Inspects 30 seconds of the clip above."
FAULTS_READY = "Runs the whole clip above, without the fault and with it."

Controls = dict[str, Component]
CLIP_CONTROLS = ("sample", "audio", "model", "language")
"""The comparison's controls that an analysis reads as well."""


def lay_out_layers(backend: Backend, analyses: Analyses, controls: Controls) -> JobPanel:
    """Which encoders to inspect and in which window, and the panel."""
    first, *others = analyses.candidates()
    with gr.Column(elem_classes=["sheet", "lab"]):
        gr.HTML(INTRODUCTION, apply_default_css=False)
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
        ready = LAYERS_READY if others else "This machine has no second encoder to inspect."
        start, stop = lay_out_buttons("Inspect layers", "inspect", enabled=bool(others))
        outputs = lay_out_outputs(ready, "inspect-status", layers.PLACEHOLDER, "layers")

    def make(held: dict[str, Any]) -> Task:
        if not held["names"]:
            raise RequestError(NO_ENCODER)
        chosen, at = [first.name, *held["names"]], float(held["window"] or 0)

        def compare(clip: Clip, listener: Listener) -> Any:
            return analyses.compare_layers(chosen, held["model"], clip, listener, at)

        return make_task(backend, "layers", held, compare, tuple(chosen))

    draw = partial(draw_analysis, render=layers.render, summarise=layers.summarise)
    inputs = {"names": names, "window": window, **{each: controls[each] for each in CLIP_CONTROLS}}
    return JobPanel("layers", start, stop, inputs, outputs, "status", make, draw, say)


def lay_out_faults(backend: Backend, analyses: Analyses, controls: Controls) -> JobPanel:
    """Which fault, its story, and the panel."""
    stories, reason = analyses.faults, analyses.why_no_faults()
    with gr.Column(elem_classes=["sheet", "lab"]):
        gr.HTML(FAULTS_INTRODUCTION, apply_default_css=False)
        fault = gr.Radio(
            faults.list_choices(stories),
            value=stories[0].key,
            label="Fault",
            elem_id="faults",
            elem_classes="pills",
        )
        story = gr.HTML(
            faults.render_story(stories, stories[0].key), elem_id="story", apply_default_css=False
        )
        start, stop = lay_out_buttons("Run the fault", "fault", enabled=reason is None)
        ready = f"Faults can’t run here: {reason}." if reason else FAULTS_READY
        outputs = lay_out_outputs(ready, "fault-status", faults.PLACEHOLDER, "finding")

    def make(held: dict[str, Any]) -> Task:
        language = held["language"] or None

        def run(clip: Clip, listener: Listener) -> Any:
            return analyses.run_fault(held["fault"], held["model"], clip, language, listener)

        return make_task(backend, "faults", held, run, held["fault"])

    fault.change(partial(faults.render_story, stories), fault, story, **QUICK)
    draw = partial(draw_analysis, render=faults.render, summarise=faults.summarise)
    inputs = {"fault": fault, **{each: controls[each] for each in CLIP_CONTROLS}}
    return JobPanel("faults", start, stop, inputs, outputs, "status", make, draw, say)


def lay_out_buttons(title: str, name: str, enabled: bool) -> tuple[gr.Button, gr.Button]:
    """A button to start and one to stop."""
    with gr.Row(elem_classes="lab-actions"):
        start = gr.Button(
            title, variant="primary", elem_id=name, interactive=enabled, scale=0, min_width=220
        )
        stop = gr.Button("Stop", elem_id=f"{name}-stop", interactive=False, scale=0, min_width=96)
    return start, stop


def lay_out_outputs(ready: str, status: str, placeholder: str, result: str) -> Controls:
    """The line that says how it stands, and the result's place."""
    return {
        "status": gr.HTML(render_status(ready), elem_id=status, apply_default_css=False),
        "result": gr.HTML(placeholder, elem_id=result, apply_default_css=False),
    }


def make_task(
    backend: Backend,
    name: str,
    held: dict[str, Any],
    work: Callable[[Clip, Listener], Any],
    *kind: Any,
) -> AnalysisTask:
    """A task over the page's clip; raises `RequestError` where there is none."""
    choices = backend.choices()
    check_language(held["language"], held["model"])
    sample = choices.find_sample(held["sample"])
    path = str(sample.path) if sample else held["audio"]
    if not path:
        raise RequestError(NO_CLIP)
    if not Path(path).is_file():
        raise RequestError(CLIP_GONE)

    def run(listener: Listener) -> Any:
        return work(backend.load_clip(path, listener), listener)

    return AnalysisTask(run, (name, held["model"], held["sample"], *kind))


def draw_analysis(
    snapshot: AnalysisSnapshot,
    first: bool,
    render: Callable[[Any], str],
    summarise: Callable[[Any], str],
) -> Iterator[Drawn]:
    """The status, and the result once there is one."""
    clock = f"{snapshot.seconds:.1f} s"
    match snapshot.state:
        case "running":
            what = snapshot.what[:1].upper() + snapshot.what[1:]
            yield {"status": render_status(f"{what} …", snapshot.share, clock=clock)}
        case "stopped":
            yield {"status": render_status("Stopped.")}
        case "failed":
            yield {"status": render_status(snapshot.reason, alert=True)}
        case "done":
            status = render_status(summarise(snapshot.result), clock=clock)
            yield {"status": status, "result": render(snapshot.result)}


def say(sentence: str, note: str, alert: bool) -> str:
    """A sentence in an analysis's status."""
    return render_status(f"{sentence} {note}".strip(), alert=alert)


def render_status(
    sentence: str, share: float | None = None, alert: bool = False, clock: str = ""
) -> str:
    """The line above a result and its bar, as tall when there is none."""
    kind, role = (" alert", "alert") if alert else ("", "status")
    mark = '<span aria-hidden="true">⚠ </span>' if alert else ""
    bar = "" if share is None else f'<span style="width:{100 * share:.0f}%"></span>'
    shown = "bar" if share is not None else "bar bar--none"
    return (
        f'<div class="job-status{kind}"><p><span role="{role}">{mark}{escape(sentence)}</span>'
        f'<span class="clock" aria-hidden="true">{clock}</span></p>'
        f'<div class="{shown}">{bar}</div></div>'
    )
