"""Layer inspection, faults and why engines differ: their layout, and what they draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from demo.analysis_task import AnalysisTask, make_task, pick_transcripts
from demo.comparison import Analyses, Backend
from demo.job_snapshot import JobSnapshot, Result
from demo.limits import format_left
from demo.panels import faults, layers, why
from demo.rules import RequestError
from demo.visits import SavedResults
from demo.wiring import (
    QUICK,
    Component,
    Drawn,
    JobPanel,
    build_job,
    render_message,
    render_status,
)
from engines.analysis.divergence_records import Divergence
from engines.analysis.faults import FaultResult
from engines.analysis.records import HalfName, Inspection, LayerComparison
from engines.base import Clip, Listener

LAYERS = """<h2>Inspect layers</h2><p class="intro">Two engines may write the same words and
still differ inside. Here is how far each one’s encoder or decoder is from PyTorch on the processor
after every layer; choose a layer to see its values.</p>"""
FAULTS = """<h2>Faults</h2><p class="intro">Put a mistake into MAX’s encoder and watch
what it does. Five of them really happened in 2025, in an earlier attempt of this project to write
Whisper in MAX.</p>"""

NO_LAYERS = """<p class="caption">Each stage appears here: how far it is from the
baseline, and its histogram.</p>"""
NO_FAULT = """<p class="caption">Choose a fault and run it: the text that comes out appears here
beside the right one, and the stage where the fault first shows.</p>"""

WHY = """<h2>Why they differ</h2><p class="intro">Where an engine’s tokens part from the baseline’s
in the comparison above: the first one that differs, the half of the model behind it, and which of
them is right by the same step in float64.</p>"""
NO_WHY = """<p class="caption">The two candidates appear here, and how likely each half of the model
and PyTorch in float64 find them.</p>"""
FIRST_THAT_DIFFERS = ("The first that differs", "")
NOT_COMPARED = "Compare engines first: here it is asked why their results differ."

Controls = dict[str, Component]


def pick_controls(controls: Controls) -> Controls:
    """Return the comparison's controls that an analysis reads as well."""
    names = "sample", "audio", "track", "channel", "model", "language"
    return {name: controls[name] for name in names}


def build_layers(backend: Backend, analyses: Analyses, controls: Controls) -> JobPanel[Any]:
    """Which encoders to inspect and in which window, and the panel."""
    names: tuple[HalfName, ...] = ("encoder", "decoder")
    halves = {name: analyses.candidates(name) for name in names}
    first, *others = halves["encoder"]
    inputs: Controls = {}
    with gr.Column(elem_classes=["sheet", "lab"]):
        gr.HTML(LAYERS, apply_default_css=False)
        half = gr.Radio(
            [("Encoder", "encoder"), ("Decoder", "decoder")],
            value="encoder",
            label="Half of the model",
            elem_id="half",
            elem_classes="pills",
            visible=bool(others),
        )
        with gr.Row():
            for name, (_, *rest) in halves.items():  # `style.css` shows those of the chosen half
                inputs[name] = gr.CheckboxGroup(
                    [(each.label, each.name) for each in rest],
                    value=[each.name for each in rest],
                    label=f"Against {first.label}",
                    elem_id=f"{name}s",
                    elem_classes="pills",
                    visible=bool(others),
                    scale=3,
                )
            window = gr.Number(
                0, label="From second", elem_id="window-start", minimum=0, step=30,
                visible=bool(others), scale=1, min_width=120,
            )  # fmt: skip
        ready = "Inspects 30 seconds of the clip above."
        if not others:
            ready = "This machine has no second encoder to inspect."
        start, stop, outputs = build_job(
            "Inspect layers", "inspect", ready, bool(others), "layers", NO_LAYERS
        )

    def make(values: dict[str, Any]) -> AnalysisTask[LayerComparison]:
        name: HalfName = values["half"]
        if not values[name]:
            raise RequestError(f"Choose at least one {name}.")
        chosen, start = (halves[name][0].name, *values[name]), float(values["window"] or 0)
        inspection = Inspection(name, chosen, values["model"], start, values["language"] or None)

        def compare(clip: Clip, listener: Listener) -> LayerComparison:
            return analyses.compare_halves(inspection, clip, listener)

        return make_task(backend, f"{name} layers", values, compare, False, chosen)

    draw = partial(draw_analysis, render=layers.render, summarise=layers.summarise)
    inputs |= {"half": half, "window": window, **pick_controls(controls)}
    return JobPanel("layers", start, stop, inputs, outputs, "status", make, draw, render_message)


def build_faults(backend: Backend, analyses: Analyses, controls: Controls) -> JobPanel[Any]:
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

    def make(values: dict[str, Any]) -> AnalysisTask[FaultResult]:
        key, model, language = values["fault"], values["model"], values["language"] or None

        def run(clip: Clip, listener: Listener) -> FaultResult:
            return analyses.run_fault(key, model, clip, language, listener)

        return make_task(backend, "faults", values, run, True, key)

    fault.change(lambda key: stories.get(key, ""), fault, story, **QUICK)
    draw = partial(draw_analysis, render=faults.render, summarise=faults.summarise)
    inputs = {"fault": fault, **pick_controls(controls)}
    return JobPanel("faults", start, stop, inputs, outputs, "status", make, draw, render_message)


def build_why(
    backend: Backend, analyses: Analyses, saved: SavedResults, visit: gr.Textbox, tab: gr.Tab
) -> JobPanel[Any]:
    """Which engine to hold against the baseline of the last comparison, and the panel.

    An engine that ran with two models is a choice with each: those are known when `tab` is opened.
    """
    here = [(each.label, each.key) for each in backend.choices().engines if each.available]
    with gr.Column(elem_classes=["sheet", "lab"]):
        gr.HTML(WHY, apply_default_css=False)
        engine = gr.Radio(
            [FIRST_THAT_DIFFERS, *here],
            value="",
            label="Engine",
            elem_id="why-engine",
            elem_classes="pills",
        )
        ready = "Decodes one step of the comparison again."
        if len(here) < 2:
            ready = "This machine has no second engine to ask about."
        start, stop, outputs = build_job(
            "Say why", "why", ready, len(here) > 1, "why-result", NO_WHY
        )

    def offer_lanes(name: str) -> Any:
        last = saved.find(name, "comparison")
        offered = {key: label for label, key in here}
        if last is not None:
            lanes, baseline = last.snapshot.lanes, last.snapshot.baseline
            ran = [each for each in lanes if each.transcript and each is not baseline]
            offered = {each.key: each.label for each in ran}
        choices = [FIRST_THAT_DIFFERS, *((label, key) for key, label in offered.items())]
        last_why = saved.find(name, "why")
        if last_why is None or last_why.controls["engine"] in ("", *offered):
            return gr.update(choices=choices)  # another may be chosen meanwhile
        return gr.update(choices=choices, value="")

    def make(values: dict[str, Any]) -> AnalysisTask[Divergence]:
        last = saved.find(values["visit"], "comparison")
        if last is None or not last.finished:
            raise RequestError(NOT_COMPARED)
        transcripts = pick_transcripts(last.snapshot, values["engine"] or "")
        options = last.snapshot.settings.options

        def explain(clip: Clip, listener: Listener) -> Divergence:
            return analyses.explain(transcripts, clip, options, listener)

        return make_task(backend, "why", last.controls, explain, values["engine"])

    tab.select(offer_lanes, visit, engine, **QUICK)  # the choice may not be one here yet
    draw = partial(draw_analysis, render=why.render, summarise=why.summarise)
    inputs = {"engine": engine, "visit": visit}
    return JobPanel("why", start, stop, inputs, outputs, "status", make, draw, render_message)


def draw_analysis(
    snapshot: JobSnapshot[Result],
    first: bool,
    render: Callable[[Result], str],
    summarise: Callable[[Result], str],
) -> Iterator[Drawn]:
    """Draw the status, and the result once there is one."""
    clock = ", ".join(filter(None, [f"{snapshot.seconds:.1f} s", format_left(snapshot.left)]))
    match snapshot.state:
        case "running":
            stage = snapshot.stage[:1].upper() + snapshot.stage[1:]
            yield {"status": render_status(f"{stage} …", snapshot.share, clock=clock)}
        case "stopped":
            yield {"status": render_status("Stopped.")}
        case "failed":
            yield {"status": render_status(snapshot.reason, alert=True)}
        case "done":
            assert snapshot.result is not None
            status = render_status(summarise(snapshot.result), clock=f"{snapshot.seconds:.1f} s")
            yield {"status": status, "result": render(snapshot.result)}
