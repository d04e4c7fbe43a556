"""A transcript as subtitles: SubRip (SRT) and WebVTT, one cue for each segment.

Times are rounded to milliseconds, and a cue lasts at least one, as WebVTT demands. A segment
without words makes no cue, so a transcript without speech is an empty SRT, or a VTT of its head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from engines.base import Segment

WORD_JOINER = "\N{WORD JOINER}"
"""An invisible character; SRT has no escapes, and players take `<` with a letter for a tag."""


@dataclass(frozen=True)
class Cue:
    """One line of text with its times in milliseconds from the start of the clip."""

    start: int
    end: int
    text: str


def write_srt(segments: Sequence[Segment]) -> str:
    """The segments as SubRip, UTF-8 text with a number above each cue."""
    return "".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{plain(cue.text)}\n\n"
        for number, cue in enumerate(list_cues(segments), start=1)
    )


def write_vtt(segments: Sequence[Segment]) -> str:
    """The segments as WebVTT."""
    cues = "".join(
        f"\n{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{escaped(cue.text)}\n"
        for cue in list_cues(segments)
    )
    return f"WEBVTT\n{cues}"


def list_cues(segments: Iterable[Segment]) -> Iterator[Cue]:
    """A cue for each segment that has words, on one line: an empty line would end it."""
    for segment in segments:
        text = " ".join(segment.text.replace("\0", " ").split())
        start = max(0, round(segment.start * 1000))
        if text:
            yield Cue(start, max(start + 1, round(segment.end * 1000)), text)


def clock(milliseconds: int, point: str) -> str:
    """`01:02:03,004`: hours may have more than two digits."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{rest:03d}"


def plain(text: str) -> str:
    """Text that no player takes for a tag or for a line of times."""
    return text.replace("<", f"<{WORD_JOINER}").replace("-->", f"--{WORD_JOINER}>")


def escaped(text: str) -> str:
    """Text with the three characters that WebVTT reserves, as entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
