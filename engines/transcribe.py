"""`python -m engines.transcribe CLIP`: one clip through one engine, from a terminal."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from engines import logs, registry
from engines.audio import load_clip
from engines.base import (
    EngineError,
    Listener,
    Options,
    PrepareSeconds,
    Progress,
    Segment,
    Transcript,
)
from engines.checkpoints import DEFAULT_MODEL


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the transcript, or one JSON object; returns the exit status."""
    asked = _parse(arguments)
    logs.set_up()
    with logs.in_run(logs.new_run_id()):
        return transcribe(asked)


def transcribe(asked: argparse.Namespace) -> int:
    """Run the clip; returns the exit status."""
    try:
        clip = load_clip(asked.clip)
        engine = registry.get(asked.engine, asked.model, asked.dtype)
        prepared = engine.prepare(PrintProgress())
        options = Options(
            language=asked.language,
            beam_size=asked.beam_size,
            word_timestamps=asked.word_timestamps,
        )
        transcript = engine.transcribe(clip, options, Listener() if asked.json else PrintSegments())
    except EngineError as error:
        about = {"engine": asked.engine, "model": asked.model, "clip": asked.clip}
        logs.logger().error("failed", **about, error=str(error))
        print(f"error: {error}", file=sys.stderr)
        return 1
    if asked.json:
        print(json.dumps(as_json(transcript, prepared), ensure_ascii=False))
    return 0


class PrintSegments(Listener):
    """Prints each segment when it is final."""

    def segment(self, segment: Segment) -> None:
        """One line with the segment's times in seconds."""
        print(f"[{segment.start:7.2f} → {segment.end:7.2f}] {segment.text.strip()}", flush=True)
        for word in segment.words or ():
            print(f"    {word.start:7.2f} → {word.end:7.2f}  {word.text.strip()}")


def as_json(transcript: Transcript, prepared: PrepareSeconds) -> dict[str, Any]:
    """The documented JSON object; all times in seconds."""
    return {
        "engine": transcript.engine,
        "model": transcript.model,
        "device": transcript.device,
        "dtype": transcript.dtype,
        "language": transcript.language,
        "text": transcript.text,
        "tokens": list(transcript.tokens),
        "segments": [_segment_json(segment) for segment in transcript.segments],
        "seconds": {"prepare": prepared.total, **transcript.seconds.as_dict()},
        "audio_seconds": transcript.audio_seconds,
    }


def _segment_json(segment: Segment) -> dict[str, Any]:
    record: dict[str, Any] = {
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": list(segment.tokens),
    }
    if segment.words is not None:
        record["words"] = [vars(word) for word in segment.words]
    return record


class PrintProgress(Listener):
    """Prints what an engine does while it gets ready."""

    def progress(self, progress: Progress) -> None:
        """One line for a stage."""
        print(f"{progress.note or progress.stage} …", file=sys.stderr)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engines.transcribe", description=__doc__)
    parser.add_argument("clip", help="any audio file")
    parser.add_argument("--engine", default=registry.BASELINE, choices=registry.all_keys())
    parser.add_argument("--model", default=DEFAULT_MODEL, help="nano, an official name, or a path")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"))
    parser.add_argument("--language", help="a code such as en; detected when left out")
    parser.add_argument("--beam-size", type=int, help="beams; greedy when left out")
    parser.add_argument("--word-timestamps", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
