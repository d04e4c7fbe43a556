"""Subtitles of a transcript by Whisper's own writers: SubRip (SRT) and WebVTT, one cue a segment.

Whisper's writers escape nothing but `-->`: text is made safe for players first. Times are rounded
to milliseconds, and a cue lasts at least one, as WebVTT demands.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from engines.base import Segment

WORD_JOINER = "\N{WORD JOINER}"
"""An invisible character; SRT has no escapes, and players take `<` with a letter for a tag."""


def write_srt(segments: Sequence[Segment]) -> str:
    """Write segments as SubRip."""
    from whisper.utils import WriteSRT

    return _write(WriteSRT, segments, lambda text: text.replace("<", f"<{WORD_JOINER}"))


def write_vtt(segments: Sequence[Segment]) -> str:
    """Write segments as WebVTT."""
    from whisper.utils import WriteVTT

    return _write(WriteVTT, segments, lambda text: escape(text, quote=False))


def _write(writer: Any, segments: Sequence[Segment], make_safe: Callable[[str], str]) -> str:
    cues = []
    for segment in segments:
        text = " ".join(segment.text.replace("\0", " ").split())  # an empty line would end the cue
        start = max(0, round(segment.start * 1000))
        end = max(start + 1, round(segment.end * 1000))
        if text:
            cues.append({"start": start / 1000, "end": end / 1000, "text": make_safe(text)})
    file = io.StringIO()
    writer("").write_result({"segments": cues}, file)
    return file.getvalue()
