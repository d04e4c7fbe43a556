"""Encoder output: histograms on shared bins, maps over time, differences, and tables of figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image

from demo.panels.histograms import Chart, draw_difference, draw_shares, scale_difference
from demo.panels.templating import colour_engine
from demo.panels.templating import render as render_template
from demo.snapshot import Comparison, Lane
from engines import metrics
from engines.base import FloatArray
from engines.metrics import CommonWindows, Map

COLUMNS = ("Engine", "Settings", "Mean", "Std", "Min", "Max", "Cosine", "Relative L2", "Max |Δ|")
WINDOW_COLUMNS = ("Window", "Engine", *COLUMNS[2:])

NOT_YET = "Drawn when the last engine is done, so that no engine’s time pays for the charts."
NOT_KEPT = (
    "The encoders’ output was not kept, because the page was reloaded before the last engine was "
    "done: press Compare to see it."
)

LEVELS = 64
"""Colours of a map's scale: more can't be told apart, and would not compress."""

SEQUENTIAL = ("#14213d", "#27567b", "#3f8f86", "#9fc15c", "#fdf0a3")
DIVERGING = ("#08519c", "#6baed6", "#f4f4f2", "#f0a35e", "#9c3d00")
MISSING = "#8b93a1"


@dataclass(frozen=True)
class HeatMap:
    """A picture of features over time, as a data address, with the colours of its scale."""

    title: str
    note: str
    tone: str
    image: str
    scale: tuple[str, ...]


def render(comparison: Comparison) -> str:
    """Render charts and tables of every finished engine and its differences from the baseline."""
    lanes, baseline = comparison.done, comparison.baseline
    if not comparison.finished or not lanes:
        return render_template("nothing.html", sentence=NOT_YET)
    if comparison.features_dropped:
        return render_template("nothing.html", sentence=NOT_KEPT)
    runs = {
        lane.key: (lane.transcript.window_starts, lane.transcript.features)
        for lane in lanes
        if lane.transcript is not None
    }
    common = metrics.match_windows(runs)
    if not common.starts:
        return render_template("nothing.html", sentence="No window was encoded.")
    if baseline is not None and baseline.transcript is None:
        baseline = None
    others = [lane for lane in lanes if baseline is not None and lane.key != baseline.key]
    charts, gaps = draw_histograms(lanes, others, baseline, common)
    maps, map_gaps = draw_maps(lanes, others, baseline, common, comparison.audio_seconds)
    return render_template(
        "encoder_output.html",
        charts=charts,
        gaps=gaps,
        comparison=comparison,
        common=common,
        tail=metrics.TAIL,
        columns=COLUMNS,
        rows=[
            [lane.label, f"{lane.device} · {lane.dtype}", *list_figures(lane, baseline, common)]
            for lane in lanes
        ],
        maps=maps,
        map_gaps=map_gaps,
        window_columns=WINDOW_COLUMNS,
        window_rows=[
            [
                f"{at + 1}, from {start:.2f} s",
                lane.label,
                *list_figures(lane, baseline, common, slice(at, at + 1)),
            ]
            for at, start in enumerate(common.starts)
            for lane in lanes
        ],
    )


# Histograms.


def draw_histograms(
    lanes: Sequence[Lane], others: Sequence[Lane], baseline: Lane | None, common: CommonWindows
) -> tuple[list[Chart], list[Chart]]:
    """Draw each engine's histogram, and each difference from the baseline's."""
    histograms = metrics.bin_together(common.features)
    assert histograms is not None  # a common window has values
    edges = [float(edge) for edge in histograms.edges]
    bins = [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]
    axis = (f"{edges[0]:.2f}", "feature value", f"{edges[-1]:.2f}")
    tallest = max(float(shares.max()) for shares in histograms.shares.values())
    charts, gaps = [], []
    for lane in lanes:
        shares = histograms.shares[lane.key]
        note = f"tallest bin {float(shares.max()):.2%} of values"
        tips = tuple(f"{bin}: {share:.2%}" for bin, share in zip(bins, shares, strict=True))
        drawn = (draw_shares(shares, tallest),)
        charts.append(Chart(lane.label, note, colour_engine(lane.key), drawn, axis, tips))
    for lane in others:
        assert baseline is not None
        gap, largest, scale = scale_difference(histograms, lane.key, baseline.key, tallest)
        words = f"largest gap {largest * 100:.2g}" if largest else "every bin has the same count"
        note = f"{words}; scale ±{scale * 100:.2g} percentage points"
        tips = tuple(f"{bin}: {100 * g:+.2g} points" for bin, g in zip(bins, gap, strict=True))
        title, paths = f"{lane.label} − {baseline.label}", draw_difference(gap, scale)
        gaps.append(Chart(title, note, colour_engine(lane.key), paths, axis, tips))
    return charts, gaps


# Maps over time.


def draw_maps(
    lanes: Sequence[Lane],
    others: Sequence[Lane],
    baseline: Lane | None,
    common: CommonWindows,
    seconds: float,
) -> tuple[list[HeatMap], list[HeatMap]]:
    """Draw each engine's features on one scale, and each difference from the baseline's."""
    features, starts = common.features, common.starts
    means = [metrics.average_over_time(features[lane.key], starts, seconds) for lane in lanes]
    low, high = metrics.find_range(means)
    maps, gaps = [], []
    for lane, values in zip(lanes, means, strict=True):
        note, image = f"{low:.2f} to {high:.2f}", draw_map(values, low, high, SEQUENTIAL)
        maps.append(HeatMap(lane.label, note, colour_engine(lane.key), image, SEQUENTIAL))
    for lane in others:
        assert baseline is not None
        ours, theirs = features[lane.key], features[baseline.key]
        gap = metrics.largest_differences(ours, theirs, starts, seconds)
        largest = metrics.find_largest(gap)
        note = f"−{largest:.1e} to +{largest:.1e}" if largest else "no value differs"
        image = draw_map(gap, -largest or -1.0, largest or 1.0, DIVERGING)
        title = f"{lane.label} − {baseline.label}"
        gaps.append(HeatMap(title, note, colour_engine(lane.key), image, DIVERGING))
    return maps, gaps


def draw_map(values: Map, low: float, high: float, scale: Sequence[str]) -> str:
    """Draw values `(rows, columns)` as a PNG in a data address; missing ones are grey."""
    picture = Image.fromarray(metrics.quantise(values, low, high, LEVELS))
    picture.putpalette(
        [c for colour in (MISSING, *blend(scale)) for c in bytes.fromhex(colour[1:])]
    )
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def blend(scale: Sequence[str]) -> list[str]:
    """Blend a scale's anchor colours to `LEVELS` of them."""
    anchors, colours = [bytes.fromhex(colour[1:]) for colour in scale], []
    for level in range(LEVELS):
        at = level * (len(anchors) - 1) / (LEVELS - 1)
        first = min(int(at), len(anchors) - 2)
        pairs = zip(anchors[first], anchors[first + 1], strict=True)
        mixed = bytes(round(a + (b - a) * (at - first)) for a, b in pairs)
        colours.append(f"#{mixed.hex()}")
    return colours


# Tables.


def list_figures(
    lane: Lane, baseline: Lane | None, common: CommonWindows, windows: slice = slice(None)
) -> list[str]:
    """Return the cells of some windows of an engine."""
    ours: FloatArray = common.features[lane.key][windows]
    found = metrics.summarise(ours)
    assert found is not None  # a common window has values
    values = (found.mean, found.std, found.minimum, found.maximum)
    cells = [f"{value:.5f}" if abs(value) >= 1e-4 else f"{value:.1e}" for value in values]
    if baseline is None or lane.key == baseline.key:
        return [*cells, "baseline" if baseline else "no baseline", "", ""]
    near = metrics.measure_similarity(ours, common.features[baseline.key][windows])
    if near is None:
        return [*cells, "other shape: not comparable", "", ""]
    return [*cells, f"{near.cosine:.9f}", f"{near.relative_l2:.2e}", f"{near.max_abs:.2e}"]
