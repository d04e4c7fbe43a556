"""Export: the report, the result as JSON, subtitles, and a link to the settings.

Files are made when their button is pressed and saved by the browser: none is written on the server.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from demo.comparison import Backend
from demo.jobs import SavedResults
from demo.panels import PANELS
from demo.panels.templating import join_parts, render_template
from demo.record import as_json, describe
from demo.request import RULES, ComparisonRequest
from demo.snapshot import Comparison
from demo.wiring import QUICK, Component
from engines.base import Segment

NOTHING = "There is nothing to export yet: press Compare, and wait for the last engine."
LINKED = "The link is in the address bar, and copied where the browser allows it."
OWN_CLIP_STAYS = " Your own clip and a checkpoint’s path stay here: a link can’t carry them."

MEDIA_TYPES = {
    "html": "text/html",
    "json": "application/json",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
}
"""By a file's ending."""

ASSETS = Path(__file__).resolve().parents[1] / "assets"
STYLES = (ASSETS / "style.css", ASSETS / "charts.css")


def build_exports(
    backend: Backend, saved: SavedResults, visit: gr.Textbox, controls: Mapping[str, Component]
) -> None:
    """Build the buttons, which are there from the start and say so where there is nothing yet."""

    def add(label: str, name: str) -> gr.Button:
        return gr.Button(label, elem_id=name, size="sm", min_width=150)

    with gr.Column(elem_classes=["sheet"], elem_id="export"):
        gr.HTML("<h2>Export</h2>", apply_default_css=False)
        with gr.Row():
            files = [(add("Report (HTML)", "save-report"), partial(hand_over, saved, "html"))]
            files.append((add("Result (JSON)", "save-record"), partial(hand_over, saved, "json")))
            link = add("Link to settings", "link")
        with gr.Row():
            for engine in (each for each in backend.statuses() if each.available):
                for ending in ("srt", "vtt"):
                    button = add(f"{engine.label} (.{ending})", f"save-{ending}-{engine.key}")
                    make = partial(hand_over, saved, ending, key=engine.key, label=engine.label)
                    files.append((button, make))
        note = gr.HTML(render_note(""), elem_id="export-note", apply_default_css=False)
    parcel, query = gr.Textbox(visible=False), gr.Textbox(visible=False)
    for button, make in files:  # what `js` names are functions of `assets/page.js`
        pressed = button.click(make, visit, [parcel, note], js="() => [nameVisit()]", **QUICK)
        pressed.then(None, parcel, None, js="(parcel) => { saveFile(parcel); }", **QUICK)
    names = [name for name in RULES if name in controls]

    def write_link(*values: Any) -> tuple[str, str]:
        choices, held = backend.choices(), dict(zip(names, values, strict=True))
        held["engines"] = tuple(held["engines"])
        request = ComparisonRequest(**held)
        complete = choices.find_sample(request.sample) and request.model in choices.models
        told = LINKED if complete else LINKED + OWN_CLIP_STAYS
        return request.to_query(choices), render_note(told)

    asked = link.click(write_link, [controls[name] for name in names], [query, note], **QUICK)
    asked.then(None, query, None, js="(query) => { showLink(query); }", **QUICK)


def hand_over(
    saved: SavedResults, ending: str, visit: str, key: str = "", label: str = ""
) -> tuple[str, str]:
    """Return a file of the visit's last comparison for `saveFile`, and what to say of it.

    `key` and `label`: the engine whose subtitles it holds.
    """
    found = saved.find(visit, "comparison")
    if found is None or not found.drawn:
        return "", render_note(NOTHING)
    comparison: Comparison = found.snapshot
    if ending == "html":
        text = render_report(comparison, found.drawn)
    elif ending == "json":
        text = as_json(describe(comparison))
    else:
        lanes = [lane for lane in comparison.done if lane.key == key]
        if not lanes:
            return "", render_note(f"{label} wrote nothing in this comparison.")
        text, ending = write_subtitles(lanes[0].segments, ending), f"{key}.{ending}"
    plain = re.sub(r"[^a-z0-9]+", "-", comparison.clip_name.lower()).strip("-")[:40]
    name = f"{plain or 'clip'}-{comparison.run}.{ending}"
    media_type = MEDIA_TYPES[ending.rpartition(".")[2]]
    parcel = json.dumps({"name": name, "type": media_type, "text": text})
    return parcel, render_note(f"Saved as {name}.")


def render_note(sentence: str) -> str:
    """Render what became of the last button pressed, spoken by screen readers."""
    return f'<p class="note" role="status" style="min-height:1.5em">{escape(sentence)}</p>'


def render_report(
    comparison: Comparison, drawn: Mapping[str, str | Sequence[Any]] | None = None
) -> str:
    """Render a comparison as one HTML file that opens from disk.

    It holds the page's panels with the page's own style sheet; what the page takes from Gradio, its
    colours and fonts, the template sets for light and dark. A policy in its head forbids it to
    fetch or to run anything. `drawn`: panels by key as the page drew them, for those that need
    features no longer kept.
    """
    drawn, sections = drawn or {}, []
    for panel in PANELS:
        if panel.document is None and panel.key in drawn:
            html = join_parts(drawn[panel.key])
        else:
            html = join_parts((panel.document or panel.render)(comparison))
        sections.append((panel.key, panel.title, html))
    return render_template(
        "report.html",
        record=describe(comparison),
        style="\n".join(path.read_text(encoding="utf-8") for path in STYLES),
        sections=sections,
    )


def write_subtitles(segments: Sequence[Segment], ending: str) -> str:
    """Write one cue a segment as SubRip (`srt`) or WebVTT (`vtt`), by Whisper's own writers.

    They escape nothing but `-->`: text is made safe for players first. SRT has no escapes, and
    players take `<` with a letter for a tag, so an invisible character comes between. Times are
    rounded to milliseconds, and a cue lasts at least one, as WebVTT demands.
    """
    from whisper.utils import WriteSRT, WriteVTT

    cues = []
    for segment in segments:
        text = " ".join(segment.text.replace("\0", " ").split())  # an empty line would end the cue
        safe = text.replace("<", "<\N{WORD JOINER}") if ending == "srt" else escape(text, False)
        start = max(0, round(segment.start * 1000))
        end = max(start + 1, round(segment.end * 1000))
        if text:
            cues.append({"start": start / 1000, "end": end / 1000, "text": safe})
    file, writer = io.StringIO(), WriteSRT if ending == "srt" else WriteVTT
    writer("").write_result({"segments": cues}, file)
    return file.getvalue()
