"""The command `compare`: what every engine wrote, one after another, differences marked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from engines import logs
from engines import words as metrics
from engines.audio import load_clip
from engines.base import Options, Transcript
from engines.benchmark import processes
from engines.benchmark.evaluation import read_text
from engines.benchmark.interleave import explain
from engines.benchmark.speed import find_clip

DELETED, INSERTED = "[-{}-]", "{{+{}+}}"
"""Marks that need no colour, as wdiff has them."""

SPOKEN = "the words spoken"


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


def compare_engines(
    clip: str,
    keys: Sequence[str],
    model: str,
    options: Options,
    reference_path: Path | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Print each engine's version as soon as it is written; return the exit status."""
    path = find_clip(clip)
    sound = load_clip(path)
    reference = find_reference(path, reference_path)
    console = Console(highlight=False)
    if not as_json:
        console.print(f"{sound.name}, {sound.seconds:.1f} s, {model}", markup=False)
        if reference:
            _print(console, SPOKEN, Text(reference))
    expected = (SPOKEN, reference) if reference else None
    versions: list[Version] = []
    for key in keys:
        version = transcribe(key, model, sound, options)
        if as_json:
            line = {
                "run": logs.current_run(),
                "clip": sound.name,
                "model": model,
                "beam": options.beam_size or 1,
                "language": options.language,
                **version_json(version, expected, reference),
            }
            typer.echo(json.dumps(line, ensure_ascii=False))
        else:
            _print(console, *describe(version, expected, reference))
        if version.transcript and not any(each.transcript for each in versions):
            expected = (key, version.text)
        versions.append(version)
    if any(version.error for version in versions):
        return 1
    texts = {tuple(version.text.split()) for version in versions}
    return 2 if strict and len(texts) > 1 else 0


def transcribe(key: str, model: str, clip: Any, options: Options) -> Version:
    """Return one engine's version; what goes wrong must not hide the others' words."""
    try:
        return Version(key, processes.get_engine(key, model).transcribe(clip, options))
    except Exception as error:
        return Version(key, error=explain(error))


def find_reference(clip: Path, named: Path | None) -> str | None:
    """Return the words really spoken, where they are known."""
    path = named or clip.with_suffix(".txt")
    return " ".join(read_text(path).split()) if named or path.is_file() else None


def describe(
    version: Version, expected: tuple[str, str] | None, reference: str | None
) -> tuple[str, Text]:
    """Return a title, and the text with what differs from the expected text marked."""
    if version.transcript is None:
        return version.engine, Text(f"failed: {version.error}", style="red")
    title = f"{version.engine}, {version.transcript.seconds.total:.2f} s"
    rate = _error_rate(version.transcript, reference)
    title += "" if rate is None else f", word error rate {rate:.1%}"
    if expected is None:
        return title, Text(version.text)
    alignment = metrics.compare(expected[1], version.text)
    count = metrics.name_count(alignment.errors)
    verdict = f"{count} unlike" if alignment.errors else "the same words as"
    return f"{title}; {verdict} {expected[0]}", mark(alignment)


def _error_rate(transcript: Transcript, reference: str | None) -> float | None:
    if not reference:
        return None
    text, language = transcript.text.strip(), transcript.language
    return metrics.score(reference, text, language).normalised.word_error_rate


def _print(console: Console, title: str, text: Text) -> None:
    console.print(
        "", Text(title, style="bold"), Padding(text, (0, 0, 0, 4), expand=False), sep="\n"
    )


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


def version_json(
    version: Version, expected: tuple[str, str] | None, reference: str | None
) -> dict[str, Any]:
    """Return a version for programs; `changes` are those to the text of `compared_with`."""
    if version.transcript is None:
        return {"engine": version.engine, "error": version.error}
    edits = metrics.compare(expected[1], version.text).edits if expected else ()
    return {
        "engine": version.engine,
        "text": version.text,
        "seconds": version.transcript.seconds.as_dict(),
        "audio_seconds": version.transcript.audio_seconds,
        "word_error_rate": _error_rate(version.transcript, reference),
        "compared_with": expected[0] if expected else None,
        "changes": [
            {"expected": " ".join(edit.expected), "found": " ".join(edit.found)}
            for edit in edits
            if edit.change != "equal"
        ],
        "error": None,
    }
