"""Clips to evaluate and the words really spoken in them: a folder, a list or a manifest.

A manifest is a file of JSON lines (`.jsonl`, `.json`), CSV (`.csv`) or TSV (`.tsv`, without
quotes), whose columns have one of the names below: those of NeMo's manifests, of Hugging Face's
`metadata.csv` and of Common Voice are among them.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engines.base import EngineError

AUDIO_NAMES = ("audio", "audio_filepath", "file_name", "path", "file")
TEXT_NAMES = ("text", "reference", "sentence", "transcription", "transcript")


class BareTabs(csv.excel_tab):
    """A table with tabs, whose sentences hold quotation marks as they are."""

    quoting = csv.QUOTE_NONE


TABLES: dict[str, type[csv.Dialect]] = {".csv": csv.excel, ".tsv": BareTabs}
JSON_LINES = (".jsonl", ".json")
MANIFESTS = (*JSON_LINES, *TABLES)
"""Endings of manifests; any other file is a list with a path on each line."""


class ListedClip(NamedTuple):
    """A clip's name in its list, its file, and the words really spoken, None if not known."""

    name: str
    path: Path
    reference: str | None


class Entry(NamedTuple):
    """One line of a list: a clip's path as it is written, and its words where they stand there."""

    audio: str
    text: str | None


def find_clips(source: Path) -> list[ListedClip]:
    """Return the clips of a folder, a list of files or a manifest, all with their words.

    The words of a clip without any in a manifest are in a file of the same name that ends in
    `.txt`, beside it; in a folder only clips with such a file count. Paths start from the list's
    own folder. Raises `EngineError` where there is no clip, or no text for one.
    """
    if source.is_dir():
        folder = source
        files = [path for path in sorted(source.rglob("*")) if path.suffix not in ("", ".txt")]
        entries = [Entry(str(x), None) for x in files if x.with_suffix(".txt").is_file()]
    elif source.is_file():
        folder = source.parent
        entries = [entry._replace(audio=str(folder / entry.audio)) for entry in read_list(source)]
    else:
        raise EngineError(f"There is no folder or list of clips at {source}: check the path.")
    if not entries:
        raise EngineError(f"{source} has no clip: a folder needs NAME.txt beside NAME.flac.")
    clips = []
    for audio, text in entries:
        path = Path(audio)
        spoken = read_text(path.with_suffix(".txt")) if text is None else text
        clips.append(ListedClip(os.path.relpath(path, folder), path, spoken.strip()))
    return clips


def read_list(path: Path) -> list[Entry]:
    """Return the entries of a list or a manifest, each once; raise `EngineError` for another file.

    Which it is goes by the file's ending.
    """
    text, ending = read_text(path), path.suffix.lower()
    if ending in JSON_LINES:
        rows = read_json_lines(text, path.name)
    elif ending in TABLES:
        rows = iter(csv.DictReader(io.StringIO(text, newline=""), dialect=TABLES[ending]))
    else:
        lines = (line.strip() for line in text.splitlines())
        return [Entry(line, None) for line in dict.fromkeys(lines) if line]
    try:
        entries = [read_entry(row, path.name, number) for number, row in enumerate(rows, 1)]
    except csv.Error as error:
        raise EngineError(f"{path.name} can't be read as a table: {error}.") from error
    return list(dict.fromkeys(entries))


def read_json_lines(text: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON lines; raise `EngineError` for anything else."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise EngineError(f"{name}, line {number}: not an object of JSON, one on each line.")
        yield row


def read_entry(row: Mapping[Any, Any], name: str, number: int) -> Entry:
    """Return the entry of a manifest's row; raise `EngineError` where it names no file."""
    audio, text = (
        next((row[each] for each in names if isinstance(row.get(each), str)), None)
        for names in (AUDIO_NAMES, TEXT_NAMES)
    )
    if not audio or "\0" in audio:
        known = ", ".join(AUDIO_NAMES)
        raise EngineError(f"{name}, row {number}: no clip: its file stands in one of {known}.")
    return Entry(audio, text)


def read_text(path: Path) -> str:
    """Read a file of UTF-8; raise `EngineError` for any other."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EngineError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise EngineError(f"{path} is not text in UTF-8: save it as UTF-8.") from error
