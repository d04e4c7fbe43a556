"""Transcripts side by side, the same moment on the same line, in parts that travel by themselves.

Rows are stretches of time that all engines share. A row ends where every engine that has come so
far begins a segment at about the same time; where they cut the speech differently, rows merge.
Word times are the engine's own where it was asked for them; else they are spread over the segment
by the words' lengths, and the page says that they are estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from typing import Any

from demo.panels.templating import render_template
from demo.snapshot import Comparison, Lane
from engines.base import Segment, Transcript
from engines.metrics import Edit, align, join_names, name_count

BOUNDS = (0.9, 0.7, 0.5)
"""Probabilities below which a word is marked, the more the lower."""

NEAR_SECONDS = 1.0
"""How far apart engines may begin a segment for a row to end there."""


@dataclass(frozen=True)
class Token:
    """A word as it is shown; of one that an engine left out only `text` and `change` are set.

    `change`: how it differs from the baseline's words: "insert", "substitute" or "delete"; of a
    word of the baseline's "other" where another engine differs. `instead`: what the baseline wrote.
    `unsure`: how unsure the model was, from 0 to 3, and `sure` how sure, as 62%. `timed`: whether
    `start` is the engine's own. `joined`: whether no space precedes it, as in Chinese.
    """

    text: str
    start: float = 0.0
    change: str = ""
    instead: str = ""
    unsure: int = 0
    sure: str = ""
    timed: bool = False
    joined: bool = False


Line = tuple[Token, ...]
"""The words of one segment."""


def render(comparison: Comparison, document: bool = False) -> list[Any]:
    """Render the transcripts.

    `document`: to read instead of to click, with the words' times in sight.
    """
    lanes = comparison.lanes
    lines = mark_differences(comparison)
    twins = find_twins(comparison, lines)
    rows = [
        _show_row(row, at == 0, comparison, lines, twins, document)
        for at, row in enumerate(cut_rows(lanes))
    ]
    html = render_template(
        "lanes.html",
        comparison=comparison,
        document=document,
        idle=all(lane.state == "idle" for lane in lanes),
        running=not comparison.finished,
        twins=twins,
        names={key: join_names([other.label for other in same]) for key, same in twins.items()},
        timed=any(segment.words for lane in lanes for segment in lane.segments),
        over=comparison.finished and comparison.done,
        differences=_count_differences(comparison, lines),
        differing=find_differing(comparison),
        words=name_count(max((sum(map(len, each)) for each in lines.values()), default=0)),
        rows=rows,
    )
    return [part.split("<!--cell-->") for part in html.split("<!--part-->")]


render_document = partial(render, document=True)


# Words.


@lru_cache(maxsize=4096)
def list_tokens(segment: Segment) -> Line:
    """List the words of a segment with the times at which they are heard."""
    if segment.words:
        return tuple(
            Token(
                part,
                word.start,
                unsure=_judge(word.probability),
                sure=f"{word.probability:.0%}",
                timed=True,
                joined=not word.text[0].isspace(),
            )
            for word in segment.words
            for part in word.text.split()
        )
    words = segment.text.split()
    letters = [0, *accumulate(len(word) + 1 for word in words)]  # before each word
    pace = (segment.end - segment.start) / max(letters[-1], 1)
    return tuple(
        Token(word, segment.start + pace * before)
        for word, before in zip(words, letters, strict=False)
    )


def _judge(probability: float) -> int:
    return sum(probability < bound for bound in BOUNDS)


def mark_differences(comparison: Comparison) -> dict[str, list[Line]]:
    """List every engine's segments as words; of finished engines, marked where they differ.

    Words are compared when no engine runs any more: nothing else may run while one is timed.
    """
    lines = {lane.key: [list_tokens(each) for each in lane.segments] for lane in comparison.lanes}
    baseline = comparison.baseline
    if not comparison.finished or baseline is None or baseline.transcript is None:
        return lines
    expected, others = _read_words(lines[baseline.key]), set[int]()
    for lane in comparison.done:
        if lane is not baseline:
            edits = _align(expected, _read_words(lines[lane.key]))
            lines[lane.key] = _mark(lines[lane.key], edits)
            at = 0
            for edit in edits:
                if edit.change != "equal":
                    others |= set(range(at, at + len(edit.expected)))
                at += len(edit.expected)
    numbers = iter(range(len(expected)))
    lines[baseline.key] = [
        tuple(
            replace(token, change="other") if next(numbers) in others else token for token in line
        )
        for line in lines[baseline.key]
    ]
    return lines


def _read_words(lines: Sequence[Line]) -> tuple[str, ...]:
    return tuple(token.text for line in lines for token in line if token.change != "delete")


@lru_cache(maxsize=64)
def _align(expected: tuple[str, ...], found: tuple[str, ...]) -> tuple[Edit, ...]:
    return align(expected, found).edits


def _mark(lines: Sequence[Line], edits: Sequence[Edit]) -> list[Line]:
    """Mark changed words, and put those left out behind the word that they would follow."""
    marked: list[list[Token]] = [[] for _ in lines] or [[]]
    places = [(number, token) for number, line in enumerate(lines) for token in line]
    at = 0
    for edit in edits:
        if edit.change == "delete":
            number = places[max(0, at - 1)][0] if places else 0
            marked[number] += [Token(word, change="delete") for word in edit.expected]
        for number, token in places[at : at + len(edit.found)]:
            if edit.change != "equal":
                token = replace(token, change=edit.change, instead=" ".join(edit.expected))
            marked[number].append(token)
        at += len(edit.found)
    return [tuple(line) for line in marked]


def find_twins(comparison: Comparison, lines: dict[str, list[Line]]) -> dict[str, list[Lane]]:
    """Find which engines wrote the same words: the first of each kind, and those like it."""
    twins: dict[str, list[Lane]] = {}
    firsts: dict[object, str] = {}
    for lane in comparison.lanes:
        ended = comparison.finished and lane.transcript is not None
        words = _read_words(lines[lane.key]) if ended else lane.key
        twins.setdefault(firsts.setdefault(words, lane.key), []).append(lane)
    return twins


def _count_differences(comparison: Comparison, lines: dict[str, list[Line]]) -> int | None:
    """Count the stretches of words in which an engine differs; None where that isn't known."""
    if not comparison.finished or len(comparison.done) < 2:
        return None
    count = 0
    for lane in comparison.done:
        changes = [token.change not in ("", "other") for line in lines[lane.key] for token in line]
        count += sum(now and not before for before, now in pairwise([False, *changes]))
    return count


# Rows.


@dataclass(frozen=True)
class Row:
    """A stretch of time: for each engine its segments, from the first to before the last."""

    start: float
    segments: tuple[range, ...]


def cut_rows(lanes: Sequence[Lane]) -> list[Row]:
    """Cut the clip where all engines begin a segment, one that hasn't come so far left aside."""
    spoken = [lane.segments for lane in lanes]
    guide = max(spoken, key=lambda segments: segments[-1].end if segments else 0.0, default=())
    before, rows = [0] * len(lanes), []
    for number, segment in enumerate(guide[1:], 1):
        places = [number if each is guide else _find_cut(each, segment.start) for each in spoken]
        after = [place for place in places if place is not None]
        if len(after) == len(lanes) and all(a >= b for a, b in zip(after, before, strict=True)):
            rows.append((before, after))
            before = after
    rows.append((before, [len(segments) for segments in spoken]))
    return [_make_row(spoken, first, last) for first, last in rows]


def _find_cut(segments: Sequence[Segment], time: float) -> int | None:
    """Return how many segments lie before a time, or None where one lies across it."""
    starts = [segment.start for segment in segments]
    nearest = min(range(len(starts)), key=lambda at: abs(starts[at] - time), default=0)
    if starts and abs(starts[nearest] - time) <= NEAR_SECONDS:
        return nearest
    ended = not segments or segments[-1].end <= time + NEAR_SECONDS
    return len(segments) if ended else None


def _make_row(spoken: Sequence[Sequence[Segment]], first: list[int], last: list[int]) -> Row:
    ranges = tuple(range(a, b) for a, b in zip(first, last, strict=True))
    starts = [each[r.start].start for each, r in zip(spoken, ranges, strict=True) if r]
    return Row(min(starts, default=0.0), ranges)


def _show_row(
    row: Row,
    first: bool,
    comparison: Comparison,
    lines: dict[str, list[Line]],
    twins: dict[str, list[Lane]],
    document: bool,
) -> dict[str, Any]:
    cells, changed = [], False
    for lane, segments in zip(comparison.lanes, row.segments, strict=True):
        part = [(lane.segments[at], lines[lane.key][at]) for at in segments]
        changed = changed or any(token.change for _, line in part for token in line)
        most = comparison.settings.no_speech_threshold
        newest = segments.stop == len(lane.segments)
        cells.append(
            {
                "lane": lane,
                "twin": lane.key not in twins,
                "lines": [
                    render_line(line, each.end, document, is_silent(each, most))
                    for each, line in part
                ],
                "partial": lane.partial if newest and (segments or first) else "",
                "why_empty": ""
                if lane.segments or lane.partial or not first
                else _explain_empty(lane),
            }
        )
    return {"start": row.start, "cells": cells, "changed": changed}


def is_silent(segment: Segment, most: float | None) -> bool:
    """Tell whether whisper takes a segment's window for no speech; it keeps words that are likely.

    `most`: the probability from which it does, `no_speech_threshold`; None for never.
    """
    probability = segment.no_speech_prob
    return most is not None and probability is not None and probability > most


def find_differing(comparison: Comparison) -> set[str]:
    """Find the engines whose tokens are not the baseline's, once none runs any more; of another
    model those whose words are not, since its tokens may be of another vocabulary."""
    baseline = comparison.baseline
    if not comparison.finished or baseline is None or baseline.transcript is None:
        return set()
    expected = baseline.transcript

    def differs(transcript: Transcript) -> bool:
        if transcript.model != expected.model:
            return transcript.text != expected.text
        return transcript.tokens != expected.tokens

    return {x.key for x in comparison.done if x.transcript and differs(x.transcript)}


def _explain_empty(lane: Lane) -> str:
    if lane.transcript is not None:
        return "No speech was found."
    return {"failed": "Failed.", "stopped": "Stopped before the first words."}.get(lane.state, "…")


@lru_cache(maxsize=4096)
def render_line(line: Line, end: float, document: bool, silent: bool) -> str:
    """Render the words of a segment that ends at `end` seconds; `silent`: see `is_silent`."""
    return render_template("segment.html", line=line, end=end, document=document, silent=silent)
