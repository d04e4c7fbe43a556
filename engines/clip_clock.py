"""The file's own clock, on which the words of a clip are shown; engines count its samples only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engines.base import SAMPLE_RATE, Clip, Segment
from engines.clip_source import Source

MOST_PAUSED = 1800.0
"""Seconds of pauses above which they are not filled with silence."""


def set_clock(segment: Segment, source: Source) -> Segment:
    """Return a segment with the times of its clip's file, which may have begun without sound."""
    if not source.clock:
        return segment
    words = segment.words and tuple(
        replace(word, start=source.at(word.start), end=source.at(word.end, ends=True))
        for word in segment.words
    )
    start, end = source.at(segment.start), source.at(segment.end, ends=True)
    return replace(segment, start=start, end=end, words=words)


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
