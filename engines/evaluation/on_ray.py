"""The same tasks on a Ray cluster, or on a Ray started here: an extra, `requirements-ray.txt`.

Files go to the workers with their tasks, so nothing need be shared but this project's packages. A
cluster gets this project's own files from here; what requirements.txt names must be installed on
its machines.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engines.base import EngineError
from engines.evaluation.lines import Line, Task, failed, finished
from engines.measure.worker import ROOT, Reply, Run, answer, request_for, run_from

HERE = "local"
"""The address of a Ray that is started for this run, on this machine alone."""

TRIES = 3
"""How often a Ray is started here: it gives itself 30 s, too few when the machine is busy."""

LEFT_BEHIND = [".venv", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build", "tests/bad"]


class Evaluator:
    """Runs on a worker: engines in the actor's own process."""

    def __init__(self, place: int, threads: int, peer_names: Sequence[str]) -> None:
        from engines.measure import machine, peers

        machine.take_processors(place, threads)
        machine.share_threads(threads if machine.can_share_threads() else None)
        self._peers = tuple(peer_names)
        self._engines: dict[tuple[str, str], Any] = {}
        self._find = peers.get

    def run(self, request: Reply, name: str, content: bytes) -> Reply:
        """The reply to a request, as from any of the engines' processes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            return answer({**request, "clip": str(path)}, self._get)

    def _get(self, key: str, model: str) -> Any:
        """The engine, which stays ready until another one is asked for."""
        if (key, model) not in self._engines:
            for engine in self._engines.values():
                engine.close()
            self._engines = {(key, model): self._find(key, model, self._peers)}
        return self._engines[key, model]


def run_on_ray(
    tasks: Sequence[Task], workers: int, threads: int, peers: Sequence[str], address: str = HERE
) -> Iterator[Line]:
    """The lines of all tasks as they are finished, on so many workers of so many threads.

    Raises `EngineError` where Ray is not installed or can't be reached.
    """
    ray = start_ray(address, workers * threads)
    try:
        workers = min(workers, count_places(ray, threads))
        remote = ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=0)(Evaluator)
        actors = [remote.remote(place, threads, peers) for place in range(workers)]
        yield from share_out(ray, tasks, actors)
    finally:
        ray.shutdown()


def start_ray(address: str, processors: int) -> Any:
    """The module `ray`, connected; it reports no usage to anyone."""
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
    if address == HERE:
        environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(ROOT)}}
        options |= {"num_cpus": processors, "include_dashboard": False}
    else:
        environment = {"working_dir": str(ROOT), "excludes": LEFT_BEHIND}
    connect(ray, {**options, "runtime_env": environment}, TRIES if address == HERE else 1)
    return ray


def connect(ray: Any, options: dict[str, Any], tries: int) -> None:
    """Start Ray or reach it; raises `EngineError` when the last try fails."""
    for left in reversed(range(tries)):
        try:
            ray.init(**options)
            return
        except Exception as error:  # noqa: PERF203 (a cluster that is away may raise anything)
            ray.shutdown()
            if not left:
                where = options["address"]
                what = "Ray could not be started here" if where == HERE else f"No Ray is at {where}"
                raise EngineError(f"{what}: {error}") from error


def count_places(ray: Any, threads: int) -> int:
    """How many workers have room at the same time; raises `EngineError` where none has."""
    places = sum(int(node["Resources"].get("CPU", 0) // threads) for node in ray.nodes())
    if places < 1:
        raise EngineError(f"No machine of the Ray cluster has {threads} processors: use --threads.")
    return places


def share_out(ray: Any, tasks: Sequence[Task], actors: Sequence[Any]) -> Iterator[Line]:
    """Each worker gets its next task when it has finished one; files are read when they are due."""
    waiting, idle = list(reversed(tasks)), list(actors)
    running: dict[Any, tuple[Any, Task]] = {}
    while waiting or running:
        while waiting and idle:
            task, actor = waiting.pop(), idle.pop()
            path = task.spoken.path
            try:
                content = path.read_bytes()
            except OSError as error:
                idle.append(actor)
                yield failed(task, f"{path} can't be read: {error.strerror}.")
                continue
            request = request_for(task.engine, task.model, path, task.options)
            running[actor.run.remote(request, path.name, content)] = (actor, task)
        if running:
            (reference,), _ = ray.wait(list(running), num_returns=1)
            actor, task = running.pop(reference)
            idle.append(actor)
            yield line_of(ray, reference, task)


def line_of(ray: Any, reference: Any, task: Task) -> Line:
    """The line of a task that a worker has answered, or died of."""
    try:
        reply = ray.get(reference)
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines() or [""]
        return failed(task, f"The worker died ({type(error).__name__}: {said[0]}).")
    if "error" in reply:
        return failed(task, reply["error"])
    run: Run = run_from(reply)
    return finished(task, run)
