"""Speed against word error rate over several comparisons, a symbol for each engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from demo.panels import charts
from demo.panels.headline import score_lane
from demo.panels.templating import render_template
from demo.snapshot import Comparison

NOTHING = "Drawn once a clip whose words are known has been compared."
NOTE = (
    "Further right is faster, lower is better. Hollow: the engine ran beside others on its device, "
    "so its speed can’t be compared with that of a run alone."
)


@dataclass(frozen=True)
class Point:
    """One engine in one comparison; `speed`: seconds of audio a second; `errors`: in percent."""

    key: str
    label: str
    colour: str
    model: str
    clip: str
    speed: float
    errors: float
    alone: bool


def render(comparisons: Sequence[Comparison]) -> str:
    """Render a mark for every engine of every comparison whose clip's words are known."""
    points = [point for comparison in comparisons for point in list_points(comparison)]
    if not points:
        return render_template("nothing.html", sentence=NOTHING)
    figure = go.Figure(
        layout={
            "margin": {"l": 60, "r": 12, "t": 36, "b": 44},
            "xaxis": {"title": {"text": "times real time"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "word error rate, %"}, "rangemode": "tozero"},
        }
    )
    for at, key in enumerate(dict.fromkeys(point.key for point in points)):
        of_engine = [point for point in points if point.key == key]
        symbol = charts.SYMBOLS[at % len(charts.SYMBOLS)]
        colour = charts.tone(of_engine[0].colour)
        figure.add_scatter(
            x=[round(point.speed, 2) for point in of_engine],
            y=[round(point.errors, 2) for point in of_engine],
            name=charts.plain(of_engine[0].label),
            mode="markers",
            cliponaxis=False,  # a rate of 0 is common, and its mark stands on the axis
            marker={
                "symbol": [symbol if point.alone else f"{symbol}-open" for point in of_engine],
                "size": 12,
                "color": colour,
                "line": {"width": 2, "color": colour},
            },
            hovertext=[
                charts.plain(f"{point.label}, {point.model}")
                + f"<br>{charts.plain(point.clip)}<br>"
                + f"{point.speed:.3g}× real time, {point.errors:.1f}% of words wrong"
                for point in of_engine
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    rows = [
        [
            point.label,
            point.model,
            point.clip,
            f"{point.speed:.3g}×",
            f"{point.errors:.1f}%",
            "alone" if point.alone else "beside others",
        ]
        for point in points
    ]
    columns = ("Engine", "Model", "Clip", "Real time", "Word error rate", "Ran")
    table = charts.Table(columns, rows)
    title = "Speed against word error rate"
    return charts.render_chart(figure, title, table, 340, "speed-accuracy", note=NOTE)


def list_points(comparison: Comparison) -> list[Point]:
    """Return the finished engines of a comparison, none where the clip's words are not known."""
    if not comparison.reference:
        return []
    points = []
    for lane in comparison.done:
        assert lane.transcript is not None
        rate = score_lane(lane, comparison.reference).normalised_word_error_rate
        if rate is None or not lane.total_seconds:
            continue
        points.append(
            Point(
                lane.key,
                lane.label,
                lane.colour,
                comparison.settings.model_for(lane.key),
                comparison.clip_name,
                lane.transcript.audio_seconds / lane.total_seconds,
                100 * rate,
                not comparison.shared,
            )
        )
    return points
