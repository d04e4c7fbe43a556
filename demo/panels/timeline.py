"""When every engine did what: the median runs side by side, and all runs on one clock.

Two clocks, since the first comparison may compile for half a minute what then runs for a tenth of
a second.
"""

from __future__ import annotations

from collections.abc import Sequence

from demo.panels.templating import render as render_template
from demo.panels.timings import LEGEND, NOT_YET, Box, Chart, Track
from demo.snapshot import Comparison, Lane
from engines.base import Span

MOST_BOXES = 400
"""A row of more boxes than this leaves out those too narrow to be seen."""

NARROWEST = 0.0005
"""Share of a row's width: what is narrower can't be seen."""


def render(comparison: Comparison) -> str:
    """Render both clocks."""
    if not comparison.finished or not comparison.done:
        return render_template("nothing.html", sentence=NOT_YET)
    repeats = comparison.settings.repeats
    median = f" (of {repeats} the median)" if repeats > 1 else ""
    charts = [
        make_chart(
            f"Each engine’s run from its own start{median}, window by window.",
            [(lane, align_run(lane)) for lane in comparison.lanes],
        ),
        make_chart(
            "Everything on one clock, from the click: getting ready, then every run.",
            [(lane, list_boxes(list_spans(lane), comparison.start)) for lane in comparison.lanes],
        ),
    ]
    return render_template("tracks.html", charts=charts, legend=LEGEND, bars=False)


def make_chart(title: str, rows: Sequence[tuple[Lane, tuple[Box, ...]]]) -> Chart:
    """Lay engines' boxes over one axis."""
    longest = max((box.start + box.seconds for _, boxes in rows for box in boxes), default=0.0)
    tracks = [
        Track(lane.key, lane.label, "", describe(boxes), pick_visible(boxes, longest))
        for lane, boxes in rows
    ]
    return Chart(title, tuple(tracks))


def list_spans(lane: Lane) -> list[Span]:
    """List getting ready and every run of an engine."""
    spans = [lane.ready] if lane.ready else []
    return spans + [span for repeat in lane.repeats for span in repeat.spans]


def align_run(lane: Lane) -> tuple[Box, ...]:
    """Return the boxes of the median run from its own start."""
    spans = lane.transcript.spans if lane.transcript else ()
    return list_boxes(spans, spans[0].start) if spans else ()


def list_boxes(spans: Sequence[Span], zero: float) -> tuple[Box, ...]:
    """Put spans on a clock that starts at `zero`."""
    boxes = []
    for span in spans:
        window = "" if span.window is None else f", window {span.window + 1}"
        start = span.start - zero
        tip = f"{LEGEND[span.stage]}{window}: {span.seconds:.3f} s from {start:.3f} s"
        boxes.append(Box(span.stage, start, span.seconds, tip))
    return tuple(boxes)


def pick_visible(boxes: tuple[Box, ...], longest: float) -> tuple[Box, ...]:
    """Return all boxes, or of a crowded row those wide enough to be seen."""
    if len(boxes) <= MOST_BOXES:
        return boxes
    return tuple(box for box in boxes if box.seconds / longest >= NARROWEST)


def describe(boxes: Sequence[Box]) -> str:
    """Put a row in words, for those who can't see it."""
    seconds: dict[str, float] = {}
    for box in boxes:
        seconds[box.stage] = seconds.get(box.stage, 0.0) + box.seconds
    parts = [f"{LEGEND[stage].lower()} {total:.3f} s" for stage, total in seconds.items()]
    return ", ".join(parts) or "nothing"
