"""A finished comparison as one HTML file that opens from disk, without a network or a script.

It holds the page's panels with the page's own style sheet; what the page takes from Gradio, its
colours and fonts, the template sets for light and dark. A policy in its head forbids it to fetch
or to run anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demo import record
from demo.panels import PANELS
from demo.panels.templating import join_parts
from demo.panels.templating import render as render_template
from demo.snapshot import Comparison

STYLE = Path(__file__).resolve().parents[2] / "assets" / "style.css"


def render_report(
    comparison: Comparison, drawn: Mapping[str, str | Sequence[Any]] | None = None
) -> str:
    """Render the whole file.

    `drawn`: panels by key as the page drew them, for those that need features no longer kept.
    """
    drawn = drawn or {}
    described = record.describe(comparison)
    sections = []
    for panel in PANELS:
        draw = panel.document or panel.render
        body = drawn[panel.key] if panel.key in drawn else draw(comparison)
        sections.append((panel.key, panel.title, join_parts(body)))
    return render_template(
        "report.html",
        record=described,
        style=STYLE.read_text(encoding="utf-8"),
        sections=sections,
    )
