"""The panels of a comparison: a frozen snapshot in, HTML out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demo import headline, histograms, lanes, scores, timeline, timings
from demo.snapshot import Comparison


@dataclass(frozen=True)
class Panel:
    """One panel of the page.

    `key`: its element's id. `title`: its heading, or "" for none. `render`: HTML of a comparison,
    whole or as nested lists of parts, of which only the changed ones travel to the browser. `live`:
    drawn with every snapshot; the others at the start and the end only.
    """

    key: str
    title: str
    render: Callable[[Comparison], str | list[Any]]
    live: bool = False


PANELS: tuple[Panel, ...] = (
    Panel("summary", "", lambda c: headline.render_headline(headline.summarise(c)), live=True),
    Panel("lanes", "", lanes.list_lanes, live=True),
    Panel("timings", "Where the time went", timings.render_timings),
    Panel("timeline", "Timeline", timeline.render_timeline),
    Panel("scores", "How far the words are apart", scores.render_scores),
    Panel("features", "What the encoders made of it", histograms.list_features),
)
