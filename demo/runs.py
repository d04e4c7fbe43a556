"""The runs of a visit: a list to open them again, pin them, and compare two of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import gradio as gr

from demo.panels import speed_accuracy
from demo.panels.accuracy import list_changes
from demo.panels.chips import name_language
from demo.panels.headline import format_ratio, is_clearly_faster, score_lane
from demo.panels.templating import render_template
from demo.rules import RULES
from demo.snapshot import Comparison, Lane
from demo.visits import Saved, SavedResults
from demo.wiring import QUICK, Component, JobPanel, build_note
from engines.metrics import Edit, compare, name_count
from engines.options import OPTIONS

CHOOSE_TWO = "Tick two runs to compare them."
BUSY = "A comparison goes on: stop it, or wait for its end, before you open another."
GONE = "This run is no longer kept: newer ones needed its place."

TOLD = ("model", "language", "beam_size", "schedule", "repeats", "word_timestamps", "gpu_dtype")
"""Settings in which two runs are compared, in order: after clip and engines, before Whisper's
options."""


@dataclass(frozen=True)
class RunsTab:
    """The components of the tab."""

    listing: gr.HTML
    compare: gr.Button
    note: gr.HTML
    comparison: gr.HTML
    chart: gr.HTML


def build_runs() -> RunsTab:
    """Build the components; `connect_runs` connects them."""
    with gr.Column(elem_id="runs"):
        listing = gr.HTML(
            render_runs([], ""),
            elem_id="run-list",
            apply_default_css=False,
            js_on_load="connectRuns(element, trigger, watch)",  # of `assets/page.js`
        )
        with gr.Row():
            button = gr.Button(
                "Compare the two ticked", elem_id="compare-runs", size="sm", scale=0, min_width=220
            )
            note = build_note("runs-note")
        comparison = gr.HTML("", elem_id="two-runs", apply_default_css=False)
        chart = gr.HTML("", elem_id="speed-accuracy-runs", apply_default_css=False)
    return RunsTab(listing, button, note, comparison, chart)


def connect_runs(
    tab: gr.Tab,
    runs: RunsTab,
    panel: JobPanel[Comparison],
    saved: SavedResults,
    visit: gr.Textbox,
    ends: Sequence[Any],
) -> None:
    """List the comparisons of `panel` in the tab. `ends`: steps after which one may have ended."""
    outputs = {runs.listing, runs.note, *panel.inputs.values(), *panel.all_outputs()}
    name_visit = "() => [nameVisit()]"  # of `assets/page.js`

    def list_runs(name: str) -> str:
        shown = saved.find(name, panel.name)
        return render_runs(saved.list_runs(name, panel.name), shown.run if shown else "")

    def refresh(name: str) -> tuple[str, str]:
        kept = saved.list_runs(name, panel.name)
        chart = speed_accuracy.render([each.snapshot for each in kept]) if kept else ""
        return list_runs(name), chart

    def answer_click(name: str, event: gr.EventData) -> dict[Component, Any]:
        """Pin a run of the list, or put it back on the page."""
        shown: dict[Component, Any] = {runs.note: ""}
        if event.action == "open" and saved.find_job(name, panel.name):
            shown[runs.note] = BUSY
        elif event.action == "pin":
            saved.pin(name, panel.name, event.run)
        elif (result := saved.show(name, panel.name, event.run)) is not None:
            shown |= panel.restore(result)
        else:
            shown[runs.note] = GONE
        return {**shown, runs.listing: list_runs(name)}

    def compare_two(name: str, ticked: list[str]) -> tuple[str, str]:
        kept = saved.list_runs(name, panel.name)
        chosen = [each.snapshot for each in reversed(kept) if each.run in ticked]
        return ("", render_two(*chosen)) if len(chosen) == 2 else (CHOOSE_TWO, "")

    for event in (tab.select, *(end.then for end in ends)):
        event(refresh, visit, [runs.listing, runs.chart], js=name_visit, **QUICK)
    runs.listing.click(answer_click, visit, list(outputs), js=name_visit, **QUICK)
    ticked = gr.JSON(visible=False)
    read_ticked = "() => [nameVisit(), tickedRuns()]"
    drawn = [runs.note, runs.comparison]
    runs.compare.click(compare_two, [visit, ticked], drawn, js=read_ticked, **QUICK)


# The list.


def render_runs(results: Sequence[Saved[Comparison]], shown: str) -> str:
    """Render a row for each run; `shown`: the id of the one that the page shows."""
    rows = [
        {
            "saved": saved,
            "clip": saved.snapshot.clip_name or "a clip",
            "settings": f"{saved.snapshot.settings.models}, {name_language(saved.snapshot)}",
            "engines": ", ".join(lane.label for lane in saved.snapshot.lanes),
            "outcome": describe_outcome(saved.snapshot),
        }
        for saved in results
    ]
    return render_template("runs.html", rows=rows, shown=shown)


def describe_outcome(comparison: Comparison) -> str:
    """Say in a few words what came of a run: the ratio of times, and errors or other words."""
    done, parts = comparison.done, []
    failed = [lane.label for lane in comparison.lanes if lane not in done]
    if failed:
        parts.append(f"{', '.join(failed)} did not finish")
    if len(done) > 1 and not comparison.shared:
        first, *others = sorted(done, key=attrgetter("total_seconds"))
        other = next((lane for lane in others if lane is comparison.baseline), others[0])
        if is_clearly_faster(first, other):
            ratio = format_ratio(other.total_seconds / first.total_seconds)
            parts.append(f"{first.label} {ratio} as fast as {other.label}")
        else:
            parts.append("times not clearly apart")
    elif len(done) > 1:
        parts.append("timed beside each other")
    if comparison.reference:
        rates = [rate for lane in done if (rate := read_error_rate(lane, comparison)) is not None]
        if rates:
            span = dict.fromkeys(f"{rate:.1%}" for rate in (min(rates), max(rates)))
            parts.append(f"{' to '.join(span)} of words wrong")
    elif len(done) > 1:
        apart = max(compare(done[0].text, lane.text).errors for lane in done[1:])
        parts.append(f"{name_count(apart)} apart" if apart else "the same words")
    return "; ".join(parts)


def read_error_rate(lane: Lane, comparison: Comparison) -> float | None:
    """Return the normalised word error rate of a lane; None without a reference."""
    if lane.transcript is None or not comparison.reference:
        return None
    return score_lane(lane, comparison.reference).normalised_word_error_rate


# Two runs.


@dataclass(frozen=True)
class Pair:
    """An engine's figures in two runs, earlier and later, as text.

    `words` and `edits`: how many words differ and which, where both runs are of one clip.
    """

    label: str
    seconds: list[str]
    change: str
    ratios: list[str]
    errors: list[str]
    words: str
    edits: list[Edit]


def render_two(earlier: Comparison, later: Comparison) -> str:
    """Render what differs between two runs: settings, times, errors and words."""
    return render_template(
        "two_runs.html",
        settings=list(list_differences(earlier, later)),
        same_clip=is_same_clip(earlier, later),
        pairs=list(pair_engines(earlier, later)),
    )


def is_same_clip(earlier: Comparison, later: Comparison) -> bool:
    """Return whether both runs heard the same audio."""
    lengths = earlier.audio_seconds, later.audio_seconds
    return earlier.clip_name == later.clip_name and lengths[0] == lengths[1]


def list_differences(earlier: Comparison, later: Comparison) -> Iterator[tuple[str, ...]]:
    """Yield name and both values of what was not the same."""
    both = (earlier, later)
    rows = {
        "Clip": [f"{x.clip_name}, {x.audio_seconds:.1f} s" for x in both],
        "Engines": [", ".join(lane.label for lane in x.lanes) for x in both],
        **{
            RULES[name].label: [RULES[name].describe(getattr(x.settings, name)) for x in both]
            for name in (*TOLD, *OPTIONS)
        },
        "Words really spoken": [x.reference or "not known" for x in both],
    }
    yield from ((name, *pair) for name, pair in rows.items() if pair[0] != pair[1])


def pair_engines(earlier: Comparison, later: Comparison) -> Iterator[Pair]:
    """Yield the engines of either run, in order."""
    lanes = [{lane.key: lane for lane in x.lanes} for x in (earlier, later)]
    for key in dict.fromkeys([*lanes[0], *lanes[1]]):
        first, second = (by_key.get(key) for by_key in lanes)
        label = next(lane.label for lane in (first, second) if lane)
        ends = ((first, earlier), (second, later))
        times = [read_alone(lane, x) for lane, x in ends]
        change, words = "–", None
        written = [lane.transcript.text for lane in (first, second) if lane and lane.transcript]
        if is_same_clip(earlier, later):
            if times[0] and times[1]:
                change = f"{times[0] / times[1]:.2f}×"
            if len(written) == 2:
                words = compare(*written)
        yield Pair(
            label,
            [f"{seconds:.2f} s" if seconds else "–" for seconds in times],
            change,
            [format_speed_up(lane, x) for lane, x in ends],
            [format_errors(lane, x) for lane, x in ends],
            f"{words.errors} of {words.words}" if words else "–",
            list_changes(words),
        )


def read_alone(lane: Lane | None, comparison: Comparison) -> float | None:
    """Return the seconds of a lane that had its device for itself."""
    if lane is None or lane.transcript is None or comparison.shared:
        return None
    return lane.total_seconds


def format_speed_up(lane: Lane | None, comparison: Comparison) -> str:
    """Return how many times as fast as the baseline of its run an engine was."""
    ours, theirs = (read_alone(x, comparison) for x in (lane, comparison.baseline))
    return f"{theirs / ours:.2f}×" if ours and theirs else "–"


def format_errors(lane: Lane | None, comparison: Comparison) -> str:
    """Return the word error rate of an engine, where the words really spoken are known."""
    rate = read_error_rate(lane, comparison) if lane else None
    return "–" if rate is None else f"{rate:.1%}"
