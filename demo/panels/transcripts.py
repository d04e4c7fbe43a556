"""One engine's transcript: segments and words with times, so that a click on a word plays it.

Word times are the engine's own where it was asked for them. Else they are spread over the segment
by the words' lengths, and the page says that they are estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from demo.panels.templating import macros
from demo.snapshot import Comparison, Lane
from engines.base import Segment

LONG_CLIP_SECONDS = 60.0
"""Clips longer than this get a taller transcript box."""

KNOWN_TIMES = "Click a word to hear it."
SPREAD_TIMES = (
    "Click a word to hear it. Where in its segment a word lies is an estimate by length; "
    "choose “Word timestamps” for the engines’ own times."
)


def render(lane: Lane, comparison: Comparison) -> list[str | list[str]]:
    """Render the words so far in parts; the box scrolls, newest in view while it fills."""
    tall = comparison.audio_seconds > LONG_CLIP_SECONDS
    live = lane.running and not lane.repeats
    macro = macros("transcript.html")
    rows = [render_segment(segment) for segment in lane.segments]
    if not rows or (lane.state == "failed" and not lane.repeats):
        rows = [macro.nothing(*explain_nothing(lane))]
    return [macro.opening(lane.label, tall, live), rows, "</div></div>"]


def render_document(lane: Lane, comparison: Comparison) -> list[str | list[str]]:
    """Render the words to be read on paper, each with its time where the engine gave one."""
    opening = macros("transcript.html").opening(lane.label, False, False)
    rows = [macros("transcript.html").printed_segment(segment) for segment in lane.segments]
    return [
        opening,
        rows or [macros("transcript.html").nothing(*explain_nothing(lane))],
        "</div></div>",
    ]


def explain_nothing(lane: Lane) -> tuple[str, bool]:
    """Say why there are no words, and whether that is an error."""
    if lane.state == "failed":
        return lane.reason or "No reason was given.", True
    if lane.transcript is not None:
        return "No speech was found.", False
    return "Stopped before the first words." if lane.state == "stopped" else "", False


@lru_cache(maxsize=4096)
def render_segment(segment: Segment) -> str:
    """Render a segment: a button that plays from its start, then its words with their times."""
    return macros("transcript.html").segment(segment, time_words(segment))


def time_words(segment: Segment) -> list[tuple[str, float]]:
    """List every word with its start in seconds of audio, known or estimated."""
    if segment.words:
        return [(word.text.strip(), word.start) for word in segment.words if word.text.strip()]
    return spread_words(segment.text.split(), segment.start, segment.end)


def spread_words(words: Sequence[str], start: float, end: float) -> list[tuple[str, float]]:
    """Spread the starts of words from `start` to `end` by their lengths and a space each."""
    before = [0, *accumulate(len(word) + 1 for word in words)]
    each = (end - start) / before[-1] if words else 0.0
    return [(word, start + each * at) for word, at in zip(words, before, strict=False)]
