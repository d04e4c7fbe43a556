"""How far encoders are apart after every stage, and what a fault in one does to the text.

One row a stage, from the sound at the top to the decoder at the bottom; a mark stands the further
right the larger the difference, on a log scale. A row is a radio button, so that mouse, arrow keys
and screen readers choose a stage alike, and the panel works without a script and without a server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.panels.accuracy import describe_differences, list_changes
from demo.panels.encoder_output import (
    FIGURES,
    Chart,
    draw_difference,
    draw_shares,
    format_figures,
    scale_difference,
)
from demo.panels.templating import render_template
from engines.analysis.records import Encoder, LayerComparison, StageComparison
from engines.metrics import WINDOW_SECONDS, SharedHistograms, compare, name_count

if TYPE_CHECKING:
    from engines.analysis.faults import FaultResult

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
        superscript = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
        powers = range(0, self.lowest - 1, -2 if self.lowest > -12 else -4)
        labels = ["1", *(f"10{str(power).translate(superscript)}" for power in powers[1:])]
        return [
            (self.place(10.0**power), label) for power, label in zip(powers, labels, strict=True)
        ]


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
        marks={each.name: (COLOURS[at], SIGNS[at]) for at, each in enumerate(result.encoders)},
        verdicts={each.name: judge(result, each) for each in result.others},
        scales={what: find_scale(result, what) for what in MEASURES},
        measures=MEASURES,
        meaning=MEANING,
        figures=FIGURES,
        measure=measure,
        say_largest=_say_largest,
        draw_pair=draw_pair,
        list_figures=_list_figures,
    )


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


def judge(result: LayerComparison, encoder: Encoder) -> str:
    """Say how far an encoder is from the exact result; float32's bound is for float32."""
    label, baseline = encoder.label, result.baseline.label
    errors = {stage.name: stage.errors[encoder.name] for stage in result.stages}
    worst = max(errors, key=errors.__getitem__)
    first = find_departure(result, encoder)
    if first is not None:
        far = f"by {format_error(errors[first])}" if math.isfinite(errors[first]) else "not finite"
        return f"{label}: differs from {baseline} at {first}, {far}."
    if encoder.rounds_to:
        found = f"relative error {format_error(errors[worst])} at most, at {worst}"
        return f"{label}: rounds to {encoder.rounds_to}; {found}."
    found = f"the largest relative error is {format_error(errors[worst])}, at {worst}"
    return f"{label}: matches {baseline} at every stage; {found}."


def find_departure(result: LayerComparison, encoder: Encoder) -> str | None:
    """Find the first stage that neither the order of float32 sums nor rounding explains.

    Of an encoder that rounds to a half type that is only one that is not finite.
    """
    if not encoder.rounds_to:
        return result.first_past(encoder.name)
    stages = result.stages
    return next((s.name for s in stages if not math.isfinite(s.errors[encoder.name])), None)


def format_error(error: float) -> str:
    """Write a relative error with two figures, and powers of ten where it is small."""
    if not math.isfinite(error):
        return "not finite"
    return f"{error:.1e}" if 0 < error < 0.01 else f"{error:.2g}"


def measure(stage: StageComparison, encoder: str, what: str) -> float:
    """Return a stage's error against float64, or one less its cosine to the baseline."""
    if what == "error":
        return stage.errors[encoder]
    figures = stage.similarity[encoder]
    if figures is None or not math.isfinite(figures.cosine):
        return 0.0 if stage.errors[encoder] == 0 else math.inf
    return max(1 - figures.cosine, 0.0)


def _say_largest(result: LayerComparison, stage: StageComparison, what: str) -> str:
    return format_error(
        max((measure(stage, each.name, what) for each in result.others), default=0.0)
    )


def find_scale(result: LayerComparison, what: str) -> Scale:
    """Return the scale that holds every figure of the panel."""
    found = [measure(stage, each.name, what) for stage in result.stages for each in result.others]
    values = [value for value in found if 0 < value < math.inf]
    lowest = math.floor(math.log10(min([*values, LOWEST[what]])))
    return Scale(lowest, math.ceil(math.log10(max([*values, HIGHEST]))))


def draw_pair(
    result: LayerComparison, encoder: Encoder, histograms: SharedHistograms
) -> tuple[Chart, Chart]:
    """Draw an encoder's histogram with the baseline's outline over it, and their difference."""
    baseline = result.baseline
    ours, theirs = histograms.shares[encoder.name], histograms.shares[baseline.name]
    tallest = float(max(ours.max(), theirs.max()))
    gap, largest, scale = scale_difference(histograms, encoder.name, baseline.name, tallest)
    low, high = f"{histograms.edges[0]:.2f}", f"{histograms.edges[-1]:.2f}"
    tone = COLOURS[result.encoders.index(encoder)]
    whole = (draw_shares(ours, tallest), draw_shares(theirs, tallest, outline=True))
    words = f"largest {largest * 100:.2g} points" if largest else "every bin has the same count"
    axis = (low, f"±{scale * 100:.2g} points high", high)
    return (
        Chart(encoder.label, f"outline: {baseline.label}", tone, whole, (low, high)),
        Chart("Difference", words, tone, draw_difference(gap, scale), axis),
    )


def _list_figures(stage: StageComparison, encoder: Encoder) -> list[str]:
    near = stage.similarity.get(encoder.name, "baseline") or "other shape"
    return format_figures(stage.statistics[encoder.name], near)


def render_fault(result: FaultResult) -> str:
    """Render where the fault first shows, both texts, their difference, and the stages."""
    first, faulty, errors = result.first_stage, result.faulty, []
    for stage in result.layers.stages:
        if stage.name == first:
            encoders = (result.faulty_encoder, result.right_encoder)
            errors = [format_error(stage.errors[each.name]) for each in encoders]
    return render_template(
        "faults.html",
        first=first,
        errors=errors,
        right=result.right.text.strip(),
        faulty=faulty.text.strip() if faulty else None,
        error=result.error or "no reason given",
        difference=explain_fault(result),
        edits=list_changes(compare(result.right.text, faulty.text)) if faulty else [],
        layers=render(result.layers, "fault", first or ""),
    )


def explain_fault(result: FaultResult) -> str:
    """Say how many words differ, or why a fault may leave the text alone."""
    if result.faulty is None:
        return "There is no text to compare."
    alignment = compare(result.right.text, result.faulty.text)
    if alignment.errors:
        return describe_differences(alignment)
    same = "The text is the same, word for word."
    if result.fault.first_window_only and result.audio_seconds <= WINDOW_SECONDS:
        return f"{same} This clip ends within its first window: choose a longer one."
    if result.first_stage is None:
        return same
    return f"{same} The decoder got other features and still chose the same words."


def summarise_fault(result: FaultResult) -> str:
    """Say in one sentence what came of it, for the line above the panel."""
    title = result.fault.title
    if result.faulty is None:
        return f"{title}: the run broke."
    errors = compare(result.right.text, result.faulty.text).errors
    words = f"{name_count(errors)} changed" if errors else "the same words"
    shows = f"first shows at {result.first_stage}" if result.first_stage else "no stage shows it"
    return f"{title}: {shows}, {words}."
