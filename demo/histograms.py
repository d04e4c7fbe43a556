"""Encoder features seen: histograms on shared bins, their differences, and a table of figures.

Charts are small inline SVG drawn from 64 counts each, so they follow the page's theme and width
and weigh a few kilobytes, whatever the length of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from demo.palette import colour_engine
from demo.snapshot import Comparison, Lane
from engines.features import (
    TAIL,
    FeatureSimilarity,
    FeatureStatistics,
    SharedHistograms,
    bin_together,
    measure_similarity,
    summarise,
)

Shares = npt.NDArray[np.float64]

FLATTEST_SCALE = 0.01
"""A difference panel never magnifies more than to this share of the tallest bar: identical
features look identical."""

PLACEHOLDER = (
    '<div class="features features--empty"><p>Each engine’s encoder output appears here as a '
    "histogram, next to its difference from the baseline.</p></div>"
)


def render_features(comparison: Comparison) -> str:
    """Histograms, difference panels and the table of every finished lane, as HTML."""
    lanes = [lane for lane in comparison.done if lane.transcript is not None]
    if not lanes:
        return PLACEHOLDER
    features = {lane.key: lane.transcript.features for lane in lanes if lane.transcript is not None}
    histograms = bin_together(features)
    if histograms is None:
        return '<div class="features features--empty"><p>No window was encoded.</p></div>'
    baseline = comparison.baseline
    table = render_table(lanes, baseline)
    charts = render_charts(lanes, baseline, histograms)
    return (
        f'<div class="features">{charts}'
        f'<p class="caption">{render_caption(comparison)}</p>{table}</div>'
    )


def render_caption(comparison: Comparison) -> str:
    """What the charts show and under which settings."""
    sizes = {
        lane.label: " × ".join(str(n) for n in lane.transcript.features.shape)
        for lane in comparison.done
        if lane.transcript is not None
    }
    same = len(set(sizes.values())) == 1
    shape = next(iter(sizes.values())) if same else ", ".join(f"{k}: {v}" for k, v in sizes.items())
    return escape(
        f"Encoder output after ln_post, windows × positions × dimensions: {shape}. "
        f"Model {comparison.settings.model}. Same bins in every panel; the outermost "
        f"{TAIL:.2%} of values at each end are counted in the end bins."
    )


def render_charts(
    lanes: Sequence[Lane], baseline: Lane | None, histograms: SharedHistograms
) -> str:
    """A panel for each lane, then one for each difference from the baseline."""
    drawn = [lane for lane in lanes if lane.key in histograms.shares]
    tallest = max(float(shares.max()) for shares in histograms.shares.values())
    low, high = float(histograms.edges[0]), float(histograms.edges[-1])
    panels = [
        render_panel(
            lane.label,
            f"tallest bin {histograms.shares[lane.key].max():.2%} of values",
            draw_bars(histograms.shares[lane.key], histograms.edges, tallest),
            lane.key,
            low,
            high,
        )
        for lane in drawn
    ]
    others = [lane for lane in drawn if baseline is not None and lane.key != baseline.key]
    gaps = [
        render_difference(lane, baseline, histograms, tallest, low, high)
        for lane in others
        if baseline is not None and baseline.key in histograms.shares
    ]
    # Two lanes and their difference make one row; of more, each difference stands beneath its lane.
    columns = len(panels) if len(panels) > 2 else 3
    blank = ['<div class="blank"></div>'] if gaps and len(panels) > 2 else []
    charts = "".join([*panels, *blank, *gaps])
    return f'<div class="charts" style="--columns:{columns}">{charts}</div>'


def render_difference(
    lane: Lane,
    baseline: Lane,
    histograms: SharedHistograms,
    tallest: float,
    low: float,
    high: float,
) -> str:
    """How a lane's histogram differs from the baseline's, bin by bin."""
    gap = histograms.difference(lane.key, baseline.key)
    largest = float(np.abs(gap).max())
    scale = max(largest, FLATTEST_SCALE * tallest)
    words = f"largest gap {largest * 100:.2g}" if largest else "every bin has the same count"
    return render_panel(
        f"{lane.label} − {baseline.label}",
        f"{words}; scale ±{scale * 100:.2g} percentage points",
        draw_gaps(gap, histograms.edges, scale),
        lane.key,
        low,
        high,
    )


def render_panel(title: str, note: str, chart: str, key: str, low: float, high: float) -> str:
    """A chart with its title, a note and the ends of its axis."""
    label = escape(f"{title}: {note}", quote=True)
    return (
        f'<figure class="chart" style="--engine:{colour_engine(key)}">'
        f"<figcaption><strong>{escape(title)}</strong>"
        f"<span>{escape(note)}</span></figcaption>"
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{chart}</svg>"
        f'<div class="axis" aria-hidden="true"><span>{low:.2f}</span><span>feature value</span>'
        f"<span>{high:.2f}</span></div></figure>"
    )


def draw_bars(shares: Shares, edges: Shares, tallest: float) -> str:
    """Bars from the floor, with what each holds as a tooltip."""
    width = 100 / len(shares)
    bars = []
    for index, share in enumerate(shares):
        height = 94 * share / tallest
        tip = f"{edges[index]:.2f} to {edges[index + 1]:.2f}: {share:.2%}"
        bars.append(draw_rect(index * width, 100 - height, width, height, tip))
    return f"<g>{''.join(bars)}</g>"


def draw_gaps(gaps: Shares, edges: Shares, scale: float) -> str:
    """Bars up and down from a middle line."""
    width = 100 / len(gaps)
    bars = []
    for index, gap in enumerate(gaps):
        height = 46 * abs(gap) / scale
        tip = f"{edges[index]:.2f} to {edges[index + 1]:.2f}: {gap * 100:+.2g} points"
        bars.append(draw_rect(index * width, 50 - max(gap, 0) / scale * 46, width, height, tip))
    middle = '<line class="zero" x1="0" x2="100" y1="50" y2="50"/>'
    return f"{middle}<g>{''.join(bars)}</g>"


def draw_rect(x: float, y: float, width: float, height: float, tip: str) -> str:
    """One bar."""
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width * 0.88:.2f}" height="{height:.2f}">'
        f"<title>{tip}</title></rect>"
    )


def render_table(lanes: Sequence[Lane], baseline: Lane | None) -> str:
    """Statistics of each lane's features and their similarity to the baseline's."""
    names = ("Engine", "Settings", "Mean", "Std", "Min", "Max", "Cosine", "Relative L2", "Max |Δ|")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(render_row(lane, baseline) for lane in lanes)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Encoder feature figures">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def render_row(lane: Lane, baseline: Lane | None) -> str:
    """One lane's row."""
    assert lane.transcript is not None
    ours = lane.transcript.features
    cells = [f"{lane.device} · {lane.dtype}", *format_statistics(summarise(ours))]
    if baseline is None or baseline.transcript is None:
        cells += ["no baseline yet", "", ""]
    elif lane.key == baseline.key:
        cells += ["baseline", "", ""]
    else:
        cells += format_similarity(measure_similarity(ours, baseline.transcript.features))
    body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(lane.label)}</th>{body}</tr>'


def format_statistics(figures: FeatureStatistics | None) -> list[str]:
    """Mean, standard deviation, minimum and maximum."""
    if figures is None:
        return ["–"] * 4
    values = (figures.mean, figures.std, figures.minimum, figures.maximum)
    return [f"{value:.5f}" if abs(value) >= 1e-4 else f"{value:.1e}" for value in values]


def format_similarity(figures: FeatureSimilarity | None) -> list[str]:
    """Cosine, relative L2 and largest difference, or why there are none."""
    if figures is None:
        return ["other windows: not comparable", "", ""]
    return [f"{figures.cosine:.9f}", f"{figures.relative_l2:.2e}", f"{figures.max_abs:.2e}"]
