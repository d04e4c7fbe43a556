"""Error rates and real-time factors over many clips with reference texts, here or on Ray.

Each clip is a line of JSON in a file as soon as it is done; a later run goes on from there.
`engines.benchmark.evaluation_lines` says what stands in it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from engines import registry, worker
from engines.audio import load_clip
from engines.base import Clip, Engine, EngineError, StageSeconds, Transcript, explain
from engines.benchmark import machine
from engines.benchmark.evaluation_lines import (
    Line,
    Task,
    fail,
    key_of,
    parse_lines,
    summarise,
    write_line,
)

ROOT = Path(__file__).parents[2]

ROUNDS = 4
"""How many clips an engine is handed for each that it runs at a time: a clip that ends early leaves
room for the next, and an interrupt loses no more than these."""


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
    try:
        lines, whole = parse_lines(content)
    except ValueError as error:
        raise EngineError(f"{path} is not an evaluation: name another file with --out.") from error
    if whole < len(content):
        os.truncate(path, whole)
    return lines


def run_here(tasks: Sequence[Task]) -> Iterator[Line]:
    """Run the tasks one after another, or in batches; each engine has a process, which ends before
    the next."""
    for _, group in groupby(tasks, lambda task: (task.engine, task.model)):
        waiting = list(group)
        while waiting:
            batch = waiting[0].batch
            chunk, waiting = waiting[: ROUNDS * batch], waiting[ROUNDS * batch :]
            alone = (run_task(task, worker.get_engine) for task in chunk)
            yield from run_batch(chunk) if batch > 1 else alone
        worker.close_engines()


def run_batch(tasks: Sequence[Task]) -> list[Line]:
    """Return the lines of tasks of one engine, whose clips it runs together if it can.

    A clip's seconds are scaled so that those of all clips add up to the time they took.
    """
    lines: dict[int, Line] = {}
    clips: dict[int, Clip] = {}
    for number, task in enumerate(tasks):
        try:
            clips[number] = load_clip(task.path)
        except Exception as error:  # noqa: PERF203 - each clip's own
            lines[number] = fail(task, explain(error))
    results: list[Transcript | EngineError]
    start = 0.0
    try:
        engine = worker.get_engine(tasks[0].engine, tasks[0].model)
        engine.prepare()
        start = perf_counter()  # loading and compiling are no clip's
        options = [tasks[number].to_options() for number in clips]
        asked = [*clips.values()], options, tasks[0].batch
        results = engine.worker.ask("transcribe_batch", *asked) if clips else []
    except EngineError as error:
        results = [error] * len(clips)
    spent = sum(each.seconds.total for each in results if isinstance(each, Transcript))
    share = min(1.0, (perf_counter() - start) / spent) if spent else 1.0
    for number, result in zip(clips, results, strict=True):
        if isinstance(result, Transcript):
            stages = {name: each * share for name, each in asdict(result.seconds).items()}
            result = replace(result, seconds=StageSeconds(**stages))
            lines[number] = write_line(tasks[number], result)
        else:
            lines[number] = fail(tasks[number], explain(result))
    return [lines[number] for number in sorted(lines)]


def run_task(task: Task, get_engine: Callable[[str, str], Engine]) -> Line:
    """Return the line of a task; one that fails has no text."""
    try:
        engine = get_engine(task.engine, task.model)
        return write_line(task, engine.transcribe(load_clip(task.path), task.to_options()))
    except Exception as error:
        return fail(task, explain(error))


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
