"""What a clip sounds like: its mel spectrogram with the words over it, and its loudness beneath."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from demo.panels import charts
from demo.panels.lanes import list_tokens
from demo.panels.templating import format_clock, render_template
from demo.snapshot import Comparison
from engines.analysis.sound import FLOOR_DB, SoundView

HEIGHT = 440
USUAL_WIDTH, LETTER_WIDTH = 1000, 7.5
"""Pixels of the chart and of a letter, by which words are chosen that don't cover each other; on
another scale the browser chooses anew."""
WORD_ROWS = (0.96, 0.88)
"""Where words stand, from the bottom 0 to the top 1 of the spectrogram."""
QUIETEST_SHOWN = -60.0
MOST_SILENCES = 300
TABLE_ROWS = 12

NOT_YET = "Shown when the last engine is done, so that no engine’s time pays for it."
LOOKING = "The clip’s spectrogram is being computed …"
NOT_THERE = "This run has no picture of its sound."


def render(comparison: Comparison) -> str:
    """Render notes, spectrogram, words and loudness, or why there are none yet."""
    sound = comparison.sound
    if isinstance(sound, SoundView):
        words = list_words(comparison)
        return render_template(
            "sound.html", notes=sound.notes, chart=draw(sound, words), summary=summarise(sound)
        )
    sentence = NOT_THERE
    if sound is not None:
        sentence = f"The clip’s sound could not be described. {sound}"
    elif not comparison.finished or not comparison.done:
        sentence = NOT_YET
    elif comparison.describing:
        sentence = LOOKING
    return render_template("nothing.html", sentence=sentence)


def summarise(sound: SoundView) -> str:
    """Say how loud the clip is and how much of it is silence."""
    silent = sum(end - start for start, end in sound.silences)
    quiet = f"{silent:.1f} of {sound.seconds:.1f} s are silence" if silent else "no silence"
    loud = f"{-sound.level:.0f} dB below full scale on average, {-sound.peak:.0f} dB at the peak"
    return f"{loud}; {quiet}."


def list_words(comparison: Comparison) -> list[tuple[str, float]]:
    """List the baseline's words, else those of the first that has any, and when each is heard."""
    lanes = [lane for lane in (comparison.baseline, *comparison.done) if lane and lane.segments]
    segments = lanes[0].segments if lanes else ()
    return [(each.text, each.start) for segment in segments for each in list_tokens(segment)]


def draw(sound: SoundView, words: Sequence[tuple[str, float]]) -> Markup:
    """Draw everything on one time axis: a click plays the clip from there."""
    figure = go.Figure()
    figure.add_heatmap(
        z=sound.mel,
        zmin=FLOOR_DB,
        zmax=0,
        meta={"low": FLOOR_DB, "high": 0, "seconds": "x"},
        x0=round(sound.column_seconds / 2, 5),
        dx=sound.column_seconds,
        y=charts.name_bands(sound.hertz),
        colorscale=list(charts.SEQUENTIAL),
        colorbar={"title": {"text": "dB"}, "thickness": 10, "len": 0.66, "y": 0.67, "x": 1.01},
        hovertemplate="%{x:.2f} s, %{y}: %{z:.0f} dB below the loudest<extra></extra>",
    )
    _add_words(figure, sound, words)
    _add_loudness(figure, sound)
    figure.update_layout(
        margin={"l": 56, "r": 12, "t": 8, "b": 44},
        showlegend=False,
        hovermode="closest",
        bargap=0,
        xaxis={
            "range": [0, round(sound.seconds, 3)],
            "title": {"text": "seconds"},
            "anchor": "y2",
            "showgrid": False,
        },
        yaxis={"domain": [0.34, 1], "showgrid": False, "fixedrange": True}
        | charts.place_ticks(sound.hertz),
        yaxis2={
            "domain": [0, 0.26],
            "range": [QUIETEST_SHOWN, 0],
            "title": {"text": "dBFS"},
            "tickvals": [-60, -40, -20, 0],
            "fixedrange": True,
        },
        yaxis3={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )
    return charts.render_chart(
        figure,
        "Mel spectrogram with the words, and loudness beneath; hatched parts are silence",
        tabulate(sound, words),
        HEIGHT,
        "sound",
        note="Drag to zoom, double-click to go back, click to hear.",
    )


def _add_words(figure: go.Figure, sound: SoundView, words: Sequence[tuple[str, float]]) -> None:
    """Add a mark for every word, which tells it on hover, and those words that have room."""
    rows = thin_out([word for word, _ in words], [start for _, start in words], sound.seconds)
    starts = [round(start, 2) for _, start in words]
    figure.add_scatter(
        x=starts,
        y=[WORD_ROWS[0] if row is None else WORD_ROWS[row] for row in rows],
        yaxis="y3",
        mode="markers+text",
        text=[
            "" if row is None else charts.plain(word)
            for (word, _), row in zip(words, rows, strict=True)
        ],
        textposition="middle right",
        textfont={"color": "#fff", "shadow": "0 0 3px #000, 0 0 3px #000, 0 0 6px #000"},
        marker={"symbol": "line-ns-open", "size": 11, "color": "#fff", "line": {"width": 1}},
        customdata=starts,
        hovertext=[charts.plain(word) for word, _ in words],
        hovertemplate="“%{hovertext}” at %{x:.2f} s<extra></extra>",
        meta={"rows": list(WORD_ROWS)},
    )


def thin_out(words: Sequence[str], starts: Sequence[float], seconds: float) -> list[int | None]:
    """Choose a row for each word so that none covers another; None where there is no room."""
    scale = USUAL_WIDTH / max(seconds, 0.01)
    ends = [0.0] * len(WORD_ROWS)
    rows: list[int | None] = []
    for word, start in zip(words, starts, strict=True):
        left, width = start * scale, (len(word) + 2) * LETTER_WIDTH
        row = next((at for at, end in enumerate(ends) if end <= left), None)
        row = None if left + width > USUAL_WIDTH else row
        if row is not None:
            ends[row] = left + width
        rows.append(row)
    return rows


def _add_loudness(figure: go.Figure, sound: SoundView) -> None:
    """Add the loudness curve, with a hatched bar for each silence, of many the longest."""
    longest = sorted(sound.silences, key=lambda each: each[0] - each[1])[:MOST_SILENCES]
    figure.add_bar(
        x=[round((start + end) / 2, 3) for start, end in longest],
        width=[round(end - start, 3) for start, end in longest],
        y=[-QUIETEST_SHOWN] * len(longest),
        base=QUIETEST_SHOWN,
        yaxis="y2",
        marker={
            "color": "var(--line)",
            "line": {"width": 0},
            "pattern": {"shape": "/", "fgcolor": charts.QUIET, "size": 7, "solidity": 0.12},
        },
        customdata=[start for start, _ in longest],
        hovertext=[
            f"silence, {end - start:.1f} s from {format_clock(start)}" for start, end in longest
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    step = sound.seconds / max(len(sound.loudness), 1)
    figure.add_scatter(
        x0=round(step / 2, 5),
        dx=step,
        y=[max(value, QUIETEST_SHOWN) for value in sound.loudness],
        yaxis="y2",
        mode="lines",
        line={"color": charts.INK, "width": 1.25},
        hovertemplate="%{x:.2f} s: %{y:.0f} dB of full scale<extra></extra>",
        meta={"seconds": "x"},
    )


def tabulate(sound: SoundView, words: Sequence[tuple[str, float]]) -> charts.Table:
    """Give loudness, silence and words of up to twelve equal parts of the clip."""
    count = int(min(TABLE_ROWS, max(sound.seconds, 1)))
    parts = np.array_split(np.array(sound.loudness), count)
    edges = np.linspace(0, sound.seconds, count + 1)
    rows = []
    for start, end, part in zip(edges[:-1], edges[1:], parts, strict=True):
        inside = (min(last, end) - max(first, start) for first, last in sound.silences)
        silent = sum(seconds for seconds in inside if seconds > 0)
        said = " ".join(word for word, at in words if start <= at < end)
        loudest = f"{part.max():.0f} dB" if part.size else "–"
        rows.append([f"{start:.1f} to {end:.1f} s", loudest, f"{silent:.1f} s", said])
    return charts.Table(("Seconds", "Loudest", "Silence", "Words"), rows)
