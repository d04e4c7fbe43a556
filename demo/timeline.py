"""When every engine did what: all runs on the clock of the comparison, and the median runs aligned.

Drawn as HTML boxes with the legend's colours and patterns. Two clocks, since the first comparison
may compile for half a minute what then runs for a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

from demo.palette import STAGE_COLOURS, colour_engine
from demo.snapshot import Comparison, Lane
from engines.base import Span

NAMES = {
    "prepare": "Getting ready",
    "mel": "Log-mel",
    "encode": "Encoder",
    "decode": "Decoder loop",
}
MOST_BOXES = 400
"""A row of more boxes than this leaves out those too narrow to be seen."""

NARROWEST = 0.05
"""Per cent of a row's width: what is narrower can't be seen."""


@dataclass(frozen=True)
class Row:
    """One engine's boxes: spans whose starts count from the clock's zero."""

    lane: Lane
    spans: tuple[Span, ...]


def render_timeline(comparison: Comparison) -> str:
    """Both clocks, with room for every lane from the first moment on."""
    whole = [Row(lane, list_spans(lane, comparison.start)) for lane in comparison.lanes]
    runs = [Row(lane, align_run(lane)) for lane in comparison.lanes]
    ready = comparison.finished and comparison.done
    note = "" if ready else " They are drawn when the last lane is done."
    return render_clock(
        f"Each engine’s run from its own start{name_run(comparison)}, window by window.{note}",
        runs if ready else [Row(lane, ()) for lane in comparison.lanes],
    ) + render_clock(
        "Everything on one clock, from the click: getting ready, then every run.",
        whole if ready else [Row(lane, ()) for lane in comparison.lanes],
    )


def name_run(comparison: Comparison) -> str:
    """Which run it is where there were several."""
    repeats = comparison.settings.repeats
    return f" (of {repeats} the median)" if repeats > 1 else ""


def list_spans(lane: Lane, zero: float) -> tuple[Span, ...]:
    """Getting ready and every run of a lane, from the clock's zero."""
    spans = [lane.ready] if lane.ready else []
    spans += [span for lap in lane.laps for span in lap.spans]
    return shift(spans, zero)


def align_run(lane: Lane) -> tuple[Span, ...]:
    """The median run's spans from its own start."""
    spans = lane.transcript.spans if lane.transcript else ()
    return shift(spans, spans[0].start) if spans else ()


def shift(spans: Iterable[Span], zero: float) -> tuple[Span, ...]:
    """The same spans on a clock that starts at `zero`."""
    return tuple(Span(s.stage, s.start - zero, s.seconds, s.window) for s in spans)


def render_clock(title: str, rows: Sequence[Row]) -> str:
    """Rows over one axis in seconds."""
    longest = max((span.start + span.seconds for row in rows for span in row.spans), default=0.0)
    body = "".join(render_row(row, longest) for row in rows)
    return (
        f'<figure class="timeline"><figcaption>{escape(title)}</figcaption>'
        f"{body}{render_axis(longest)}</figure>"
    )


def render_row(row: Row, longest: float) -> str:
    """One engine's name and its boxes."""
    label = escape(f"{row.lane.label}: {describe_spans(row.spans)}", quote=True)
    boxes = "".join(render_box(span, longest) for span in pick_visible(row.spans, longest))
    return (
        f'<div class="track" style="--engine:{colour_engine(row.lane.key)}">'
        f'<span class="who">{escape(row.lane.label)}</span>'
        f'<span class="boxes" role="img" aria-label="{label}">{boxes}</span></div>'
    )


def pick_visible(spans: Sequence[Span], longest: float) -> Sequence[Span]:
    """All spans, or in a crowded row those wide enough to be seen."""
    if len(spans) <= MOST_BOXES:
        return spans
    return [span for span in spans if 100 * span.seconds / longest >= NARROWEST]


def render_box(span: Span, longest: float) -> str:
    """One stage of one window, with its figures as a tooltip."""
    window = "" if span.window is None else f", window {span.window + 1}"
    tip = f"{NAMES[span.stage]}{window}: {span.seconds:.3f} s from {span.start:.3f} s"
    left, width = 100 * span.start / longest, 100 * span.seconds / longest
    colour = STAGE_COLOURS[span.stage]
    return (
        f'<i class="key--{span.stage}" title="{tip}" '
        f'style="left:{left:.3f}%;width:{width:.3f}%;--stage:{colour}"></i>'
    )


def describe_spans(spans: Sequence[Span]) -> str:
    """A row in words, for those who can't see it."""
    if not spans:
        return "nothing yet"
    parts = []
    for stage, name in NAMES.items():
        ours = [span for span in spans if span.stage == stage]
        if ours:
            windows = len({span.window for span in ours if span.window is not None})
            count = f" over {windows} windows" if windows > 1 else ""
            parts.append(f"{name.lower()} {sum(span.seconds for span in ours):.3f} s{count}")
    return ", ".join(parts)


def render_axis(longest: float) -> str:
    """Ticks at round seconds; an empty axis keeps its room."""
    ticks = "".join(
        f'<span style="left:{at:.2f}%;transform:translateX(-{at:.1f}%)">{label}</span>'
        for at, label in ((100 * tick / longest, label) for tick, label in list_ticks(longest))
    )
    return f'<div class="ticks" aria-hidden="true"><span class="scale">{ticks}</span></div>'


def list_ticks(longest: float, most: int = 6) -> list[tuple[float, str]]:
    """Round numbers from 0 on, at most `most` of them beside 0, with the unit at the last."""
    if longest <= 0:
        return []
    step = 10 ** floor(log10(longest / most))
    step *= next(factor for factor in (1, 2, 5, 10) if longest / (step * factor) <= most)
    places = max(0, -floor(log10(step) + 1e-9))
    count = floor(longest / step + 1e-9)
    return [
        (n * step, f"{n * step:.{places}f}{' s' if n == count else ''}") for n in range(count + 1)
    ]
