"""`python -m engines.compare_simple CLIP`: what every engine wrote, differences marked.

Engines run one after another. Words that the baseline has and an engine has not are `[-marked-]`,
words that only the engine has `{+marked+}`, in colour on a terminal. Where the words really spoken
are known (`CLIP.txt` beside the clip, or `--reference`), they come first and the baseline is
compared with them. Exit status 1 when an engine failed, 2 with `--strict` when words differ. With
`--json` each engine is a line; docs/compare-simple-line.schema.json is its schema.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from engines import logs, registry
from engines import metrics as words
from engines.audio import load_clip
from engines.base import Clip, EngineError, Options, Transcript
from engines.checkpoints import DEFAULT_MODEL
from engines.evaluation.clips import read_text
from engines.measure.clips import clip_path
from engines.measure.turns import in_words
from engines.metrics import Alignment

DELETED, INSERTED = "[-{}-]", "{{+{}+}}"
"""Marks that need no colour, as wdiff has them."""


@dataclass(frozen=True)
class Version:
    """One engine's text of a clip, or why there is none."""

    engine: str
    transcript: Transcript | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        """What it wrote."""
        return self.transcript.text.strip() if self.transcript else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the texts; returns the exit status."""
    asked = _parse(arguments)
    logs.set_up()
    console = Console(highlight=False)
    try:
        clip = load_clip(clip_path(asked.clip))
        reference = find_reference(asked)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options = Options(language=asked.language, beam_size=asked.beam_size)
    if not asked.json:
        console.print(f"{clip.name}, {clip.seconds:.1f} s, {asked.model}", markup=False)
        if reference is not None:
            console.print(*lay_out("the words spoken", Text(reference)), sep="\n")
    shown: list[Version] = []
    run = logs.new_run_id()
    with logs.in_run(run):
        for version in transcribe(asked.engines or registry.available(), asked, clip, options):
            expected = expectation(shown, reference)
            shown.append(version)
            if asked.json:
                line = {**describe(run, clip, asked), **as_json(version, expected, reference)}
                print(json.dumps(line, ensure_ascii=False), flush=True)
            else:
                console.print(*draw(version, expected, reference), sep="\n")
    return exit_status(shown, asked.strict)


def describe(run: str, clip: Clip, asked: argparse.Namespace) -> dict[str, Any]:
    """What the lines of a run share: its id, what was run and how."""
    return {
        "run": run,
        "clip": clip.name,
        "model": asked.model,
        "beam": asked.beam_size or 1,
        "language": asked.language,
        "threads": torch.get_num_threads(),
    }


def transcribe(
    keys: Sequence[str], asked: argparse.Namespace, clip: Clip, options: Options
) -> Iterator[Version]:
    """Each engine's version as soon as it is written; the baseline first."""
    for key in sorted(keys, key=lambda key: key != registry.BASELINE):
        yield transcribe_with(key, asked.model, clip, options)


def transcribe_with(key: str, model: str, clip: Clip, options: Options) -> Version:
    """One engine's version; whatever it raises must not hide the others' words."""
    try:
        return Version(key, registry.get(key, model).transcribe(clip, options))
    except Exception as error:
        about = {"engine": key, "model": model, "clip": clip.name}
        logs.logger().error("failed", **about, error=in_words(error))
        return Version(key, error=in_words(error))


def find_reference(asked: argparse.Namespace) -> str | None:
    """The words really spoken, where they are known; raises `EngineError` for an absent file."""
    path = asked.reference or clip_path(asked.clip).with_suffix(".txt")
    if not asked.reference and not path.is_file():
        return None
    return " ".join(read_text(path).split())


def expectation(shown: Sequence[Version], reference: str | None) -> tuple[str, str] | None:
    """Whose text the next one is compared with, and that text; None where there is none yet."""
    written = next((version for version in shown if version.transcript), None)
    if written is not None:
        return written.engine, written.text
    return None if reference is None else ("the words spoken", reference)


def draw(
    version: Version, expected: tuple[str, str] | None, reference: str | None
) -> tuple[Any, ...]:
    """A version for people: its title, and its text with the differences marked."""
    if version.transcript is None:
        return lay_out(version.engine, Text(f"failed: {version.error}", style="red"))
    seconds = version.transcript.seconds.total
    title = f"{version.engine}, {seconds:.2f} s"
    if reference:
        rate = score_of(version.transcript, reference).word_error_rate
        title += "" if rate is None else f", word error rate {rate:.1%}"
    if expected is None:
        return lay_out(title, Text(version.text))
    alignment = words.compare(expected[1], version.text)
    count = words.name_count(alignment.errors)
    verdict = f"{count} unlike" if alignment.errors else "the same words as"
    return lay_out(f"{title}; {verdict} {expected[0]}", mark(alignment))


def score_of(transcript: Transcript, reference: str) -> Alignment:
    """Its words against those spoken, after the normalizer for its language."""
    return words.score(reference, transcript.text.strip(), transcript.language).normalised


def lay_out(title: str, text: Text) -> tuple[Any, ...]:
    """A title, and the text beneath it."""
    return "", Text(title, style="bold"), Padding(text, (0, 0, 0, 4), expand=False)


def mark(alignment: Alignment) -> Text:
    """All words, those that differ within marks and in colour."""
    parts: list[Text] = []
    for edit in alignment.edits:
        if edit.change == "equal":
            parts.append(Text(" ".join(edit.found)))
            continue
        if edit.expected:
            parts.append(Text(DELETED.format(" ".join(edit.expected)), style="red"))
        if edit.found:
            parts.append(Text(INSERTED.format(" ".join(edit.found)), style="green"))
    return Text(" ").join(parts)


def as_json(
    version: Version, expected: tuple[str, str] | None, reference: str | None
) -> dict[str, Any]:
    """A version for programs, beside what `describe` gives; `changes` are those to the text of
    `compared_with`."""
    if version.transcript is None:
        return {"engine": version.engine, "error": version.error}
    alignment = words.compare(expected[1], version.text) if expected else None
    score = score_of(version.transcript, reference) if reference else None
    return {
        "engine": version.engine,
        "text": version.text,
        "seconds": version.transcript.seconds.as_dict(),
        "audio_seconds": version.transcript.audio_seconds,
        "word_error_rate": score.word_error_rate if score else None,
        "compared_with": expected[0] if expected else None,
        "changes": [
            {"expected": " ".join(edit.expected), "found": " ".join(edit.found)}
            for edit in (alignment.edits if alignment else ())
            if edit.change != "equal"
        ],
        "error": None,
    }


def exit_status(shown: Sequence[Version], strict: bool) -> int:
    """1 where an engine failed, else 2 where words differ and that matters."""
    if any(version.error for version in shown):
        return 1
    texts = {tuple(words.split_words(version.text)) for version in shown}
    return 2 if strict and len(texts) > 1 else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engines.compare_simple",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clip", nargs="?", default="half_minute", help="a sample, or any file")
    parser.add_argument(
        "--engines", type=lambda text: text.split(","), help="all that this machine has, if not"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="nano, an official name, or a path")
    parser.add_argument("--language", help="a code such as en; detected when left out")
    parser.add_argument("--beam-size", type=int, help="beams; greedy when left out")
    parser.add_argument("--reference", type=Path, help="a file with the words really spoken")
    parser.add_argument("--strict", action="store_true", help="exit status 2 when words differ")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each engine")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
