"""The microscope's panel: how far encoders are apart after every stage, and each stage's histogram.

One row a stage, from the sound at the top to the decoder at the bottom; a mark stands the further
right the larger the difference, on a log scale. A row is a radio button, so that mouse, arrow keys
and screen readers choose a stage alike, and the panel works without a script and without a server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from engines.examination import Examination, Specimen, StageReading
from engines.features import FeatureSimilarity, FeatureStatistics, SharedHistograms

Shares = npt.NDArray[np.float64]

COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, the baseline first; shapes tell specimens apart as well."""

SIGNS = ("", "●", "◆", "▲", "■", "★")
"""As many as a machine with everything has encoders in all their types."""

MEASURES = {"error": "Relative error", "cosine": "1 − cosine"}

LOWEST = {"error": 1e-8, "cosine": 1e-15}
HIGHEST = 10.0
"""Ends of each scale, unless something smaller or larger was found."""

ZERO_PLACE, FIRST_PLACE, LAST_PLACE = 3.0, 12.0, 97.0
"""Percent of the width where nothing at all, the scale's left end and its right end stand."""

FLATTEST_SCALE = 0.01
"""A difference of histograms is never magnified more than to this share of the tallest bar."""

MEANING = {
    "log-mel": "what the encoder is given",
    "conv1": "first convolution and GELU",
    "conv2": "second convolution and GELU, every other frame",
    "positions": "conv2 with the positions added",
    "ln_post": "the last layer norm: what the decoder is given",
}

PLACEHOLDER = (
    '<div class="scope scope--empty"><p>Each stage of the encoders appears here as a row: how far '
    "it is from the baseline, and its histogram when you choose it.</p></div>"
)


def render_layers(examination: Examination, prefix: str = "stage", chosen: str = "") -> str:
    """The whole panel as HTML; `prefix` keeps the ids of two panels on one page apart.

    `chosen`: the stage that is open at first, else the last.
    """
    stages = examination.stages
    names = [stage.name for stage in stages]
    opened = names.index(chosen) if chosen in names else len(names) - 1
    rows = "".join(
        render_stage(examination, stage, at, prefix, at == opened)
        for at, stage in enumerate(stages)
    )
    return (
        f'<div class="scope-around">{render_verdicts(examination)}'
        f'<div class="scope" style="--rows:{len(stages)}">{render_measures(prefix)}'
        f"{render_scales(examination)}{rows}</div>{render_caption(examination)}"
        f"{render_table(examination)}</div>"
    )


def render_blank(labels: Sequence[str], stages: int, model: str, clip: str) -> str:
    """Room for what an examination will show, as tall and with nothing to be seen in it.

    `labels`: the specimens', the baseline's first.
    """
    hollow = imagine(labels, model, clip)
    return (
        f'<div class="room"><p>The stages appear here.</p>'
        f'<div class="scope-around scope-around--blank" inert>{render_verdicts(hollow)}'
        f'<div class="scope" style="--rows:{stages}">{render_measures("blank")}'
        f'<div class="powers"></div>{render_slide(hollow, hollow.stages[0])}</div>'
        f"{render_caption(hollow)}<details class='every'><summary>…</summary></details></div></div>"
    )


def imagine(labels: Sequence[str], model: str, clip: str) -> Examination:
    """An examination of one stage whose figures are as wide as real ones; never shown."""
    specimens = tuple(Specimen(str(at), label, "") for at, label in enumerate(labels))
    names = [specimen.name for specimen in specimens]
    flat = np.full(64, 1 / 64)
    stage = StageReading(
        "ln_post",
        (1500, 384),
        SharedHistograms(np.linspace(-9, 9, 65), dict.fromkeys(names, flat)),
        {name: FeatureStatistics(-0.1234, 1.2345, -12.3456, 12.3456) for name in names},
        {name: FeatureSimilarity(0.999999999, 1e-7, 1e-7) for name in names[1:]},
    )
    return Examination(model, clip, 0.0, specimens, (stage,))


def render_verdicts(examination: Examination) -> str:
    """A sentence for each specimen but the baseline, which is also the legend."""
    items = "".join(
        f'<li style="--engine:{colour(examination, specimen)}">'
        f'<span class="sign" aria-hidden="true">{sign(examination, specimen)}</span> '
        f"{escape(judge(examination, specimen))}</li>"
        for specimen in examination.others
    )
    return f'<ul class="verdicts">{items}</ul>'


def judge(examination: Examination, specimen: Specimen) -> str:
    """How far a specimen is from the baseline, in words; float32's tolerance is for float32."""
    errors = {stage.name: stage.error(specimen.name) for stage in examination.stages}
    worst = max(errors, key=errors.__getitem__)
    baseline = examination.baseline.label
    first = find_departure(examination, specimen)
    if first is not None:
        far = f"by {say(errors[first])}" if math.isfinite(errors[first]) else "not finite"
        return f"{specimen.label}: leaves {baseline} at {first}, {far}."
    if specimen.rounds_to:
        return (
            f"{specimen.label}: rounds to {specimen.rounds_to}; relative error "
            f"{say(errors[worst])} at most, at {worst}."
        )
    if errors[worst] == 0:
        return f"{specimen.label}: the same as {baseline} in every bit, at every stage."
    return (
        f"{specimen.label}: as {baseline} at every stage; the largest relative error is "
        f"{say(errors[worst])}, at {worst}."
    )


def find_departure(examination: Examination, specimen: Specimen) -> str | None:
    """The first stage that neither the order of float32 sums nor rounding to a half type explains;
    of a specimen that rounds only one that is not finite."""
    if not specimen.rounds_to:
        return examination.first_past(specimen.name)
    stages = examination.stages
    return next((s.name for s in stages if not math.isfinite(s.error(specimen.name))), None)


def say(error: float) -> str:
    """A relative error as people write it: two figures, and powers of ten where it is small."""
    if not math.isfinite(error):
        return "not finite"
    return f"{error:.1e}" if 0 < error < 0.01 else f"{error:.2g}"


def colour(examination: Examination, specimen: Specimen) -> str:
    """A specimen's colour in this panel."""
    return COLOURS[examination.specimens.index(specimen)]


def sign(examination: Examination, specimen: Specimen) -> str:
    """A specimen's shape in this panel."""
    return SIGNS[examination.specimens.index(specimen)]


def measure(stage: StageReading, specimen: str, what: str) -> float:
    """A stage's relative error, or one less its cosine; never negative."""
    if what == "error":
        return stage.error(specimen)
    figures = stage.similarity[specimen]
    if figures is None or not math.isfinite(figures.cosine):
        return 0.0 if stage.error(specimen) == 0 else math.inf
    return max(1 - figures.cosine, 0.0)


# The scale.


@dataclass(frozen=True)
class Scale:
    """A row's width as powers of ten, from `lowest` to `highest`, with room for 0 before it."""

    lowest: int
    highest: int

    def place(self, value: float) -> float:
        """Where a value stands, in percent from the left."""
        if value <= 0:
            return ZERO_PLACE
        if not math.isfinite(value):
            return 100.0
        share = (math.log10(value) - self.lowest) / (self.highest - self.lowest)
        return FIRST_PLACE + min(max(share, 0.0), 1.0) * (LAST_PLACE - FIRST_PLACE)


def find_scale(examination: Examination, what: str) -> Scale:
    """The scale that holds every figure of the panel."""
    found = [
        measure(stage, specimen.name, what)
        for stage in examination.stages
        for specimen in examination.others
    ]
    values = [value for value in found if 0 < value < math.inf]
    lowest = math.floor(math.log10(min([*values, LOWEST[what]])))
    return Scale(lowest, math.ceil(math.log10(max([*values, HIGHEST]))))


def render_measures(prefix: str) -> str:
    """Two radio buttons: which figure the rows show."""
    return "".join(
        f'<input type="radio" class="measure measure--{key}" name="{prefix}-measure" '
        f'id="{prefix}-{key}"{" checked" if key == "error" else ""}>'
        f'<label class="measured measured--{key}" for="{prefix}-{key}">{title}</label>'
        for key, title in MEASURES.items()
    )


def render_scales(examination: Examination) -> str:
    """For each figure: the powers of ten above the rows, and the lines through them."""
    return "".join(render_scale(examination, key) for key in MEASURES)


def render_scale(examination: Examination, what: str) -> str:
    """Axis, grid, tolerance and curves of one figure."""
    scale, height = find_scale(examination, what), len(examination.stages)
    step = 2 if what == "error" else 4
    powers = range(0, scale.lowest - 1, -step)
    ticks = f'<span style="left:{ZERO_PLACE}%">0</span>' + "".join(
        f'<span style="left:{scale.place(10.0**power):.1f}%">{name_power(power)}</span>'
        for power in powers
    )
    grid = "".join(draw_upright(scale.place(10.0**power), height, "grid-line") for power in powers)
    if what == "error":
        grid += draw_upright(scale.place(examination.tolerance), height, "limit")
    curves = "".join(
        draw_curve(examination, specimen, what, scale) for specimen in examination.others
    )
    return (
        f'<div class="powers by-{what}" aria-hidden="true">{ticks}</div>'
        f'<svg class="curves by-{what}" viewBox="0 0 100 {height}" preserveAspectRatio="none" '
        f'aria-hidden="true">{grid}{curves}</svg>'
    )


def name_power(power: int) -> str:
    """A power of ten as it is written."""
    if power == 0:
        return "1"
    return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(c)] if c.isdigit() else "⁻" for c in str(power))


def draw_upright(x: float, height: int, kind: str) -> str:
    """A line from top to bottom."""
    return f'<path class="{kind}" d="M{x:.1f} 0V{height}"/>'


def draw_curve(examination: Examination, specimen: Specimen, what: str, scale: Scale) -> str:
    """A line through one specimen's marks."""
    points = " ".join(
        f"{scale.place(measure(stage, specimen.name, what)):.1f},{at + 0.5}"
        for at, stage in enumerate(examination.stages)
    )
    return f'<polyline style="--engine:{colour(examination, specimen)}" points="{points}"/>'


# One stage.


def render_stage(
    examination: Examination, stage: StageReading, at: int, prefix: str, opened: bool
) -> str:
    """A row of the chart with its marks, and what opens beside it."""
    name, key = escape(stage.name), f"{prefix}-{at}"
    row = f"grid-row:{at + 3}"
    marks = "".join(render_marks(examination, stage, what) for what in MEASURES)
    return (
        f'<input type="radio" class="chooser" name="{prefix}" id="{key}" style="{row}"'
        f"{' checked' if opened else ''}>"
        f'<label class="stage" for="{key}" style="{row}"><span class="name">{name}</span>{marks}'
        f"</label>{render_slide(examination, stage)}"
    )


def render_marks(examination: Examination, stage: StageReading, what: str) -> str:
    """Every specimen's mark on one row, and the largest figure in writing."""
    scale = find_scale(examination, what)
    values = {specimen: measure(stage, specimen.name, what) for specimen in examination.others}
    marks = "".join(
        f'<i style="left:{scale.place(value):.1f}%;--engine:{colour(examination, specimen)}">'
        f"{sign(examination, specimen)}</i>"
        for specimen, value in values.items()
    )
    spoken = MEASURES[what].lower()
    return (
        f'<span class="rail by-{what}" aria-hidden="true">{marks}</span>'
        f'<span class="largest by-{what}"><span class="spoken">largest {spoken}: </span>'
        f"{say(max(values.values(), default=0.0))}</span>"
    )


def render_slide(examination: Examination, stage: StageReading) -> str:
    """Histograms and figures of one stage."""
    shape = " × ".join(str(n) for n in stage.shape)
    meaning = MEANING.get(stage.name, "attention and MLP, each added to what came in")
    if stage.histograms is None:
        charts = '<p class="reason">Some values are not finite, so there is no histogram.</p>'
    else:
        charts = "".join(
            render_pair(examination, specimen, stage.histograms) for specimen in examination.others
        )
    return (
        f'<section class="slide" aria-label="{escape(stage.name, quote=True)}">'
        f"<h3>{escape(stage.name)}</h3>"
        f'<p class="caption">{meaning}; {shape} values</p>'
        f'<div class="pairs">{charts}</div>{render_figures(examination, stage)}</section>'
    )


def render_pair(examination: Examination, specimen: Specimen, histograms: SharedHistograms) -> str:
    """A specimen's histogram with the baseline's outline over it, and their difference."""
    baseline = examination.baseline
    ours, theirs = histograms.shares[specimen.name], histograms.shares[baseline.name]
    tallest = float(max(ours.max(), theirs.max()))
    gap = ours - theirs
    largest = float(np.abs(gap).max())
    scale = max(largest, FLATTEST_SCALE * tallest)
    ends = [f"{histograms.edges[end]:.2f}" for end in (0, -1)]
    tone = colour(examination, specimen)
    whole = draw_area(ours, tallest) + draw_outline(theirs, tallest)
    words = f"largest {largest * 100:.2g} points" if largest else "every bin has the same count"
    height = f"±{scale * 100:.2g} points high"
    return draw_figure(
        specimen.label, f"outline: {baseline.label}", whole, tone, ends
    ) + draw_figure(
        "Difference", words, draw_gaps(gap, scale), tone, [ends[0], height, ends[1]], "chart--gap"
    )


def draw_figure(
    title: str, note: str, chart: str, tone: str, axis: Sequence[str], kind: str = ""
) -> str:
    """A small chart with its title, a note and the ends of its axis."""
    label = escape(f"{title}: {note}", quote=True)
    ends = "".join(f"<span>{end}</span>" for end in axis)
    return (
        f'<figure class="chart chart--small {kind}" style="--engine:{tone}">'
        f"<figcaption><strong>{escape(title)}</strong><span>{escape(note)}</span></figcaption>"
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f'{chart}</svg><div class="axis" aria-hidden="true">{ends}</div></figure>'
    )


def trace(heights: Shares) -> str:
    """Steps across the width, one for each bin, `heights` from the top."""
    width = 100 / len(heights)
    return "".join(f"V{height:.1f}H{(at + 1) * width:.1f}" for at, height in enumerate(heights))


def draw_area(shares: Shares, tallest: float) -> str:
    """A filled histogram as one path, which weighs a tenth of as many bars."""
    return f'<path class="area" d="M0 100{trace(100 - 94 * shares / tallest)}V100Z"/>'


def draw_outline(shares: Shares, tallest: float) -> str:
    """A histogram's outline."""
    return f'<path class="outline" d="M0 100{trace(100 - 94 * shares / tallest)}V100"/>'


def draw_gaps(gaps: Shares, scale: float) -> str:
    """A filled difference, up and down from a middle line."""
    area = f'<path class="area" d="M0 50{trace(50 - 46 * gaps / scale)}V50Z"/>'
    return f'<line class="zero" x1="0" x2="100" y1="50" y2="50"/>{area}'


# Figures.

STATISTICS = ("Mean", "Std", "Min", "Max")
SIMILARITY = ("Cosine", "Relative L2", "Max |Δ|")


def render_figures(examination: Examination, stage: StageReading) -> str:
    """One stage's figures, a column for each specimen."""
    head = "".join(
        f'<th scope="col">{escape(specimen.label)}</th>' for specimen in examination.specimens
    )
    columns = [list_figures(stage, specimen) for specimen in examination.specimens]
    rows = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f"<td>{escape(column[at])}</td>" for column in columns)
        + "</tr>"
        for at, name in enumerate((*STATISTICS, *SIMILARITY))
    )
    return (
        f'<div class="readings" tabindex="0" role="region" aria-label="Figures of {stage.name}">'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def list_figures(stage: StageReading, specimen: Specimen) -> list[str]:
    """Statistics and similarity of one specimen at one stage, as text."""
    cells = format_statistics(stage.statistics[specimen.name])
    if specimen.name not in stage.similarity:
        return [*cells, "baseline", "", ""]
    similar = stage.similarity[specimen.name]
    if similar is None:
        return [*cells, "other shape", "", ""]
    return [
        *cells,
        f"{similar.cosine:.9f}",
        say(similar.relative_l2),
        say(similar.max_abs),
    ]


def format_statistics(figures: FeatureStatistics | None) -> list[str]:
    """Mean, standard deviation, minimum and maximum."""
    if figures is None:
        return ["not finite", "", "", ""]
    values = (figures.mean, figures.std, figures.minimum, figures.maximum)
    return [f"{value:.4f}" for value in values]


def render_table(examination: Examination) -> str:
    """Every figure of every stage, folded away."""
    names = ("Stage", "Encoder", *STATISTICS, *SIMILARITY)
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(stage.name)}</th><td>{escape(specimen.label)}</td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in list_figures(stage, specimen))
        + "</tr>"
        for stage in examination.stages
        for specimen in examination.specimens
    )
    return (
        '<details class="every"><summary>Every figure as a table</summary>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Every stage’s figures">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def render_caption(examination: Examination) -> str:
    """What was looked at, and what the dashed line means."""
    where = f" at {examination.start:g} s" if examination.start else ""
    rounds = any(specimen.rounds_to for specimen in examination.specimens)
    half = " What rounds to a half type lies beyond it." if rounds else ""
    return (
        f'<p class="caption">{escape(examination.model)}, {escape(examination.clip)}, one window '
        f"of 30 s{where}. Relative error (relative L2): length of the difference over length of "
        f"the baseline, {escape(examination.baseline.label)}. In float32, up to "
        f"{examination.tolerance:.0e} (the dashed line) it is the order of sums; beyond it "
        f"something else is computed.{half}</p>"
    )
