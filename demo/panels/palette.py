"""Colours of engines and stages: Okabe and Ito's, which stay apart for colour-blind eyes.

Colour is never the only sign: engines carry names, bars carry patterns, changes carry + and −.
"""

from __future__ import annotations

from engines.registry import ENGINES

OTHER_ENGINE = "#56B4E9"

STAGE_COLOURS = {
    "prepare": "#767676",
    "audio": "#999999",
    "mel": "#56B4E9",
    "encode": "#E69F00",
    "decode": "#0072B2",
}


def colour_engine(key: str) -> str:
    """Return the colour that stands for an engine everywhere on the page."""
    return next((row.colour for row in ENGINES if row.key == key), OTHER_ENGINE)
