"""Tasks of an evaluation, their lines of JSON, and what these come to.

Of each clip and engine there is a line, from which a later run goes on:

    engine, model, clip, beam, language, options, reference, threads, workers, batch
                     the task: with another text, or under other conditions, a clip is run again;
                     `options` are Whisper's that differ from its defaults, `batch` is how many
                     clips an engine ran together (1 in lines of old, which lack it)
    text             what was written, as it is
    unit             `word`, or `character` for languages written without spaces
    expected, errors, error_rate   units in the reference, wrong ones after Whisper's normalizer,
                     and their ratio, null where nothing is spoken; all null without a reference
    audio_seconds, seconds, real_time_factor   length of the clip, time by stage, total over length;
                     of clips that ran together, their shares of the time that all of them took
    error            null, or why there is no text: then nothing from `text` on is there
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engines import metrics, registry
from engines.base import Options, Transcript
from engines.benchmark.clip_list import ListedClip

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One clip for one engine, and the threads, workers and batch that its time is taken under.

    `clip`: its name. `beam`: 1 is greedy. `language`: None to detect it. `reference`: None where
    the words are not known. `options`: fields of `Options` that are not its defaults.
    """

    engine: str
    model: str
    clip: str
    beam: int
    language: str | None
    reference: str | None
    threads: int
    workers: int
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1

    def to_options(self) -> Options:
        """Return what the engine is asked for."""
        return Options(language=self.language, beam_size=self.beam, **self.options)


def make_tasks(
    lanes: Iterable[tuple[str, str]],
    clips: Sequence[ListedClip],
    options: Options,
    threads: int,
    workers: int,
    batch: int = 1,
) -> list[Task]:
    """Return a task for each clip and each lane, one lane after another.

    `lanes`: an engine's name, perhaps with a type or a model of its own, and the model for those
    that name none.
    """
    named = ((name.partition("@")[0], registry.read_lane(name).model or m) for name, m in lanes)
    timed = {"word_timestamps": True} if options.word_timestamps else {}
    changed = {**options.changed(), **timed}
    search, how = (options.beam_size or 1, options.language), (threads, workers)
    return [
        Task(
            *(engine, model, clip.name, *search, clip.reference, *how, clip.path, changed),
            batch=batch if registry.row(registry.read_lane(engine).engine).runs_batches else 1,
        )
        for engine, model in dict.fromkeys(named)
        for clip in clips
    ]


KEY = tuple(each.name for each in fields(Task) if each.name not in ("path", "options"))
"""What tells tasks, and their lines, apart, beside the options."""


def key_of(line: Line) -> tuple[Any, ...]:
    """Return what tells a line, or a task's fields, from those of other tasks."""
    line = {"batch": 1, "options": {}, **line}  # lines of old have neither
    return (*(line[name] for name in KEY), json.dumps(line["options"], sort_keys=True))


def parse_lines(content: bytes) -> tuple[list[Line], int]:
    """Return the whole lines of a file, and their bytes; raise `ValueError` for anything else."""
    *whole, half = content.split(b"\n")
    try:
        lines: list[Line] = [json.loads(text) for text in whole]
        for line in lines:
            key_of(line), line["error"]
    except (KeyError, TypeError, RecursionError, AttributeError) as error:
        raise ValueError("no line of an evaluation") from error
    if half and not lines:
        raise ValueError("no whole line")
    return lines, len(content) - len(half)


def write_line(task: Task, transcript: Transcript) -> Line:
    """Return the line of a task that was transcribed."""
    unit, expected, errors, rate = None, None, None, None
    if task.reference is not None:
        language = task.language or transcript.language
        if task.options.get("task") == "translate":
            language = "en"
        unit, alignment = align(task.reference, transcript.text, language)
        expected, errors, rate = alignment.words, alignment.errors, alignment.word_error_rate
    return {
        **fail(task, None),
        "text": transcript.text.strip(),
        "unit": unit,
        "expected": expected,
        "errors": errors,
        "error_rate": rate,
        "audio_seconds": transcript.audio_seconds,
        "seconds": transcript.seconds.as_dict(),
        "real_time_factor": transcript.real_time_factor,
    }


def align(reference: str, text: str, language: str) -> tuple[str, metrics.Alignment]:
    """Align a text with the right one after Whisper's normalizer; also name the unit counted."""
    unspaced = ("zh", "ja", "th", "lo", "my", "yue", "km")  # where a word is no unit
    expected, found = (metrics.normalise(each, language).split() for each in (reference, text))
    if language not in unspaced:
        return "word", metrics.align(expected, found)
    return "character", metrics.align(list("".join(expected)), list("".join(found)))


def fail(task: Task, error: str | None) -> Line:
    """Return the line of a task that has no text."""
    named = {name: getattr(task, name) for name in KEY}
    return {**named, "options": dict(task.options), "error": error}


def summarise(tasks: Iterable[Task], lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Return a summary for each engine, model and unit, by each task's last line, best first.

    Errors are over all units and seconds over all audio, so that long clips count more.
    `interval`: of the error rate, 95 % by bootstrap over the clips.
    """
    last = {key_of(line): line for line in lines}
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for task in tasks:
        if line := last.get(key_of(vars(task))):
            group = (task.engine, task.model, line.get("unit") or "word")
            groups.setdefault(group, []).append(line)
    summaries = []
    for (engine, model, unit), found in groups.items():
        fine = [line for line in found if line["error"] is None]
        counted = [line for line in fine if line["expected"] is not None]
        errors, expected = ([line[name] for line in counted] for name in ("errors", "expected"))
        audio = sum(line["audio_seconds"] for line in fine)
        spent = sum(line["seconds"]["total"] for line in fine)
        summary = {"engine": engine, "model": model, "unit": unit, "clips": len(fine)}
        summary |= {"failed": len(found) - len(fine)}
        summary |= {"expected": sum(expected), "errors": sum(errors)}
        summary["error_rate"] = sum(errors) / sum(expected) if sum(expected) else None
        summary["interval"] = metrics.bootstrap_rate(errors, expected)
        summary["real_time_factor"] = spent / audio if audio else None
        summaries.append(summary)
    return sorted(summaries, key=lambda each: (each["error_rate"] is None, each["error_rate"] or 0))
