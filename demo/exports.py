"""Export: the report, the result as JSON, subtitles, and a link to the settings.

Files are made when their button is pressed and saved by the browser: none is written on the server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from demo import record, subtitles
from demo.comparison import Backend
from demo.jobs import Saved, SavedResults
from demo.panels.report import render_report
from demo.request import RULES, Choices, ComparisonRequest
from demo.snapshot import Comparison
from demo.wiring import QUICK, Component

NOTHING = "There is nothing to export yet: press Compare, and wait for the last engine."
LINKED = "The link is in the address bar, and copied where the browser allows it."
OWN_CLIP_STAYS = " Your own clip and a checkpoint’s path stay here: a link can’t carry them."

NAME_VISIT = "() => [nameVisit()]"
SAVE = "(parcel) => { saveFile(parcel); }"
SHOW_LINK = "(query) => { showLink(query); }"
"""Functions of `assets/page.js`."""


@dataclass(frozen=True)
class File:
    """A file for the browser to save."""

    ending: str
    type: str
    text: str


def make_report(saved: Saved) -> File:
    """The report as HTML."""
    return File("html", "text/html", render_report(saved.snapshot, saved.drawn))


def make_record(saved: Saved) -> File:
    """The result as JSON."""
    return File("json", "application/json", record.as_json(record.describe(saved.snapshot)))


SUBTITLES = {
    "srt": ("application/x-subrip", subtitles.write_srt),
    "vtt": ("text/vtt", subtitles.write_vtt),
}
"""By a file's ending: its media type, and what writes it."""


def make_subtitles(key: str, label: str, ending: str, saved: Saved) -> File | str:
    """One engine's subtitles, or in a sentence why there are none."""
    lane = next((lane for lane in saved.snapshot.done if lane.key == key), None)
    if lane is None:
        return f"{label} wrote nothing in this comparison."
    media_type, write = SUBTITLES[ending]
    return File(f"{key}.{ending}", media_type, write(lane.segments))


def name_file(comparison: Comparison, ending: str) -> str:
    """The clip's name in plain letters, the run's id and an ending."""
    name = re.sub(r"[^a-z0-9]+", "-", comparison.clip_name.lower()).strip("-")[:40]
    return f"{name or 'clip'}-{comparison.run}.{ending}"


Make = Callable[[Saved], File | str]


@dataclass(frozen=True)
class Exports:
    """The panel's components: the buttons with what each makes, the link's, and the note."""

    files: list[tuple[gr.Button, Make]]
    link: gr.Button
    note: gr.HTML


def lay_out_exports(choices: Choices) -> Exports:
    """The buttons; they are there from the start, and say so where there is nothing yet."""

    def add(label: str, name: str) -> gr.Button:
        return gr.Button(label, elem_id=name, size="sm", min_width=150)

    with gr.Column(elem_classes=["sheet"], elem_id="export"):
        gr.HTML("<h2>Export</h2>", apply_default_css=False)
        files: list[tuple[gr.Button, Make]] = []
        with gr.Row():
            files.append((add("Report (HTML)", "save-report"), make_report))
            files.append((add("Result (JSON)", "save-record"), make_record))
            link = add("Link to settings", "link")
        with gr.Row():
            for status in choices.engines:
                for ending in SUBTITLES if status.available else ():
                    button = add(f"{status.label} (.{ending})", f"save-{ending}-{status.key}")
                    make = partial(make_subtitles, status.key, status.label, ending)
                    files.append((button, make))
        note = gr.HTML(render_note(""), elem_id="export-note", apply_default_css=False)
    return Exports(files, link, note)


def connect_exports(
    exports: Exports,
    backend: Backend,
    saved: SavedResults,
    visit: gr.Textbox,
    controls: dict[str, Component],
) -> None:
    """Tie each button to its file, and the link to the page's controls."""
    parcel, query = gr.Textbox(visible=False), gr.Textbox(visible=False)
    for button, make in exports.files:
        pressed = button.click(
            partial(hand_over, saved, make), visit, [parcel, exports.note], js=NAME_VISIT, **QUICK
        )
        pressed.then(None, parcel, None, js=SAVE, **QUICK)
    names = [name for name in RULES if name in controls]

    def write_link(*values: Any) -> tuple[str, str]:
        choices, held = backend.choices(), dict(zip(names, values, strict=True))
        held["engines"] = tuple(held["engines"])
        request = ComparisonRequest(**held)
        text = request.to_query(choices)
        complete = choices.find_sample(request.sample) and request.model in choices.models
        return text, render_note(LINKED if complete else LINKED + OWN_CLIP_STAYS)

    asked = exports.link.click(
        write_link, [controls[name] for name in names], [query, exports.note], **QUICK
    )
    asked.then(None, query, None, js=SHOW_LINK, **QUICK)


def hand_over(saved: SavedResults, make: Make, visit: str) -> tuple[str, str]:
    """A file of the visit's last comparison for `saveFile`, and what to say of it.

    `make` gives the file, or a sentence on why there is none.
    """
    found = saved.find(visit, "comparison")
    if found is None or not found.drawn:
        return "", render_note(NOTHING)
    file = make(found)
    if isinstance(file, str):
        return "", render_note(file)
    name = name_file(found.snapshot, file.ending)
    return json.dumps({**vars(file), "name": name}), render_note(f"Saved as {name}.")


def render_note(sentence: str) -> str:
    """What became of the last button pressed, spoken by screen readers."""
    return f'<p class="note" role="status" style="min-height:1.5em">{escape(sentence)}</p>'
