"""The first token in which two engines' transcripts of one clip part.

Engines that share whisper's loop tell what they decoded for each window, and are compared window by
window, timestamps and the end of the text included. Of another engine only the segments are known:
its text tokens are compared, timestamps left aside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from whisper.tokenizer import Tokenizer

from engines.analysis.divergence_records import Parts
from engines.base import Transcript, Window
from engines.feature_statistics import WINDOW_SECONDS

TIMESTAMP_SECONDS = 0.02
NEAR_SECONDS = TIMESTAMP_SECONDS / 2

StartWindow = Callable[[Sequence[int]], tuple[int, ...]]
"""Returns the prompt of a window after the tokens that were said before it."""


@dataclass(frozen=True)
class Parting:
    """Where two transcripts part.

    `parts`: see `Divergence`. `number` counts windows from 0; `window` is that of the first, or of
    the one that tells its windows; `before`: the tokens chosen there so far. `tokens`: what comes
    next in each; `whole`: each one's tokens of the window, its end included, where both are told.
    """

    parts: Parts
    number: int
    window: Window
    before: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    whole: tuple[tuple[int, ...], ...] = ()


NO_WINDOW = Window(0.0, (), (), 0.0)


def find_parting(
    transcripts: Sequence[Transcript], tokenizer: Tokenizer, longest: int, start_window: StartWindow
) -> Parting:
    """Find where two transcripts part; `longest`: how many tokens a window takes."""
    first, second = transcripts
    if first.windows and second.windows:
        return compare_windows(first, second, tokenizer.eot, longest)
    if not first.windows and second.windows:
        parting = compare_texts(second, first, tokenizer)
        return replace(parting, tokens=parting.tokens[::-1])
    if not first.windows:
        first = replace(first, windows=rebuild_windows(first, tokenizer, start_window))
    return compare_texts(first, second, tokenizer)


def compare_windows(first: Transcript, second: Transcript, eot: int, longest: int) -> Parting:
    """Compare what was decoded for each window, timestamps and the end of the text included.

    `longest`: how many tokens a window takes; only a shorter one has an end.
    """
    for number, (one, other) in enumerate(zip_longest(first.windows, second.windows)):
        if one is None or other is None or abs(one.start - other.start) > NEAR_SECONDS:
            return Parting("window", number, one or other)
        if one.prompt != other.prompt:
            pairs = list(zip_longest(one.prompt, other.prompt, fillvalue=eot))
            at = next(at for at, pair in enumerate(pairs) if pair[0] != pair[1])
            return Parting("prompt", number, one, one.prompt[:at], pairs[at])
        if one.temperature or other.temperature:
            if (one.temperature, one.tokens) != (other.temperature, other.tokens):
                return Parting("fallback", number, one)
            continue
        ended = [
            each.tokens if len(each.tokens) >= longest else (*each.tokens, eot)
            for each in (one, other)
        ]
        for at, tokens in enumerate(zip(*ended, strict=False)):
            if tokens[0] != tokens[1]:
                return Parting("token", number, one, one.tokens[:at], tokens, tuple(ended))
    parts: Parts = "nowhere" if first.tokens == second.tokens else "window"
    last = first.windows[-1] if first.windows else NO_WINDOW
    return Parting(parts, max(len(first.windows) - 1, 0), last)


def compare_texts(guide: Transcript, other: Transcript, tokenizer: Tokenizer) -> Parting:
    """Compare the text tokens of `guide`, which tells its windows, with another's."""
    eot = tokenizer.eot
    theirs = [token for token in other.tokens if token < eot]
    places = place_tokens(guide, eot)
    ours = [guide.windows[number].tokens[position] for number, position in places]
    pairs = enumerate(zip_longest(ours, theirs))
    at = next((at for at, pair in pairs if pair[0] != pair[1]), None)
    if at is None:
        return Parting("nowhere", 0, guide.windows[0] if guide.windows else NO_WINDOW)
    if not guide.windows:
        return Parting("window", 0, NO_WINDOW)
    if at < len(places):
        number, position = places[at]
    else:  # it ends where the other goes on
        number, position = places[-1] if places else (0, -1)
        position += 1
    window = guide.windows[number]
    token = (*window.tokens, eot)[position]
    if window.temperature:
        return Parting("fallback", number, window)
    candidates = token, theirs[at] if at < len(theirs) else eot
    return Parting("token", number, window, window.tokens[:position], candidates)


def place_tokens(transcript: Transcript, eot: int) -> list[tuple[int, int]]:
    """Return window and position of every text token that a transcript's segments kept."""
    places: list[tuple[int, int]] = []
    windows, number, position = transcript.windows, 0, 0
    for segment in transcript.segments:  # each a stretch of its window's tokens
        begin = find_stretch(segment.tokens, windows[number].tokens, position)
        while begin is None and number + 1 < len(windows):
            number += 1
            begin = find_stretch(segment.tokens, windows[number].tokens, 0)
        if begin is None:
            break
        position = begin + len(segment.tokens)
        stretch = range(begin, position)
        places += [(number, at) for at in stretch if windows[number].tokens[at] < eot]
    return places


def find_stretch(tokens: Sequence[int], window: Sequence[int], begin: int) -> int | None:
    """Return where tokens stand one after another in a window's, from `begin` on."""
    places = range(begin, len(window) - len(tokens) + 1)
    return next((at for at in places if window[at : at + len(tokens)] == tokens), None)


def rebuild_windows(
    transcript: Transcript, tokenizer: Tokenizer, start_window: StartWindow
) -> tuple[Window, ...]:
    """Return the windows that whisper's own loop would have had for an engine's segments."""
    starts = list(transcript.window_starts)
    if not starts:
        starts, ends = [0.0], [0.0, *(segment.end for segment in transcript.segments)]
        for before, segment in zip(ends, transcript.segments, strict=False):
            if segment.end > starts[-1] + WINDOW_SECONDS + TIMESTAMP_SECONDS:
                starts.append(before)
    windows, said = [], []  # type: list[Window], list[int]
    for start, end in zip(starts, [*starts[1:], math.inf], strict=True):
        within = [s for s in transcript.segments if start <= s.start + NEAR_SECONDS]
        within = [s for s in within if s.start + NEAR_SECONDS < end]
        tokens: list[int] = []
        for segment in within:
            text = [token for token in segment.tokens if token < tokenizer.eot]
            times = [round((t - start) / TIMESTAMP_SECONDS) for t in (segment.start, segment.end)]
            begin, close = (tokenizer.timestamp_begin + min(max(t, 0), 1500) for t in times)
            tokens += [begin, *text, close]
        prompt = start_window(said)
        windows.append(Window(start, prompt, tuple(tokens), 0.0))
        said += tokens
    return tuple(windows)
