"""One line of JSON a clip: written as soon as it is there, read again by the run that goes on.

engine, model, clip   what was run; `clip` is its name within the folder or manifest
beam, language        how: 1 is greedy; null detects the language
reference             what was spoken, as it is
audio_sha256          digest of the clip's file; null where it can't be read
run                   the run's id, which its log has as well
ray                   whether it ran on Ray
threads, processes    of each process, null where the system gives no choice; and how many at once
text                  what was written, as it is
words, errors         of the reference and against it, after Whisper's normalizer
word_error_rate       errors over words; null where nothing is spoken
audio_seconds         length of the clip
seconds               by stage, with their `total`
real_time_factor      total over audio: below 1 is faster than listening
error                 null, or why there is no text: then nothing from `text` on is there

The fields up to `audio_sha256` tell one task from another, so a clip whose words or audio were
changed is run again. docs/evaluation-line.schema.json is the schema.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines import metrics as words
from engines.base import EngineError, Options
from engines.evaluation.clips import Spoken
from engines.measure.worker import Run

Line = Mapping[str, Any]
KEY = ("engine", "model", "clip", "beam", "language", "reference", "audio_sha256")
"""Fields that tell one task from another."""


@dataclass(frozen=True)
class Task:
    """One clip for one engine; the same temperatures as everywhere else."""

    engine: str
    model: str
    spoken: Spoken
    options: Options

    @property
    def about(self) -> dict[str, Any]:
        """What tells it from other tasks, as its line has it."""
        return {
            "engine": self.engine,
            "model": self.model,
            "clip": self.spoken.name,
            "beam": self.options.beam_size or 1,
            "language": self.options.language,
            "reference": self.spoken.reference.strip(),
            "audio_sha256": self.spoken.audio_sha256,
        }

    @property
    def key(self) -> tuple[Any, ...]:
        """The same, to look it up by."""
        return key_of(self.about)


@dataclass(frozen=True)
class Conditions:
    """What a run's lines share: its id, and what its times were taken under."""

    run: str
    ray: bool
    threads: int | None
    processes: int

    def put_on(self, line: Line) -> Line:
        """The line with them, after what tells its task from others."""
        return {**{key: line[key] for key in KEY}, **asdict(self), **line}


SHARED = ("ray", "threads", "processes")
"""Conditions that times must share to be added up."""


def key_of(line: Line) -> tuple[Any, ...]:
    """What tells a line from those of other tasks."""
    return tuple(line[name] for name in KEY)


def finished(task: Task, run: Run) -> Line:
    """The line of a task that has a text."""
    score = words.score(task.spoken.reference, run.text, run.language).normalised
    return {
        **task.about,
        "text": run.text.strip(),
        "words": score.expected_words,
        "errors": score.errors,
        "word_error_rate": score.word_error_rate,
        "audio_seconds": run.audio_seconds,
        "seconds": dict(run.seconds),
        "real_time_factor": run.real_time_factor,
        "error": None,
    }


def failed(task: Task, error: str) -> Line:
    """The line of a task that has none."""
    return {**task.about, "error": error}


def read_lines(path: Path) -> list[Line]:
    """The lines of an earlier run; half a line at the end, left by a kill, is cut off.

    Raises `EngineError` for a file that is something else.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    found: list[Line] = []
    for number, text in enumerate(whole.decode("utf-8", "replace").split("\n")[:-1], start=1):
        found.append(_read_line(text, number, path))
    if content and not found:
        raise EngineError(f"{path} is not an evaluation: name another file with --out.")
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return found


def _read_line(text: str, number: int, path: Path) -> Line:
    try:
        line: Line = json.loads(text)
        key_of(line), line["error"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        message = f"Line {number} of {path} is not of an evaluation: name another file with --out."
        raise EngineError(message) from error
    return line


def left_over(tasks: Sequence[Task], lines: Iterable[Line]) -> list[Task]:
    """The tasks that have no text yet; those that failed are tried again."""
    done = {key_of(line) for line in lines if line["error"] is None}
    return [task for task in tasks if task.key not in done]


def append(line: Line, path: Path) -> None:
    """Add a line; it is in the file when this returns, whatever comes after."""
    text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab", buffering=0) as file:
        file.write(text.encode())


@dataclass(frozen=True)
class Summary:
    """One engine with one model: clips with a text and without one, words, seconds.

    `mixed`: the clips were run with unlike threads or processes, so their times don't add up.
    """

    engine: str
    model: str
    clips: int
    failed: int
    words: int
    errors: int
    audio_seconds: float
    seconds: float
    mixed: bool = False

    @property
    def word_error_rate(self) -> float | None:
        """All errors over all words, so that long clips count for more; None without words."""
        return self.errors / self.words if self.words else None

    @property
    def real_time_factor(self) -> float | None:
        """All seconds of processing over all seconds of audio; None without audio, or mixed."""
        if self.mixed or not self.audio_seconds:
            return None
        return self.seconds / self.audio_seconds

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        rates = {"word_error_rate": self.word_error_rate, "real_time_factor": self.real_time_factor}
        return {**vars(self), **rates}


def summarise(tasks: Sequence[Task], lines: Iterable[Line]) -> list[Summary]:
    """One summary for each engine and model, by each task's last line."""
    last = {key_of(line): line for line in lines}
    groups: dict[tuple[str, str], list[Line]] = {}
    for task in tasks:
        group = groups.setdefault((task.engine, task.model), [])
        if task.key in last:
            group.append(last[task.key])
    return [_sum_up(engine, model, group) for (engine, model), group in groups.items()]


def _sum_up(engine: str, model: str, group: Sequence[Line]) -> Summary:
    fine = [line for line in group if line["error"] is None]
    return Summary(
        engine=engine,
        model=model,
        clips=len(fine),
        failed=len(group) - len(fine),
        words=sum(line["words"] for line in fine),
        errors=sum(line["errors"] for line in fine),
        audio_seconds=sum(line["audio_seconds"] for line in fine),
        seconds=sum(line["seconds"]["total"] for line in fine),
        mixed=len({tuple(line.get(name) for name in SHARED) for line in fine}) > 1,
    )
