"""The command `compare`: what every engine wrote, one after another, differences marked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from engines import logs, metrics, worker
from engines.audio import load_clip
from engines.base import Clip, Options
from engines.benchmark.evaluation import read_text
from engines.benchmark.interleave import explain
from engines.benchmark.speed import find_clip

DELETED, INSERTED = "[-{}-]", "{{+{}+}}"
"""Marks that need no colour, as wdiff has them."""


def compare_engines(
    clip: str,
    keys: Sequence[str],
    model: str,
    options: Options,
    reference_path: Path | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Print each engine's text as soon as it is written; return the exit status."""
    path = find_clip(clip)
    sound = load_clip(path)
    reference = find_reference(path, reference_path)
    console = Console(highlight=False)
    if not as_json:
        console.print(f"{sound.name}, {sound.seconds:.1f} s, {model}", markup=False)
        if reference:
            _print(console, "the words spoken", Text(reference))
    about = {"run": logs.current_run(), "clip": sound.name, "model": model}
    written: dict[str, str] = {}
    for key in keys:
        expected = next(iter(written.items()), ("the words spoken", reference))
        line = transcribe(key, model, sound, options, reference)
        alignment = None
        if line["error"] is None:
            written[key] = line["text"]
            if expected[1] is not None:
                alignment = metrics.compare(expected[1], line["text"])
        if as_json:
            changes = {"compared_with": expected[0] if alignment else None}
            line = {**about, **line, **changes, "changes": list_changes(alignment)}
            typer.echo(json.dumps(line, ensure_ascii=False))
        else:
            _print(console, *describe(line, alignment, expected[0]))
    if len(written) < len(keys):
        return 1
    return 2 if strict and len({tuple(text.split()) for text in written.values()}) > 1 else 0


def transcribe(
    key: str, model: str, clip: Clip, options: Options, reference: str | None
) -> dict[str, Any]:
    """Return one engine's text, or its error, which must not hide the others' words."""
    asked = {"engine": key, "beam": options.beam_size or 1, "language": options.language}
    try:
        transcript = worker.get_engine(key, model).transcribe(clip, options)
    except Exception as error:
        return {**asked, "error": explain(error)}
    text = transcript.text.strip()
    score = metrics.score(reference, text, transcript.language) if reference else None
    return {
        **asked,
        "text": text,
        "seconds": transcript.seconds.as_dict(),
        "audio_seconds": transcript.audio_seconds,
        "word_error_rate": score.normalised_word_error_rate if score else None,
        "error": None,
    }


def find_reference(clip: Path, named: Path | None) -> str | None:
    """Return the words really spoken, where they are known."""
    path = named or clip.with_suffix(".txt")
    return " ".join(read_text(path).split()) if named or path.is_file() else None


def list_changes(alignment: metrics.Alignment | None) -> list[dict[str, str]]:
    """Return what differs from the expected words."""
    edits = alignment.edits if alignment else ()
    return [
        {"expected": " ".join(edit.expected), "found": " ".join(edit.found)}
        for edit in edits
        if edit.change != "equal"
    ]


def describe(
    line: dict[str, Any], alignment: metrics.Alignment | None, expected: str
) -> tuple[str, Text]:
    """Return a title, and the text with what differs from the expected words marked."""
    if line["error"] is not None:
        return line["engine"], Text(f"failed: {line['error']}", style="red")
    title = f"{line['engine']}, {line['seconds']['total']:.2f} s"
    if line["word_error_rate"] is not None:
        title += f", word error rate {line['word_error_rate']:.1%}"
    if alignment is None:
        return title, Text(line["text"])
    count = metrics.name_count(alignment.errors)
    verdict = f"{count} unlike" if alignment.errors else "the same words as"
    return f"{title}; {verdict} {expected}", mark(alignment)


def mark(alignment: metrics.Alignment) -> Text:
    """Return all words, those that differ within marks and in colour."""
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


def _print(console: Console, title: str, text: Text) -> None:
    body = Padding(text, (0, 0, 0, 4), expand=False)
    console.print("", Text(title, style="bold"), body, sep="\n")
