"""Stage timings of every finished lane as stacked bars."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from demo.palette import STAGE_COLOURS, STAGE_PATTERNS
from demo.snapshot import Comparison, Lane

STAGE_NAMES = {
    "audio": "Read audio",
    "mel": "Log-mel",
    "encode": "Encoder",
    "decode": "Decoder loop",
}
HEIGHT = 260
"""Pixels; fixed, so that nothing below moves when the bars arrive."""


def draw_timings(comparison: Comparison) -> go.Figure:
    """Stacked bars, one for each finished lane, seconds from left to right."""
    lanes = list(comparison.done) if comparison.finished else []
    figure = go.Figure([draw_stage(stage, lanes) for stage in STAGE_NAMES])
    figure.add_annotation(note_axis(comparison) if lanes else note_absence())
    figure.update_layout(
        barmode="stack",
        bargap=0.45,
        height=HEIGHT,
        margin={"l": 8, "r": 16, "t": 8, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        template="none",
        font={"family": "system-ui, sans-serif", "size": 14},
        showlegend=False,
        dragmode=False,
        hoverlabel={"font_size": 14},
    )
    figure.update_xaxes(
        rangemode="tozero",
        zeroline=False,
        visible=bool(lanes),
        fixedrange=True,
        nticks=6,
    )
    figure.update_yaxes(
        autorange="reversed",
        automargin=True,
        visible=bool(lanes),
        fixedrange=True,
        showgrid=False,
        ticks="outside",
        ticklen=8,
        tickcolor="rgba(0,0,0,0)",
    )
    return figure


def note_axis(comparison: Comparison) -> dict[str, Any]:
    """The unit, and the settings that the figures belong to; an axis title would be cut short
    on a narrow screen."""
    settings = comparison.settings
    beam = settings.options.beam_size or 1
    runs = "" if settings.repeats == 1 else f" · median of {settings.repeats}, whiskers to the ends"
    text = f"seconds · {settings.model} · beam {beam} · {settings.schedule}{runs}"
    place = {"x": 1, "xanchor": "right", "y": 0, "yanchor": "top", "yshift": -26}
    return {"text": text, "xref": "paper", "yref": "paper", "showarrow": False, **place}


def note_absence() -> dict[str, Any]:
    """What a blank chart says in its middle."""
    text = "The bars are drawn when the last lane is done."
    place = {"x": 0.5, "y": 0.5, "font": {"size": 15}}
    return {"text": text, "xref": "paper", "yref": "paper", "showarrow": False, **place}


def label_bar(lane: Lane) -> str:
    """The engine above its device and type; Plotly reads a little HTML."""
    name = lane.label.replace("<", "&lt;")
    return f"{name}<br><i>{lane.device}, {lane.dtype}</i>"


def render_legend() -> str:
    """What the colours and patterns of timeline and bars stand for, in their order."""
    items = "".join(
        f'<li><span class="key key--{stage}" style="--stage:{STAGE_COLOURS[stage]}"></span>'
        f"{name}</li>"
        for stage, name in {"prepare": "Getting ready", **STAGE_NAMES}.items()
    )
    return f'<ul class="legend">{items}</ul>'


def draw_stage(stage: str, lanes: list[Lane]) -> go.Bar:
    """One stage's part of every lane's bar, told apart by colour and by pattern."""
    seconds = [
        lane.transcript.seconds.as_dict()[stage] for lane in lanes if lane.transcript is not None
    ]
    return go.Bar(
        name=STAGE_NAMES[stage],
        orientation="h",
        y=[label_bar(lane) for lane in lanes],
        customdata=[lane.label for lane in lanes],
        x=[round(value, 4) for value in seconds],
        error_x=draw_whiskers(lanes) if stage == "decode" else None,
        marker={
            "color": STAGE_COLOURS[stage],
            "pattern": {
                "shape": STAGE_PATTERNS[stage],
                "fillmode": "overlay",
                "fgcolor": "rgba(255,255,255,0.55)",
                "solidity": 0.2,
                "size": 8,
            },
            "line": {"width": 0},
        },
        hovertemplate="%{customdata}: " + STAGE_NAMES[stage].lower() + " %{x:.3f} s<extra></extra>",
    )


def draw_whiskers(lanes: list[Lane]) -> dict[str, Any] | None:
    """From a bar's end to its slowest and its fastest run; None where each engine ran once."""
    if not any(len(lane.laps) > 1 for lane in lanes):
        return None
    above, below = [], []
    for lane in lanes:
        totals = [lap.seconds.total for lap in lane.laps]
        middle = lane.transcript.seconds.total if lane.transcript else 0.0
        above.append(round(max(totals, default=middle) - middle, 4))
        below.append(round(middle - min(totals, default=middle), 4))
    style = {"color": "#767676", "thickness": 2, "width": 6}
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **style}
