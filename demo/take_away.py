"""What a visitor can take home: the report, the record, subtitles, and a link to the settings.

Files are made when their button is pressed and saved by the browser: none is written on the server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from demo import link, record, subtitles
from demo.keepsakes import NAME_VISIT, Keepsakes, Kept
from demo.panels.report import render_report
from demo.snapshot import Status

NOTHING = "There is nothing to take away yet: press Compare, and wait for the last lane."
OWN_CLIP = " Your own clip and a checkpoint’s path stay here: a link can’t carry them."

READ_LINK = "() => [nameVisit(), wasReloaded(), location.search]"
"""The first two are functions of `assets/page.js`."""

SAVE = """(parcel) => {
  if (!parcel) return;
  const {name, type, text} = JSON.parse(parcel);
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(new Blob([text], {type}));
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
}"""

SHOW_LINK = """(query) => {
  const address = new URL(location.href);
  const ours = new URLSearchParams(query);
  for (const [key, value] of ours) address.searchParams.set(key, value);
  for (const key of ["sample", "model"]) if (!ours.has(key)) address.searchParams.delete(key);
  history.replaceState(history.state, "", address);
  if (navigator.clipboard) navigator.clipboard.writeText(address.href).catch(() => {});
}"""
"""The address bar is where a link belongs; the clipboard is a courtesy that a browser may refuse.
`stage` and other words in the address stay."""


@dataclass(frozen=True)
class File:
    """A file for the browser to save."""

    name: str
    type: str
    text: str

    def as_parcel(self) -> str:
        """What `SAVE` takes."""
        return json.dumps(vars(self), ensure_ascii=False)


@dataclass(frozen=True)
class TakeAway:
    """The panel's components; `subtitles` by engine, SRT then VTT, and the engines' `labels`."""

    report: gr.Button
    record: gr.Button
    link: gr.Button
    subtitles: dict[str, tuple[gr.Button, gr.Button]]
    note: gr.HTML
    labels: dict[str, str]


def lay_out_take_away(statuses: Sequence[Status]) -> TakeAway:
    """The buttons; they are there from the start, and say so where there is nothing yet."""
    with gr.Column(elem_classes=["sheet"], elem_id="take-away"):
        gr.HTML("<h2>Take it away</h2>", apply_default_css=False)
        with gr.Row():
            whole = gr.Button("Report (HTML)", elem_id="save-report", size="sm", min_width=150)
            data = gr.Button("Result (JSON)", elem_id="save-record", size="sm", min_width=150)
            address = gr.Button("Link to settings", elem_id="link", size="sm", min_width=150)
        pairs = {}
        with gr.Row():
            for status in statuses:
                if status.available:
                    pairs[status.key] = lay_out_pair(status)
        note = gr.HTML(render_note(""), elem_id="take-away-note", apply_default_css=False)
    labels = {status.key: status.label for status in statuses}
    return TakeAway(whole, data, address, pairs, note, labels)


def lay_out_pair(status: Status) -> tuple[gr.Button, gr.Button]:
    """One engine's subtitles in two formats."""
    first, second = (
        gr.Button(
            f"{status.label} (.{ending})",
            elem_id=f"save-{ending}-{status.key}",
            size="sm",
            min_width=150,
        )
        for ending in ("srt", "vtt")
    )
    return first, second


def connect_take_away(
    page: gr.Blocks,
    panel: TakeAway,
    keepsakes: Keepsakes,
    controls: dict[str, Any],
    choices: link.Choices,
    show_sample: Callable[[str], Any],
) -> None:
    """Tie the buttons to their files, and the page's address to the controls.

    `controls`: the components by the names that `link` uses, and `audio`. `show_sample(key)`: the
    value of `audio` for a sample.
    """
    visit, parcel, query = (gr.Textbox(visible=False) for _ in range(3))
    reloaded = gr.Checkbox(visible=False)
    quick: dict[str, Any] = {
        "queue": False,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    files: list[tuple[gr.Button, Callable[[Kept], File | str]]] = [
        (panel.report, make_report),
        (panel.record, make_record),
    ]
    for key, (srt, vtt) in panel.subtitles.items():
        files += [
            (srt, partial(make_subtitles, key, panel.labels[key], "srt")),
            (vtt, partial(make_subtitles, key, panel.labels[key], "vtt")),
        ]
    for button, make in files:
        pressed = button.click(
            partial(hand_over, keepsakes, make), visit, [parcel, panel.note], js=NAME_VISIT, **quick
        )
        pressed.then(None, parcel, None, js=SAVE, **quick)

    names = [name for name in controls if name != "audio"]

    def write_link(*held: Any) -> list[Any]:
        asked = dict(zip(names, held, strict=True))
        complete = asked["sample"] in choices.samples and asked["model"] in choices.models
        said = "The link is in the address bar, and copied where the browser allows it."
        return [link.write(asked, choices), render_note(said + ("" if complete else OWN_CLIP))]

    asked = panel.link.click(
        write_link, [controls[name] for name in names], [query, panel.note], **quick
    )
    asked.then(None, query, None, js=SHOW_LINK, **quick)

    def read_link(visit: str, reloaded: bool, query: str) -> list[Any]:
        if reloaded and keepsakes.find(visit) is not None:
            return [gr.skip() for _ in controls]  # what was finished stands above any link
        found = link.read(query, choices)
        if "sample" in found:
            found["audio"] = show_sample(found["sample"])
        return [found.get(name, gr.skip()) for name in controls]

    page.load(read_link, [visit, reloaded, query], list(controls.values()), js=READ_LINK, **quick)


def hand_over(
    keepsakes: Keepsakes, make: Callable[[Kept], File | str], visit: str
) -> tuple[str, str]:
    """A file of the visit's last comparison as a parcel, and what to say of it.

    `make` gives the file, or a sentence on why there is none.
    """
    kept = keepsakes.find(visit)
    if kept is None or kept.result is None or not kept.result.done:
        return "", render_note(NOTHING)
    file = make(kept)
    if isinstance(file, str):
        return "", render_note(file)
    return file.as_parcel(), render_note(f"Saved as {file.name}.")


def render_note(sentence: str) -> str:
    """What became of the last button pressed, spoken by screen readers."""
    return f'<p class="note" role="status" style="min-height:1.5em">{escape(sentence)}</p>'


def make_record(kept: Kept) -> File:
    """The result as JSON."""
    assert kept.result is not None
    described = record.describe(kept.result)
    return File(name_file(kept, "json"), "application/json", record.as_json(described))


def make_report(kept: Kept) -> File:
    """The report as HTML."""
    assert kept.result is not None
    text = render_report(kept.result, {"features": list(kept.features)} if kept.features else None)
    return File(name_file(kept, "html"), "text/html", text)


SUBTITLES = {
    "srt": ("application/x-subrip", subtitles.write_srt),
    "vtt": ("text/vtt", subtitles.write_vtt),
}
"""By a file's ending: its media type, and what writes it."""


def make_subtitles(key: str, label: str, ending: str, kept: Kept) -> File | str:
    """One engine's subtitles, or in a sentence why there are none."""
    assert kept.result is not None
    lane = next((lane for lane in kept.result.done if lane.key == key), None)
    if lane is None:
        return f"{label} wrote nothing in this comparison."
    media_type, write = SUBTITLES[ending]
    return File(name_file(kept, f"{key}.{ending}"), media_type, write(lane.segments))


def name_file(kept: Kept, ending: str) -> str:
    """The clip's name in plain letters, the run's id and an ending."""
    assert kept.result is not None
    name = re.sub(r"[^a-z0-9]+", "-", kept.result.clip_name.lower()).strip("-")[:40]
    return f"{name or 'clip'}-{kept.result.run}.{ending}"
