"""Error rates and real-time factors over many clips with reference texts.

Each clip is a line of JSON in a file as soon as it is done; a later run goes on from there:

    engine, model, clip, beam, language, reference, threads, workers
                     what tells one task from another (`KEY`): with another text, or under other
                     conditions, a clip is run again
    text             what was written, as it is
    unit             `word`, or `character` for languages written without spaces
    expected, errors, error_rate   units in the reference, wrong ones after Whisper's normalizer,
                     and their ratio; null where nothing is spoken
    audio_seconds, seconds, real_time_factor   length of the clip, time by stage, total over length
    error            null, or why there is no text: then nothing from `text` on is there
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import metrics, worker
from engines.audio import load_clip
from engines.base import Engine, EngineError, Options, Transcript
from engines.benchmark.interleave import explain
from engines.benchmark.tables import Column, number

Line = Mapping[str, Any]
KEY = ("engine", "model", "clip", "beam", "language", "reference", "threads", "workers")

UNSPACED = ("zh", "ja", "th", "lo", "my", "yue", "km")
"""Languages written without spaces, in which a word is no unit to count by."""


@dataclass(frozen=True)
class Task:
    """One clip for one engine, and how many threads and workers its time is taken under."""

    engine: str
    model: str
    name: str
    path: Path
    reference: str
    options: Options
    threads: int = 1
    workers: int = 1

    def describe(self) -> dict[str, Any]:
        """Return the fields of `KEY`."""
        beam, language = self.options.beam_size or 1, self.options.language
        fields = {**vars(self), "clip": self.name, "beam": beam, "language": language}
        return {name: fields[name] for name in KEY}


def find_clips(source: Path) -> list[tuple[str, Path, str]]:
    """Return name, file and reference text of every clip of a folder or a list of files.

    A clip has a file of the same name that ends in `.txt` beside it. A list has a path on each
    line, from the list's own folder. Raises `EngineError` where there is none, or no text.
    """
    if source.is_dir():
        texts = sorted(source.rglob("*.txt"))
        beside = [(text, sorted(text.parent.glob(f"{_escape(text.stem)}.*"))) for text in texts]
        paths = [next((p for p in found if p != text), None) for text, found in beside]
        clips = [path for path in paths if path is not None]
    elif source.is_file():
        lines = [line.strip() for line in read_text(source).splitlines()]
        clips = [source.parent / line for line in dict.fromkeys(lines) if line]
    else:
        raise EngineError(f"There is no folder or list of clips at {source}: check the path.")
    if not clips:
        raise EngineError(f"{source} has no clip: a folder needs NAME.txt beside NAME.flac.")
    folder = source if source.is_dir() else source.parent
    return [
        (os.path.relpath(path, folder), path, read_text(path.with_suffix(".txt")).strip())
        for path in clips
    ]


def _escape(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EngineError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise EngineError(f"{path} is not text in UTF-8: save it as UTF-8.") from error


# Running.


def run_here(
    tasks: Sequence[Task], get_engine: Callable[[str, str], Engine] | None = None
) -> Iterator[Line]:
    """Run the tasks one after another; each engine has a process, which ends before the next."""
    get_engine = get_engine or worker.get_engine
    ready: dict[tuple[str, str], Engine] = {}  # one at a time
    for task in tasks:
        line: Line
        name = task.engine, task.model
        try:
            if name not in ready:
                for engine in ready.values():
                    engine.close()
                ready = {name: get_engine(*name)}
            line = score(task, ready[name].transcribe(load_clip(task.path), task.options))
        except Exception as error:
            line = fail(task, explain(error))
        yield line


def fail(task: Task, error: str) -> Line:
    """Return the line of a task that has no text."""
    return {**task.describe(), "error": error}


def score(task: Task, transcript: Transcript) -> Line:
    """Return the line of a task that has a text."""
    language = task.options.language or transcript.language
    unit = "character" if language in UNSPACED else "word"
    expected, found = (split(text, language, unit) for text in (task.reference, transcript.text))
    alignment = metrics.align(expected, found)
    return {
        **task.describe(),
        "text": transcript.text.strip(),
        "unit": unit,
        "expected": len(expected),
        "errors": alignment.errors,
        "error_rate": alignment.word_error_rate,
        "audio_seconds": transcript.audio_seconds,
        "seconds": transcript.seconds.as_dict(),
        "real_time_factor": transcript.real_time_factor,
        "error": None,
    }


def split(text: str, language: str, unit: str) -> list[str]:
    """Return the normalised words of a text, or its characters without spaces."""
    found = metrics.normalise(text, language).split()
    return list("".join(found)) if unit == "character" else found


# Lines.


def append(line: Line, path: Path) -> None:
    """Add a line; it is in the file when this returns, whatever comes after."""
    text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab", buffering=0) as file:
        file.write(text.encode())


def read_lines(path: Path) -> list[Line]:
    """Read the lines of earlier runs; half a line at the end, left by a kill, is cut off.

    Raises `EngineError` for a file that holds something else.
    """
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    try:
        lines: list[Line] = [json.loads(text) for text in whole.split(b"\n")[:-1]]
        if content and not lines:
            raise ValueError("no line")
        for line in lines:
            key_of(line), line["error"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{path} is not an evaluation: name another file with --out.") from error
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return lines


def key_of(line: Line) -> tuple[Any, ...]:
    """Return what tells a line from those of other tasks."""
    return tuple(line[name] for name in KEY)


def left_over(tasks: Sequence[Task], lines: Iterable[Line]) -> list[Task]:
    """Return the tasks that have no text yet; those that failed are tried again."""
    done = {key_of(line) for line in lines if line["error"] is None}
    return [task for task in tasks if key_of(task.describe()) not in done]


def summarise(tasks: Sequence[Task], lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Return a summary for each engine, model and unit, by each task's last line, best first."""
    last = {key_of(line): line for line in lines}
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in (last[key] for task in tasks if (key := key_of(task.describe())) in last):
        group = (line["engine"], line["model"], line.get("unit", "word"))
        groups.setdefault(group, []).append(line)
    found = [_sum_up(*group, lines) for group, lines in groups.items()]
    return sorted(found, key=lambda each: (each["error_rate"] is None, each["error_rate"] or 0.0))


def _sum_up(engine: str, model: str, unit: str, lines: Sequence[Line]) -> dict[str, Any]:
    """Return errors over all units and seconds over all audio, so that long clips count more."""
    fine = [line for line in lines if line["error"] is None]
    expected, errors = (sum(line[name] for line in fine) for name in ("expected", "errors"))
    audio = sum(line["audio_seconds"] for line in fine)
    spent = sum(line["seconds"]["total"] for line in fine)
    return {
        "engine": engine,
        "model": model,
        "unit": unit,
        "clips": len(fine),
        "failed": len(lines) - len(fine),
        "expected": expected,
        "errors": errors,
        "error_rate": errors / expected if expected else None,
        "real_time_factor": spent / audio if audio else None,
    }


COLUMNS = (
    Column("engine", lambda s: s["engine"], numeric=False),
    Column("model", lambda s: s["model"], numeric=False),
    Column("clips", lambda s: str(s["clips"])),
    Column("failed", lambda s: str(s["failed"])),
    Column("counted by", lambda s: s["unit"], numeric=False),
    Column("error rate", lambda s: number(s["error_rate"], ".2%")),
    Column("errors", lambda s: f"{s['errors']} of {s['expected']}"),
    Column("real-time factor", lambda s: number(s["real_time_factor"], ".3f")),
)
