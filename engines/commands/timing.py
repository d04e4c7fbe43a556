"""The commands `benchmark` and `evaluate`: they run, keep what is finished, and print tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from engines import logs
from engines.base import EngineError
from engines.benchmark import evaluation, machine, speed
from engines.benchmark.evaluation import Line, Task
from engines.benchmark.tables import print_table

TO_STDOUT = Path("-")
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def run_benchmark(plan: speed.Plan, threads: int | None, path: Path | None, markdown: bool) -> int:
    """Measure, save with each result, and print; return the exit status.

    The record has the machine, its limits, the settings and the results; it is `interrupted` until
    all is measured.
    """
    saved = path if path and path != TO_STDOUT else None
    if saved:
        check_writable(saved)
    machine.limit_threads(threads)
    results: list[speed.Result] = []
    record: dict[str, Any] = {
        "run": logs.current_run(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": asdict(machine.describe()),
        "settings": plan.settings(),
        "limits": None,
        "interrupted": True,
        "results": results,
    }
    with Console(stderr=True).status("the machine's limits") as status:
        try:
            record["limits"] = machine.measure_limits()
            for result in speed.measure(plan, status.update):
                results.append(result)
                _log(result)
                if saved:
                    save(record, saved)
            record["interrupted"] = False
        except KeyboardInterrupt:
            typer.echo("Interrupted: what was finished follows.", err=True)
    if saved:
        save(record, saved)
    if path == TO_STDOUT:
        typer.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))
    else:
        print_record(record, markdown)
    if record["interrupted"]:
        return INTERRUPTED
    return int(any(result["error"] for result in results))


def save(record: dict[str, Any], path: Path) -> None:
    """Write a record in one move, so that what ends the program leaves no half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)


def show_record(path: Path, markdown: bool) -> None:
    """Print the tables of a saved record; raise `EngineError` for any other file."""
    try:
        print_record(json.loads(path.read_text(encoding="utf-8")), markdown)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{path} holds no record of a benchmark: {error}.") from error


def print_record(record: dict[str, Any], markdown: bool) -> None:
    """Print the machine, its limits and the tables, then why engines failed."""
    typer.echo(machine.Machine(**record["machine"]).describe())
    if record["limits"]:
        typer.echo(machine.describe_limits(record["limits"]))
    for columns in (speed.RUNS, speed.PARTS):
        typer.echo("")
        print_table(columns, record["results"], markdown)
    errors = (f"{r['engine']} failed: {r['error']}" for r in record["results"] if r["error"])
    for sentence in dict.fromkeys(errors):
        typer.echo(sentence)


def check_writable(path: Path) -> None:
    """Make the file's folder; raise `EngineError` where it can't be written, before hours pass."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise EngineError(f"{path} can't be written: {error.strerror}.") from error


def _log(result: speed.Result) -> None:
    about = {name: result[name] for name in ("engine", "model", "clip", "beam")}
    if result["error"]:
        logs.logger().warning("failed", **about, error=result["error"])
    else:
        medians = {stage: each["median"] for stage, each in result["seconds"].items()}
        logs.logger().info("measured", **about, **medians)


def run_evaluation(
    tasks: Sequence[Task], out: Path, address: str | None, as_json: bool, markdown: bool
) -> int:
    """Run what is left to run, here or on the Ray at `address`, and print the error rates."""
    check_writable(out)
    lines = evaluation.read_lines(out)
    left = evaluation.left_over(tasks, lines)
    typer.echo(f"{len(tasks) - len(left)} of {len(tasks)} were done before; {out}", err=True)
    interrupted = False
    with Console(stderr=True).status("") as status:
        try:
            for found in _run(left, address):
                status.update(f"{found['engine']}, {found['model']}, {found['clip']}")
                evaluation.append(found, out)
                lines.append(found)
        except KeyboardInterrupt:
            interrupted = True
            typer.echo("Interrupted: the same command goes on from here.", err=True)
    summaries = evaluation.summarise(tasks, lines)
    if as_json:
        for summary in summaries:
            typer.echo(json.dumps(summary))
    else:
        print_table(evaluation.COLUMNS, summaries, markdown)
    return INTERRUPTED if interrupted else int(any(each["failed"] for each in summaries))


def _run(tasks: Sequence[Task], address: str | None) -> Iterator[Line]:
    if not tasks:
        return iter(())
    if address is not None:
        from engines.benchmark.ray_cluster import run_on_ray

        return run_on_ray(tasks, address)
    return evaluation.run_here(tasks)
