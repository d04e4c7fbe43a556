"""Charts: Plotly figures made here, drawn in the browser by `assets/charts.js`.

A figure travels as JSON in an attribute of its element, with a table of the same figures behind it.
Colours are CSS variables, which the browser works out anew whenever the theme changes; `tone` and
`shade` make those of an engine. A click on a point plays the clip from there, where the point's
`customdata` is a number of seconds, or its trace says `meta={"seconds": "x"}`; a text there is
handed on as the event `pick`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly
import plotly.graph_objects as go
from markupsafe import Markup

from demo.panels.templating import render_template

SCRIPT = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
"""Plotly's own script; the page loads it when the first chart comes into view."""

INK, QUIET, LINE, SHEET = (
    f"var(--{name})" for name in ("body-text-color", "quiet", "line", "sheet")
)

SEQUENTIAL = ("#14213d", "#27567b", "#3f8f86", "#9fc15c", "#fdf0a3")
"""Colours of a map, from low to high."""

KNOWN_HERTZ = {100: "100 Hz", 300: "300", 1000: "1k", 3000: "3k", 8000: "8k"}
"""Frequencies that people know: a hum, a vowel, a phone's pips, an s, the end of what engines get.
"""

SYMBOLS = ("circle", "diamond", "triangle-up", "square", "star", "cross")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""What tells lines apart besides colour."""

MISSING = 255
"""The level of a packed value that is not there."""


@dataclass(frozen=True)
class Table:
    """The figures that a chart shows; of each row the first cell names it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Option:
    """What a choice changes in the figure.

    `traces`: by attribute a value for each trace, None for those that it leaves alone; `layout`: by
    path, such as `yaxis.type`, a value.
    """

    label: str
    traces: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Control:
    """A choice above a chart: a few options in a row, many as a menu.

    Controls of one `name` on different charts move together, so one of them may be `hidden`.
    `chosen`: the option at first; `narrow`: that on a narrow screen, if another.
    """

    name: str
    title: str
    options: Sequence[Option]
    chosen: int = 0
    narrow: int | None = None
    hidden: bool = False


def tone(colour: str) -> str:
    """Return a colour `#rrggbb` so that it stands out from a light and from a dark page."""
    return shade(colour, 1.0)


def shade(colour: str, share: float) -> str:
    """Return a tone with so much of itself, the rest being the page's own colour.

    The browser knows such names as a mixture; Plotly would refuse one written out.
    """
    return f"var(--mix-{colour.removeprefix('#').lower()}-{share:.0%})".replace("%", "")


def plain(text: str) -> str:
    """Escape a text for a figure, whose texts may hold simple tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def round_all(values: Sequence[float] | npt.NDArray[Any], digits: int = 4) -> list[float]:
    """Round to so many significant digits: more can't be seen, and would have to travel."""
    return [float(f"{value:.{digits}g}") for value in values]


def pack(values: npt.NDArray[np.float64], low: float, high: float) -> dict[str, Any]:
    """Return `z` and `meta` of a heat map in 255 levels from `low` to `high`, a byte each."""
    share = np.clip((values - low) / (high - low or 1.0), 0, 1)
    levels = np.where(np.isnan(values), MISSING, np.nan_to_num(share) * (MISSING - 1)).round()
    return {
        "z": levels.astype(np.uint8),
        "zmin": low,
        "zmax": high,
        "meta": {"low": low, "high": high, "seconds": "x"},
    }


def render_chart(
    figure: go.Figure,
    title: str,
    table: Table | None,
    height: int,
    name: str,
    controls: Sequence[Control] = (),
    note: str = "",
    chooses: str = "",
) -> Markup:
    """Render a figure `height` pixels high, its title, controls and note, and its table.

    `name`: one for each chart of the page, also that of a saved picture. `chooses`: the control
    of which a click on the n-th point of a trace chooses the n-th option.
    """
    drawn = figure.to_dict()
    drawn["layout"].pop("template", None)  # the browser's, which knows the theme
    return Markup(
        render_template(
            "charts.html",
            figure=_write(drawn),
            title=title,
            table=table,
            height=height,
            key=name,
            controls=[
                (control, _write([asdict(o) for o in control.options])) for control in controls
            ],
            note=note,
            chooses=chooses,
        )
    )


def _write(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def name_bands(hertz: Sequence[float]) -> list[str]:
    """Name the bands of a spectrogram by their middles; each name once, as Plotly needs it."""
    return [f"{value:.0f} Hz" for value in hertz]


def place_ticks(hertz: Sequence[float]) -> dict[str, Any]:
    """Return ticks for an axis of bands, where frequencies are that people know."""
    places = np.interp(list(KNOWN_HERTZ), [0.0, *hertz], range(-1, len(hertz)))
    return {
        "type": "category",
        "range": [-0.5, len(hertz) - 0.5],
        "tickvals": [round(float(place), 2) for place in places],
        "ticktext": list(KNOWN_HERTZ.values()),
    }
