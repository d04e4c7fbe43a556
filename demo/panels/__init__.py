"""The panels of a comparison: a frozen snapshot in, HTML out.

The page and the report iterate over `PANELS`: a new panel is one module and one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demo.panels import (
    accuracy,
    chips,
    confidence,
    encoder_output,
    headline,
    lanes,
    race,
    sound,
    times,
)
from demo.snapshot import Comparison


@dataclass(frozen=True)
class Panel:
    """One panel of the page.

    `key`: its element's id. `title`: its heading, or "" for none. `render`: HTML of a comparison,
    whole or as nested lists of parts, of which only the changed ones travel to the browser; `""`
    draws nothing. `live`: drawn with every snapshot; the others at the start and the end only, so
    that no engine's time pays for charts. `document`: what the report shows instead, if not that.
    `tab`: the tab that it stands in; "" is above all tabs. Several panels may share one.
    """

    key: str
    title: str
    render: Callable[[Comparison], str | list[Any]]
    live: bool = False
    document: Callable[[Comparison], str | list[Any]] | None = None
    tab: str = ""


PANELS: tuple[Panel, ...] = (
    Panel("summary", "", headline.render, live=True),
    # The report lists all settings in a table of its own.
    Panel("chips", "", chips.render, live=True, document=lambda comparison: ""),
    Panel("race", "", race.render, live=True, document=race.render_document),
    Panel("lanes", "", lanes.render, live=True, document=lanes.render_document),
    Panel("timings", "Where the time went", times.render_bars, tab="Time"),
    Panel("timeline", "Timeline", times.render_timeline, tab="Time"),
    Panel("sound", "What the clip sounds like", sound.render, tab="Sound"),
    Panel("scores", "Accuracy", accuracy.render, tab="Accuracy"),
    Panel(
        "confidence",
        "Confidence",
        confidence.render,
        document=confidence.render_document,
        tab="Accuracy",
    ),
    Panel("features", "Encoder output", encoder_output.render, tab="Encoder"),
)
