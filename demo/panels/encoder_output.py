"""Encoder output: histograms on shared bins, maps over time, differences, and tables of figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from demo.panels import charts
from demo.panels.templating import render_template
from demo.snapshot import Comparison, Lane
from engines import feature_statistics
from engines.feature_statistics import CommonWindows, Shares
from engines.metrics import join_names

FIGURES = ("Mean", "Std", "Min", "Max", "Cosine", "Relative L2", "Max |Δ|")

NOT_YET = "Drawn when the last engine is done, so that no engine’s time pays for the charts."
NOT_KEPT = (
    "The encoders’ output was not kept, because the page was reloaded before the last engine was "
    "done: press Compare to see it."
)

MAP_TAIL = 0.002
"""Share of a map's values at each end of its scale that are drawn in its end colours."""

DIVERGING = ("#08519c", "#6baed6", charts.SHEET, "#f0a35e", "#9c3d00")


def render(comparison: Comparison) -> str:
    """Render charts and tables of every finished engine and its differences from the baseline."""
    if not comparison.finished or not comparison.done:
        return render_template("nothing.html", sentence=NOT_YET)
    if comparison.features_dropped:
        return render_template("nothing.html", sentence=NOT_KEPT)
    runs = {
        lane.key: (lane.transcript.window_starts, lane.transcript.features)
        for lane in comparison.done
        if lane.transcript is not None and has_features(lane)
    }
    baseline = comparison.baseline
    first = baseline.key if baseline and baseline.key in runs else next(iter(runs), "")
    width = runs[first][1].shape[1:] if runs else ()
    other = [
        x.label for x in comparison.done if x.key in runs and runs[x.key][1].shape[1:] != width
    ]
    runs = {key: run for key, run in runs.items() if run[1].shape[1:] == width}
    lanes = [lane for lane in comparison.done if lane.key in runs]
    hidden = [lane.label for lane in comparison.done if lane.own_loop and not has_features(lane)]
    common = feature_statistics.match_windows(runs)
    if not runs or not common.starts:
        return render_template("nothing.html", sentence="No window was encoded.")
    if baseline is not None and baseline.key not in runs:
        baseline = None
    return render_template(
        "encoder_output.html",
        histograms=_render_histograms(lanes, baseline, common),
        maps=_render_maps(lanes, baseline, common, comparison.audio_seconds),
        comparison=comparison,
        common=common,
        hidden=join_names(hidden) if hidden else "",
        other=join_names(other) if other else "",
        model=comparison.settings.model_for(first),
        tail=feature_statistics.TAIL,
    )


def has_features(lane: Lane) -> bool:
    """Whether an engine handed out what its encoder computed."""
    return lane.transcript is not None and bool(lane.transcript.window_starts)


def _render_histograms(
    lanes: Sequence[Lane], baseline: Lane | None, common: CommonWindows
) -> Markup:
    """Render each engine's histogram, and beneath it the difference from the baseline's."""
    histograms = feature_statistics.bin_together(common.features)
    theirs = histograms.shares[baseline.key] if baseline else None
    columns = [
        Column(
            lane.label,
            lane.colour,
            histograms.shares[lane.key],
            None if lane is baseline or theirs is None else histograms.shares[lane.key] - theirs,
        )
        for lane in lanes
    ]
    title = "How often each value occurs"
    if baseline is not None and len(lanes) > 1:
        title += f"; beneath, the difference from {baseline.label}"
    rows = [
        [lane.label, f"{lane.device} · {lane.dtype}", *_list_figures(lane, baseline, common)]
        for lane in lanes
    ]
    figure, controls = draw_histograms(histograms.edges, columns, "encoder")
    table = charts.Table(("Engine", "Settings", *FIGURES), rows)
    return charts.render_chart(figure, title, table, 380, "encoder-histograms", controls)


def _render_maps(
    lanes: Sequence[Lane], baseline: Lane | None, common: CommonWindows, seconds: float
) -> Markup:
    """Render each engine's features on one scale, and each difference from the baseline's."""
    features, starts = common.features, common.starts
    means = [
        feature_statistics.average_over_time(features[lane.key], starts, seconds) for lane in lanes
    ]
    low, high = np.nanquantile(np.concatenate(means), (MAP_TAIL, 1 - MAP_TAIL)).tolist()
    maps = [
        (lane.label, _draw_map(values, low, high, charts.SEQUENTIAL))
        for lane, values in zip(lanes, means, strict=True)
    ]
    for lane in lanes if baseline is not None else ():
        if baseline is None or lane is baseline:
            continue
        ours, theirs = features[lane.key], features[baseline.key]
        gap = feature_statistics.largest_differences(ours, theirs, starts, seconds)
        most = float(np.nanmax(np.abs(gap))) or 1.0
        title = f"{lane.label} − {baseline.label}"
        maps.append((title, _draw_map(gap, -most, most, DIVERGING)))
    across, down = seconds / means[0].shape[1], features[lanes[0].key].shape[2] / len(means[0])
    figure = go.Figure(
        layout={
            "margin": {"l": 60, "r": 12, "t": 12, "b": 44},
            "xaxis": {"title": {"text": "seconds of the clip"}},
            "yaxis": {"title": {"text": "dimension"}, "autorange": "reversed"},
        }
    )
    for title, trace in maps:
        places = {"x0": across / 2, "dx": across, "y0": (down - 1) / 2, "dy": down}
        figure.add_heatmap(**trace, **places, name=charts.plain(title), visible=not figure.data)
    options = [
        charts.Option(title, {"visible": [each == at for each in range(len(maps))]})
        for at, (title, _) in enumerate(maps)
    ]
    rows = [
        [
            f"{at + 1}, from {start:.2f} s",
            lane.label,
            *_list_figures(lane, baseline, common, slice(at, at + 1)),
        ]
        for at, start in enumerate(starts)
        for lane in lanes
    ]
    return charts.render_chart(
        figure,
        "Values over time",
        charts.Table(("Window", "Engine", *FIGURES), rows),
        height=270,
        name="encoder-map",
        controls=[charts.Control("map", "Engine or difference", options)],
    )


def _draw_map(
    values: feature_statistics.Map, low: float, high: float, colours: Sequence[str]
) -> dict[str, Any]:
    """Return traits of a heat map from `low` to `high`."""
    steps = len(colours) - 1
    return {
        **charts.pack(values, low, high),
        "colorscale": [[at / steps, colour] for at, colour in enumerate(colours)],
        "colorbar": {"thickness": 12, "outlinewidth": 0, "tickformat": ".2~g"},
        "hovertemplate": "%{x:.1f} s, dimension %{y:.0f}: %{z:.3g}<extra></extra>",
    }


@dataclass(frozen=True)
class Column:
    """A histogram, and its difference from the baseline's unless it is that itself."""

    label: str
    colour: str
    shares: Shares
    gaps: Shares | None


def draw_histograms(
    edges: Shares, columns: Sequence[Column], name: str
) -> tuple[go.Figure, list[charts.Control]]:
    """Draw histograms on the same bins side by side, each above its difference, with linked axes.

    The controls lay them over one another, and make the shares logarithmic; their names begin with
    `name`. Traces are those of `trace_steps`.
    """
    count, space, figure = len(columns), 0.03, go.Figure()
    cells = [(0, at, column) for at, column in enumerate(columns)]
    cells += [(1, at, column) for at, column in enumerate(columns) if column.gaps is not None]
    heights = ((0.42, 1.0), (0.0, 0.28)) if len(cells) > count else ((0.0, 1.0),)
    width, first = (1 - space * (count - 1)) / count, {0: "", 1: str(count + 1)}
    steps, gap_axis = trace_steps(edges, columns)
    layout: dict[str, Any] = {"hovermode": "x", "annotations": []}
    over: dict[str, Any] = {}
    for number, (row, at, column) in enumerate(cells):
        axis, left = str(number + 1) if number else "", at * (width + space)
        leads = axis == first[row]
        figure.add_scatter(
            **{trait: values[number] for trait, values in steps.items()},
            name=charts.plain(column.label),
            legendgroup=str(at),
            showlegend=row == 0,
            mode="lines",
            line={"shape": "hvh", "width": 1.5, "color": charts.tone(column.colour)},
            fill="tozeroy",
            fillcolor=charts.shade(column.colour, 0.55),
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
            hovertemplate="around %{x:.3g}: " + ("%{y:.3g}%", "%{y:+.2g} points")[row],
        )
        layout[f"xaxis{axis}"] = {"domain": [left, left + width], "anchor": f"y{axis}"}
        if row == len(heights) - 1:
            layout[f"xaxis{axis}"]["title"] = {"text": "value", "standoff": 4}
        layout[f"yaxis{axis}"] = {
            "domain": heights[row],
            "anchor": f"x{axis}",
            "showticklabels": leads,
            "title": {"text": ("% of values", "points")[row] if leads else ""},
            "rangemode": "tozero",
        }
        if row:
            layout[f"yaxis{axis}"] |= gap_axis
        if number:
            layout[f"xaxis{axis}"]["matches"] = "x"
        if not leads:
            layout[f"yaxis{axis}"]["matches"] = f"y{first[row]}"
        over |= {f"xaxis{axis}.domain": [0, 1], f"xaxis{axis}.visible": leads}
        over |= {f"yaxis{axis}.visible": leads}
        if row == 0:
            title = {"text": charts.plain(column.label), "x": left, "y": 1, "showarrow": False}
            place = {"xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
            layout["annotations"].append(title | place)
            over[f"annotations.{at}.visible"] = False
    figure.update_layout(layout, margin={"l": 60, "r": 12, "t": 56, "b": 44})
    rows = [(f"x{first[row]}", f"y{first[row]}", at) for row, at, _ in cells]
    return figure, make_controls(name, count, rows, over)


def make_controls(
    name: str, count: int, rows: Sequence[tuple[str, str, int]], over: dict[str, Any]
) -> list[charts.Control]:
    """Make the controls of histograms in `count` columns.

    `rows`: for each trace the axes of its row, and its column. `over`: the layout that lays the
    columns over one another.
    """
    stacked = {
        "xaxis": [x for x, _, _ in rows],
        "yaxis": [y for _, y, _ in rows],
        "fill": ["none"] * len(rows),
        "line.dash": [charts.DASHES[at % len(charts.DASHES)] for _, _, at in rows],
    }
    log = {f"yaxis{at + 1 if at else ''}.type": "log" for at in range(count)}
    scale = charts.Control(
        f"{name}-scale", "Axis", [charts.Option("Linear"), charts.Option("Logarithmic", layout=log)]
    )
    if count == 1:
        return [scale]
    options = [charts.Option("Side by side"), charts.Option("Overlaid", stacked, over)]
    return [charts.Control(f"{name}-columns", "Histograms", options, narrow=1), scale]


def trace_steps(
    edges: Shares, columns: Sequence[Column]
) -> tuple[dict[str, list[Any]], dict[str, list[float]]]:
    """Return traits of all traces of histograms, the shares before the differences, in percent.

    Also the range and ticks of the differences: never less than a hundredth of the tallest bin, so
    that identical features look identical.
    """
    gaps = [column.gaps for column in columns if column.gaps is not None]
    heights = [*(column.shares for column in columns), *gaps]
    tallest = max(float(column.shares.max()) for column in columns)
    most = 100 * max([0.01 * tallest, *(float(np.abs(gap).max()) for gap in gaps)])
    (tick,) = charts.round_all([0.9 * most], 1)
    step = float(edges[1] - edges[0])
    x0, dx = charts.round_all([edges[0] + step / 2, step], 6)
    traits = {"x0": [x0] * len(heights), "dx": [dx] * len(heights)}
    axis = {"range": charts.round_all([-1.1 * most, 1.1 * most]), "tickvals": [-tick, 0.0, tick]}
    return {**traits, "y": [charts.round_all(each * 100) for each in heights]}, axis


def _list_figures(
    lane: Lane, baseline: Lane | None, common: CommonWindows, windows: slice = slice(None)
) -> list[str]:
    ours = common.features[lane.key][windows]
    near: feature_statistics.FeatureSimilarity | str = "no baseline"
    if baseline is not None and lane.key == baseline.key:
        near = "baseline"
    elif baseline is not None:
        theirs = common.features[baseline.key][windows]
        near = feature_statistics.measure_similarity(ours, theirs) or "other shape"
    return format_figures(feature_statistics.summarise(ours), near)


def format_figures(
    statistics: feature_statistics.FeatureStatistics | None,
    near: feature_statistics.FeatureSimilarity | str,
) -> list[str]:
    """Return cells of statistics, if all is finite, and of similarity or why there is none."""
    cells = ["not finite", "", "", ""]
    if statistics is not None:
        values = (statistics.mean, statistics.std, statistics.minimum, statistics.maximum)
        cells = [f"{value:.5f}" if abs(value) >= 1e-4 else f"{value:.1e}" for value in values]
    if isinstance(near, str):
        return [*cells, near, "", ""]
    return [*cells, f"{near.cosine:.9f}", f"{near.relative_l2:.2e}", f"{near.max_abs:.2e}"]
