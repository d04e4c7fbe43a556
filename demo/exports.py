"""Export: the report, the result as JSON, figures, transcripts, and a link to the settings.

Files are made when their button is pressed and saved by the browser: none is written on the server.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from demo.comparison import Backend
from demo.panels import PANELS, charts
from demo.panels.chips import list_changes
from demo.panels.templating import join_parts, render_template
from demo.record import as_json, describe, describe_lane
from demo.request import ComparisonRequest
from demo.rules import RULES
from demo.snapshot import Comparison, Lane
from demo.visits import Saved, SavedResults
from demo.wiring import QUICK, Component, build_note
from engines.base import StageSeconds
from engines.options import OPTIONS
from engines.transcript_files import (
    FORMULA,
    UNBROKEN,
    LineBreaks,
    read_line_breaks,
    write_segments,
)

NOTHING = "There is nothing to export yet: press Compare, and wait for the last engine."
LINKED = "The link is in the address bar, and copied where the browser allows it."
OWN_CLIP_STAYS = " Your own clip and a checkpoint’s path stay here: a link can’t carry them."
HINT = """<p class="hint">Files hold the result that the page shows, and are made when you ask for
them. To save a chart as a picture, press PNG beside its title.</p>"""

COMPARISON_FILES = {
    "zip": ("Everything (ZIP)", "application/zip"),
    "html": ("Report (HTML)", "text/html"),
    "json": ("Result (JSON)", "application/json"),
    "csv": ("Figures (CSV)", "text/csv"),
}
"""Label and media type of files of the whole comparison, by their ending."""

TRANSCRIPT_FILES = {
    "txt": ("Text (TXT)", "text/plain"),
    "srt": ("Subtitles (SRT)", "application/x-subrip"),
    "vtt": ("Subtitles (VTT)", "text/vtt"),
    "tsv": ("Table (TSV)", "text/tab-separated-values"),
}
"""The same for files of one engine's transcript."""

BREAK_FIELDS = {
    "max_line_width": "Characters in a line of subtitles (empty: one line a segment)",
    "max_line_count": "Lines in a cue (empty: as many as a segment has)",
}
"""How subtitles are broken: label by name."""

STAGES = [*(each.name for each in fields(StageSeconds)), "total"]

ASSETS = Path(__file__).resolve().parents[1] / "assets"
STYLES = tuple(ASSETS / f"{name}.css" for name in ("style", "charts", "transcripts"))


def build_exports(
    backend: Backend, saved: SavedResults, visit: gr.Textbox, controls: Mapping[str, Component]
) -> None:
    """Build the buttons; one that is pressed before there is a result says so."""
    engines = {each.key: each.label for each in backend.statuses() if each.available}
    labels = [(label, key) for key, label in engines.items()]

    def add(label: str, name: str) -> gr.Button:
        return gr.Button(label, elem_id=name, size="sm", min_width=120)

    def add_all(files: Mapping[str, tuple[str, str]]) -> dict[str, gr.Button]:
        return {kind: add(label, f"save-{kind}") for kind, (label, _) in files.items()}

    with gr.Column(elem_id="export"):
        with gr.Row():
            buttons = add_all(COMPARISON_FILES)
            link = add("Link to settings", "link")
        with gr.Row(equal_height=False):
            engine = gr.Dropdown(
                labels,
                value=next(iter(engines), None),
                label="Words of",
                elem_id="export-engine",
                min_width=160,
            )
            buttons |= add_all(TRANSCRIPT_FILES)
            copy = add("Copy transcript", "copy-words")
        with gr.Row(equal_height=False):
            breaks = [
                gr.Textbox(label=label, elem_id=name, min_width=160, max_length=3)
                for name, label in BREAK_FIELDS.items()
            ]
        note = build_note("export-note")
        gr.HTML(HINT, apply_default_css=False)
    file = gr.Textbox(visible=False)

    def connect(button: gr.Button, kind: str, take: str) -> None:
        """Make a file when the button is pressed; `take`: JavaScript that saves or copies it."""

        def make(visit_name: str, key: str, *texts: Any) -> tuple[str, str]:
            try:
                lines = read_line_breaks(*texts)
            except ValueError as error:
                return "", escape(str(error))
            return make_file(saved, kind, visit_name, key, engines.get(key, key), lines)

        name_visit = "(visit, ...rest) => [nameVisit(), ...rest]"  # of `assets/page.js`, as `take`
        inputs = [visit, engine, *breaks]
        pressed = button.click(make, inputs, [file, note], js=name_visit, **QUICK)
        pressed.then(None, [file, note], note, js=take, **QUICK)

    for kind, button in buttons.items():
        connect(button, kind, "(file, note) => saveFile(file, note)")
    connect(copy, "txt", "(file, note) => copyWords(file, note)")
    connect_link(backend, link, note, controls)


def connect_link(
    backend: Backend, link: gr.Button, note: gr.HTML, controls: Mapping[str, Component]
) -> None:
    """Write the settings into the browser's address when the button is pressed."""
    query = gr.Textbox(visible=False)
    names = [name for name in RULES if name in controls]

    def write_link(*values: Any) -> tuple[str, str]:
        choices, settings = backend.choices(), dict(zip(names, values, strict=True))
        settings["engines"] = tuple(settings["engines"])
        for name, row in OPTIONS.items():
            value = settings.pop(name)
            with suppress(ValueError):  # a run would say why
                settings[name] = row.read(name, value)
        request = ComparisonRequest(**settings)
        complete = choices.find_sample(request.sample) and request.model in choices.models
        message = LINKED if complete else LINKED + OWN_CLIP_STAYS
        return request.to_query(choices), message

    pressed = link.click(write_link, [controls[name] for name in names], [query, note], **QUICK)
    known = json.dumps([rule.link for rule in RULES.values() if rule.link])
    pressed.then(None, query, None, js=f"(query) => {{ showLink(query, {known}); }}", **QUICK)


def make_file(
    saved: SavedResults,
    kind: str,
    visit: str,
    key: str = "",
    label: str = "",
    lines: LineBreaks = UNBROKEN,
) -> tuple[str, str]:
    """Make a file of the visit's last comparison: JSON for the browser, "" where there is none, and
    HTML that says why.

    `kind`: a key of `COMPARISON_FILES` or `TRANSCRIPT_FILES`. `key` and `label`: the engine's for a
    transcript. `lines`: how subtitles are broken.
    """
    last = saved.find(visit, "comparison")
    if last is None or not last.finished:
        return "", NOTHING
    comparison: Comparison = last.snapshot
    _, media_type = (COMPARISON_FILES | TRANSCRIPT_FILES)[kind]
    name = f"{name_files(comparison)}.{kind}"
    if kind in TRANSCRIPT_FILES:
        lanes = [lane for lane in comparison.done if lane.key == key]
        if not lanes:
            return "", escape(f"{label} wrote nothing in this comparison.")
        content: str | bytes = write_transcript(comparison, lanes[0], kind, lines)
        name = f"{name_files(comparison)}.{key}.{kind}"
    else:
        content = write_comparison(last, kind, lines)
    file = {"name": name, "type": media_type}
    if isinstance(content, bytes):
        file["base64"] = base64.b64encode(content).decode("ascii")
    else:
        file["text"] = content
    return json.dumps(file), ""


def name_files(comparison: Comparison) -> str:
    """Return a name for a comparison's files in plain letters: the clip's, the track's where there
    are several, and the run's id."""
    plain = re.sub(r"[^a-z0-9]+", "-", comparison.clip_name.lower()).strip("-")[:40].strip("-")
    source = comparison.source
    track = f"-track-{source.track}" if len(source.tracks) > 1 else ""
    return f"{plain or 'clip'}{track}-{comparison.run}"


def write_transcript(
    comparison: Comparison, lane: Lane, kind: str, lines: LineBreaks = UNBROKEN
) -> str:
    """Write an engine's transcript, with the times of the clip's file; `kind`: of the file."""
    end = comparison.source.file_time(comparison.audio_seconds, ends=True)
    return write_segments(lane.segments, kind, end, lines)


def write_comparison(
    saved: Saved[Comparison], kind: str, lines: LineBreaks = UNBROKEN
) -> str | bytes:
    """Write a comparison as a file of `COMPARISON_FILES`."""
    comparison = saved.snapshot
    writers: dict[str, Callable[[], str | bytes]] = {
        "html": lambda: render_report(comparison, saved.drawn),
        "json": lambda: as_json(describe(comparison)),
        "csv": lambda: write_figures(comparison),
        "zip": lambda: write_zip(saved, lines),
    }
    return writers[kind]()


def write_zip(saved: Saved[Comparison], lines: LineBreaks = UNBROKEN) -> bytes:
    """Write everything as one ZIP archive, in a folder of the comparison's name."""
    comparison = saved.snapshot
    folder, file = name_files(comparison), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, kind in (("report", "html"), ("result", "json"), ("figures", "csv")):
            archive.writestr(f"{folder}/{name}.{kind}", write_comparison(saved, kind))
        for lane in comparison.done:
            engine = " ".join(re.findall(r"[\w()-]+", lane.label)) or lane.key
            for kind in TRANSCRIPT_FILES:
                words = write_transcript(comparison, lane, kind, lines)
                archive.writestr(f"{folder}/transcripts/{engine}.{kind}", words)
    return file.getvalue()


def render_report(
    comparison: Comparison, drawn: Mapping[str, str | Sequence[Any]] | None = None
) -> str:
    """Render a comparison as one HTML file that opens from disk.

    It has the page's panels and style sheet; the template sets the colours and fonts that the page
    has from Gradio. Its content security policy forbids it to fetch anything, and to run anything
    but the charts' scripts. `drawn`: panels by key as the page drew them, for those that need
    features which are no longer kept.
    """
    drawn, sections = drawn or {}, []
    for panel in PANELS:
        if panel.document is None and panel.key in drawn:
            html = join_parts(drawn[panel.key])
        else:
            html = join_parts((panel.document or panel.render)(comparison))
        sections.append((panel.key, panel.title, html))
    # Scripts only where there is a chart; the policy allows them by their digest.
    script = read_scripts() if any('class="plot"' in html for _, _, html in sections) else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render_template(
        "report.html",
        script=script,
        digest=digest,
        record=describe(comparison),
        models=comparison.settings.models,
        changes=list_changes(comparison.settings),
        style="\n".join(path.read_text(encoding="utf-8") for path in STYLES),
        sections=sections,
    )


@cache
def read_scripts() -> str:
    """Return what draws the charts: Plotly's script and the page's own."""
    paths = (charts.SCRIPT, ASSETS / "charts.js")
    return "\n;\n".join(path.read_text(encoding="utf-8") for path in paths)


def write_figures(comparison: Comparison) -> str:
    """Write the figures as CSV for a spreadsheet: one row for each engine and repeat."""
    rows = list(list_figures(comparison))
    file = io.StringIO()
    file.write("\N{BYTE ORDER MARK}")  # without it Excel takes the text for no UTF-8
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({name: format_cell(value) for name, value in row.items()})
    return file.getvalue()


def list_figures(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield the figures of each engine's runs by name; a failed engine has a row without any."""
    settings = comparison.settings
    for lane in comparison.lanes:
        record = describe_lane(lane, comparison)
        baseline, reference = record.against_baseline, record.against_reference
        for number, (how, seconds) in enumerate(list_runs(lane, comparison), 1):
            times = seconds.as_dict() if seconds else {}
            total = times.get("total")
            yield {
                "clip": comparison.clip_name,
                "track": comparison.source.track,
                "audio_seconds": comparison.audio_seconds,
                "model": settings.model_for(lane.key),
                "language": record.language or settings.language,
                "beam_size": settings.beam_size,
                "other_options": "; ".join(": ".join(pair) for pair in list_changes(settings)),
                "engine": lane.label,
                "device": lane.device,
                "type": lane.dtype,
                "state": lane.state,
                "reason": lane.reason,
                "repeat": number,
                "run": how,
                **{f"{stage}_seconds": times.get(stage) for stage in STAGES},
                "times_real_time": lane.transcript.audio_seconds / total
                if lane.transcript and total
                else None,
                "prepare_seconds": record.prepare_seconds,
                "peak_memory_bytes": record.peak_memory_bytes,
                "words": len(record.text.split()) if record.text else None,
                "word_error_rate_against_baseline": baseline and baseline.word_error_rate,
                "word_error_rate_against_reference": reference and reference.word_error_rate,
                "run_id": comparison.run,
            }


def list_runs(lane: Lane, comparison: Comparison) -> list[tuple[str, StageSeconds | None]]:
    """List a lane's runs: whether it ran alone or beside others, and its seconds."""
    schedule = comparison.settings.schedule
    raced = [("beside others", lane.race)] if lane.race and schedule == "both" else []
    how = "beside others" if schedule == "parallel" and len(comparison.lanes) > 1 else "alone"
    return [*raced, *((how, repeat.seconds) for repeat in lane.repeats)] or [("", None)]


def format_cell(value: Any) -> Any:
    """Return a cell's value, escaped where a spreadsheet would take it for a formula."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value
