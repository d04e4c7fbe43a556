"""The microscope and the fault lab on the page: their layout, and which control starts what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import gradio as gr

from demo.desk import Bench, Desk, connect_bench, render_status
from demo.errand import Errand
from demo.keepsakes import Keepsakes
from demo.panels import faults, layers
from demo.runs import Runs
from demo.samples import Sample
from engines.base import Clip, EngineError, Listener
from engines.examination import Candidate, Examination

if TYPE_CHECKING:
    from engines.faults.lab import Finding

LOOK_READY = "Looks at 30 seconds of the clip above."
FAULT_READY = "Runs the whole clip above, without the fault and with it."

INTRODUCTION = (
    "<h2>Inspect layers</h2><p class='intro'>Two encoders may write the same words and still "
    "differ. Here is how far each is from PyTorch on the processor after every stage; choose a "
    "stage to see its values.</p>"
)
LAB_INTRODUCTION = (
    "<h2>Faults</h2><p class='intro'>Put a mistake into MAX’s encoder and watch what it "
    "does. The first five really happened in 2025, in an earlier attempt of this project to write "
    "Whisper in MAX.</p>"
)


@dataclass(frozen=True)
class Laboratory:
    """What the two panels ask of the engine side; tests put fakes here.

    `look(names, model, clip, listener, start)`, of the window at `start` seconds, and
    `run_fault(key, model, clip, language, listener)` raise `EngineError` with a
    sentence for the visitor. `why_no_faults`: why this machine can't run the fault lab, or None.
    """

    candidates: Callable[[], Sequence[Candidate]]
    look: Callable[[Sequence[str], str, Clip, Listener, float], Examination]
    faults: Sequence[faults.FaultInfo]
    run_fault: Callable[[str, str, Clip, str | None, Listener], Finding]
    why_no_faults: Callable[[], str | None]


class ClipControls(Protocol):
    """The page's controls that the lab reads: `page.Controls`."""

    @property
    def sample(self) -> gr.Radio: ...
    @property
    def audio(self) -> gr.Audio: ...
    @property
    def model(self) -> gr.Dropdown: ...
    @property
    def language(self) -> gr.Dropdown: ...


@dataclass(frozen=True)
class LabPanels:
    """Both panels, and the line with the chosen fault's story."""

    microscope: Bench
    lab: Bench
    fault: gr.Radio
    story: gr.HTML
    laboratory: Laboratory = field(repr=False)


# Layout.


def lay_out_lab(laboratory: Laboratory) -> LabPanels:
    """The two sections, one beneath the other."""
    with gr.Column(elem_classes=["sheet", "lab"]):
        gr.HTML(INTRODUCTION, apply_default_css=False)
        microscope = lay_out_microscope(laboratory.candidates())
    with gr.Column(elem_classes=["sheet", "lab"]):
        gr.HTML(LAB_INTRODUCTION, apply_default_css=False)
        lab, fault, story = lay_out_faults(laboratory.faults, laboratory.why_no_faults())
    return LabPanels(microscope, lab, fault, story, laboratory)


def lay_out_microscope(candidates: Sequence[Candidate]) -> Bench:
    """Which encoders to look at and in which window, and the panel."""
    others = candidates[1:]
    with gr.Row():
        choice = gr.CheckboxGroup(
            [(candidate.label, candidate.name) for candidate in others],
            value=[candidate.name for candidate in others],
            label=f"Against {candidates[0].label}",
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
    ready = LOOK_READY if others else "This machine has no second encoder to look at."
    start, stop = lay_out_buttons("Inspect layers", "look", enabled=bool(others))
    status = gr.HTML(render_status(ready), elem_id="look-status", apply_default_css=False)
    result = gr.HTML(layers.PLACEHOLDER, elem_id="layers", apply_default_css=False)
    return Bench((choice, window), start, stop, status, result)


def lay_out_faults(
    stories: Sequence[faults.FaultInfo], reason: str | None
) -> tuple[Bench, gr.Radio, gr.HTML]:
    """Which fault, its story, and the panel."""
    choice = gr.Radio(
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
    ready = f"Faults can’t run here: {reason}." if reason else FAULT_READY
    status = gr.HTML(render_status(ready), elem_id="fault-status", apply_default_css=False)
    result = gr.HTML(faults.PLACEHOLDER, elem_id="finding", apply_default_css=False)
    return Bench((choice,), start, stop, status, result), choice, story


def lay_out_buttons(title: str, name: str, enabled: bool) -> tuple[gr.Button, gr.Button]:
    """A button to start and one to stop."""
    with gr.Row(elem_classes="lab-actions"):
        start = gr.Button(
            title, variant="primary", elem_id=name, interactive=enabled, scale=0, min_width=220
        )
        stop = gr.Button("Stop", elem_id=f"{name}-stop", interactive=False, scale=0, min_width=96)
    return start, stop


# Wiring.


def connect_lab(
    page: gr.Blocks,
    panels: LabPanels,
    runs: Runs,
    keepsakes: Keepsakes,
    load_clip: Callable[[str, Callable[[], bool]], Clip],
    by_key: Mapping[str, Sample],
    controls: ClipControls,
) -> None:
    """Tie both panels to what they start, which waits for its turn in `runs`.

    What they found goes to `keepsakes`, so that a reload finds it again.
    """
    laboratory = panels.laboratory
    clip = [controls.sample, controls.audio, controls.model, controls.language]

    def look(told: Sequence[Any], path: str, model: str, language: str) -> Errand[Examination]:
        names, start = told
        if not names:
            raise EngineError("Choose at least one encoder.")
        chosen = [laboratory.candidates()[0].name, *names]
        at = float(start or 0)

        def work(seen: Listener) -> Examination:
            return laboratory.look(chosen, model, load_clip(path, seen.stopped), seen, at)

        return Errand(work)

    def run_fault(told: Sequence[Any], path: str, model: str, language: str) -> Errand[Finding]:
        (key,), spoken = told, language or None

        def work(seen: Listener) -> Finding:
            clip = load_clip(path, seen.stopped)
            return laboratory.run_fault(key, model, clip, spoken, seen)

        return Errand(work)

    show_look, show_fault = layers.render, faults.render
    kept = keepsakes
    microscope = Desk("microscope", runs, kept, by_key, look, show_look, layers.summarise)
    lab = Desk("fault lab", runs, kept, by_key, run_fault, show_fault, faults.summarise)
    connect_bench(page, panels.microscope, microscope, clip)
    connect_bench(page, panels.lab, lab, clip)
    panels.fault.change(
        lambda key: faults.render_story(laboratory.faults, key),
        panels.fault,
        panels.story,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
