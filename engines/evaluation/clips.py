"""Clips with the words that are spoken in them, from a folder or a manifest."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.base import EngineError

AUDIO_FIELDS = ("clip", "audio", "audio_filepath", "path", "file")
TEXT_FIELDS = ("text", "reference", "sentence", "transcript")
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Spoken:
    """A clip: its name within the folder or manifest, its file, and the words spoken in it."""

    name: str
    path: Path
    reference: str


def find_clips(source: Path) -> list[Spoken]:
    """The clips of a folder (every `NAME.txt` with a clip of that name beside it, folders within
    folders too) or of a manifest: lines of JSON, or a CSV or TSV file with a header.

    Raises `EngineError` where there is nothing, or a line that can't be understood.
    """
    if source.is_dir():
        found = list(_in_folder(source))
    elif source.is_file():
        found = list(_in_manifest(source))
    else:
        raise EngineError(f"There is no folder or manifest at {source}: check the path.")
    if not found:
        raise EngineError(f"{source} has no clip: a folder needs NAME.txt beside NAME.flac.")
    names = [clip.name for clip in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise EngineError(f"{source} has {twice} twice: each clip needs a name of its own.")
    return found


def _in_folder(folder: Path) -> Iterator[Spoken]:
    for text in sorted(folder.rglob("*.txt")):
        beside = sorted(path for path in text.parent.glob(f"{_escape(text.stem)}.*"))
        clips = [path for path in beside if path != text and path.is_file()]
        if clips:
            name = clips[0].relative_to(folder).as_posix()
            yield Spoken(name, clips[0], text.read_text(encoding="utf-8"))


def _escape(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


def _in_manifest(manifest: Path) -> Iterator[Spoken]:
    for number, fields in _rows(manifest):
        audio = next((str(fields[name]) for name in AUDIO_FIELDS if fields.get(name)), None)
        text = next((str(fields[name]) for name in TEXT_FIELDS if name in fields), None)
        if audio is None or text is None:
            raise EngineError(
                f"Line {number} of {manifest} needs a clip and its words: name them "
                f"{AUDIO_FIELDS[0]!r} and {TEXT_FIELDS[0]!r}."
            )
        yield Spoken(audio, manifest.parent / audio, text)


def _rows(manifest: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each row with the number of its line."""
    with manifest.open(encoding="utf-8", newline="") as file:
        if separator := SEPARATORS.get(manifest.suffix.lower()):
            yield from enumerate(csv.DictReader(file, delimiter=separator), start=2)
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _read_object(line, number, manifest)


def _read_object(line: str, number: int, manifest: Path) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise EngineError(f"Line {number} of {manifest} is not a JSON object.")
    return fields
