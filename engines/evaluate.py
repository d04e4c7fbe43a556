"""`python -m engines.evaluate FOLDER`: word error rate and real-time factor over many clips.

FOLDER has clips with their words beside them (`NAME.flac`, `NAME.txt`), or is a manifest: lines of
JSON with `clip` and `text`, or a CSV or TSV file with those columns. Each clip is a line of JSON in
`--out` as soon as it is done (`engines.evaluation.lines` documents it), and a summary by engine is
printed at the end.

The same command again goes on where the last one ended: clips that have a text are left alone, as
long as their words and their audio are the same; those that failed are tried again. Work is spread
over `--processes` of this machine, or over a Ray cluster with `--ray` (one that is started here, or
the one at `--address`). Exit status 1 when a clip failed, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from engines import logs, registry
from engines.base import EngineError, Options
from engines.bench import INTERRUPTED
from engines.checkpoints import DEFAULT_MODEL
from engines.evaluation.clips import find_clips
from engines.evaluation.lines import (
    Conditions,
    Line,
    Summary,
    Task,
    append,
    left_over,
    read_lines,
    summarise,
)
from engines.evaluation.on_ray import HERE, run_on_ray
from engines.evaluation.processes import run_in_processes
from engines.measure import machine, peers, progress, types
from engines.measure.clips import SAMPLES

DASH = "–"
MIXED = (
    "Clips were run with unlike --threads, --processes or --ray, so their times don't add up: "
    "another --out gives real-time factors."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left to run; returns the exit status."""
    asked = _parse(arguments)
    logs.set_up()
    interrupted = False
    try:
        tasks = plan(asked)
        lines = read_lines(asked.out)
        left = left_over(tasks, lines)
        tell(f"{len(tasks) - len(left)} of {len(tasks)} were done before; --out {asked.out}")
        conditions = make_conditions(asked)
        with logs.in_run(conditions.run):
            for found in watch(run(left, asked), len(left)):
                line = conditions.put_on(found)
                append(line, asked.out)
                note(line)
                lines.append(line)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        interrupted = True
    summaries = summarise(tasks, lines)
    print(render(summaries) if not asked.json else as_json(summaries))
    if any(summary.mixed for summary in summaries):
        tell(MIXED)
    if interrupted:
        tell("Interrupted: the same command goes on from here.")
        return INTERRUPTED
    return int(any(summary.failed for summary in summaries))


def plan(asked: argparse.Namespace) -> list[Task]:
    """Every clip for every engine and model, engine by engine."""
    options = Options(language=asked.language, beam_size=asked.beam_size)
    peers.check(asked.peers)
    clips = find_clips(asked.source)
    engines = asked.engines or registry.available()
    return [
        Task(engine, model, spoken, options)
        for model, engine, spoken in product(asked.models, engines, clips)
    ]


def run(tasks: Sequence[Task], asked: argparse.Namespace) -> Iterator[Line]:
    """The lines of the tasks, from this machine's processes or from Ray."""
    if not tasks:
        return iter(())
    where = partial(run_on_ray, address=asked.address) if asked.ray else run_in_processes
    return where(tasks, asked.processes, threads_of(asked), asked.peers)


def threads_of(asked: argparse.Namespace) -> int:
    """Threads of each process: those asked for, else this machine's processors divided."""
    counted = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if counted else os.cpu_count() or 1
    return int(asked.threads or max(1, processors // asked.processes))


def make_conditions(asked: argparse.Namespace) -> Conditions:
    """What this run's lines will share; raises `EngineError` for threads that can't be had."""
    machine.check_threads(asked.threads)
    threads = threads_of(asked) if machine.can_share_threads() else None
    return Conditions(logs.new_run_id(), asked.ray, threads, asked.processes)


def watch(lines: Iterator[Line], total: int) -> Iterator[Line]:
    """The lines, with a bar on a terminal."""
    with progress.watch(total) as bar:
        bar.say("the first clips")
        for line in lines:
            yield line
            bar.step()
            bar.say(f"{line['engine']}, {line['model']}, {line['clip']}")


def note(line: Line) -> None:
    """Log a line, but not its words."""
    about = {key: line[key] for key in ("engine", "model", "clip")}
    if line["error"]:
        logs.logger().error("failed", **about, error=line["error"])
    else:
        rate = line["word_error_rate"]
        logs.logger().info("evaluated", **about, word_error_rate=rate, **line["seconds"])


def tell(text: str) -> None:
    """A sentence for who watches, apart from the results."""
    print(text, file=sys.stderr)


def render(summaries: Sequence[Summary]) -> str:
    """A table that is Markdown as well, the least errors first."""
    rows = [["engine", "model", "clips", "failed", "word error rate", "real-time factor"]]
    for summary in sorted(summaries, key=_by_errors):
        rate, factor = summary.word_error_rate, summary.real_time_factor
        rows.append(
            [
                summary.engine,
                summary.model,
                str(summary.clips),
                str(summary.failed),
                DASH if rate is None else f"{rate:.2%} ({summary.errors} of {summary.words})",
                DASH if factor is None else f"{factor:.3f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width if place < 2 else "-" * (width - 1) + ":" for place, width in _at(widths)]
    return "\n".join(
        "| " + " | ".join(_align(cell, place, width) for cell, (place, width) in cells) + " |"
        for cells in (zip(row, _at(widths), strict=True) for row in [rows[0], rule, *rows[1:]])
    )


def _by_errors(summary: Summary) -> tuple[bool, float]:
    """The least first, those without a result last."""
    return summary.word_error_rate is None, summary.word_error_rate or 0.0


def _at(widths: Sequence[int]) -> list[tuple[int, int]]:
    return list(enumerate(widths))


def _align(cell: str, place: int, width: int) -> str:
    return cell.ljust(width) if place < 2 else cell.rjust(width)


def as_json(summaries: Sequence[Summary]) -> str:
    """A line of JSON for each engine and model."""
    return "\n".join(json.dumps(summary.as_json()) for summary in summaries)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engines.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="?", type=Path, default=SAMPLES, help="folder or manifest")
    parser.add_argument(
        "--engines", type=types.names, help="all that this machine has, unless told"
    )
    parser.add_argument("--models", "--model", type=types.names, default=(DEFAULT_MODEL,))
    parser.add_argument("--language", help="a code such as en; detected when left out")
    parser.add_argument("--beam-size", type=types.positive, help="beams; greedy when left out")
    parser.add_argument("--out", type=types.new_file_and_folder, default="build/evaluation.jsonl")
    parser.add_argument(
        "--processes", type=types.positive, default=1, help="how many at the same time"
    )
    parser.add_argument(
        "--threads", type=types.positive, help="of each; the processors divided, if not"
    )
    parser.add_argument("--ray", action="store_true", help="run on Ray, started here unless told")
    parser.add_argument("--address", default=HERE, help="of a Ray cluster, as ray://host:10001")
    parser.add_argument(
        "--peers", type=types.peer_names, default=peers.NAMES, help=argparse.SUPPRESS
    )
    parser.add_argument("--json", action="store_true", help="print the summary as lines of JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
