"""How far encoders or decoders are apart after every stage.

Stages stand from left to right, from what goes in to what comes out; a mark stands the higher the
larger the difference, on a log scale. A click on a stage, or the menu, chooses whose histograms are
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from demo.panels import charts
from demo.panels.encoder_output import (
    FIGURES,
    Column,
    draw_histograms,
    format_figures,
    trace_steps,
)
from demo.panels.templating import render_template
from engines.analysis.records import Half, LayerComparison, StageComparison
from engines.feature_statistics import SharedHistograms

COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, the baseline first; shapes tell them apart as well."""

SIGNS = ("●", "◆", "▲", "■", "★", "✚")
"""Plotly's `SYMBOLS` in words: as many as a machine with everything has encoders in all types."""

MEASURES = {"error": "Relative error", "cosine": "1 − cosine"}
LOWEST = {"error": 1e-8, "cosine": 1e-15}
HIGHEST = 10.0
"""Ends of each scale, unless something smaller or larger was found."""

MEANING = {
    "log-mel": "what the encoder is given",
    "conv1": "first convolution and GELU",
    "conv2": "second convolution and GELU, every other frame",
    "positions": "conv2 with the positions added",
    "ln_post": "the last layer norm: what the decoder is given",
    "embedding": "the tokens, with their positions added",
    "self_keys": "keys of the tokens, as the cache holds them",
    "self_values": "values of the tokens, as the cache holds them",
    "self_attention": "self-attention, added to what came in",
    "cross_keys": "keys of the audio, as the cache holds them",
    "cross_values": "values of the audio, as the cache holds them",
    "cross_attention": "cross-attention, added to what came in",
    "mlp": "MLP, added to what came in",
    "ln": "the last layer norm",
    "logits": "by which the next token is chosen",
}
"""By a stage's name, or its name within its block."""

WHOLE_BLOCK = "attention and MLP, each added to what came in"
NO_HISTOGRAM = "Some values are not finite, so there is no histogram."

HEIGHT = 420


@dataclass(frozen=True)
class Scale:
    """An axis as powers of ten, from `lowest` to `highest`, with room for 0 beneath it."""

    lowest: int
    highest: int

    def place(self, value: float) -> float:
        """Return where a value stands on a log axis."""
        floor = 10.0 ** (self.lowest - 1)
        return floor if value <= 0 else min(max(value, floor), 10.0**self.highest)

    @property
    def ticks(self) -> dict[str, Sequence[Any]]:
        """Return places and labels: 0, and powers of ten."""
        superscript = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
        powers = range(0, self.lowest - 1, -2 if self.lowest > -12 else -4)
        labels = ["0", "1", *(f"10{str(power).translate(superscript)}" for power in powers[1:])]
        return {
            "tickvals": [self.place(0), *(10.0**power for power in powers)],
            "ticktext": labels,
            "range": [self.lowest - 1.3, self.highest],
        }


def render(result: LayerComparison, prefix: str = "stage", chosen: str = "") -> str:
    """Render the whole panel with the stage `chosen`, else the last one.

    `prefix` keeps the controls of two panels on one page apart.
    """
    names = [stage.name for stage in result.stages]
    opened = names.index(chosen) if chosen in names else len(names) - 1
    return render_template(
        "layers.html",
        result=result,
        marks={each.name: (COLOURS[at], SIGNS[at]) for at, each in enumerate(result.halves)},
        verdicts={each.name: judge(result, each) for each in result.others},
        curves=_render_curves(result, prefix, opened),
        histograms=_render_histograms(result, prefix, opened),
    )


def _list_errors(result: LayerComparison) -> charts.Table:
    """List every half's error and figures at every stage."""
    rows = [
        [
            stage.name,
            each.label,
            format_error(stage.errors[each.name]),
            format_error(result.bound(stage)),
            *_list_figures(stage, each),
            tell_worst(stage, each),
        ]
        for stage in result.stages
        for each in result.halves
    ]
    return charts.Table(
        ("Stage", result.half.title(), "Relative error", "Limit", *FIGURES, "Worst element"), rows
    )


def _list_measures(shown: list[str], scales: dict[str, Scale]) -> list[charts.Option]:
    """List the choices of a measure; `shown`: the measure of each trace."""
    return [
        charts.Option(
            title,
            {"visible": [each == name for each in shown]},
            {f"yaxis.{trait}": value for trait, value in scales[name].ticks.items()},
        )
        for name, title in MEASURES.items()
    ]


def _render_curves(result: LayerComparison, prefix: str, opened: int) -> Markup:
    """Render how far every half is from the baseline at every stage, by both measures."""
    names = [stage.name for stage in result.stages]
    scales = {measured: find_scale(result, measured) for measured in MEASURES}
    figure, shown = go.Figure(), []
    for measured, scale in scales.items():
        for at, each in enumerate(result.others, 1):
            figures = [measure(stage, each.name, measured) for stage in result.stages]
            figure.add_scatter(
                x=names,
                y=charts.round_all([scale.place(value) for value in figures]),
                name=charts.plain(each.label),
                mode="lines+markers",
                visible=measured == "error",
                line={"color": charts.tone(COLOURS[at]), "width": 2, "dash": charts.DASHES[at - 1]},
                marker={"symbol": charts.SYMBOLS[at], "size": 10},
                hovertext=[
                    f"{charts.plain(each.label)}<br>{stage.name}: {format_error(value)}"
                    f"<br>worst: {charts.plain(tell_worst(stage, each))}"
                    for stage, value in zip(result.stages, figures, strict=True)
                ],
                hovertemplate="%{hovertext}<extra></extra>",
            )
            shown.append(measured)
    figure.add_scatter(
        x=names,
        y=charts.round_all([scales["error"].place(result.bound(stage)) for stage in result.stages]),
        name="Limit of rounding in float32",
        mode="lines",
        line={"color": charts.QUIET, "width": 1.5, "dash": "dash"},
        hovertemplate="limit at %{x}: %{y:.1e}<extra></extra>",
    )
    shown.append("error")
    figure.update_layout(
        margin={"l": 60, "r": 12, "t": 56, "b": 72},
        xaxis={"type": "category", "categoryarray": names, "range": [-0.5, len(names) - 0.5]}
        | _mark_blocks(result),
        yaxis={"type": "log", **scales["error"].ticks},
        shapes=[{"yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}, "fillcolor": charts.LINE}
                | {"layer": "below", "x0": opened - 0.5, "x1": opened + 0.5}],
    )  # fmt: skip
    stages = [
        charts.Option(name, layout={"shapes.0.x0": at - 0.5, "shapes.0.x1": at + 0.5})
        for at, name in enumerate(names)
    ]
    return charts.render_chart(
        figure,
        f"How far each {result.half} is from {result.baseline.label}, stage by stage",
        _list_errors(result),
        HEIGHT,
        f"{prefix}-curves",
        [
            charts.Control(f"{prefix}-measure", "Measure", _list_measures(shown, scales)),
            charts.Control(f"{prefix}-stage", "Stage", stages, chosen=opened, hidden=True),
        ],
        chooses=f"{prefix}-stage",
    )


def _render_histograms(result: LayerComparison, prefix: str, opened: int) -> Markup | None:
    """Render all halves' histograms at the chosen stage, and the differences beneath."""
    drawn = [stage.histograms for stage in result.stages if stage.histograms is not None]
    if not drawn:
        return None
    figure, controls = draw_histograms(drawn[0].edges, _list_columns(result, drawn[0]), prefix)
    count, sentence = len(figure.layout.annotations), NO_HISTOGRAM
    figure.add_annotation(
        text=sentence, xref="paper", yref="paper", x=0.5, y=0.7, showarrow=False, visible=False
    )
    options = []
    for stage in result.stages:
        meaning = MEANING.get(stage.name.rpartition(".")[2], WHOLE_BLOCK)
        label = f"{stage.name}: {meaning}; {' × '.join(map(str, stage.shape))} values"
        if stage.histograms is None:
            hidden: dict[str, list[list[float]]] = {"y": [[] for _ in figure.data]}
            options.append(charts.Option(label, hidden, {f"annotations.{count}.visible": True}))
            continue
        columns = _list_columns(result, stage.histograms)
        traces, axis = trace_steps(stage.histograms.edges, columns)
        first = len(result.halves) + 1
        axes = [f"yaxis{first + at}" for at in range(len(result.others))]
        layout = {f"{each}.{trait}": value for each in axes for trait, value in axis.items()}
        options.append(charts.Option(label, traces, layout))
    *overlay, scale = controls
    return charts.render_chart(
        figure,
        f"Values at the chosen stage; beneath, the difference from {result.baseline.label}",
        None,
        HEIGHT,
        f"{prefix}-histograms",
        [
            charts.Control(f"{prefix}-stage", "Stage", options, chosen=opened),
            *(replace(each, chosen=1, narrow=None, hidden=True) for each in overlay),
            scale,
        ],
    )


def _list_columns(result: LayerComparison, histograms: SharedHistograms) -> list[Column]:
    """Return every half's histogram, and its difference from the baseline's."""
    theirs = histograms.shares[result.baseline.name]
    return [
        Column(
            each.label,
            COLOURS[at],
            histograms.shares[each.name],
            histograms.shares[each.name] - theirs if at else None,
        )
        for at, each in enumerate(result.halves)
    ]


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


def judge(result: LayerComparison, half: Half) -> str:
    """Say how far a half is from the exact result; float32's bound is for float32."""
    label, baseline = half.label, result.baseline.label
    errors = {stage.name: stage.errors[half.name] for stage in result.stages}
    stage = result.find_worst(half.name)
    worst, element = stage.name, stage.worst[half.name]
    where = f"{worst}, most in {element}" if element and element.gap else worst
    first = find_departure(result, half)
    if first is not None:
        far = f"by {format_error(errors[first])}" if math.isfinite(errors[first]) else "not finite"
        at = next(stage for stage in result.stages if stage.name == first)
        return f"{label}: differs from {baseline} at {first}, {far}. Worst: {tell_worst(at, half)}."
    if half.rounds_to:
        finding = f"relative error {format_error(errors[worst])} at most, at {where}"
        return f"{label}: rounds to {half.rounds_to}; {finding}."
    finding = f"the largest relative error is {format_error(errors[worst])}, at {where}"
    return f"{label}: matches {baseline} at every stage; {finding}."


def tell_worst(stage: StageComparison, half: Half) -> str:
    """Say which element of a stage is farthest from float64's, and how far."""
    worst = stage.worst[half.name]
    if worst is None:
        return "other shape"
    return f"{worst}, off by {format_error(worst.gap)}" if worst.gap else "equal"


def _mark_blocks(result: LayerComparison) -> dict[str, Sequence[str]]:
    """Return the labels of an axis on which every block of a decoder has many stages."""
    if result.half == "encoder":
        return {}
    middle = ".cross_keys"  # at which a block's name stands
    names = [stage.name for stage in result.stages]
    marked = [name for name in names if name.endswith(middle) or name in (names[0], names[-1])]
    return {"tickvals": marked, "ticktext": [name.removesuffix(middle) for name in marked]}


def find_departure(result: LayerComparison, half: Half) -> str | None:
    """Find the first stage that neither the order of float32 sums nor rounding explains.

    Of one that rounds to a half type that is only one that is not finite.
    """
    if not half.rounds_to:
        return result.first_past(half.name)
    stages = result.stages
    return next((s.name for s in stages if not math.isfinite(s.errors[half.name])), None)


def format_error(error: float) -> str:
    """Write a relative error with two figures, and powers of ten where it is small."""
    if not math.isfinite(error):
        return "not finite"
    return f"{error:.1e}" if 0 < error < 0.01 else f"{error:.2g}"


def measure(stage: StageComparison, half: str, name: str) -> float:
    """Return a stage's error against float64, or one less its cosine to the baseline."""
    if name == "error":
        return stage.errors[half]
    figures = stage.similarity[half]
    if figures is None or not math.isfinite(figures.cosine):
        return 0.0 if stage.errors[half] == 0 else math.inf
    return max(1 - figures.cosine, 0.0)


def find_scale(result: LayerComparison, name: str) -> Scale:
    """Return the scale that holds every figure of the panel."""
    figures = [measure(stage, each.name, name) for stage in result.stages for each in result.others]
    values = [value for value in figures if 0 < value < math.inf]
    lowest = math.floor(math.log10(min([*values, LOWEST[name]])))
    return Scale(lowest, math.ceil(math.log10(max([*values, HIGHEST]))))


def _list_figures(stage: StageComparison, half: Half) -> list[str]:
    near = stage.similarity.get(half.name, "baseline") or "other shape"
    return format_figures(stage.statistics[half.name], near)
