"""How far encoders are apart after every stage, and each stage's histogram.

One row a stage, from the sound at the top to the decoder at the bottom; a mark stands the further
right the larger the difference, on a log scale. A row is a radio button, so that mouse, arrow keys
and screen readers choose a stage alike, and the panel works without a script and without a server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from demo.panels.histograms import Chart, draw_difference, draw_shares, scale_difference
from demo.panels.templating import render as render_template
from engines.analysis.records import EncoderInfo, LayerComparison, StageComparison
from engines.metrics import SharedHistograms

COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, the baseline first; shapes tell encoders apart as well."""

SIGNS = ("", "●", "◆", "▲", "■", "★")
"""As many as a machine with everything has encoders in all their types."""

MEASURES = {"error": "Relative error", "cosine": "1 − cosine"}
LOWEST = {"error": 1e-8, "cosine": 1e-15}
HIGHEST = 10.0
"""Ends of each scale, unless something smaller or larger was found."""

ZERO_PLACE, FIRST_PLACE, LAST_PLACE = 3.0, 12.0, 97.0
"""Percent of the width where nothing at all, the scale's left end and its right end stand."""

MEANING = {
    "log-mel": "what the encoder is given",
    "conv1": "first convolution and GELU",
    "conv2": "second convolution and GELU, every other frame",
    "positions": "conv2 with the positions added",
    "ln_post": "the last layer norm: what the decoder is given",
}
FIGURES = ("Mean", "Std", "Min", "Max", "Cosine", "Relative L2", "Max |Δ|")

PLACEHOLDER = (
    '<p class="caption">Each stage of the encoders appears here: how far it is from the baseline, '
    "and its histogram.</p>"
)


@dataclass(frozen=True)
class Scale:
    """A row's width as powers of ten, from `lowest` to `highest`, with room for 0 before it."""

    lowest: int
    highest: int

    def place(self, value: float) -> float:
        """Return where a value stands, in percent from the left."""
        if value <= 0:
            return ZERO_PLACE
        if not math.isfinite(value):
            return 100.0
        share = (math.log10(value) - self.lowest) / (self.highest - self.lowest)
        return FIRST_PLACE + min(max(share, 0.0), 1.0) * (LAST_PLACE - FIRST_PLACE)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Return places and labels of powers of ten from 1 down."""
        powers = range(0, self.lowest - 1, -2 if self.lowest > -12 else -4)
        return [(self.place(10.0**power), name_power(power)) for power in powers]


def render(result: LayerComparison, prefix: str = "stage", chosen: str = "") -> str:
    """Render the whole panel with the stage `chosen`, else the last one, open.

    `prefix` keeps the ids of two panels on one page apart.
    """
    names = [stage.name for stage in result.stages]
    return render_template(
        "layers.html",
        result=result,
        prefix=prefix,
        opened=names.index(chosen) if chosen in names else len(names) - 1,
        marks={each.name: mark(result, each) for each in result.encoders},
        verdicts={each.name: judge(result, each) for each in result.others},
        scales={what: find_scale(result, what) for what in MEASURES},
        measures=MEASURES,
        meaning=MEANING,
        figures=FIGURES,
        caption=describe(result),
        measure=measure,
        say_largest=say_largest,
        draw_pair=draw_pair,
        list_figures=list_figures,
    )


# In words.


def summarise(result: LayerComparison) -> str:
    """Say in one sentence what was found; what rounds is not held to float32's bound."""
    seen = f"{len(result.stages)} stages compared"
    exact = [each for each in result.others if not each.rounds_to]
    off = [each.label for each in result.others if find_departure(result, each)]
    if off:
        return f"{seen}: {', '.join(off)} {'differs' if len(off) == 1 else 'differ'}."
    if not exact:
        return f"{seen}: how far rounding moves them is below."
    which = "all match" if len(exact) == len(result.others) else "in float32 all match"
    return f"{seen}: {which}."


def judge(result: LayerComparison, encoder: EncoderInfo) -> str:
    """Say how far an encoder is from the exact result; float32's bound is for float32."""
    label, baseline = encoder.label, result.baseline.label
    errors = {stage.name: stage.error(encoder.name) for stage in result.stages}
    worst = max(errors, key=errors.__getitem__)
    first = find_departure(result, encoder)
    if first is not None:
        far = f"by {say(errors[first])}" if math.isfinite(errors[first]) else "not finite"
        return f"{label}: differs from {baseline} at {first}, {far}."
    if encoder.rounds_to:
        found = f"relative error {say(errors[worst])} at most, at {worst}"
        return f"{label}: rounds to {encoder.rounds_to}; {found}."
    found = f"the largest relative error is {say(errors[worst])}, at {worst}"
    return f"{label}: matches {baseline} at every stage; {found}."


def find_departure(result: LayerComparison, encoder: EncoderInfo) -> str | None:
    """Find the first stage that neither the order of float32 sums nor rounding explains.

    Of an encoder that rounds to a half type that is only one that is not finite.
    """
    if not encoder.rounds_to:
        return result.first_past(encoder.name)
    stages = result.stages
    return next((s.name for s in stages if not math.isfinite(s.error(encoder.name))), None)


def describe(result: LayerComparison) -> str:
    """Say what was compared, and what the dashed line means."""
    where = f" at {result.start:g} s" if result.start else ""
    rounds = any(encoder.rounds_to for encoder in result.encoders)
    half = " Encoders that round to a half type lie beyond it." if rounds else ""
    return (
        f"{result.model}, {result.clip}, one window of 30 s{where}. Relative error (relative L2): "
        "length of the difference over length of the same encoder's output in float64. Up to "
        f"{result.factor:g} times the error of PyTorch in float32 (the dashed line) is "
        f"rounding; beyond it is a real difference.{half}"
    )


def say(error: float) -> str:
    """Write a relative error with two figures, and powers of ten where it is small."""
    if not math.isfinite(error):
        return "not finite"
    return f"{error:.1e}" if 0 < error < 0.01 else f"{error:.2g}"


def name_power(power: int) -> str:
    """Write a power of ten."""
    if power == 0:
        return "1"
    return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(c)] if c.isdigit() else "⁻" for c in str(power))


# The chart.


def mark(result: LayerComparison, encoder: EncoderInfo) -> tuple[str, str]:
    """Return an encoder's colour and shape in this panel."""
    at = result.encoders.index(encoder)
    return COLOURS[at], SIGNS[at]


def measure(stage: StageComparison, encoder: str, what: str) -> float:
    """Return a stage's error against float64, or one less its cosine to the baseline."""
    if what == "error":
        return stage.error(encoder)
    figures = stage.similarity[encoder]
    if figures is None or not math.isfinite(figures.cosine):
        return 0.0 if stage.error(encoder) == 0 else math.inf
    return max(1 - figures.cosine, 0.0)


def say_largest(result: LayerComparison, stage: StageComparison, what: str) -> str:
    """Write the largest figure of a stage."""
    return say(max((measure(stage, each.name, what) for each in result.others), default=0.0))


def find_scale(result: LayerComparison, what: str) -> Scale:
    """Return the scale that holds every figure of the panel."""
    found = [measure(stage, each.name, what) for stage in result.stages for each in result.others]
    values = [value for value in found if 0 < value < math.inf]
    lowest = math.floor(math.log10(min([*values, LOWEST[what]])))
    return Scale(lowest, math.ceil(math.log10(max([*values, HIGHEST]))))


def draw_pair(
    result: LayerComparison, encoder: EncoderInfo, histograms: SharedHistograms
) -> tuple[Chart, Chart]:
    """Draw an encoder's histogram with the baseline's outline over it, and their difference."""
    baseline = result.baseline
    ours, theirs = histograms.shares[encoder.name], histograms.shares[baseline.name]
    tallest = float(max(ours.max(), theirs.max()))
    gap, largest, scale = scale_difference(histograms, encoder.name, baseline.name, tallest)
    low, high = f"{histograms.edges[0]:.2f}", f"{histograms.edges[-1]:.2f}"
    tone = mark(result, encoder)[0]
    whole = (draw_shares(ours, tallest), draw_shares(theirs, tallest, outline=True))
    words = f"largest {largest * 100:.2g} points" if largest else "every bin has the same count"
    axis = (low, f"±{scale * 100:.2g} points high", high)
    return (
        Chart(encoder.label, f"outline: {baseline.label}", tone, whole, (low, high)),
        Chart("Difference", words, tone, draw_difference(gap, scale), axis),
    )


def list_figures(stage: StageComparison, encoder: EncoderInfo) -> list[str]:
    """Return statistics and similarity of one encoder at one stage, as text."""
    found = stage.statistics[encoder.name]
    cells = ["not finite", "", "", ""]
    if found is not None:
        cells = [f"{v:.4f}" for v in (found.mean, found.std, found.minimum, found.maximum)]
    if encoder.name not in stage.similarity:
        return [*cells, "baseline", "", ""]
    near = stage.similarity[encoder.name]
    if near is None:
        return [*cells, "other shape", "", ""]
    return [*cells, f"{near.cosine:.9f}", say(near.relative_l2), say(near.max_abs)]
