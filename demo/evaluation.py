"""Many clips: the tab's layout, and what it draws, opens and saves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from demo.clip import show_clip
from demo.clip_set import NO_CLIPS, ClipSet, read_set
from demo.comparison import Backend
from demo.evaluation_task import EvaluationSnapshot, EvaluationTask, make_task
from demo.limits import format_left
from demo.panels import evaluation
from demo.request import CLIP_GONE, OWN_CLIP
from demo.runs import BUSY
from demo.visits import SavedResults
from demo.wiring import (
    QUICK,
    Component,
    Drawn,
    JobPanel,
    build_job,
    build_note,
    render_message,
    render_status,
)
from engines.base import EngineError
from engines.metrics import name_count

NAME = "evaluation"

INTRO = """<h2>Many clips</h2><p class="intro">Drop clips, and with them the words that are really
spoken where you have them: <code>talk.txt</code> beside <code>talk.wav</code>, or a manifest (CSV,
TSV or JSON lines, with the columns <code>audio</code> and <code>text</code>). Every engine chosen
above runs over every clip, alone, with the model and the options chosen there. A file of JSON lines
from an earlier run, here or by <code>evaluate</code> at a terminal, goes on where it ended.</p>"""
NOTHING_TO_SAVE = "There is nothing to save yet: run the engines over some clips first."


def build_evaluation(
    backend: Backend, saved: SavedResults, visit: gr.Textbox, controls: Mapping[str, Component]
) -> JobPanel[EvaluationSnapshot]:
    """Build the tab, and define its jobs."""
    with gr.Column(elem_classes=["sheet", "lab"], elem_id="many-clips"):
        gr.HTML(INTRO, apply_default_css=False)
        boxes = build_files()
        start, stop, outputs = build_job(
            "Run all clips", "evaluate", NO_CLIPS, True, "clip-totals", ""
        )
        with gr.Row(elem_id="clip-tools"):
            gr.Checkbox(False, label="Only differences", elem_id="only-differences", min_width=160)
            save = gr.Button(
                "Save as JSON lines", elem_id="save-lines", size="sm", scale=0, min_width=180
            )
        note = build_note("clips-note")
        outputs["table"] = gr.HTML(
            [],
            html_template="${value.flat(9).join('')}",
            elem_id="clip-table",
            elem_classes="scroll",
            apply_default_css=False,
            js_on_load="connectClips(element, trigger)",  # of `assets/page.js`
        )
        outputs["chart"] = gr.HTML(
            "",
            elem_id="clip-chart",
            apply_default_css=False,
            js_on_load="connectClips(element, trigger)",
        )
    connect_files(boxes, outputs["status"], backend.samples.resolve())

    def make(values: dict[str, Any]) -> EvaluationTask:
        last = saved.find(values["visit"], NAME)
        return make_task(backend, values, last.snapshot if last else None)

    connect_save(saved, visit, save, note)
    connect_open(backend, saved, visit, controls, [outputs["table"], outputs["chart"]], note)
    inputs = {"files": boxes[0], "visit": visit, **controls}
    return JobPanel(NAME, start, stop, inputs, outputs, "status", make, draw, render_message)


def build_files() -> tuple[gr.File, gr.UploadButton, gr.Button]:
    """Build the box for files, and the buttons that add a visitor's and the samples."""
    files = gr.File(
        label="Clips and words",
        file_count="multiple",
        elem_id="clip-files",
        height=140,
    )
    with gr.Row():
        more = gr.UploadButton(
            "Add files", file_count="multiple", elem_id="add-files", size="sm", scale=0
        )
        samples = gr.Button(
            "Take the samples", elem_id="take-samples", size="sm", scale=0, min_width=160
        )
    return files, more, samples


def connect_files(
    boxes: tuple[gr.File, gr.UploadButton, gr.Button], status: Component, folder: Path
) -> None:
    """Add files to those that are there, and say what they are. `folder`: that of the samples."""
    files, more, samples = boxes
    taken = [str(path) for path in sorted(folder.glob("*")) if path.suffix in (".flac", ".txt")]
    shown, show = [files, status], partial(describe_files, folder=folder)
    for event in (files.upload, files.delete, files.clear):
        event(lambda names: show(names)[1], files, status, **QUICK)
    samples.click(lambda names: show([*(names or ()), *taken]), files, shown, **QUICK)
    more.upload(lambda names, new: show([*(names or ()), *new]), [files, more], shown, **QUICK)


def describe_files(names: list[str] | None, folder: Path) -> tuple[list[str] | None, str]:
    """Return a visitor's files, and a sentence on what they are."""
    try:
        files = read_set(names, folder) if names else ClipSet()
    except EngineError as error:
        return names, render_status(str(error), alert=True)
    return names, render_status(files.describe())


def draw(snapshot: EvaluationSnapshot, whole: bool) -> Iterator[Drawn]:
    """Draw the status, the totals and the table; the chart once no engine runs."""
    results = snapshot.results
    yield {
        "status": render_state(snapshot),
        "result": evaluation.render_totals(results) if any(results.lines) else "",
        "table": evaluation.render_table(results),
    }
    if snapshot.finished:
        yield {"chart": evaluation.render_scatter(results)}
    elif whole:
        yield {"chart": ""}


def render_state(snapshot: EvaluationSnapshot) -> str:
    """Render the line above the table."""
    results = snapshot.results
    done, count = sum(line is not None for line in results.lines), len(results.lines)
    clock = ", ".join(filter(None, [f"{snapshot.seconds:.0f} s", format_left(snapshot.left)]))
    match snapshot.state:
        case "running":
            return render_status(
                f"{done} of {count} runs done: {snapshot.stage} …", snapshot.share, clock=clock
            )
        case "stopped":
            return render_status(f"Stopped after {done} of {count} runs: start it to go on.")
        case "failed":
            return render_status(snapshot.reason, alert=True)
    failed = sum(bool(line and line["error"]) for line in results.lines)
    clips, engines = len(results.clips), len(results.lanes)
    sentence = f"{name_count(clips, 'clip')} through {name_count(engines, 'engine')}"
    bad = f"; {name_count(failed, 'run')} failed" if failed else ""
    return render_status(f"{sentence}{bad}.", clock=f"{snapshot.seconds:.0f} s", alert=bool(failed))


def connect_save(saved: SavedResults, visit: gr.Textbox, button: gr.Button, note: gr.HTML) -> None:
    """Save the lines that there are as a file, when the button is pressed."""
    parcel = gr.Textbox(visible=False)

    def make(name: str) -> tuple[str, str]:
        last = saved.find(name, NAME)
        if last is None:
            return "", NOTHING_TO_SAVE
        text = last.snapshot.results.write()
        file = {"name": "evaluation.jsonl", "type": "application/jsonl", "text": text}
        return json.dumps(file), ""

    pressed = button.click(make, visit, [parcel, note], js="() => [nameVisit()]", **QUICK)
    take = "(parcel, note) => saveFile(parcel, note)"  # of `assets/page.js`
    pressed.then(None, [parcel, note], note, js=take, **QUICK)


def connect_open(
    backend: Backend,
    saved: SavedResults,
    visit: gr.Textbox,
    controls: Mapping[str, Component],
    shown: list[Component],
    note: gr.HTML,
) -> None:
    """Compare the engines on a clip that is clicked, with the settings of the evaluation."""

    def act(name: str, event: gr.EventData) -> dict[Component, Any]:
        last = saved.find(name, NAME)
        number = int(event.clip)
        if last is None or not 0 <= number < len(last.snapshot.results.clips):
            return {note: CLIP_GONE}
        if saved.find_job(name, "comparison"):
            return {note: BUSY}
        clip = last.snapshot.results.clips[number]
        if not clip.path.is_file():
            return {note: CLIP_GONE}
        player, track, channel, _ = show_clip(backend, str(clip.path), 0, 0)
        values = {each: last.controls[each] for each in controls if each != "schedule"}
        values |= {"sample": OWN_CLIP, "audio": str(clip.path), "reference": clip.reference or ""}
        values |= {"track": track, "channel": channel}
        values |= {"audio": player} if isinstance(player, str) else {}
        return {note: "", **{controls[each]: value for each, value in values.items()}}

    outputs = [note, *controls.values()]
    for element in shown:
        opened = element.click(act, visit, outputs, js="() => [nameVisit()]", **QUICK)  # type: ignore[attr-defined]
        opened.then(None, note, None, js="(note) => { openClip(note); }", **QUICK)
