"""Render Jinja templates of `demo/templates`, everything that isn't markup escaped.

A template of macros gives a panel in parts: `macros("lanes.html").head(lane)` is one part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from engines.registry import ENGINES

FOLDER = Path(__file__).resolve().parent.parent / "templates"

OTHER_ENGINE = "#56B4E9"

STAGE_COLOURS = {
    "prepare": "#767676",
    "audio": "#999999",
    "mel": "#56B4E9",
    "encode": "#E69F00",
    "decode": "#0072B2",
}
"""Okabe and Ito's colours, which stay apart for colour-blind eyes. Colour is never the only sign:
engines carry names, bars carry patterns, changes carry + and −."""


def render(template: str, **values: Any) -> str:
    """Render a whole template."""
    return str(ENVIRONMENT.get_template(template).render(**values))


class Macros:
    """The macros of a template as functions that return HTML."""

    def __init__(self, template: str) -> None:
        self._module = ENVIRONMENT.get_template(template).module

    def __getattr__(self, name: str) -> Callable[..., str]:
        macro = getattr(self._module, name)
        return lambda *values, **named: str(macro(*values, **named))


@cache
def macros(template: str) -> Macros:
    """Return the macros of a template."""
    return Macros(template)


def join_parts(value: str | Sequence[Any]) -> str:
    """Join nested lists of markup into one text, as the page does in the browser."""
    return value if isinstance(value, str) else "".join(map(join_parts, value))


def format_clock(seconds: float) -> str:
    """Return minutes and seconds, as 1:04."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def format_percent(share: float, places: int = 1) -> str:
    """Return a share as 12.3%."""
    return f"{share:.{places}%}"


def count_noun(count: int, noun: str) -> str:
    """Return "1 error", "2 errors" and so on."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def join_names(names: Sequence[str]) -> str:
    """Join names with commas and an "and"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def colour_engine(key: str) -> str:
    """Return the colour that stands for an engine everywhere on the page."""
    return next((row.colour for row in ENGINES if row.key == key), OTHER_ENGINE)


def _make_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": format_clock,
        "colour": colour_engine,
        "percent": format_percent,
    }
    environment.globals["STAGE_COLOURS"] = STAGE_COLOURS
    return environment


ENVIRONMENT = _make_environment()
