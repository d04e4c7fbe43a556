"""Transcripts as files: SubRip, WebVTT, text, a table and JSON, as openai-whisper names them.

whisper's writers break lines and format times. What goes into them is prepared here: cues follow
one another within the clip, and no text is taken for markup or a formula.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from engines.base import Segment

FORMATS = ("txt", "vtt", "srt", "tsv", "json")

FORMULA = re.compile(r"\s*[=+\-@\t\r＝＋－＠]")
"""How text starts that a spreadsheet takes for a formula."""

NARROWEST, WIDEST = 10, 200
MOST_LINES = 10


@dataclass(frozen=True)
class LineBreaks:
    """How subtitles are broken: characters in a line and lines in a cue at most, as whisper's
    `max_line_width` and `max_line_count`; None for one line a segment, or any number of them."""

    width: int | None = None
    count: int | None = None


UNBROKEN = LineBreaks()


def read_line_breaks(width: Any, count: Any) -> LineBreaks:
    """Read line breaks from numbers or texts; raise `ValueError` with a sentence."""
    return LineBreaks(
        _read_number("max_line_width", width, NARROWEST, WIDEST),
        _read_number("max_line_count", count, 1, MOST_LINES),
    )


def _read_number(name: str, value: Any, least: int, most: int) -> int | None:
    text = "" if value is None else str(value).strip().removesuffix(".0")
    if not text:
        return None
    if not text.isdecimal() or not least <= int(text[:9]) <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, or nothing.")
    return int(text)


def write_segments(
    segments: Sequence[Segment],
    ending: str,
    seconds: float | None = None,
    lines: LineBreaks = UNBROKEN,
) -> str:
    """Write segments as `srt`, `vtt`, `txt` or `tsv`, a cue or a line for each; `seconds`: where
    their clip ends. Where `lines` asks for it, a segment becomes several cues."""
    from whisper import utils

    cues = list(list_cues(segments, seconds, lines if ending in ("srt", "vtt") else UNBROKEN))
    file = io.StringIO()
    if ending in ("txt", "tsv"):
        for cue in cues:
            cue["text"] = make_safe(cue["text"], ending)
        writer = utils.WriteTXT("") if ending == "txt" else utils.WriteTSV("")
        writer.write_result({"segments": cues}, file)
        return file.getvalue()
    writer = utils.WriteSRT("") if ending == "srt" else utils.WriteVTT("")
    told = {"max_line_width": lines.width, "max_line_count": lines.count}
    file.write("WEBVTT\n\n" if ending == "vtt" else "")
    for number, (start, end, text) in enumerate(writer.iterate_result({"segments": cues}, told), 1):
        file.write(f"{number}\n" if ending == "srt" else "")
        file.write(f"{start} --> {end}\n{make_safe(text, ending)}\n\n")
    return file.getvalue()


def write_json(text: str, language: str, segments: Sequence[Segment]) -> str:
    """Write a transcript as whisper's result is."""
    listed = [{"id": number, **asdict(each)} for number, each in enumerate(segments)]
    result = {"text": text, "segments": listed, "language": language}
    return json.dumps(result, ensure_ascii=False) + "\n"


def make_safe(text: str, ending: str) -> str:
    """Escape a text for a file with this ending.

    SRT has no escapes, and players take `<` with a letter for a tag, so an invisible character
    comes between; TSV gets one before what looks like a formula.
    """
    if ending == "vtt":
        return escape(text, False)
    if ending == "srt":
        return text.replace("-->", "->").replace("<", "<\N{WORD JOINER}")
    return f"\N{WORD JOINER}{text}" if ending == "tsv" and FORMULA.match(text) else text


# Cues


def list_cues(
    segments: Sequence[Segment], seconds: float | None, lines: LineBreaks
) -> Iterator[dict[str, Any]]:
    """Yield the segments that have a text in whisper's form; with words where lines are broken."""
    spoken = [each for each in segments if clean(each.text)]
    if lines.width is None:
        times = separate([(each.start, each.end) for each in spoken], seconds)
        for each, (start, end) in zip(spoken, times, strict=True):
            yield {"start": start, "end": end, "text": clean(each.text)}
        return
    words = [split_words(each, lines.width) for each in spoken]
    times = separate([(word[0], word[1]) for part in words for word in part], seconds)
    for part in words:
        timed: list[dict[str, Any]] = [
            {"start": start, "end": end, "word": text}
            for (_, _, text), (start, end) in zip(part, times, strict=False)
        ]
        times = times[len(part) :]
        start, end = timed[0]["start"], timed[-1]["end"]
        yield {"start": start, "end": end, "text": "", "words": timed}


def clean(text: str) -> str:
    """Return a text on one line: an empty one would end a cue."""
    return " ".join(text.replace("\0", " ").split())


def split_words(segment: Segment, width: int) -> list[tuple[float, float, str]]:
    """Return start, end and text of a segment's words, none longer than a line.

    Words without times share those of their segment by their letters, and so do parts of a word.
    """
    timed = [(word.start, word.end, word.text) for word in segment.words or () if clean(word.text)]
    words: list[tuple[float, float, str]] = []
    for start, end, text in timed or [(segment.start, segment.end, segment.text)]:
        pieces = [
            " " * (not at) + word[at : at + width]
            for word in clean(text).split()
            for at in range(0, len(word), width)
        ]
        if pieces and timed and not text[:1].isspace():
            pieces[0] = pieces[0].lstrip()  # it goes on where the word before ended
        letters, total = 0, sum(map(len, pieces))
        for piece in pieces:
            first = start + (end - start) * letters / total
            letters += len(piece)
            words.append((first, start + (end - start) * letters / total, piece))
    return words


def separate(
    times: Sequence[tuple[float, float]], seconds: float | None
) -> list[tuple[float, float]]:
    """Return starts and ends in whole milliseconds that follow one another within the clip, and
    each of which lasts one at least."""
    cues: list[list[int]] = []
    for start, end in times:
        cue = [max(0, round(start * 1000)), max(0, round(end * 1000))]
        if cues and cue[0] > cues[-1][0]:
            cues[-1][1] = min(cues[-1][1], cue[0])
        elif cues:
            cue[0] = cues[-1][1]
        cues.append([cue[0], max(cue[1], cue[0] + 1)])
    last = None if seconds is None else max(int(seconds * 1000), len(cues))
    for cue in reversed(cues):
        if last is not None and cue[1] > last:
            cue[:] = min(cue[0], last - 1), last
        last = None if last is None else cue[0]
    return [(start / 1000, end / 1000) for start, end in cues]
