"""What an engine wrote, word by word with times, so that a click on a word plays the clip there.

Word times are the engine's own where it was asked for them. Else they are spread over the segment
by the words' lengths, and the page says that they are estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from itertools import accumulate

from demo.snapshot import Comparison, Lane
from engines.base import Segment

LONG_CLIP_SECONDS = 60.0
"""Clips longer than this get a taller transcript box."""

KNOWN_TIMES = "Click a word to hear it."
SPREAD_TIMES = (
    "Click a word to hear it. Where in its segment a word lies is an estimate by length; "
    "choose “Time every word” for the engines’ own times."
)


def list_transcript(lane: Lane, comparison: Comparison) -> list[str | list[str]]:
    """The words so far as parts; the box scrolls on its own, newest in view while it fills."""
    tall = " tall" if comparison.audio_seconds > LONG_CLIP_SECONDS else ""
    live = " live" if lane.running and not lane.laps else ""
    opening = (
        f'<div class="transcript{tall}{live}" tabindex="0" role="region" '
        f'aria-label="Transcript by {escape(lane.label)}"><div>'
    )
    return [opening, list_rows(lane), "</div></div>"]


def list_rows(lane: Lane) -> list[str]:
    """The transcript's rows, or a sentence where there are none."""
    if lane.state == "failed" and not lane.laps:
        return [f'<p class="reason">{escape(lane.reason or "No reason was given.")}</p>']
    if lane.segments:
        return [render_segment(segment) for segment in lane.segments]
    if lane.transcript is not None:
        return ['<p class="none">No speech was found.</p>']
    if lane.state == "stopped":
        return ['<p class="none">Stopped before the first words.</p>']
    return ['<p class="none">The words appear here.</p>']


@lru_cache(maxsize=4096)
def render_segment(segment: Segment) -> str:
    """One segment: a button that plays from its start, then its words with their times."""
    clock = format_clock(segment.start)
    kind = " timed" if segment.words else ""
    body = " ".join(
        f'<span data-t="{start:.2f}">{escape(text)}</span>' for text, start in time_words(segment)
    )
    return (
        f'<p class="segment{kind}" data-end="{segment.end:.2f}"><button type="button" '
        f'class="from" data-t="{segment.start:.2f}" aria-label="Play from {clock}">{clock}'
        f"</button><span>{body}</span></p>"
    )


def time_words(segment: Segment) -> list[tuple[str, float]]:
    """Every word with its start in seconds of audio: known, or spread over the segment."""
    if segment.words:
        return [(word.text.strip(), word.start) for word in segment.words if word.text.strip()]
    return spread_words(segment.text.split(), segment.start, segment.end)


def spread_words(words: Sequence[str], start: float, end: float) -> list[tuple[str, float]]:
    """Words with starts spread from `start` to `end` by their lengths, a space counted to each."""
    sizes = [len(word) + 1 for word in words]
    before = [0, *accumulate(sizes)]
    each = (end - start) / before[-1] if words else 0.0
    return [(word, start + each * at) for word, at in zip(words, before, strict=False)]


def format_clock(seconds: float) -> str:
    """Minutes and seconds, as 1:04."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
