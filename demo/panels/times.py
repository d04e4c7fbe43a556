"""Where the time went: stages as stacked bars, and what every engine did when.

The timeline has two clocks, since the first comparison may compile for half a minute what then
runs for a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from demo.panels import charts
from demo.panels.templating import render_template
from demo.snapshot import Comparison, Lane
from engines.base import Span, StageSeconds


@dataclass(frozen=True)
class Style:
    """How a stage's bars look: its name, how much of the engine's colour, and a pattern."""

    name: str
    share: float
    pattern: str


STAGES = {
    "audio": Style("Read audio", 0.2, "."),
    "setup": Style("Set-up", 0.3, "x"),
    "mel": Style("Log-mel", 0.4, "\\"),
    "encode": Style("Encoder", 0.65, ""),
    "decode": Style("Decoder loop", 1.0, "/"),
}
"""The stages of a run. `assets/slides.js` knows them by their names in the rows of the race."""
STYLES = {"prepare": Style("Getting ready", 0.12, "-"), **STAGES}

NOT_YET = "Drawn when the last engine is done."

SHARED = (
    "The engines ran at once and shared a device, so these seconds say what you saw, not which "
    "engine is faster."
)
ALONE = "Each engine ran alone, so these seconds can be compared."
APART = "The engines ran at once on different devices, so these seconds can be compared."
SINGLE = "One run each: the length of a short stage is partly chance, more repeats tell."

LEAST_SHARE = 0.0005
"""A span this short beside the whole clock can't be seen, and is left out of a crowded chart."""

GREY = "#707070"

ROW, AROUND = 46, 104
"""Pixels of an engine's row, and of the legend and axis around the rows."""


def render_bars(comparison: Comparison) -> str:
    """Render a bar for each engine, the fastest first, and a dot for each of its runs."""
    if not comparison.finished or not comparison.done:
        return render_template("nothing.html", sentence=NOT_YET)
    settings, seconds = comparison.settings, _list_seconds(comparison)
    lanes = sorted(comparison.done, key=lambda lane: seconds[lane.key].total)
    names = [_name_lane(lane) for lane in lanes]
    figure = _new_figure(lanes)
    for stage, style in STAGES.items():
        bars = []
        for lane in lanes:
            spent, total = seconds[lane.key].as_dict()[stage], seconds[lane.key].total
            share = f", {spent / total:.0%}" if total else ""
            hover = f"{lane.label}<br>{style.name}: {spent:.3f} s{share}"
            bars.append(Bar(lane, spent, hover))
        if any(bar.seconds for bar in bars):
            _add_stage(figure, style, bars)
    for name, lane in zip(names, lanes, strict=True):  # beside the chart: no dot is taken for it
        text = f"<b>{seconds[lane.key].total:.2f} s</b>"
        place = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 8, "y": name}
        figure.add_annotation(text=text, showarrow=False, **place)
    _add_dots(figure, lanes)
    rows = [
        [
            f"{lane.label}, {lane.device} {lane.dtype}",
            *(f"{seconds[lane.key].as_dict()[stage]:.3f} s" for stage in STAGES),
            f"{seconds[lane.key].total:.3f} s",
            ", ".join(f"{total:.3f}" for total in _list_totals(lane)) or "–",
            f"{lane.race.total:.3f} s" if lane.race else "–",
        ]
        for lane in lanes
    ]
    columns = ["Engine", *(style.name for style in STAGES.values()), "Total", "Runs", "At once"]
    runs = f", median of {settings.repeats} runs" if settings.repeats > 1 else ""
    return charts.render_chart(
        figure,
        f"Seconds by stage{runs}: {settings.models}, beam {settings.beam_size}",
        charts.Table(columns, rows),
        height=ROW * len(lanes) + AROUND,
        name="seconds-by-stage",
        note=_say_comparable(comparison),
    )


def _say_comparable(comparison: Comparison) -> str:
    """Say whether the seconds of different engines may be compared."""
    if len(comparison.done) < 2:
        return ""
    if comparison.shared:
        return SHARED
    alone = ALONE if all(lane.repeats for lane in comparison.done) else APART
    return alone if comparison.settings.repeats > 1 else f"{alone} {SINGLE}"


def _list_seconds(comparison: Comparison) -> dict[str, StageSeconds]:
    return {lane.key: lane.transcript.seconds for lane in comparison.done if lane.transcript}


def _list_totals(lane: Lane) -> list[float]:
    return [round(repeat.seconds.total, 4) for repeat in lane.repeats]


def _name_lane(lane: Lane) -> str:
    return f"{lane.label}<br><span style='font-size:0.85em'>{lane.device}, {lane.dtype}</span>"


def _new_figure(lanes: Sequence[Lane]) -> go.Figure:
    """Make a figure of rows over seconds, whose legend switches the stages of all engines."""
    return go.Figure(
        layout={
            "barmode": "stack",
            "bargap": 0.3,
            "margin": {"l": 8, "r": 72, "t": 36, "b": 44},
            "xaxis": {"title": {"text": "seconds"}, "rangemode": "tozero"},
            "yaxis": {
                "autorange": "reversed",
                "type": "category",
                "categoryarray": [_name_lane(lane) for lane in lanes],
                "fixedrange": True,
            },
        }
    )


@dataclass(frozen=True)
class Bar:
    """A stretch of an engine's time; `audio`: the second of the clip that a click plays."""

    lane: Lane
    seconds: float
    said: str
    start: float | None = None
    audio: float | None = None


def _add_stage(figure: go.Figure, style: Style, bars: Sequence[Bar], **traits: Any) -> None:
    """Add a stage's bars in a shade of each engine's colour, and a grey one for the legend."""
    shared = {"name": style.name, "legendgroup": style.name, "orientation": "h", **traits}
    key = {"x": [None], "y": [_name_lane(bars[0].lane)], "marker": _fill(style, GREY)}
    figure.add_bar(**shared, **key)
    for lane in {bar.lane.key: bar.lane for bar in bars}.values():
        own = [bar for bar in bars if bar.lane.key == lane.key]
        figure.add_bar(
            **shared,
            x=[round(bar.seconds, 4) for bar in own],
            y=[_name_lane(lane)] * len(own),
            base=None if own[0].start is None else [round(bar.start or 0, 4) for bar in own],
            customdata=[bar.audio for bar in own],
            showlegend=False,
            hovertext=[bar.said for bar in own],
            hovertemplate="%{hovertext}<extra></extra>",
            marker=_fill(style, lane.colour),
        )


def _fill(style: Style, colour: str) -> dict[str, Any]:
    """Return how a stage's bars of one colour are filled."""
    pattern = {"shape": style.pattern, "size": 7, "solidity": 0.2, "fgcolor": charts.SHEET}
    mixed = charts.shade(colour, style.share)
    border = {"width": 1, "color": charts.SHEET}
    return {"color": mixed, "line": border, "pattern": {**pattern, "bgcolor": mixed}}


def _add_dots(figure: go.Figure, lanes: Sequence[Lane]) -> None:
    """Add a dot for each run of an engine alone."""
    runs = [(lane, total) for lane in lanes for total in _list_totals(lane)]
    if runs:
        figure.add_scatter(
            x=[total for _, total in runs],
            y=[_name_lane(lane) for lane, _ in runs],
            name="One run",
            mode="markers",
            hovertext=[f"{lane.label}<br>one run: {total:.3f} s" for lane, total in runs],
            hovertemplate="%{hovertext}<extra></extra>",
            marker={"size": 9, "color": charts.INK, "line": {"width": 1.5, "color": charts.SHEET}},
        )


@dataclass(frozen=True)
class Stretch:
    """A span of an engine, from `start` on one of the clocks."""

    lane: Lane
    span: Span
    start: float


def render_timeline(comparison: Comparison) -> str:
    """Render what every engine did when, from its own start or from the click."""
    if not comparison.finished or not comparison.done:
        return render_template("nothing.html", sentence=NOT_YET)
    lanes, own, whole = comparison.done, [], []
    for lane in lanes:
        spans = lane.transcript.spans if lane.transcript else ()
        own += [Stretch(lane, span, span.start - spans[0].start) for span in spans]
        runs = [
            *lane.race_spans,
            *(span for repeat in lane.repeats for span in repeat.spans),
        ]
        ready = [lane.ready] if lane.ready else []
        whole += [Stretch(lane, span, span.start - comparison.start) for span in [*ready, *runs]]
    figure = _new_figure(lanes)
    figure.update_layout(barmode="overlay")
    shown = []
    for clock, stretches in enumerate((own, whole)):
        before = len(figure.data)
        _add_stretches(figure, stretches, visible=clock == 0)
        shown += [clock] * (len(figure.data) - before)
    clocks = ("From its own start", "From the click")
    options = [
        charts.Option(label, {"visible": [clock == at for clock in shown]})
        for at, label in enumerate(clocks)
    ]
    rows = [
        [each.lane.label, clock, *_list_cells(each)]
        for clock, stretches in zip(clocks, (own, whole), strict=True)
        for each in stretches
    ]
    median = ", the median run" if comparison.settings.repeats > 1 else ""
    return charts.render_chart(
        figure,
        f"What each engine did when{median}",
        charts.Table(["Engine", "Clock", "Stage", "Window", "Start", "Seconds"], rows),
        height=ROW * len(lanes) + AROUND,
        name="timeline",
        controls=[charts.Control("clock", "Clock", options)],
    )


def _list_cells(stretch: Stretch) -> list[str]:
    span = stretch.span
    window = "–" if span.window is None else str(span.window + 1)
    return [_find_style(span).name, window, f"{stretch.start:.3f}", f"{span.seconds:.3f}"]


def _find_style(span: Span) -> Style:
    return STYLES.get(span.stage) or Style(span.stage.capitalize(), 0.5, "+")


def _add_stretches(figure: go.Figure, stretches: Sequence[Stretch], visible: bool) -> None:
    """Add the bars of one clock, a trace for each stage."""
    longest = max((each.start + each.span.seconds for each in stretches), default=0.0)
    if len(stretches) > 400:
        stretches = [each for each in stretches if each.span.seconds / longest >= LEAST_SHARE]
    for stage in dict.fromkeys(each.span.stage for each in stretches):
        of_stage = [each for each in stretches if each.span.stage == stage]
        bars = []
        for each in of_stage:
            name, window, start, seconds = _list_cells(each)
            where = "" if window == "–" else f", window {window}"
            hover = f"{each.lane.label}<br>{name}{where}: {seconds} s from {start} s"
            audio = _find_audio(each)
            bars.append(Bar(each.lane, each.span.seconds, hover, each.start, audio))
        _add_stage(figure, _find_style(of_stage[0].span), bars, width=0.7, visible=visible)


def _find_audio(stretch: Stretch) -> float | None:
    """Return where in the clip a span's window starts, or None."""
    transcript, window = stretch.lane.transcript, stretch.span.window
    if transcript is None or window is None or window >= len(transcript.window_starts):
        return None
    return round(transcript.window_starts[window], 3)
