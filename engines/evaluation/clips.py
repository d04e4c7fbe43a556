"""Clips with the words that are spoken in them, from a folder or a manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
    def audio_sha256(self) -> str | None:
        """The digest of the file's bytes, in hexadecimal; None where it can't be read."""
        try:
            with self.path.open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError:
            return None
        return digest.hexdigest()


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
    counts = Counter(clip.name for clip in found)
    if twice := next((name for name, count in counts.items() if count > 1), None):
        raise EngineError(f"{source} has {twice} twice: each clip needs a name of its own.")
    return found


def _in_folder(folder: Path) -> Iterator[Spoken]:
    for text in sorted(folder.rglob("*.txt")):
        beside = sorted(path for path in text.parent.glob(f"{_escape(text.stem)}.*"))
        clips = [path for path in beside if path != text and path.is_file()]
        if clips:
            name = clips[0].relative_to(folder).as_posix()
            yield Spoken(name, clips[0], read_text(text))


def read_text(path: Path) -> str:
    """A file's text, without a mark of its byte order; raises `EngineError` where that fails."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise EngineError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise EngineError(f"{path} is not text in UTF-8: save it as UTF-8.") from error


def _escape(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


def _in_manifest(manifest: Path) -> Iterator[Spoken]:
    for number, fields in _rows(manifest):
        audio, text = _first_text(fields, AUDIO_FIELDS), _first_text(fields, TEXT_FIELDS)
        if not audio or text is None:
            raise EngineError(
                f"Line {number} of {manifest} needs a clip and its words: name them "
                f"{AUDIO_FIELDS[0]!r} and {TEXT_FIELDS[0]!r}."
            )
        yield Spoken(audio, manifest.parent / audio, text)


def _first_text(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of these fields that holds text: null, and what a short row lacks, is none."""
    return next((fields[name] for name in names if isinstance(fields.get(name), str)), None)


def _rows(manifest: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each row with the number of its line."""
    text = _read_manifest(manifest)
    if separator := SEPARATORS.get(manifest.suffix.lower()):
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            for fields in rows:
                yield rows.line_num, fields
        except csv.Error as error:
            raise EngineError(f"Line {rows.line_num} of {manifest}: {error}.") from error
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _read_object(line, number, manifest)


def _read_manifest(manifest: Path) -> str:
    try:
        return read_text(manifest)
    except EngineError as error:
        raise EngineError(
            f"{error} Name a folder of clips, or a manifest: lines of JSON, or a CSV or TSV file."
        ) from error


def _read_object(line: str, number: int, manifest: Path) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise EngineError(f"Line {number} of {manifest} is not a JSON object.")
    return fields
