"""The page: its layout, and which control starts what. Panels are drawn in `demo.panels`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from demo.analysis_panels import lay_out_faults, lay_out_layers
from demo.api import add_endpoints
from demo.comparison import Backend
from demo.exports import connect_exports, lay_out_exports
from demo.jobs import JobQueue, SavedResults, Task
from demo.panels import PANELS
from demo.panels.headline import Headline, render_headline
from demo.request import OWN_CLIP, RULES, Choices, ComparisonRequest
from demo.snapshot import Comparison, lay_out
from demo.wiring import QUICK, Component, Drawn, JobPanel, connect_leaving, connect_panel, restore
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

JOIN_PARTS = "${value.flat(9).join('')}"
"""A panel made of nested parts: of these only the changed ones travel to the browser."""

NOTE_CLIP = "(file) => { noteClip(file); }"
READ_TAB = "() => [nameVisit(), wasReloaded(), location.search]"
"""Functions of `assets/page.js`."""


def build(
    backend: Backend, queue: JobQueue | None = None, saved: SavedResults | None = None
) -> gr.Blocks:
    """The whole page over a backend. `queue` and `saved`: given where the page is served."""
    queue, saved = queue or JobQueue(), saved or SavedResults()
    choices = backend.choices()
    gr.set_static_paths([backend.samples])  # shown where they are, not copied to the uploads
    with gr.Blocks(
        title="One clip, every engine", fill_width=True, analytics_enabled=False
    ) as page:
        gr.HTML(HEADER, apply_default_css=False)
        controls, start, stop = lay_out_controls(choices)
        outputs = lay_out_panels(choices)
        exports = lay_out_exports(choices)
        panels = [make_comparison_panel(backend, controls, outputs, start, stop)]
        if backend.analyses is not None:
            panels.append(lay_out_layers(backend, backend.analyses, controls))
            panels.append(lay_out_faults(backend, backend.analyses, controls))
        gr.HTML(FOOTER, apply_default_css=False)
        visit = gr.Textbox(visible=False)
        add_endpoints(backend, queue)
        for panel in panels:
            connect_panel(panel, queue, saved, visit)
        connect_leaving(page, panels, queue)
        start.click(None, js=SCROLL_TO_LANES, **QUICK)
        connect_clip(choices, controls)
        connect_exports(exports, backend, saved, visit, controls)
        connect_load(page, backend, panels, saved, visit, controls)
    return page


def lay_out_controls(choices: Choices) -> tuple[dict[str, Component], gr.Button, gr.Button]:
    """The clip and the buttons on the left, the settings on the right; controls by field name, and
    `audio`, the player."""
    first = ComparisonRequest.default(choices)
    with gr.Row(elem_classes="controls", equal_height=False):
        with gr.Column(scale=6, min_width=320, elem_classes="clip"):
            controls = lay_out_clip(choices, first)
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Compare", variant="primary", elem_id="compare", scale=3)
                stop = gr.Button("Stop", elem_id="stop", interactive=False, scale=1, min_width=96)
        with gr.Column(scale=5, min_width=320, elem_classes="settings"):
            controls |= lay_out_settings(choices, first)
    return controls, start, stop


def lay_out_clip(choices: Choices, first: ComparisonRequest) -> dict[str, Component]:
    """A sample, or the visitor's own clip."""
    titles = [(title, key) for key, title in RULES["sample"].values(choices).items()]
    sample = gr.Radio(
        [*titles, ("Your own", OWN_CLIP)],
        value=first.sample or OWN_CLIP,
        label=RULES["sample"].label,
        elem_id="sample",
        elem_classes="pills",
    )
    audio = gr.Audio(
        value=show_sample(choices, first.sample),
        type="filepath",
        sources=["upload", "microphone"],
        show_label=False,
        label="Clip",
        elem_id="audio",
        editable=False,
        buttons=[],
        waveform_options={"waveform_color": "#8b93a1", "waveform_progress_color": "#0072B2"},
    )
    return {"sample": sample, "audio": audio}


def lay_out_settings(choices: Choices, first: ComparisonRequest) -> dict[str, Component]:
    """Everything that a comparison can be told; a new option gets a control by its rule alone."""
    controls: dict[str, Component] = {
        "engines": gr.CheckboxGroup(
            [(name_engine(status), status.key) for status in choices.engines],
            value=list(first.engines),
            label=RULES["engines"].label,
            elem_id="engines",
            elem_classes="pills",
        )
    }
    with gr.Row():
        controls["model"] = gr.Dropdown(
            [(name_model(choices, name), name) for name in choices.models],
            value=first.model,
            label="Model, or a checkpoint’s path" if choices.own_checkpoints else "Model",
            allow_custom_value=choices.own_checkpoints,
            elem_id="model",
        )
        controls["language"] = gr.Dropdown(
            [(name, code) for code, name in RULES["language"].values(choices).items()],
            value=first.language,
            label=RULES["language"].label,
            elem_id="language",
        )
    for row in (("schedule", "beam_size"), ("repeats", "word_timestamps")):
        with gr.Row():
            controls |= {name: lay_out_option(name, choices, first) for name in row}
    rest = [name for name in RULES if name not in {"sample", *controls}]
    return controls | {name: lay_out_option(name, choices, first) for name in rest}


def lay_out_option(name: str, choices: Choices, first: ComparisonRequest) -> Component:
    """A control for a flag, or for one of a few values."""
    rule, value = RULES[name], getattr(first, name)
    if isinstance(value, bool):
        return gr.Checkbox(value, label=rule.label, elem_id=name, min_width=120)
    values = [(label, each) for each, label in rule.values(choices).items()]
    wide = sum(len(label) for label, _ in values) > 12
    return gr.Radio(
        values,
        value=value,
        label=rule.label,
        elem_id=name,
        elem_classes="pills",
        visible=name != "gpu_dtype" or any(map(offers_dtypes, choices.available)),
        scale=3 if wide else 1,
        min_width=300 if wide else 120,
    )


def name_engine(status: Any) -> str:
    """An engine's name in the list of choices."""
    return str(status.label if status.available else f"{status.label} (not here)")


def name_model(choices: Choices, name: str) -> str:
    """A model's name in the list of choices."""
    return name if choices.is_multilingual(name) else f"{name} (English only)"


def lay_out_panels(choices: Choices) -> dict[str, Component]:
    """A component for each panel, by its key."""
    first = ComparisonRequest.default(choices)
    clip = first.find_clip(choices)
    blank = replace(
        lay_out(first.settings, choices.engines), reference=clip.reference if clip else None
    )
    outputs: dict[str, Component] = {}
    for panel in PANELS:
        value = panel.render(blank)
        named: dict[str, Any] = {"elem_id": panel.key, "apply_default_css": False}
        if not isinstance(value, str):
            named["html_template"] = JOIN_PARTS
        if not panel.title:
            outputs[panel.key] = gr.HTML(value, **named)
            continue
        with gr.Column(elem_classes=["sheet"]):
            gr.HTML(f"<h2>{panel.title}</h2>", apply_default_css=False)
            outputs[panel.key] = gr.HTML(value, **named)
    return outputs


def make_comparison_panel(
    backend: Backend,
    controls: dict[str, Component],
    outputs: dict[str, Component],
    start: gr.Button,
    stop: gr.Button,
) -> JobPanel:
    """What Compare starts."""

    def make(held: dict[str, Any]) -> Task:
        request = ComparisonRequest.from_controls(held, backend.choices())
        return backend.start_comparison(request)

    def say(sentence: str, note: str, alert: bool) -> str:
        return render_headline(Headline(sentence, note, alert))

    return JobPanel(
        "comparison", start, stop, controls, outputs, "summary", make, draw_comparison, say
    )


def draw_comparison(comparison: Comparison, first: bool) -> Iterator[Drawn]:
    """The live panels, then the others at the start and the end.

    Between them no engine's time pays for charts; at the end the words don't wait for them.
    """
    yield {panel.key: panel.render(comparison) for panel in PANELS if panel.live}
    if first or comparison.finished:
        yield {panel.key: panel.render(comparison) for panel in PANELS if not panel.live}


def connect_clip(choices: Choices, controls: dict[str, Component]) -> None:
    """Show the chosen sample; a clip of the visitor's own unchooses it."""
    sample, audio = controls["sample"], controls["audio"]
    assert isinstance(sample, gr.Radio) and isinstance(audio, gr.Audio)
    sample.input(lambda key: show_sample(choices, key), sample, audio, **QUICK)
    audio.change(None, audio, None, js=NOTE_CLIP, **QUICK)
    for event in (audio.clear, audio.upload, audio.start_recording):
        event(lambda: OWN_CLIP, None, sample, **QUICK)


def show_sample(choices: Choices, key: str) -> str | None:
    """The clip to show for a choice; None makes room for the visitor's own."""
    sample = choices.find_sample(key)
    return str(sample.path) if sample else None


def connect_load(
    page: gr.Blocks,
    backend: Backend,
    panels: list[JobPanel],
    saved: SavedResults,
    visit: gr.Textbox,
    controls: dict[str, Component],
) -> None:
    """Restore what the tab's visit left when its page was reloaded; else follow the address."""
    reloaded, query = gr.Checkbox(visible=False), gr.Textbox(visible=False)
    outputs = {visit, *controls.values()}
    for panel in panels:
        outputs |= {*panel.inputs.values(), *panel.all_outputs()}

    def load(name: str, was_reloaded: bool, asked: str) -> dict[Component, Any]:
        found: dict[Component, Any] = {visit: name}
        comparison = saved.find(name, panels[0].name) if was_reloaded else None
        if comparison is None and asked:
            choices = backend.choices()
            request = ComparisonRequest.from_query(asked, choices)
            held = {**request.to_controls(), "audio": show_sample(choices, request.sample)}
            default = ComparisonRequest.default(choices)
            if request.sample == default.sample:
                del held["audio"]  # as it is
            found |= {controls[each]: value for each, value in held.items()}
        if was_reloaded:
            for panel in panels:
                found |= restore(panel, saved.find(name, panel.name))
        return found

    page.load(load, [visit, reloaded, query], list(outputs), js=READ_TAB, **QUICK)
