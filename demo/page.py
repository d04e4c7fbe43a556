"""The page: its layout, and which control starts what. Panels are drawn elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gradio as gr

from demo.api import connect_api
from demo.keepsakes import READ_VISIT, Keepsakes
from demo.lab import connect_lab, lay_out_lab
from demo.link import Choices
from demo.panels import PANELS, Panel
from demo.runs import Runs, name_caller
from demo.samples import Sample, list_samples
from demo.session import (
    Backend,
    Wish,
    advise,
    free_buttons,
    read_settings,
    restore,
    run_in_turn,
    start_waiting,
    stop_waiting,
)
from demo.snapshot import Comparison, Settings, Status, lay_out
from demo.take_away import TakeAway, connect_take_away, lay_out_take_away

OWN_CLIP = "own"
BEAMS, REPEATS = (1, 5), (1, 3, 5)

LANGUAGES = {
    "Detect automatically": "",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Hindi": "hi",
    "Italian": "it",
    "Japanese": "ja",
    "Korean": "ko",
    "Mandarin": "zh",
    "Polish": "pl",
    "Portuguese": "pt",
    "Russian": "ru",
    "Spanish": "es",
    "Ukrainian": "uk",
}
SCROLL_TO_LANES = """() => {
  if (innerWidth < 720) document.querySelector("#summary").scrollIntoView({behavior: "smooth"});
}"""
"""On a phone the lanes are below the settings; the buttons stay in view by themselves."""

JOIN_PARTS = "${value.flat(9).join('')}"
"""A panel made of nested parts: of these only the changed ones travel to the browser."""

START = "async () => { await clipArrives(); return [nameVisit()]; }"
"""What the click on Compare sends, once a recording just made is on the server."""

NOTE_CLIP = "(file) => { noteClip(file); }"
"""A function of `assets/page.js`: which clip the player has."""

FOOTER = """<footer class="credits"><p>Runs OpenAI’s Whisper on PyTorch and on Modular MAX. MAX is
used under the Modular MAX Community License; this project is not endorsed by Modular.</p>
<p><strong>nano</strong> is a tiny checkpoint trained on synthetic speech of a limited vocabulary.
For real speech choose an official checkpoint; it is downloaded on first use.</p>
<p><a href="?stage=1">Stage mode</a>: large type for a talk; space runs, escape stops.</p>
</footer>"""


@dataclass(frozen=True)
class Controls:
    """The components that a visitor sets."""

    sample: gr.Radio
    audio: gr.Audio
    engines: gr.CheckboxGroup
    model: gr.Dropdown
    language: gr.Dropdown
    beam: gr.Radio
    schedule: gr.Radio
    words: gr.Checkbox
    gpu_dtype: gr.Radio
    repeats: gr.Radio

    def inputs(self) -> list[gr.components.Component]:
        """In the order that `read_settings` and the listeners take them."""
        return [
            self.sample,
            self.audio,
            self.engines,
            self.model,
            self.language,
            self.beam,
            self.schedule,
            self.words,
            self.gpu_dtype,
            self.repeats,
        ]


@dataclass(frozen=True)
class Panels:
    """The components that a run fills, in the order of `outputs`."""

    compare: gr.Button
    stop: gr.Button
    results: dict[str, gr.HTML]

    def outputs(self) -> list[gr.components.Component]:
        """As `Painter.paint` returns their values."""
        return [
            self.compare,
            self.stop,
            *self.results.values(),
        ]

    @property
    def summary(self) -> gr.HTML:
        """The headline."""
        return self.results["summary"]


def build(
    backend: Backend, runs: Runs | None = None, keepsakes: Keepsakes | None = None
) -> gr.Blocks:
    """The whole page over a backend.

    `runs` and `keepsakes`: given by who serves the page and looks after them.
    """
    runs, keepsakes = runs or Runs(), keepsakes or Keepsakes()
    statuses = tuple(backend.statuses())
    samples = list_samples(backend.samples)
    with gr.Blocks(
        title="One clip, every engine", fill_width=True, analytics_enabled=False
    ) as page:
        gr.HTML(
            "<header class='masthead'><h1>One clip, every engine</h1><p>The same speech through "
            "OpenAI’s Whisper on PyTorch and on Modular MAX, side by side: the words, the times, "
            "the differences.</p><p class='keys'><kbd>Space</kbd> runs, <kbd>Esc</kbd> stops</p>"
            "</header>",
            apply_default_css=False,
        )
        controls, compare, stop = lay_out_controls(statuses, samples, backend)
        panels = lay_out_panels(statuses, samples, compare, stop)
        take_away = lay_out_take_away(statuses)
        if backend.laboratory is not None:
            lab = lay_out_lab(backend.laboratory)
            by_key = {sample.key: sample for sample in samples}
            connect_lab(page, lab, runs, keepsakes, backend.load_clip, by_key, controls)
        gr.HTML(FOOTER, apply_default_css=False)
        connect_api(backend, runs)  # first, so that its names are free
        connect(page, backend, samples, controls, panels, runs, keepsakes)
        connect_files(page, backend, samples, controls, take_away, keepsakes)
    return page


def lay_out_controls(
    statuses: Sequence[Status], samples: Sequence[Sample], backend: Backend
) -> tuple[Controls, gr.Button, gr.Button]:
    """The clip and the buttons on the left, the settings on the right."""
    with gr.Row(elem_classes="controls", equal_height=False):
        with gr.Column(scale=6, min_width=320, elem_classes="clip"):
            sample, audio = lay_out_clip(samples)
            with gr.Row(elem_classes="actions"):
                compare = gr.Button("Compare", variant="primary", elem_id="compare", scale=3)
                stop = gr.Button("Stop", elem_id="stop", interactive=False, scale=1, min_width=96)
        with gr.Column(scale=5, min_width=320, elem_classes="settings"):
            controls = lay_out_settings(sample, audio, statuses, backend)
    return controls, compare, stop


def lay_out_clip(samples: Sequence[Sample]) -> tuple[gr.Radio, gr.Audio]:
    """A sample, or the visitor's own clip."""
    choices = [(sample.title, sample.key) for sample in samples]
    first = samples[0] if samples else None
    sample = gr.Radio(
        [*choices, ("Your own", OWN_CLIP)],
        value=first.key if first else OWN_CLIP,
        label="Clip",
        elem_id="sample",
        elem_classes="pills",
    )
    audio = gr.Audio(
        value=str(first.path) if first else None,
        type="filepath",
        sources=["upload", "microphone"],
        show_label=False,
        label="Clip",
        elem_id="audio",
        editable=False,
        buttons=[],
        waveform_options={"waveform_color": "#8b93a1", "waveform_progress_color": "#0072B2"},
    )
    return sample, audio


def lay_out_settings(
    sample: gr.Radio, audio: gr.Audio, statuses: Sequence[Status], backend: Backend
) -> Controls:
    """Everything that a run can be told; the defaults suit a first visit."""
    ready = [status.key for status in statuses if status.available]
    engines = gr.CheckboxGroup(
        [(name_engine(status), status.key) for status in statuses],
        value=ready,
        label="Engines",
        elem_id="engines",
        elem_classes="pills",
    )
    with gr.Row():
        model = lay_out_models(backend)
        language = gr.Dropdown(list(LANGUAGES.items()), value="en", label="Language")
    with gr.Row():
        schedule = gr.Radio(
            [("All at once", "parallel"), ("One at a time, fair", "one at a time")],
            value="parallel",
            label="Schedule",
            elem_id="schedule",
            elem_classes="pills",
            scale=3,
            min_width=300,
        )
        beam = lay_out_numbers("Beam size", "beam", BEAMS)
    with gr.Row():
        repeats = lay_out_numbers("Repeats", "repeats", REPEATS)
        words = gr.Checkbox(label="Word timestamps", elem_id="words", min_width=120)
    gpu_dtype = gr.Radio(
        ["float32", "float16"],
        value="float32",
        label="GPU precision",
        visible="gpu" in ready,
        elem_classes="pills",
    )
    return Controls(
        sample, audio, engines, model, language, beam, schedule, words, gpu_dtype, repeats
    )


def lay_out_numbers(label: str, name: str, numbers: Sequence[int]) -> gr.Radio:
    """A choice between a few numbers, the first to begin with."""
    return gr.Radio(
        [(str(number), number) for number in numbers],
        value=numbers[0],
        label=label,
        elem_id=name,
        elem_classes="pills",
        scale=1,
        min_width=120,
    )


def lay_out_models(backend: Backend) -> gr.Dropdown:
    """The model's name or, where the visitor owns the machine, a checkpoint's path."""
    names = list(backend.models())
    return gr.Dropdown(
        names,
        value=names[0],
        label="Model, or a checkpoint’s path" if backend.own_checkpoints else "Model",
        allow_custom_value=backend.own_checkpoints,
        elem_id="model",
    )


def name_engine(status: Status) -> str:
    """An engine's name in the list of choices."""
    return status.label if status.available else f"{status.label} (not here)"


def lay_out_panels(
    statuses: Sequence[Status], samples: Sequence[Sample], compare: gr.Button, stop: gr.Button
) -> Panels:
    """Everything that a run fills, with room reserved for it."""
    ready = Settings(engines=tuple(status.key for status in statuses if status.available))
    reference = samples[0].reference if samples else None
    blank = replace(lay_out(ready, statuses), reference=reference)
    found = {panel.key: lay_out_panel(panel, blank) for panel in PANELS}
    return Panels(compare, stop, found)


def lay_out_panel(panel: Panel, blank: Comparison) -> gr.HTML:
    """One panel beneath its heading."""
    value = panel.render(blank)
    if not panel.title:
        return show_panel(value, panel.key)
    with gr.Column(elem_classes=["sheet"]):
        gr.HTML(f"<h2>{panel.title}</h2>", apply_default_css=False)
        return show_panel(value, panel.key)


def show_panel(value: str | list[Any], name: str) -> gr.HTML:
    """A panel's component; one that has parts gets a list."""
    if isinstance(value, str):
        return gr.HTML(value, elem_id=name, apply_default_css=False)
    return gr.HTML(value, html_template=JOIN_PARTS, elem_id=name, apply_default_css=False)


def connect(
    page: gr.Blocks,
    backend: Backend,
    samples: Sequence[Sample],
    controls: Controls,
    panels: Panels,
    runs: Runs,
    keepsakes: Keepsakes,
) -> None:
    """Tie controls to what they start."""
    by_key = {sample.key: sample for sample in samples}
    ticket = gr.Number(visible=False, precision=0)
    visit, reloaded = gr.Textbox(visible=False), gr.Checkbox(visible=False)
    quick: dict[str, Any] = {
        "queue": False,
        "show_progress": "hidden",
        "api_visibility": "private",
    }

    def begin(request: gr.Request, visit: str) -> list[Any]:
        ticket = runs.draw_ticket(name_caller(request).visitor)
        return [visit, ticket, *start_waiting(runs.count_ahead())]

    async def compare(
        request: gr.Request, visit: str, ticket: int, sample: str, audio: str | None, *chosen: Any
    ) -> AsyncIterator[list[Any]]:
        held = (sample, audio, *chosen)
        wish = Wish(by_key.get(sample), audio, read_settings(*chosen), held)
        keep = partial(keepsakes.keep, visit)
        steps = run_in_turn(backend, runs, name_caller(request), ticket, wish, keep)
        async with aclosing(steps):
            async for values in steps:
                yield values

    def reload(visit: str, reloaded: bool) -> list[Any]:
        count = len(controls.inputs())
        return restore(keepsakes, visit if reloaded else "", count)

    def stop(request: gr.Request) -> list[Any]:
        waited = runs.stop(name_caller(request).visitor)
        return stop_waiting() if waited else [gr.skip(), gr.skip()]

    def leave(request: gr.Request) -> None:
        runs.stop(name_caller(request).visitor)

    begun = panels.compare.click(
        begin,
        visit,
        [visit, ticket, panels.compare, panels.stop, panels.summary],
        js=START,
        **quick,
    )
    run = begun.then(
        compare,
        [visit, ticket, *controls.inputs()],
        panels.outputs(),
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,  # `Runs` is the queue
    )
    run.then(free_buttons, None, [panels.compare, panels.stop], **quick)
    panels.stop.click(stop, None, [panels.stop, panels.summary], **quick)
    page.unload(leave)
    page.load(
        reload,
        [visit, reloaded],
        [*controls.inputs(), *panels.outputs()],
        js=READ_VISIT,
        **quick,
    )
    panels.compare.click(None, js=SCROLL_TO_LANES, **quick)
    connect_clip(by_key, controls, panels, quick)


def connect_files(
    page: gr.Blocks,
    backend: Backend,
    samples: Sequence[Sample],
    controls: Controls,
    panel: TakeAway,
    keepsakes: Keepsakes,
) -> None:
    """Tie the buttons of what can be taken away to a finished comparison, and links to controls."""
    by_key = {sample.key: sample for sample in samples}
    choices = Choices(
        samples=tuple(by_key),
        engines=[status.key for status in backend.statuses()],
        models=list(backend.models()),
        languages=list(LANGUAGES.values()),
        beams=BEAMS,
        repeats=REPEATS,
    )
    connect_take_away(
        page, panel, keepsakes, vars(controls), choices, lambda key: show_sample(by_key.get(key))
    )


def connect_clip(
    by_key: Mapping[str, Sample], controls: Controls, panels: Panels, quick: dict[str, Any]
) -> None:
    """Show the chosen sample; a clip of the visitor's own unchooses it."""
    sample, audio = controls.sample, controls.audio

    def choose(key: str, model: str) -> list[Any]:
        return [show_sample(by_key.get(key)), advise(model) if key == OWN_CLIP else gr.skip()]

    sample.input(choose, [sample, controls.model], [audio, panels.summary], **quick)
    audio.change(None, audio, None, js=NOTE_CLIP, **quick)
    for event in (audio.clear, audio.upload, audio.start_recording):
        event(lambda: OWN_CLIP, None, sample, **quick)


def show_sample(sample: Sample | None) -> str | None:
    """The clip to show for a choice; None makes room for the visitor's own."""
    return str(sample.path) if sample else None
