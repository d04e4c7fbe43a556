"""`python -m engines.bench`: the figures, from one command, as tables or as JSON.

Contenders take turns, one run each, after warm-ups, so that a machine that gets slower or faster
in between hurts all alike; what is printed are medians, their spread, and ratios of medians. All
sides have the same settings and the same number of threads, printed above the table. Without a
subcommand: whole runs, every engine on every clip with every model and beam size.

A table on standard output, or with `--lines` a line of JSON for each result as soon as it is there.
`--json FILE` keeps the record that `engines.measure.record` documents, raw samples included, and
writes it anew with each result. Ctrl-C prints, and leaves, what was finished (exit status 130). An
engine that fails, or is killed, is a row and a record with its error, and the others go on (exit
status 1). Whole runs have a process for each engine; `all` has one for each question as well. The
schema of both is docs/benchmark-record.schema.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from rich.console import Console

from engines import logs
from engines.base import EngineError
from engines.measure import cache, machine, progress, record, tables
from engines.measure.command_line import parse
from engines.measure.questions import Benchmark, Say
from engines.measure.record import Record, Result
from engines.measure.turns import in_words

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit status."""
    arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    asked = parse(arguments, __doc__)
    logs.set_up()
    try:
        threads = machine.share_threads(asked.threads)
        benchmarks = asked.plan(asked, threads)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with progress.watch(sum(benchmark.expected for benchmark in benchmarks)) as watcher:
        done = run(benchmarks, arguments, watcher.say, [*sinks_for(asked), watcher])
    if not asked.lines:
        show(done, benchmarks)
    if plot := getattr(asked, "plot", None):
        plot.write_text(cache.draw(done.results), encoding="utf-8")
    if done.interrupted:
        return INTERRUPTED
    return int(any(result.error for result in done.results))


def sinks_for(asked: argparse.Namespace) -> list[record.Sink]:
    """Where the results go while there are more to come; who reads a line finds it saved."""
    saved: list[record.Sink] = [record.SavedRecord(asked.json)] if asked.json else []
    return [*saved, record.Lines(sys.stdout)] if asked.lines else saved


def run(
    benchmarks: Sequence[Benchmark],
    arguments: Sequence[str],
    say: Say,
    sinks: Sequence[record.Sink] = (),
) -> Record:
    """Measure all; an interrupt ends it, and the record has what was finished."""
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    settings = {benchmark.name: benchmark.settings for benchmark in benchmarks}
    done = Record(
        run=logs.new_run_id(),
        started=started,
        arguments=tuple(arguments),
        machine=machine.describe(),
        settings=settings,
        results=(),
        interrupted=True,
    )
    with logs.in_run(done.run):
        for sink in sinks:
            sink.start(done)
        try:
            for benchmark in benchmarks:
                for result in guarded(benchmark, say):
                    done = replace(done, results=(*done.results, result))
                    note(result)
                    for sink in sinks:
                        sink.add(done, result)
            done = replace(done, interrupted=False)
        except KeyboardInterrupt:
            logs.logger().warning("interrupted", results=len(done.results))
        for sink in sinks:
            sink.end(done)
    return done


def guarded(benchmark: Benchmark, say: Say) -> Iterator[Result]:
    """The results; a benchmark that can't go on ends with a record of its error.

    A contender that an interrupt left without a single run is no result.
    """
    try:
        for result in map(record.only_finite, benchmark.measure(say)):
            if result.seconds or result.error:
                yield result
    except Exception as error:  # whatever ends one question must not end the others
        yield Result(benchmark.name, {}, "benchmark", error=in_words(error))


def note(result: Result) -> None:
    """Log a result: its medians, or its error."""
    fields = {"benchmark": result.benchmark, "engine": result.contender, **result.case}
    if result.error:
        logs.logger().error("failed", **fields, error=result.error)
    else:
        medians = {quantity: result.median(quantity) for quantity in result.seconds}
        logs.logger().info("measured", **fields, **medians)


def show(done: Record, benchmarks: Sequence[Benchmark]) -> None:
    """Print the tables: in colour on a terminal, as Markdown into a pipe."""
    if not sys.stdout.isatty():
        print(render(done, benchmarks))
        return
    console = Console(highlight=False)
    console.print(done.machine.in_words(), markup=False)
    for benchmark in benchmarks:
        console.print(f"\n{title_of(benchmark)}", markup=False)
        console.print(tables.draw(benchmark.columns, results_of(benchmark, done)))
    if done.interrupted:
        console.print("Interrupted: above is what was finished.")


def render(done: Record, benchmarks: Sequence[Benchmark]) -> str:
    """The machine, then for each benchmark its settings and its table."""
    parts = [done.machine.in_words()]
    for benchmark in benchmarks:
        parts.append(title_of(benchmark))
        parts.append(tables.render(benchmark.columns, results_of(benchmark, done)))
    if done.interrupted:
        parts.append("Interrupted: above is what was finished.")
    return "\n\n".join(parts)


def title_of(benchmark: Benchmark) -> str:
    """The benchmark's name and its settings."""
    settings = ", ".join(f"{key} {_words(value)}" for key, value in benchmark.settings.items())
    return f"{benchmark.name}: {settings}"


def results_of(benchmark: Benchmark, done: Record) -> list[Result]:
    """The benchmark's part of a record."""
    return [result for result in done.results if result.benchmark == benchmark.name]


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main())
