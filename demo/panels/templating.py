"""Render Jinja templates of `demo/templates`, everything that isn't markup escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from demo.panels.terms import explain
from engines.metrics import join_words


def render_template(name: str, **values: Any) -> str:
    """Render a whole template."""
    return ENVIRONMENT.get_template(name).render(**values)


def join_parts(value: str | Sequence[Any]) -> str:
    """Join nested lists of markup into one text, as the page does in the browser."""
    return value if isinstance(value, str) else "".join(map(join_parts, value))


def format_clock(seconds: float) -> str:
    """Return minutes and seconds, as 1:04."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent.parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"clock": format_clock, "explain": explain, "join_words": join_words}
