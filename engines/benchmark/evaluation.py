"""Error rates and real-time factors over many clips with reference texts, here or on Ray.

Each clip is a line of JSON in a file as soon as it is done; a later run goes on from there:

    engine, model, clip, beam, language, reference, threads, workers
                     the task: with another text, or under other conditions, a clip is run again
    text             what was written, as it is
    unit             `word`, or `character` for languages written without spaces
    expected, errors, error_rate   units in the reference, wrong ones after Whisper's normalizer,
                     and their ratio; null where nothing is spoken
    audio_seconds, seconds, real_time_factor   length of the clip, time by stage, total over length
    error            null, or why there is no text: then nothing from `text` on is there
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from engines import metrics, registry, worker
from engines.audio import load_clip
from engines.base import Engine, EngineError, Options, explain
from engines.benchmark import machine

ROOT = Path(__file__).parents[2]

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One clip for one engine, and how many threads and workers its time is taken under.

    `clip`: its name. `beam`: 1 is greedy. `language`: None to detect it.
    """

    engine: str
    model: str
    clip: str
    beam: int
    language: str | None
    reference: str
    threads: int
    workers: int
    path: Path


def name_lane(name: str, model: str) -> tuple[str, str]:
    """Return the engine, perhaps with a type, and the model of a lane that may name its own."""
    named = registry.read_lane(name)
    return name.partition("@")[0], named.model or model


KEY = tuple(field.name for field in fields(Task) if field.name != "path")
"""What tells tasks, and their lines, apart."""


def key_of(line: Line) -> tuple[Any, ...]:
    """Return what tells a line, or a task's fields, from those of other tasks."""
    return tuple(line[name] for name in KEY)


def find_clips(source: Path) -> list[tuple[str, Path, str]]:
    """Return name, file and reference text of every clip of a folder or a list of files.

    A clip has a file of the same name that ends in `.txt` beside it. A list has a path on each
    line, from the list's own folder. Raises `EngineError` where there is none, or no text.
    """
    if source.is_dir():
        folder = source
        files = [path for path in sorted(source.rglob("*")) if path.suffix not in ("", ".txt")]
        clips = [path for path in files if path.with_suffix(".txt").is_file()]
    elif source.is_file():
        folder = source.parent
        lines = [line.strip() for line in read_text(source).splitlines()]
        clips = [folder / line for line in dict.fromkeys(lines) if line]
    else:
        raise EngineError(f"There is no folder or list of clips at {source}: check the path.")
    if not clips:
        raise EngineError(f"{source} has no clip: a folder needs NAME.txt beside NAME.flac.")
    return [
        (os.path.relpath(path, folder), path, read_text(path.with_suffix(".txt")).strip())
        for path in clips
    ]


def read_text(path: Path) -> str:
    """Read a file of UTF-8; raise `EngineError` for any other."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EngineError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise EngineError(f"{path} is not text in UTF-8: save it as UTF-8.") from error


def run(
    tasks: Sequence[Task], out: Path, address: str | None, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], bool]:
    """Run the tasks that have no text in `out` yet, here or on the Ray at `address`.

    Returns the summaries, and whether an interrupt ended it. Each line is in the file before the
    next clip is begun.
    """
    lines = read_lines(out)
    done = {key_of(line) for line in lines if line["error"] is None}
    left = [task for task in tasks if key_of(vars(task)) not in done]
    print(f"{len(tasks) - len(left)} of {len(tasks)} were done before; {out}", file=sys.stderr)
    try:
        for line in run_on_ray(left, address) if address and left else run_here(left):
            with out.open("ab") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            lines.append(line)
            say(f"{line['engine']}, {line['model']}, {line['clip']}")
    except KeyboardInterrupt:
        return summarise(tasks, lines), True
    return summarise(tasks, lines), False


def read_lines(path: Path) -> list[Line]:
    """Read the lines of earlier runs; half a line at the end, left by a kill, is cut off.

    Raises `EngineError` for a file that holds something else.
    """
    content = path.read_bytes() if path.exists() else b""
    *whole, half = content.split(b"\n")
    try:
        lines: list[Line] = [json.loads(text) for text in whole]
        for line in lines:
            key_of(line), line["error"]
        if half and not lines:
            raise ValueError("no whole line")
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{path} is not an evaluation: name another file with --out.") from error
    if half:
        os.truncate(path, len(content) - len(half))
    return lines


def run_here(tasks: Sequence[Task]) -> Iterator[Line]:
    """Run the tasks one after another; each engine has a process, which ends before the next."""
    for _, group in groupby(tasks, lambda task: (task.engine, task.model)):
        for task in group:
            yield run_task(task, worker.get_engine)
        worker.close_engines()


def run_task(task: Task, get_engine: Callable[[str, str], Engine]) -> Line:
    """Return the line of a task; one that fails has no text."""
    options = Options(language=task.language, beam_size=task.beam)
    try:
        engine = get_engine(task.engine, task.model)
        transcript = engine.transcribe(load_clip(task.path), options)
        language = task.language or transcript.language
        unspaced = ("zh", "ja", "th", "lo", "my", "yue", "km")  # where a word is no unit
        unit = "character" if language in unspaced else "word"
        texts = (task.reference, transcript.text)
        expected, found = (metrics.normalise(text, language).split() for text in texts)
        if unit == "character":
            expected, found = list("".join(expected)), list("".join(found))
        alignment = metrics.align(expected, found)
    except Exception as error:
        return fail(task, explain(error))
    return {
        **fail(task, None),
        "text": transcript.text.strip(),
        "unit": unit,
        "expected": len(expected),
        "errors": alignment.errors,
        "error_rate": alignment.word_error_rate,
        "audio_seconds": transcript.audio_seconds,
        "seconds": transcript.seconds.as_dict(),
        "real_time_factor": transcript.real_time_factor,
    }


def fail(task: Task, error: str | None) -> Line:
    """Return the line of a task that has no text."""
    return {**{name: getattr(task, name) for name in KEY}, "error": error}


def summarise(tasks: Iterable[Task], lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Return a summary for each engine, model and unit, by each task's last line, best first.

    Errors are over all units and seconds over all audio, so that long clips count more.
    """
    last = {key_of(line): line for line in lines}
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for task in tasks:
        if line := last.get(key_of(vars(task))):
            group = (task.engine, task.model, line.get("unit", "word"))
            groups.setdefault(group, []).append(line)
    summaries = []
    for (engine, model, unit), found in groups.items():
        fine = [line for line in found if line["error"] is None]
        expected, errors = (sum(line[name] for line in fine) for name in ("expected", "errors"))
        audio = sum(line["audio_seconds"] for line in fine)
        spent = sum(line["seconds"]["total"] for line in fine)
        summary = {"engine": engine, "model": model, "unit": unit, "clips": len(fine)}
        summary |= {"failed": len(found) - len(fine), "expected": expected, "errors": errors}
        summary["error_rate"] = errors / expected if expected else None
        summary["real_time_factor"] = spent / audio if audio else None
        summaries.append(summary)
    return sorted(summaries, key=lambda each: (each["error_rate"] is None, each["error_rate"] or 0))


# The same on Ray: needs `requirements-ray.txt`. Clips travel to the workers with their tasks, so
# nothing need be shared but the installed packages; a cluster gets this project's own files from
# here.


class Evaluator:
    """Runs tasks in a worker's own process, whose engine stays ready until another is asked for."""

    def __init__(self, place: int, threads: int) -> None:
        if sys.platform.startswith("linux"):
            machine.limit_threads(threads, place)
        self._held: tuple[str, str] | None = None

    def run(self, task: Task, content: bytes | None) -> Line:
        """Return the line of a task whose clip has this content; None: there is no such file."""
        if self._held not in (None, (task.engine, task.model)):
            registry.release(self._held[1])
        self._held = (task.engine, task.model)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / task.path.name
            if content is not None:
                path.write_bytes(content)
            return run_task(replace(task, path=path), registry.get)


def run_on_ray(tasks: Sequence[Task], address: str) -> Iterator[Line]:
    """Yield the lines of all tasks as they are finished, from the workers that the tasks name.

    `address`: a cluster's, or `local` for a Ray that is started on this machine alone. Raises
    `EngineError` where Ray is not installed or can't be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            "Ray is not installed: pip install -r requirements-ray.txt, or leave out --ray."
        ) from error
    workers, threads = tasks[0].workers, tasks[0].threads
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    left_behind = [".venv", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build"]
    options: dict[str, Any] = {"runtime_env": {"working_dir": str(ROOT), "excludes": left_behind}}
    if address == "local":
        options = {"num_cpus": workers * threads, "include_dashboard": False}
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # a cluster that is away may raise anything
        ray.shutdown()
        where = "could not be started here" if address == "local" else f"is not at {address}"
        raise EngineError(f"Ray {where}: {error}") from error
    try:
        room = sum(int(node["Resources"].get("CPU", 0) // threads) for node in ray.nodes())
        if not room:
            raise EngineError(f"No machine of the cluster has {threads} processors: use --threads.")
        # What a clip kills is started again, and tries that clip once more.
        remote = ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=1)(Evaluator)
        idle = [remote.remote(place, threads) for place in range(min(workers, room))]
        waiting = list(reversed(tasks))
        running: dict[Any, tuple[Any, Task]] = {}
        while waiting or running:
            while waiting and idle:  # files are read when they are due
                task, actor = waiting.pop(), idle.pop()
                content = task.path.read_bytes() if task.path.is_file() else None
                running[actor.run.remote(task, content)] = actor, task
            (reference,), _ = ray.wait(list(running), num_returns=1)
            actor, task = running.pop(reference)
            idle.append(actor)
            try:
                yield ray.get(reference)
            except ray.exceptions.RayError as error:
                said = str(error).strip().partition("\n")[0]
                yield fail(task, f"The worker died ({type(error).__name__}: {said}).")
    finally:
        ray.shutdown()
