"""Encoder features seen: histograms on shared bins, their differences, and a table of figures.

Charts are small inline SVG drawn from 64 counts each, so they follow the page's theme and width
and weigh a few kilobytes, whatever the length of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from demo import heatmap
from demo.palette import colour_engine
from demo.snapshot import Comparison, Lane
from demo.windows import Common, match_windows
from engines.base import FloatArray
from engines.features import (
    BINS,
    TAIL,
    FeatureSimilarity,
    FeatureStatistics,
    SharedHistograms,
    bin_together,
    measure_similarity,
    summarise,
)

Shares = npt.NDArray[np.float64]

COLUMNS = ("Engine", "Settings", "Mean", "Std", "Min", "Max", "Cosine", "Relative L2", "Max |Δ|")
WINDOW_COLUMNS = ("Window", *COLUMNS[:1], *COLUMNS[2:])
EDGES = np.linspace(0.0, 1.0, BINS + 1)

FLATTEST_SCALE = 0.01
"""A difference panel never magnifies more than to this share of the tallest bar: identical
features look identical."""

NO_BARS = np.zeros(BINS)

NOT_YET = "The charts are drawn when the last lane is done, so that no lane’s time pays for them."
NOT_KEPT = (
    "The encoders’ features were not kept, because the page was reloaded before the last lane was "
    "done: press Compare to see them."
)


def render_features(comparison: Comparison) -> str:
    """`list_features` as one text."""
    return "".join(list_features(comparison))


def list_features(comparison: Comparison) -> list[str]:
    """Histograms, heat maps, the difference of each from the baseline, and the tables, as HTML.

    All of it is drawn once the last lane rests, so that no lane's time pays for another's charts;
    until then the same boxes stand empty.
    """
    lanes = [lane for lane in comparison.done if lane.transcript is not None]
    if not comparison.finished or not lanes:
        return list_blanks(comparison)
    if comparison.features_dropped:
        return list_blanks(comparison, NOT_KEPT)
    common = match_windows(lanes)
    if not common.starts:
        return list_blanks(comparison, "No window was encoded.")
    histograms = bin_together({lane.key: common.pick(lane) for lane in lanes})
    assert histograms is not None
    baseline = comparison.baseline
    return [
        render_charts(lanes, baseline, histograms),
        f'<p class="caption">{render_caption(comparison, common)}</p>',
        render_table(lanes, baseline, common),
        heatmap.render_maps(lanes, baseline, common, comparison.audio_seconds),
        render_windows(lanes, baseline, common),
    ]


def list_blanks(comparison: Comparison, reason: str = NOT_YET) -> list[str]:
    """The same boxes with nothing in them and why, so that nothing moves when they fill."""
    lanes, baseline = comparison.lanes, comparison.baseline
    panels = [
        render_panel(lane.label, "histogram", draw_bars(NO_BARS, EDGES, 1.0), lane.key)
        for lane in lanes
    ]
    gaps = [
        render_panel(f"{lane.label} − {baseline.label}", "difference", "", lane.key)
        for lane in lanes
        if baseline is not None and lane.key != baseline.key
    ]
    return [
        arrange(panels, gaps),
        f'<p class="caption">{reason}</p>',
        wrap_table("Encoder feature figures", COLUMNS, "".join(map(render_blank_row, lanes))),
        heatmap.render_blanks(lanes, baseline),
        render_details(f'<p class="caption">{reason}</p>'),
    ]


def render_caption(comparison: Comparison, common: Common) -> str:
    """What the charts show and under which settings."""
    shape = next(
        " × ".join(str(n) for n in common.pick(lane).shape)
        for lane in comparison.done
        if lane.transcript is not None
    )
    uneven = "" if common.everywhere else " Only windows that start at the same audio are compared."
    return escape(
        f"Encoder output after ln_post, windows × positions × dimensions: {shape}.{uneven} "
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
    return arrange(panels, gaps)


def arrange(panels: Sequence[str], gaps: Sequence[str]) -> str:
    """Panels side by side with their differences from the baseline.

    Two lanes and their difference make one row; of more, each difference stands beneath its lane.
    """
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


def render_panel(
    title: str, note: str, chart: str, key: str, low: float | None = None, high: float | None = None
) -> str:
    """A chart with its title, a note and the ends of its axis, where they are known."""
    ends = ["–" if end is None else f"{end:.2f}" for end in (low, high)]
    label = escape(f"{title}: {note}", quote=True)
    return (
        f'<figure class="chart" style="--engine:{colour_engine(key)}">'
        f"<figcaption><strong>{escape(title)}</strong>"
        f"<span>{escape(note)}</span></figcaption>"
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{chart}</svg>"
        f'<div class="axis" aria-hidden="true"><span>{ends[0]}</span><span>feature value</span>'
        f"<span>{ends[1]}</span></div></figure>"
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


def render_table(lanes: Sequence[Lane], baseline: Lane | None, common: Common) -> str:
    """Statistics of each lane's features and their similarity to the baseline's."""
    rows = "".join(
        render_row(
            [lane.label, f"{lane.device} · {lane.dtype}"],
            common.pick(lane),
            pick_baseline(lane, baseline, common),
        )
        for lane in lanes
    )
    return wrap_table("Encoder feature figures", COLUMNS, rows)


def render_windows(lanes: Sequence[Lane], baseline: Lane | None, common: Common) -> str:
    """The same figures window by window."""
    rows = []
    for number, start in enumerate(common.starts):
        name = f"{number + 1}, from {start:.2f} s"
        for lane in lanes:
            theirs = pick_baseline(lane, baseline, common)
            other = theirs if isinstance(theirs, str) else theirs[number : number + 1]
            ours = common.pick(lane)[number : number + 1]
            rows.append(render_row([name, lane.label], ours, other))
    return render_details(
        wrap_table("Encoder feature figures by window", WINDOW_COLUMNS, "".join(rows))
    )


def render_details(body: str) -> str:
    """The table by window, folded away: it is long, and nothing should move when it comes."""
    return f'<details class="windows"><summary>The figures by window</summary>{body}</details>'


def wrap_table(name: str, columns: Sequence[str], rows: str) -> str:
    """A table that scrolls sideways on a narrow screen."""
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name, quote=True)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def pick_baseline(lane: Lane, baseline: Lane | None, common: Common) -> FloatArray | str:
    """The features to hold a lane's against, or in words why there are none."""
    if baseline is None or baseline.transcript is None:
        return "no baseline"
    return "baseline" if lane.key == baseline.key else common.pick(baseline)


def render_row(names: Sequence[str], ours: FloatArray, theirs: FloatArray | str) -> str:
    """One row: its names, statistics, and similarity to the baseline."""
    cells = [*names[1:], *format_statistics(summarise(ours))]
    if isinstance(theirs, str):
        cells += [theirs, "", ""]
    else:
        cells += format_similarity(measure_similarity(ours, theirs))
    body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(names[0])}</th>{body}</tr>'


def render_blank_row(lane: Lane) -> str:
    """A lane's row before anything is known."""
    body = "<td>–</td>" * (len(COLUMNS) - 1)
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
