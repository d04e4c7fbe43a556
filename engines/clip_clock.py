"""The file's own clock, on which the words of a clip are shown; engines count its samples only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engines.base import SAMPLE_RATE, AudioError, Clip, Segment
from engines.clip_source import Source

HOP_LENGTH = 160
"""Samples between two frames of Whisper's spectrogram."""

MOST_PAUSED = 1800.0
"""Seconds of pauses above which they are not filled with silence."""


def set_clock(segment: Segment, source: Source) -> Segment:
    """Return a segment with the times of its clip's file, which may have begun without sound."""
    if not source.clock:
        return segment
    words = segment.words and tuple(
        replace(word, start=source.file_time(word.start), end=source.file_time(word.end, ends=True))
        for word in segment.words
    )
    start, end = source.file_time(segment.start), source.file_time(segment.end, ends=True)
    return replace(segment, start=start, end=end, words=words)


def find_parts(clip: Clip, timestamps: Sequence[float]) -> tuple[float, ...]:
    """Return from, to, … in seconds of a clip's samples, given in its file's time.

    Whisper's loop has no end where a part ends after the last whole frame of 10 ms, so that is the
    last end. Raises `AudioError` where a part begins after the clip's end.
    """
    end = len(clip.samples) // HOP_LENGTH * HOP_LENGTH / SAMPLE_RATE
    edges = [clip.source.sample_time(seconds) for seconds in timestamps]
    for time, start in list(zip(timestamps, edges, strict=True))[::2]:
        if start >= end:
            last = clip.source.file_time(clip.seconds, ends=True)
            raise AudioError(f"A part begins at {time:g} s, and {clip.name} ends at {last:.2f} s.")
    return tuple(min(seconds, end) for seconds in edges)


def count_seconds(clip: Clip, parts: Sequence[float]) -> float:
    """Return the length of the parts that `find_parts` returned; of all where there are none."""
    if not parts:
        return clip.seconds
    edges = [*parts, clip.seconds]
    return sum(end - start for start, end in zip(edges[::2], edges[1::2], strict=False))


def fill_pauses(clip: Clip) -> Clip:
    """Return a clip with silence where its file has none of its sound, for eyes and players."""
    if not clip.source.clock or clip.source.clock[-1][1] > MOST_PAUSED:
        return clip
    parts, at, filled = [], 0, 0.0
    for since, added in clip.source.clock:
        here = round(since * SAMPLE_RATE)
        pause = np.zeros(round((added - filled) * SAMPLE_RATE), np.float32)
        parts += [clip.samples[at:here], pause]
        at, filled = here, added
    return replace(clip, samples=np.concatenate([*parts, clip.samples[at:]]))
