"""Encoder output: histograms on shared bins, maps over time, differences, and tables of figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from demo.panels.templating import colour_engine, render_template
from demo.snapshot import Comparison, Lane
from engines import metrics
from engines.metrics import CommonWindows, SharedHistograms, Shares

FIGURES = ("Mean", "Std", "Min", "Max", "Cosine", "Relative L2", "Max |Δ|")

NOT_YET = "Drawn when the last engine is done, so that no engine’s time pays for the charts."
NOT_KEPT = (
    "The encoders’ output was not kept, because the page was reloaded before the last engine was "
    "done: press Compare to see it."
)

LEVELS = 64
"""Colours of a map's scale: more can't be told apart, and would not compress."""

MAP_TAIL = 0.002
"""Share of pixels at each end of a shared scale that are drawn in its end colours."""

SEQUENTIAL = ("#14213d", "#27567b", "#3f8f86", "#9fc15c", "#fdf0a3")
DIVERGING = ("#08519c", "#6baed6", "#f4f4f2", "#f0a35e", "#9c3d00")
MISSING = "#8b93a1"


@dataclass(frozen=True)
class Chart:
    """One small chart in a box of 100 × 100.

    `tone`: its colour. `paths`: class and SVG path of each. `axis`: what stands beneath it, from
    left to right. `tips`: what a tooltip says of each bin.
    """

    title: str
    note: str
    tone: str
    paths: tuple[tuple[str, str], ...]
    axis: tuple[str, ...]
    tips: tuple[str, ...] = ()


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
    lanes = comparison.done
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
    baseline = comparison.baseline
    if baseline is not None and baseline.transcript is None:
        baseline = None
    charts, gaps = _draw_histograms(lanes, baseline, common)
    maps, map_gaps = _draw_maps(lanes, baseline, common, comparison.audio_seconds)
    return render_template(
        "encoder_output.html",
        charts=charts,
        gaps=gaps,
        comparison=comparison,
        common=common,
        tail=metrics.TAIL,
        figures=FIGURES,
        rows=[
            [lane.label, f"{lane.device} · {lane.dtype}", *_list_figures(lane, baseline, common)]
            for lane in lanes
        ],
        maps=maps,
        map_gaps=map_gaps,
        window_rows=[
            [
                f"{at + 1}, from {start:.2f} s",
                lane.label,
                *_list_figures(lane, baseline, common, slice(at, at + 1)),
            ]
            for at, start in enumerate(common.starts)
            for lane in lanes
        ],
    )


def _draw_histograms(
    lanes: Sequence[Lane], baseline: Lane | None, common: CommonWindows
) -> tuple[list[Chart], list[Chart]]:
    """Draw each engine's histogram, and each difference from the baseline's."""
    histograms = metrics.bin_together(common.features)
    edges = [float(edge) for edge in histograms.edges]
    bins = [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]
    axis = (f"{edges[0]:.2f}", "feature value", f"{edges[-1]:.2f}")
    tallest = max(float(shares.max()) for shares in histograms.shares.values())
    charts, gaps = [], []
    for lane in lanes:
        tone, shares = colour_engine(lane.key), histograms.shares[lane.key]
        note = f"tallest bin {float(shares.max()):.2%} of values"
        tips = tuple(f"{bin}: {share:.2%}" for bin, share in zip(bins, shares, strict=True))
        charts.append(Chart(lane.label, note, tone, (draw_shares(shares, tallest),), axis, tips))
        if baseline is None or lane.key == baseline.key:
            continue
        gap, largest, scale = scale_difference(histograms, lane.key, baseline.key, tallest)
        words = f"largest gap {largest * 100:.2g}" if largest else "every bin has the same count"
        note = f"{words}; scale ±{scale * 100:.2g} percentage points"
        tips = tuple(f"{bin}: {100 * g:+.2g} points" for bin, g in zip(bins, gap, strict=True))
        title, paths = f"{lane.label} − {baseline.label}", draw_difference(gap, scale)
        gaps.append(Chart(title, note, tone, paths, axis, tips))
    return charts, gaps


def draw_shares(shares: Shares, tallest: float, outline: bool = False) -> tuple[str, str]:
    """Draw a histogram as one path, which weighs a tenth of as many bars."""
    steps = _trace(100 - 94 * shares / tallest)
    return ("outline", f"M0 100{steps}V100") if outline else ("area", f"M0 100{steps}V100Z")


def draw_difference(gaps: Shares, scale: float) -> tuple[tuple[str, str], ...]:
    """Draw a difference up and down from a middle line."""
    steps = _trace(50 - 46 * gaps / scale)
    return ("zero", "M0 50H100"), ("area", f"M0 50{steps}V50Z")


def _trace(heights: Shares) -> str:
    """Draw steps across the width, one for each bin, `heights` from the top."""
    width = 100 / len(heights)
    return "".join(f"V{y:.1f}H{(at + 1) * width:.1f}" for at, y in enumerate(heights))


def scale_difference(
    histograms: SharedHistograms, name: str, baseline: str, tallest: float
) -> tuple[Shares, float, float]:
    """Return the difference of two histograms, its largest size, and the scale to draw it on.

    That is never below a hundredth of the tallest bar, so that identical features look identical.
    """
    gaps = histograms.shares[name] - histograms.shares[baseline]
    largest = float(abs(gaps).max())
    return gaps, largest, max(largest, 0.01 * tallest)


def _draw_maps(
    lanes: Sequence[Lane], baseline: Lane | None, common: CommonWindows, seconds: float
) -> tuple[list[HeatMap], list[HeatMap]]:
    """Draw each engine's features on one scale, and each difference from the baseline's."""
    features, starts = common.features, common.starts
    means = [metrics.average_over_time(features[lane.key], starts, seconds) for lane in lanes]
    low, high = np.nanquantile(np.concatenate(means), (MAP_TAIL, 1 - MAP_TAIL)).tolist()
    maps, gaps = [], []
    for lane, values in zip(lanes, means, strict=True):
        tone, note = colour_engine(lane.key), f"{low:.2f} to {high:.2f}"
        image = draw_map(values, low, high, SEQUENTIAL)
        maps.append(HeatMap(lane.label, note, tone, image, SEQUENTIAL))
        if baseline is None or lane.key == baseline.key:
            continue
        ours, theirs = features[lane.key], features[baseline.key]
        gap = metrics.largest_differences(ours, theirs, starts, seconds)
        largest = float(np.nanmax(np.abs(gap)))
        note = f"−{largest:.1e} to +{largest:.1e}" if largest else "no value differs"
        image = draw_map(gap, -largest or -1.0, largest or 1.0, DIVERGING)
        title = f"{lane.label} − {baseline.label}"
        gaps.append(HeatMap(title, note, tone, image, DIVERGING))
    return maps, gaps


def draw_map(values: metrics.Map, low: float, high: float, scale: Sequence[str]) -> str:
    """Draw values `(rows, columns)` as a PNG in a data address; missing ones are grey."""
    share = np.clip((values - low) / (high - low or 1.0), 0, 1)
    level = np.nan_to_num(share * (LEVELS - 1), nan=-1).round() + 1  # 0 where there is no value
    picture = Image.fromarray(level.astype(np.uint8))
    anchors = np.array([list(bytes.fromhex(colour[1:])) for colour in scale])  # (colours, 3)
    places = np.linspace(0, len(scale) - 1, LEVELS)
    blend = [np.interp(places, range(len(scale)), channel) for channel in anchors.T]
    palette = np.stack(blend, axis=1).round().astype(np.uint8)  # (LEVELS, 3)
    picture.putpalette(bytes.fromhex(MISSING[1:]) + palette.tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _list_figures(
    lane: Lane, baseline: Lane | None, common: CommonWindows, windows: slice = slice(None)
) -> list[str]:
    ours = common.features[lane.key][windows]
    near: metrics.FeatureSimilarity | str = "no baseline"
    if baseline is not None and lane.key == baseline.key:
        near = "baseline"
    elif baseline is not None:
        theirs = common.features[baseline.key][windows]
        near = metrics.measure_similarity(ours, theirs) or "other shape"
    return format_figures(metrics.summarise(ours), near)


def format_figures(
    found: metrics.FeatureStatistics | None, near: metrics.FeatureSimilarity | str
) -> list[str]:
    """Return cells of statistics, if all is finite, and of similarity or why there is none."""
    cells = ["not finite", "", "", ""]
    if found is not None:
        values = (found.mean, found.std, found.minimum, found.maximum)
        cells = [f"{value:.5f}" if abs(value) >= 1e-4 else f"{value:.1e}" for value in values]
    if isinstance(near, str):
        return [*cells, near, "", ""]
    return [*cells, f"{near.cosine:.9f}", f"{near.relative_l2:.2e}", f"{near.max_abs:.2e}"]
