"""The page: its layout, and what its controls start. Panels are drawn in `demo.panels`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from demo.analysis import build_faults, build_layers
from demo.api import add_endpoints
from demo.comparison import Backend
from demo.exports import build_exports
from demo.jobs import JobQueue, Task
from demo.panels import PANELS, sound
from demo.panels.headline import Headline, render_headline
from demo.request import ENGLISH_ONLY, OWN_CLIP, RULES, Choices, ComparisonRequest
from demo.runs import build_runs, connect_runs
from demo.snapshot import Comparison, new_comparison
from demo.visits import SavedResults
from demo.wiring import (
    QUICK,
    Component,
    Drawn,
    JobPanel,
    connect_leaving,
    connect_panel,
    connect_return,
)
from engines.registry import offers_dtypes

HEADER = """<header class="masthead"><h1>One clip, every engine</h1><p>The same speech through
OpenAI’s Whisper on PyTorch and on Modular MAX, side by side: the words, the times, the
differences.</p><p class="keys"><kbd>Space</kbd> runs, <kbd>Esc</kbd> stops</p></header>"""

FOOTER = """<footer class="credits"><p>Runs OpenAI’s Whisper on PyTorch and on Modular MAX. MAX is
used under the Modular MAX Community License; this project is not endorsed by Modular.</p>
<p>A model is downloaded on its first use. Models whose names end in .en know only English.</p>
<p><a href="?stage=1">Stage mode</a>: large type for a talk; space runs, escape stops.</p>
</footer>"""

SCROLL_TO_LANES = """() => {
  if (innerWidth < 720) document.querySelector("#summary").scrollIntoView({behavior: "smooth"});
}"""
"""On a phone the lanes are below the settings; the buttons stay in view by themselves."""


def build(
    backend: Backend, queue: JobQueue | None = None, saved: SavedResults | None = None
) -> gr.Blocks:
    """Build the page over a backend. `queue` and `saved`: given where the page is served."""
    queue, saved = queue or JobQueue(), saved or SavedResults()
    choices = backend.choices()
    first = ComparisonRequest.default(choices)
    gr.set_static_paths([backend.samples])  # shown where they are, not copied to the uploads
    with gr.Blocks(
        title="One clip, every engine", fill_width=True, analytics_enabled=False
    ) as page:
        gr.HTML(HEADER, apply_default_css=False)
        with gr.Row(elem_classes="controls", equal_height=False):
            with gr.Column(scale=6, min_width=320, elem_classes="clip"):
                controls = build_clip(choices, first)
                with gr.Row(elem_classes="actions"):
                    start = gr.Button("Compare", variant="primary", elem_id="compare", scale=3)
                    stop = gr.Button(
                        "Stop", elem_id="stop", interactive=False, scale=1, min_width=96
                    )
            with gr.Column(scale=5, min_width=320, elem_classes="settings"):
                controls |= build_settings(choices, first)
        outputs = build_panels(choices, first)
        visit = gr.Textbox(visible=False)
        build_exports(backend, saved, visit, controls)
        with gr.Tabs(), gr.Tab("Runs", render_children=True) as tab:
            runs = build_runs()
        panels = [connect_comparison(backend, controls, outputs, start, stop)]
        if backend.analyses is not None:
            panels.append(build_layers(backend, backend.analyses, controls))
            panels.append(build_faults(backend, backend.analyses, controls))
        gr.HTML(FOOTER, apply_default_css=False)
        add_endpoints(backend, queue)
        ran = [connect_panel(panel, queue, saved, visit) for panel in panels]
        connect_leaving(page, saved, queue)
        start.click(None, js=SCROLL_TO_LANES, **QUICK)
        loaded = connect_load(page, backend, panels, saved, visit, controls)
        returned = connect_return(loaded, panels, saved)
        connect_runs(tab, runs, panels[0], saved, visit, (ran[0], returned))
    return page


def build_clip(choices: Choices, first: ComparisonRequest) -> dict[str, Component]:
    """Build the choice of a sample, and the player; the visitor's own clip unchooses a sample."""
    titles = [(title, key) for key, title in choices.values("sample").items()]
    sample = gr.Radio(
        [*titles, ("Your own", OWN_CLIP)],
        value=first.sample or OWN_CLIP,
        label=RULES["sample"].label,
        elem_id="sample",
        elem_classes="pills",
    )
    audio = gr.Audio(
        value=find_path(choices, first.sample),
        type="filepath",
        sources=["upload", "microphone"],
        show_label=False,
        label="Clip",
        elem_id="audio",
        editable=False,
        buttons=[],
        waveform_options={"waveform_color": "#8b93a1", "waveform_progress_color": "#0072B2"},
    )
    sample.input(partial(find_path, choices), sample, audio, **QUICK)
    audio.change(None, audio, None, js="(file) => { noteClip(file); }", **QUICK)
    for event in (audio.clear, audio.upload, audio.start_recording):
        event(lambda: OWN_CLIP, None, sample, **QUICK)
    return {"sample": sample, "audio": audio}


def find_path(choices: Choices, key: str) -> str | None:
    """Return the file of a sample; None makes room for the visitor's own."""
    sample = choices.find_sample(key)
    return str(sample.path) if sample else None


def build_settings(choices: Choices, first: ComparisonRequest) -> dict[str, Component]:
    """Build a control for each option; a new one gets its by its rule alone."""
    controls: dict[str, Component] = {
        "engines": gr.CheckboxGroup(
            [
                (each.label if each.available else f"{each.label} (not here)", each.key)
                for each in choices.engines
            ],
            value=list(first.engines),
            label=RULES["engines"].label,
            elem_id="engines",
            elem_classes="pills",
        )
    }
    with gr.Row():
        controls["model"] = gr.Dropdown(
            [
                (f"{name} (English only)" if name.endswith(ENGLISH_ONLY) else name, name)
                for name in choices.models
            ],
            value=first.model,
            label="Model, or a checkpoint’s path" if choices.own_checkpoints else "Model",
            allow_custom_value=choices.own_checkpoints,
            elem_id="model",
        )
        controls["language"] = gr.Dropdown(
            [(name, code) for code, name in choices.values("language").items()],
            value=first.language,
            label=RULES["language"].label,
            elem_id="language",
        )
    for row in (("schedule", "beam_size"), ("repeats", "word_timestamps")):
        with gr.Row():
            controls |= {name: build_option(name, choices, first) for name in row}
    rest = [name for name in RULES if name not in {"sample", *controls}]
    return controls | {name: build_option(name, choices, first) for name in rest}


def build_option(name: str, choices: Choices, first: ComparisonRequest) -> Component:
    """Build a control for a flag, or for one of a few values."""
    label, value = RULES[name].label, getattr(first, name)
    if longest := RULES[name].longest:
        return gr.Textbox(value, label=label, elem_id=name, lines=2, max_length=longest)
    if isinstance(value, bool):
        return gr.Checkbox(value, label=label, elem_id=name, min_width=120)
    values = [(text, each) for each, text in choices.values(name).items()]
    wide = sum(len(text) for text, _ in values) > 12
    return gr.Radio(
        values,
        value=value,
        label=label,
        elem_id=name,
        elem_classes="pills",
        visible=name != "gpu_dtype" or any(map(offers_dtypes, choices.available)),
        scale=3 if wide else 1,
        min_width=300 if wide else 120,
    )


def build_panels(choices: Choices, first: ComparisonRequest) -> dict[str, Component]:
    """Build a component for each panel, by its key."""
    clip = first.find_clip(choices)
    blank = replace(
        new_comparison(first, choices.engines), reference=clip.reference if clip else None
    )
    outputs: dict[str, Component] = {}
    for panel in PANELS:
        value = panel.render(blank)
        named: dict[str, Any] = {"elem_id": panel.key, "apply_default_css": False}
        if not isinstance(value, str):
            # Nested parts, of which only the changed ones travel.
            named["html_template"] = "${value.flat(9).join('')}"
        column: Any = gr.Column(elem_classes=["sheet"]) if panel.title else nullcontext()
        with column:
            if panel.title:
                gr.HTML(f"<h2>{panel.title}</h2>", apply_default_css=False)
            outputs[panel.key] = gr.HTML(value, **named)
    return outputs


def connect_comparison(
    backend: Backend,
    controls: dict[str, Component],
    outputs: dict[str, Component],
    start: gr.Button,
    stop: gr.Button,
) -> JobPanel:
    """Define what Compare starts, and how it is drawn."""

    def make_task(held: dict[str, Any]) -> Task:
        request = ComparisonRequest.from_controls(held, backend.choices())
        return backend.start_comparison(request)

    def draw(comparison: Comparison, whole: bool) -> Iterator[Drawn]:
        # The live panels, then the others at the start and the end: between them no engine's time
        # pays for charts, and at the end the words don't wait for them. The sound comes last.
        if comparison.finished and not whole:
            yield {"sound": sound.render(comparison)}
            return
        yield {panel.key: panel.render(comparison) for panel in PANELS if panel.live}
        if whole:
            yield {panel.key: panel.render(comparison) for panel in PANELS if not panel.live}

    def render_status(sentence: str, note: str, alert: bool) -> str:
        return render_headline(Headline(sentence, note, alert))

    return JobPanel(
        "comparison", start, stop, controls, outputs, "summary", make_task, draw, render_status
    )


def connect_load(
    page: gr.Blocks,
    backend: Backend,
    panels: list[JobPanel],
    saved: SavedResults,
    visit: gr.Textbox,
    controls: dict[str, Component],
) -> Any:
    """Restore what the tab's visit left when its page was reloaded; else follow the address.

    Return that step. Only what differs from the page's defaults is sent: a choice may be made
    meanwhile. Jobs that go on are not drawn here: `connect_return` follows them.
    """
    reloaded, query = gr.Checkbox(visible=False), gr.Textbox(visible=False)
    outputs = {visit, *controls.values()}
    for panel in panels:
        outputs |= {*panel.inputs.values(), *panel.all_outputs()}

    def load(name: str, was_reloaded: bool, asked: str) -> dict[Component, Any]:
        found: dict[Component, Any] = {visit: name}
        jobs = [saved.find_job(name, panel.name) for panel in panels]
        if not was_reloaded or not (jobs[0] or saved.find(name, panels[0].name)):
            choices = backend.choices()
            usual = ComparisonRequest.default(choices).to_controls()
            held = ComparisonRequest.from_query(asked, choices).to_controls()
            changed = {each: value for each, value in held.items() if value != usual[each]}
            if "sample" in changed:
                changed["audio"] = find_path(choices, changed["sample"])
            found |= {controls[each]: value for each, value in changed.items()}
        if was_reloaded:
            for panel, job in zip(panels, jobs, strict=True):
                last = saved.find(name, panel.name)
                found |= panel.hold(job.controls) if job else panel.restore(last)
        return found

    read_tab = "() => [nameVisit(), wasReloaded(), location.search]"
    return page.load(load, [visit, reloaded, query], list(outputs), js=read_tab, **QUICK)
