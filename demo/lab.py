"""The microscope and the fault lab on the page: their layout, and which control starts what."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gradio as gr

from demo import faults, layers, tidy
from demo.errand import Errand, View
from demo.keepsakes import READ_VISIT, Keepsakes
from demo.runs import STOPPED_WAITING, Caller, Place, Refused, Runs, Standing, in_turn, name_caller
from demo.samples import Sample
from engines.base import Clip, EngineError
from engines.examination import Candidate, Examination, Observer, count_stages

if TYPE_CHECKING:
    from engines.faults.lab import Finding

NO_CLIP = "There is no clip yet: choose a sample, upload a file, or record one."

LOOK_READY = "Looks at 30 seconds of the clip above."
FAULT_READY = "Runs the whole clip above, without the fault and with it."

INTRODUCTION = (
    "<h2>Under the microscope</h2><p class='intro'>Two encoders may write the same words and still "
    "differ. Here is how far each is from PyTorch on the processor after every stage; choose a "
    "stage to see its values.</p>"
)
LAB_INTRODUCTION = (
    "<h2>The fault lab</h2><p class='intro'>Put a mistake into MAX’s encoder and watch what it "
    "does. The first five really happened in 2025, in an earlier attempt of this project to write "
    "Whisper in MAX.</p>"
)


@dataclass(frozen=True)
class Laboratory:
    """What the two panels ask of the engine side; tests put fakes here.

    `look(names, model, clip, observer, start)`, of the window at `start` seconds, and
    `run_fault(key, model, clip, language, observer)` raise `EngineError` with a
    sentence for the visitor. `why_no_faults`: why this machine can't run the fault lab, or None.
    `count_stages(model)`: how many an examination will have, as far as that is known.
    """

    candidates: Callable[[], Sequence[Candidate]]
    look: Callable[[Sequence[str], str, Clip, Observer, float], Examination]
    faults: Sequence[faults.Story]
    run_fault: Callable[[str, str, Clip, str | None, Observer], Finding]
    why_no_faults: Callable[[], str | None]
    count_stages: Callable[[str], int] = count_stages


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
class Bench:
    """One panel's components: what it is told, its buttons, and what it shows."""

    choices: tuple[gr.components.Component, ...]
    start: gr.Button
    stop: gr.Button
    status: gr.HTML
    result: gr.HTML

    def outputs(self) -> list[gr.components.Component]:
        """As `paint` returns their values."""
        return [self.start, self.stop, self.status, self.result]

    def kept(self) -> list[gr.components.Component]:
        """What a reload brings back."""
        return [*self.choices, self.status, self.result]


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
    start, stop = lay_out_buttons("Look", "look", enabled=bool(others))
    status = gr.HTML(render_status(ready), elem_id="look-status", apply_default_css=False)
    result = gr.HTML(layers.PLACEHOLDER, elem_id="layers", apply_default_css=False)
    return Bench((choice, window), start, stop, status, result)


def lay_out_faults(
    stories: Sequence[faults.Story], reason: str | None
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


# What is shown.


def render_status(
    sentence: str, share: float | None = None, alert: bool = False, clock: str = ""
) -> str:
    """The line above a panel and its bar, as tall when there is none."""
    kind, role = (" alert", "alert") if alert else ("", "status")
    mark = '<span aria-hidden="true">⚠ </span>' if alert else ""
    bar = "" if share is None else f'<span style="width:{100 * share:.0f}%"></span>'
    shown = "bar" if share is not None else "bar bar--none"
    return (
        f'<div class="errand{kind}"><p><span role="{role}">{mark}{escape(sentence)}</span>'
        f'<span class="clock" aria-hidden="true">{clock}</span></p>'
        f'<div class="{shown}">{bar}</div></div>'
    )


def paint(
    view: View[Any], render: Callable[[Any], str], summary: Callable[[Any], str]
) -> list[Any]:
    """Values in the order of `Bench.outputs`; the panel changes only when there is a result."""
    running = view.state == "running"
    buttons = [gr.update(interactive=not running), gr.update(interactive=running)]
    clock = f"{view.seconds:.1f} s"
    if running:
        what = view.what[:1].upper() + view.what[1:]
        return [*buttons, render_status(f"{what} …", view.share, clock=clock), gr.skip()]
    if view.state == "stopped":
        return [*buttons, render_status("Stopped."), gr.skip()]
    if view.state == "failed":
        return [*buttons, render_status(view.reason, alert=True), gr.skip()]
    return [*buttons, render_status(summary(view.result), clock=clock), render(view.result)]


def refuse(sentence: str, alert: bool = True) -> list[Any]:
    """The values when nothing can start: the reason, and the panel as it was."""
    status = render_status(sentence, alert=alert)
    return [gr.update(interactive=True), gr.update(interactive=False), status, gr.skip()]


def announce(standing: Standing) -> list[Any]:
    """Buttons and status between the click and the first view."""
    sentence = " ".join(standing.describe()).strip() if standing.ahead else "Starting."
    return [gr.update(interactive=False), gr.update(interactive=True), render_status(sentence)]


def go_on_waiting(standing: Standing) -> list[Any]:
    """The values while it waits: its place and the expected wait."""
    return [*announce(standing), gr.skip()]


def summarise_look(examination: Examination) -> str:
    """What the look found, in one sentence; what rounds is not held to float32's tolerance."""
    seen = f"{len(examination.stages)} stages looked at"
    others = examination.others
    exact = [each for each in others if not each.rounds_to]
    off = [each.label for each in others if layers.find_departure(examination, each)]
    if off:
        return f"{seen}: {', '.join(off)} {'differs' if len(off) == 1 else 'differ'}."
    if not exact:
        return f"{seen}: how far rounding moves them is below."
    if len(exact) < len(others):
        return f"{seen}: in float32 all are as they should be."
    return f"{seen}: all are as they should be."


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

        def work(seen: Observer) -> Examination:
            return laboratory.look(chosen, model, load_clip(path, seen.stopped), seen, at)

        return Errand(work)

    def run_fault(told: Sequence[Any], path: str, model: str, language: str) -> Errand[Finding]:
        (key,), spoken = told, language or None

        def work(seen: Observer) -> Finding:
            clip = load_clip(path, seen.stopped)
            return laboratory.run_fault(key, model, clip, spoken, seen)

        return Errand(work)

    def blank_look(told: Sequence[Any], model: str, clip: str) -> str:
        names, _ = told
        first, *others = laboratory.candidates()
        labels = [first.label, *(each.label for each in others if each.name in names)]
        stages = laboratory.count_stages(model)
        return layers.render_blank(labels, stages, model, clip) if names else layers.PLACEHOLDER

    def blank_fault(told: Sequence[Any], model: str, clip: str) -> str:
        return faults.render_blank(laboratory.count_stages(model), model, clip)

    show_look, show_fault = layers.render_layers, faults.render_finding
    kept = keepsakes
    microscope = Desk("microscope", runs, kept, by_key, look, show_look, summarise_look, blank_look)
    lab = Desk(
        "fault lab", runs, kept, by_key, run_fault, show_fault, faults.summarise, blank_fault
    )
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


@dataclass(frozen=True)
class Desk:
    """What stands behind a panel: how to make its errand, and how to show what it brings.

    `blank(choices, model, clip)`: as much room as that will take.
    """

    name: str
    runs: Runs
    keepsakes: Keepsakes
    by_key: Mapping[str, Sample]
    make: Callable[[Sequence[Any], str, str, str], Errand[Any]]
    render: Callable[[Any], str]
    summary: Callable[[Any], str]
    blank: Callable[[Sequence[Any], str, str], str]

    def reserve(self, filled: bool, *told: Any) -> Any:
        """Room in a panel that shows nothing yet; `told` as `run` takes it."""
        *choices, sample, audio, model, _ = told
        path = self.find_clip(sample, audio)
        return gr.skip() if filled or path is None else self.blank(choices, model, Path(path).name)

    def find_clip(self, sample: str, audio: str | None) -> str | None:
        """The path of the page's clip, if it has one."""
        return str(self.by_key[sample].path) if sample in self.by_key else audio

    def name_caller(self, request: gr.Request) -> Caller:
        """One browser tab at this panel: each panel waits and stops by itself."""
        return name_caller(request, self.name)

    async def run(
        self,
        caller: Caller,
        visit: str,
        ticket: int,
        *told: Any,
    ) -> AsyncGenerator[list[Any], None]:
        """The errand: yield the panel's values while it waits, and until it rests.

        `told`: what the panel's choices hold, then the page's clip, model and language.
        """
        *choices, sample, audio, model, language = told
        path = self.find_clip(sample, audio)
        try:
            if path is None:
                raise EngineError(NO_CLIP)
            errand = self.make(choices, path, model, language)
        except EngineError as error:
            self.runs.stop(caller.visitor)
            yield refuse(str(error))
            return

        tidy.touch(path)

        def work(place: Place) -> Generator[list[Any], None, None]:
            return self.follow(errand, place, visit, choices)

        sort = (self.name, model, str(choices), sample)
        steps = in_turn(self.runs, caller, sort, ticket, go_on_waiting, work)
        try:
            async with aclosing(steps):
                async for values in steps:
                    yield values
        except Refused as refusal:
            yield refuse(str(refusal), refusal.alert)

    def follow(
        self, errand: Errand[Any], place: Place, visit: str, choices: Sequence[Any]
    ) -> Generator[list[Any], None, None]:
        """The errand whose turn has come: yield the panel's values until it rests."""
        self.runs.enter(place, errand)
        try:
            for view in errand.views():
                values = paint(view, self.render, self.summary)
                if view.state == "done":
                    self.runs.learn(place)
                    self.keepsakes.keep_panel(visit, self.name, (*choices, *values[2:]))
                yield values
            # Gradio sends a generator's last values once more, whole: let these be none.
            yield [gr.skip() for _ in values]
        finally:
            errand.stop()


def connect_bench(
    page: gr.Blocks,
    bench: Bench,
    desk: Desk,
    clip: Sequence[gr.components.Component],
) -> None:
    """A panel's buttons, with the manners of the comparison's."""
    ticket, visit = gr.Number(visible=False, precision=0), gr.Textbox(visible=False)
    reloaded, filled = gr.Checkbox(visible=False), gr.Checkbox(visible=False)
    quick: dict[str, Any] = {
        "queue": False,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    panel = bench.result.elem_id
    look_up = f"(visit, filled, ...told) => [nameVisit(), isFilled('#{panel}'), ...told]"

    def begin(request: gr.Request, visit: str, filled: bool, *told: Any) -> list[Any]:
        ticket = desk.runs.draw_ticket(desk.name_caller(request).visitor)
        standing = desk.runs.count_ahead()
        return [visit, ticket, *announce(standing), desk.reserve(filled, *told)]

    async def run(
        request: gr.Request, visit: str, ticket: int, *told: Any
    ) -> AsyncIterator[list[Any]]:
        steps = desk.run(desk.name_caller(request), visit, ticket, *told)
        async with aclosing(steps):
            async for values in steps:
                yield values

    def stop(request: gr.Request) -> list[Any]:
        waited = desk.runs.stop(desk.name_caller(request).visitor)
        if not waited:
            return [gr.skip(), gr.skip()]
        return [gr.update(interactive=False), render_status(STOPPED_WAITING)]

    def leave(request: gr.Request) -> None:
        desk.runs.stop(desk.name_caller(request).visitor)

    def reload(visit: str, reloaded: bool) -> list[Any]:
        kept = desk.keepsakes.find_panel(visit, desk.name) if reloaded else None
        return list(kept) if kept is not None else [gr.skip() for _ in bench.kept()]

    begun = bench.start.click(
        begin,
        [visit, filled, *bench.choices, *clip],
        [visit, ticket, *bench.outputs()],
        js=look_up,
        **quick,
    )
    ran = begun.then(
        run,
        [visit, ticket, *bench.choices, *clip],
        bench.outputs(),
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,  # `Runs` is the queue
    )
    ran.then(
        lambda: [gr.update(interactive=True), gr.update(interactive=False)],
        None,
        [bench.start, bench.stop],
        **quick,
    )
    bench.stop.click(stop, None, [bench.stop, bench.status], **quick)
    page.unload(leave)
    page.load(reload, [visit, reloaded], bench.kept(), js=READ_VISIT, **quick)
