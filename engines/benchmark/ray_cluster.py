"""The same evaluation on a Ray cluster, or on a Ray started here: needs `requirements-ray.txt`.

Clips travel to the workers with their tasks, so nothing need be shared but the installed packages;
a cluster gets this project's own files from here.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.base import EngineError
from engines.benchmark.evaluation import Line, Task, fail, run_here

ROOT = Path(__file__).parents[2]
LOCAL = "local"
"""The address of a Ray that is started for this run, on this machine alone."""

TRIES = 3
"""How often a Ray is started here: it gives itself 30 s, too few when the machine is busy."""

LEFT_BEHIND = [".venv", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build"]


class Evaluator:
    """Runs tasks in a worker's own process, whose engine stays ready until another is asked for."""

    def __init__(self, place: int, threads: int) -> None:
        from engines.benchmark import machine

        if sys.platform.startswith("linux"):
            machine.limit_threads(threads, place)
        self._held: tuple[str, str] | None = None

    def run(self, task: Task, content: bytes) -> Line:
        """Return the line of a task whose clip has this content."""
        from engines import registry

        if self._held not in (None, (task.engine, task.model)):
            registry.release(self._held[1])
        self._held = (task.engine, task.model)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / task.path.name
            path.write_bytes(content)
            (line,) = run_here([replace(task, path=path)], registry.get)
        return line


def run_on_ray(tasks: Sequence[Task], address: str = LOCAL) -> Iterator[Line]:
    """Yield the lines of all tasks as they are finished, from the workers that the tasks name.

    Raises `EngineError` where Ray is not installed or can't be reached.
    """
    workers, threads = tasks[0].workers, tasks[0].threads
    ray = connect(address, workers * threads)
    try:
        room = sum(int(node["Resources"].get("CPU", 0) // threads) for node in ray.nodes())
        if not room:
            raise EngineError(f"No machine of the cluster has {threads} processors: use --threads.")
        remote = ray.remote(num_cpus=threads)(Evaluator)
        idle = [(place, remote.remote(place, threads)) for place in range(min(workers, room))]
        waiting = list(reversed(tasks))
        running: dict[Any, tuple[int, Any, Task]] = {}
        while waiting or running:
            while waiting and idle:  # files are read when they are due
                task = waiting.pop()
                try:
                    content = task.path.read_bytes()
                except OSError as error:
                    yield fail(task, f"{task.path} can't be read: {error.strerror}.")
                    continue
                place, actor = idle.pop()
                running[actor.run.remote(task, content)] = (place, actor, task)
            if running:
                (reference,), _ = ray.wait(list(running), num_returns=1)
                place, actor, task = running.pop(reference)
                try:
                    line = ray.get(reference)
                except ray.exceptions.RayError as error:
                    said = (str(error).strip().splitlines() or [""])[0]
                    line = fail(task, f"The worker died ({type(error).__name__}: {said}).")
                    ray.kill(actor)  # what has lost its process would refuse the next task
                    actor = remote.remote(place, threads)
                idle.append((place, actor))
                yield line
    finally:
        ray.shutdown()


def connect(address: str, processors: int) -> Any:
    """Start Ray here or reach a cluster, and return its module; it reports no usage to anyone."""
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            "Ray is not installed: pip install -r requirements-ray.txt, or leave out --ray."
        ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"address": address, "log_to_driver": False}
    options["logging_level"] = logging.ERROR  # its warnings are for who runs the cluster
    if address == LOCAL:
        options |= {"num_cpus": processors, "include_dashboard": False}
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    else:
        options["runtime_env"] = {"working_dir": str(ROOT), "excludes": LEFT_BEHIND}
    for left in reversed(range(TRIES if address == LOCAL else 1)):
        try:
            ray.init(**options)
            break
        except Exception as error:  # a cluster that is away may raise anything
            ray.shutdown()
            if not left:
                where = "could not be started here" if address == LOCAL else f"is not at {address}"
                raise EngineError(f"Ray {where}: {error}") from error
    return ray
