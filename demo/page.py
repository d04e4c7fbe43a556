"""The page: its layout, and what its controls start. Panels are drawn in `demo.panels`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from demo.analysis import build_faults, build_layers, build_why
from demo.analysis_api import add_why
from demo.api import add_endpoints
from demo.clip import build_clip, find_path
from demo.comparison import Backend, ComparisonTask
from demo.evaluation import build_evaluation
from demo.exports import build_exports
from demo.jobs import JobQueue
from demo.limits import format_estimate
from demo.options_form import build_whisper_options
from demo.panels import PANELS, Panel, sound
from demo.panels.headline import Headline, render_headline
from demo.panels.templating import render_template
from demo.request import ENGLISH_ONLY, OWN_CLIP, ComparisonRequest
from demo.rules import RULES, Choices, RequestError
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
from engines.metrics import name_count
from engines.models import MODEL_MEGABYTES, has_model
from engines.options import OPTIONS

HEADER = """<header class="masthead"><h1>One clip, every engine</h1>
<p class="keys"><kbd>Space</kbd> runs, <kbd>Esc</kbd> stops</p></header>"""

FOOTER = """<footer class="credits"><p>Runs OpenAI’s Whisper on PyTorch and on Modular MAX, used
under the Modular MAX Community License; not endorsed by Modular.</p>
<p><a href="?stage=1">Stage mode</a> for a talk</p></footer>"""

TOOLS = """<p class="tools"><button type="button" id="show-clips">Many clips</button>
<span aria-hidden="true">·</span> <button type="button" id="show-tabs">Inspect layers or try faults
without a comparison</button></p>"""

FIRST_CONTROLS = ("sample", "audio", "track", "channel", "engines", "model", "language")
"""The controls in sight at first; every other option is under Advanced."""


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
        visit = gr.Textbox(visible=False)
        gr.HTML(HEADER, apply_default_css=False)
        outputs = build_panels([panel for panel in PANELS if panel.key == "summary"], choices)
        setup = build_setup(backend, choices, first)
        controls = setup.controls
        mark = build_mark(saved, visit, controls)
        above = [panel for panel in PANELS if not panel.tab and panel.key not in outputs]
        outputs |= {"changed": mark} | build_panels(above, choices)
        connect_expected(page, backend, setup)
        analyses: list[JobPanel[Any]] = []
        with gr.Tabs(elem_id="tabs"):
            for tab in dict.fromkeys(panel.tab for panel in PANELS if panel.tab):
                with gr.Tab(tab, render_children=True):
                    outputs |= build_panels([each for each in PANELS if each.tab == tab], choices)
            if backend.analyses is not None:
                with gr.Tab("Why they differ", render_children=True) as tab:
                    analyses.append(build_why(backend, backend.analyses, saved, visit, tab))
                with gr.Tab("Inspect layers", render_children=True):
                    analyses.append(build_layers(backend, backend.analyses, controls))
                with gr.Tab("Faults", render_children=True):
                    analyses.append(build_faults(backend, backend.analyses, controls))
            with gr.Tab("Many clips", render_children=True):
                analyses.append(build_evaluation(backend, saved, visit, controls))
            with gr.Tab("Export", render_children=True):
                build_exports(backend, saved, visit, controls)
            with gr.Tab("Runs", render_children=True) as tab:
                runs = build_runs()
        panels = [connect_comparison(backend, setup, outputs), *analyses]
        gr.HTML(FOOTER, apply_default_css=False)
        add_endpoints(backend, queue)
        if backend.analyses is not None:
            add_why(backend, queue)
        ran = [connect_panel(panel, queue, saved, visit) for panel in panels]
        connect_leaving(page, saved, queue)
        loaded = connect_load(page, backend, panels, saved, visit, controls)
        returned = connect_return(loaded, panels, queue, saved)
        connect_runs(tab, runs, panels[0], saved, visit, (ran[0], returned))
    return page


@dataclass(frozen=True)
class Setup:
    """What is chosen before a run: the buttons that start and stop a comparison, the place of its
    expected time, and the controls by their fields' names."""

    start: gr.Button
    stop: gr.Button
    expected: gr.HTML
    controls: dict[str, Any]


def build_setup(backend: Backend, choices: Choices, first: ComparisonRequest) -> Setup:
    """Build what is chosen before a run; it folds to a line of chips afterwards."""
    with gr.Row(elem_classes="setup", equal_height=False):
        with gr.Column(scale=6, min_width=320, elem_classes="clip"):
            controls = build_clip(backend, choices, first)
            with gr.Row(elem_classes="model-row"):
                controls |= build_model(choices, first)
        with gr.Column(scale=5, min_width=320, elem_classes="ask"):
            controls["engines"] = build_engines(choices, first)
            with gr.Row(elem_classes="actions"):
                start = gr.Button(
                    name_start(first.engines), variant="primary", elem_id="compare", scale=3
                )
            expected = gr.HTML(render_expected(None), elem_id="expected", apply_default_css=False)
        with gr.Column(scale=11, elem_classes="more"):
            gr.HTML(TOOLS, elem_classes="tools-place", apply_default_css=False)
            with gr.Accordion("Advanced", open=False, elem_classes="advanced"):
                rest = [name for name in RULES if name not in (*FIRST_CONTROLS, *OPTIONS)]
                for row in (rest[at : at + 4] for at in range(0, len(rest), 4)):
                    with gr.Row():
                        controls |= {name: build_option(name, choices, first) for name in row}
                controls |= build_whisper_options(first, controls)
    lanes = [controls["engines"], controls["other_model"]]
    gr.on([each.change for each in lanes], name_start, lanes, start, **QUICK)
    with gr.Row(elem_classes="result-actions"):
        gr.Button("Edit settings", elem_id="edit", size="sm", scale=0, min_width=130)
        gr.Button("Run again", elem_id="again", size="sm", scale=0, min_width=130)
        alone = gr.Button("Time each alone", elem_id="alone", size="sm", scale=0, min_width=130)
        stop = gr.Button(
            "Stop", elem_id="stop", size="sm", interactive=False, scale=0, min_width=130
        )
    words = gr.Button("With word timestamps", elem_id="with-words")  # what else presses it is seen
    for button, name, value in (
        (alone, "schedule", "one at a time"),
        (words, "word_timestamps", True),
    ):
        changed = button.click(lambda value=value: value, None, controls[name], **QUICK)
        changed.then(None, None, None, js="() => document.querySelector('#again').click()", **QUICK)
    return Setup(start, stop, expected, controls)


def connect_expected(page: gr.Blocks, backend: Backend, setup: Setup) -> None:
    """Say how long the comparison may take, whenever something is chosen that changes it."""
    controls = setup.controls

    def estimate(*arguments: Any) -> str:
        try:
            choices = backend.choices()
            values = dict(zip(controls, arguments, strict=True))
            request = ComparisonRequest.from_controls(values, choices)
            clip = request.find_clip(choices)
        except RequestError:  # said when it is asked for
            return render_expected(None)
        if clip is None or not clip.seconds:
            return render_expected(None)
        cost = backend.describe_cost(request, clip.seconds)
        return render_expected(backend.estimate(request, clip.seconds), cost)

    changed = ("sample", "engines", "model", "other_model", "schedule", "repeats", "beam_size")
    events = [page.load, *(controls[name].change for name in changed)]
    gr.on(events, estimate, list(controls.values()), setup.expected, **QUICK)


def render_expected(seconds: float | None, cost: str = "") -> str:
    """Render how long a comparison may take, None where past runs don't tell, and what it costs."""
    expected = None if seconds is None else format_estimate(seconds)
    return render_template("expected.html", expected=expected, cost=cost)


def name_start(engines: list[str] | tuple[str, ...], other_model: str | None = "") -> str:
    """Return what the button that starts says."""
    if other_model and engines:
        return f"Compare {name_count(len(engines), 'engine')} with two models"
    return f"Compare {name_count(len(engines), 'engine')}" if len(engines) > 1 else "Transcribe"


def build_engines(choices: Choices, first: ComparisonRequest) -> gr.CheckboxGroup:
    """Build a row for each engine; one that this machine lacks can't be ticked and says why."""
    here = [status for status in choices.engines if status.available]
    engines = gr.CheckboxGroup(
        [(f"{each.label}\n{each.about}".strip(), each.key) for each in here],
        value=list(first.engines),
        label=RULES["engines"].label,
        elem_id="engines",
        elem_classes="rows",
    )
    absent = [status for status in choices.engines if not status.available]
    if absent:
        gr.HTML(render_template("absent.html", absent=absent), apply_default_css=False)
    return engines


def build_model(choices: Choices, first: ComparisonRequest) -> dict[str, Any]:
    """Build the choice of the model, those that are here first, and of the language."""
    here = {name: has_model(name) for name in choices.models}
    model = gr.Dropdown(
        [
            (describe_model(name, here[name]), name)
            for name in sorted(choices.models, key=lambda name: not here[name])
        ],
        value=first.model,
        label="Model, or a checkpoint’s path" if choices.own_checkpoints else "Model",
        allow_custom_value=choices.own_checkpoints,
        elem_id="model",
        min_width=160,
    )
    language = gr.Dropdown(
        [(name, code) for code, name in choices.values("language").items()],
        value=first.language,
        label=RULES["language"].label,
        elem_id="language",
        min_width=160,
    )
    return {"model": model, "language": language}


def describe_model(name: str, here: bool) -> str:
    """Return a model's name with what a visitor must know before choosing it."""
    parts = [name]
    if name.endswith(ENGLISH_ONLY):
        parts.append("English only")
    if not here:
        size = f"{MODEL_MEGABYTES[name]:,} MB " if name in MODEL_MEGABYTES else ""
        parts.append(f"{size}to download")
    return " · ".join(parts)


def build_option(name: str, choices: Choices, first: ComparisonRequest) -> Component:
    """Build a control for a flag, or for one of a few values."""
    rule, label, value = RULES[name], RULES[name].label, getattr(first, name)
    if rule.kind == "text":
        return gr.Textbox(value, label=label, elem_id=name, lines=2, max_length=rule.longest)
    if rule.kind == "flag":
        return gr.Checkbox(value, label=label, elem_id=name)
    values = [(text, each) for each, text in choices.values(name).items()]
    if rule.menu:
        return gr.Dropdown(
            values, value=value, label=label, elem_id=name, allow_custom_value=True, min_width=160
        )
    wide = sum(len(text) for text, _ in values) > 12
    return gr.Radio(
        values,
        value=value,
        label=label,
        elem_id=name,
        elem_classes="pills",
        visible=rule.is_shown(choices),
        scale=3 if wide else 1,
        min_width=300 if wide else 120,
    )


def build_mark(saved: SavedResults, visit: gr.Textbox, controls: dict[str, Any]) -> gr.HTML:
    """Build the mark that settings changed since the result that is shown was made."""
    mark = gr.HTML("", elem_id="changed", apply_default_css=False)

    def mark_changes(name: str, *arguments: Any) -> str:
        last = saved.find(name, "comparison")
        values = dict(zip(controls, arguments, strict=True))
        same = last is None or all(
            value == last.controls[each]
            for each, value in values.items()
            if each != "audio" or values["sample"] == OWN_CLIP
        )
        return render_template("changed.html", changed=not same)

    # Only what a visitor does: a restored page sets controls that match their result.
    for control in controls.values():
        event = getattr(control, "input", None) or control.change
        event(mark_changes, [visit, *controls.values()], mark, js=READ_VISIT, **QUICK)
    return mark


READ_VISIT = "(_, ...values) => [nameVisit(), ...values]"


def build_panels(panels: list[Panel], choices: Choices) -> dict[str, Any]:
    """Build a component for each panel, by its key."""
    first = ComparisonRequest.default(choices)
    clip = first.find_clip(choices)
    blank = replace(
        new_comparison(first, choices.engines), reference=clip.reference if clip else None
    )
    outputs: dict[str, Any] = {}
    for panel in panels:
        value = panel.render(blank)
        traits: dict[str, Any] = {
            "elem_id": panel.key,
            "elem_classes": "panel",
            "apply_default_css": False,
        }
        if not isinstance(value, str):
            # Nested parts, of which only the changed ones travel.
            traits["html_template"] = "${value.flat(9).join('')}"
        if panel.title:
            title = f"<h2>{panel.title}</h2>"
            gr.HTML(title, elem_classes="panel-title", apply_default_css=False)
        outputs[panel.key] = gr.HTML(value, **traits)
    return outputs


def connect_comparison(
    backend: Backend, setup: Setup, outputs: dict[str, Any]
) -> JobPanel[Comparison]:
    """Define what Compare starts, and how it is drawn."""

    def make_task(values: dict[str, Any]) -> ComparisonTask:
        request = ComparisonRequest.from_controls(values, backend.choices())
        return backend.start_comparison(request)

    def draw(comparison: Comparison, whole: bool) -> Iterator[Drawn]:
        # The live panels, then the others at the start and the end: between them no engine's time
        # pays for charts, and at the end the words don't wait for them. The sound comes last.
        if comparison.finished and not whole:
            yield {"sound": sound.render(comparison)}
            return
        live = {panel.key: panel.render(comparison) for panel in PANELS if panel.live}
        yield {**live, "changed": render_template("changed.html", changed=False)}
        if whole:
            yield {panel.key: panel.render(comparison) for panel in PANELS if not panel.live}

    def render_status(sentence: str, note: str, alert: bool) -> str:
        return render_headline(Headline(sentence, note, alert))

    buttons = setup.start, setup.stop
    return JobPanel(
        "comparison", *buttons, setup.controls, outputs, "summary", make_task, draw, render_status
    )


def connect_load(
    page: gr.Blocks,
    backend: Backend,
    panels: list[JobPanel[Any]],
    saved: SavedResults,
    visit: gr.Textbox,
    controls: dict[str, Any],
) -> Any:
    """Restore what the tab's visit left when its page was reloaded; else follow the address.

    Return that step. Only what differs from the page's defaults is sent: a choice may be made
    meanwhile. Jobs that go on are not drawn here: `connect_return` follows them.
    """
    reloaded, address = gr.Checkbox(visible=False), gr.Textbox(visible=False)
    outputs = {visit, *controls.values()}
    for panel in panels:
        outputs |= {*panel.inputs.values(), *panel.all_outputs()}

    def load(name: str, was_reloaded: bool, query: str) -> dict[Component, Any]:
        restored: dict[Component, Any] = {visit: name}
        jobs = [saved.find_job(name, panel.name) for panel in panels]
        if not was_reloaded or not (jobs[0] or saved.find(name, panels[0].name)):
            choices = backend.choices()
            usual = ComparisonRequest.default(choices).to_controls()
            linked = ComparisonRequest.from_query(query, choices).to_controls()
            changed = {each: value for each, value in linked.items() if value != usual[each]}
            if "sample" in changed:
                changed["audio"] = find_path(choices, changed["sample"])
            restored |= {controls[each]: value for each, value in changed.items()}
        if was_reloaded:
            for panel, job in reversed(list(zip(panels, jobs, strict=True))):
                # The comparison comes last: others hold its controls as they were for them.
                last = saved.find(name, panel.name)
                restored |= panel.hold(job.controls) if job else panel.restore(last)
        return restored

    read_tab = "() => [nameVisit(), wasReloaded(), location.search]"
    loaded = page.load(load, [visit, reloaded, address], list(outputs), js=read_tab, **QUICK)
    loaded.then(None, None, None, js="() => { noteLoaded(); }", **QUICK)
    return loaded
