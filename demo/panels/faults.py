"""What a fault in the encoder does: where it shows first, and what becomes of the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from demo.panels import charts, layers
from demo.panels.accuracy import describe_differences, list_changes
from demo.panels.templating import render_template
from engines.base import FloatArray
from engines.feature_statistics import WINDOW_SECONDS
from engines.metrics import compare, name_count

if TYPE_CHECKING:
    from engines.analysis.faults import FaultResult, Inputs


def render(result: FaultResult) -> str:
    """Render where the fault first shows, both texts, their difference, and the stages."""
    first, faulty, errors = result.first_stage, result.faulty, []
    for stage in result.layers.stages:
        if stage.name == first:
            encoders = (result.faulty_encoder, result.right_encoder)
            errors = [layers.format_error(stage.errors[each.name]) for each in encoders]
    return render_template(
        "faults.html",
        first=first,
        errors=errors,
        right=result.right.text.strip(),
        faulty=faulty.text.strip() if faulty else None,
        error=result.error or "no reason given",
        difference=explain(result),
        inputs=draw_inputs(result.inputs) if result.inputs else "",
        edits=list_changes(compare(result.right.text, faulty.text)) if faulty else [],
        layers=layers.render(result.layers, "fault", first or ""),
    )


def explain(result: FaultResult) -> str:
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


def summarise(result: FaultResult) -> str:
    """Say in one sentence what came of it, for the line above the panel."""
    title = result.fault.title
    if result.faulty is None:
        return f"{title}: the run broke."
    errors = compare(result.right.text, result.faulty.text).errors
    words = f"{name_count(errors)} changed" if errors else "the same words"
    shows = f"first shows at {result.first_stage}" if result.first_stage else "no stage shows it"
    return f"{title}: {shows}, {words}."


def draw_inputs(inputs: Inputs) -> Markup:
    """Draw Whisper's log-mel beside what the fault makes of it, on equal axes."""
    figure = go.Figure()
    names = ("Whisper’s log-mel", "librosa’s power_to_db")
    pictures = dict(zip(names, (inputs.right, inputs.faulty), strict=True))
    for at, (name, values) in enumerate(pictures.items()):
        low, high = float(values.min()), float(values.max())
        figure.add_heatmap(
            **charts.pack(values.astype(np.float64), round(low, 2), round(high, 2)),
            x0=WINDOW_SECONDS / values.shape[1] / 2,
            dx=WINDOW_SECONDS / values.shape[1],
            y=charts.name_bands(inputs.hertz),
            xaxis=f"x{at + 1}",
            yaxis=f"y{at + 1}",
            colorscale=list(charts.SEQUENTIAL),
            colorbar={"thickness": 10, "x": (0.445, 1.0)[at]},
            hovertemplate=f"{name}<br>%{{x:.1f}} s, %{{y}}: %{{z:.2f}}<extra></extra>",
        )
        figure.add_annotation(
            text=name, xref="paper", yref="paper", x=0.56 * at, y=1.1, showarrow=False
        )
    band, time = charts.place_ticks(inputs.hertz), {"range": [0, WINDOW_SECONDS], "showgrid": False}
    figure.update_layout(
        margin={"l": 56, "r": 12, "t": 32, "b": 44},
        xaxis={"domain": [0, 0.44], "title": {"text": "seconds"}, **time},
        xaxis2={"domain": [0.56, 1], "title": {"text": "seconds"}, "matches": "x", **time},
        yaxis={"showgrid": False, **band},
        yaxis2={"anchor": "x2", "matches": "y", "showgrid": False, **band},
    )
    rows = [
        [name, *(f"{measure(values):.2f}" for measure in (np.min, np.mean, np.max))]
        for name, values in pictures.items()
    ]
    return charts.render_chart(
        figure,
        "What the encoder is given",
        charts.Table(("Input", "Least", "Mean", "Most"), rows),
        300,
        "fault-inputs",
        note=explain_inputs(inputs.right, inputs.faulty),
    )


def explain_inputs(right: FloatArray, faulty: FloatArray) -> str:
    """Say what the eye may miss: the colours are alike, the numbers beside them are not."""
    before, after = (f"{each.min():.1f} to {each.max():.1f}" for each in (right, faulty))
    said = f"The same sound in other numbers: {before} in Whisper’s log-mel, {after} in decibels."
    if right[:, -1].any():
        return said
    louder = float((faulty[:, right.any(axis=0)] < 0).mean())
    return f"{said} What fills up a short clip is 0 in both: louder than {louder:.0%} of the clip."
