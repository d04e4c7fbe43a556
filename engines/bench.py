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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from rich.console import Console

from engines import logs, registry, sizes
from engines.base import EngineError
from engines.checkpoints import NANO
from engines.measure import (
    apart,
    cache,
    clips,
    encoder,
    machine,
    memory,
    peers,
    progress,
    record,
    start,
    step,
    tables,
    types,
)
from engines.measure.record import Record, Result
from engines.measure.turns import in_words

DEFAULT_CLIPS = ("short", "half_minute", "talk")
QUICK_CLIPS = ("short", "half_minute")
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """One question: what is equal on all sides, how to measure, and the columns of its table.

    `expected`: how many results there will be, for a bar that fills. `arguments`: what asks this
    question, and no other, on the command line.
    """

    name: str
    settings: dict[str, Any]
    measure: Callable[[Say], Iterator[Result]]
    columns: Sequence[tables.Column]
    expected: int = 1
    arguments: tuple[str, ...] = ()


Plan = Callable[[argparse.Namespace, int], list[Benchmark]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit status."""
    arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    asked = parse(arguments)
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


# What each subcommand measures.


def plan_encoder(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """MAX's encoder and PyTorch's."""
    return [_encoder(asked.sizes, asked.repeats, threads)]


def plan_start(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """New processes, cold and warm."""
    engines = asked.engines or registry.available()
    return [_start(engines, asked.model, asked.cold, asked.warm, threads)]


def plan_clips(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """Whole runs."""
    plan = clips.Plan(
        engines=asked.engines or everyone(asked.peers),
        clips=asked.clips,
        models=asked.models,
        beams=asked.beams,
        repeats=asked.repeats,
        warm_ups=asked.warm_ups,
        threads=threads,
        peers=asked.peers,
    )
    return [_clips(plan)]


def plan_step(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """Decoders, token by token."""
    check_tokens(asked.tokens)
    return [_step(asked.sizes, asked.tokens, asked.repeats, threads, asked.peers)]


def plan_cache(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """Decoders with and without their caches."""
    check_tokens(asked.tokens)
    return [_cache(asked.sizes, asked.tokens, asked.repeats, threads)]


def plan_memory(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """What engines hold, in new processes."""
    return [_memory(asked.engines or registry.available(), asked.sizes, asked.repeats, threads)]


def plan_all(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """Everything that the README's figures are made of, each question in a process of its own;
    `--quick`: once, and the least of it."""
    return [put_apart(each, threads, asked.peers) for each in plan_here(asked, threads)]


def put_apart(benchmark: Benchmark, threads: int, peer_names: Sequence[str]) -> Benchmark:
    """The same question, asked of a process of its own, which what ends it takes along alone."""
    arguments = [*benchmark.arguments, "--peers", ",".join(peer_names) or "none"]
    if machine.can_share_threads():
        arguments += ["--threads", str(threads)]
    return replace(benchmark, measure=lambda say: apart.ask(arguments, say))


def plan_here(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """The same questions, asked in this process."""
    ours = asked.engines or registry.available()
    plan = clips.Plan(
        engines=asked.engines or everyone(asked.peers),
        clips=("short", "talk") if asked.quick else DEFAULT_CLIPS,
        beams=(1,) if asked.quick else (1, 5),
        repeats=1 if asked.quick else asked.repeats,
        threads=threads,
        peers=asked.peers,
    )
    if asked.quick:
        return [
            _clips(plan),
            _step((NANO,), 8, 1, threads, asked.peers),
            _encoder((NANO,), 1, threads),
            _start(ours, NANO, 1, 1, threads),
            _cache((NANO,), 32, 1, threads),
            _memory(ours, ("tiny",), 1, threads),
        ]
    return [
        _clips(plan),
        _step(("nano", "tiny", "base"), 64, asked.repeats, threads, asked.peers),
        _encoder(sizes.names(), asked.repeats, threads),
        _start(ours, NANO, 1, 3, threads),
        _cache(("tiny",), 224, 3, threads),
        _memory(ours, ("tiny", "base"), 3, threads),
    ]


def everyone(peer_names: Sequence[str]) -> tuple[str, ...]:
    """The engines that this machine can run, and other projects' where they are installed."""
    return (*registry.available(), *peers.keys(peer_names))


def check_tokens(tokens: int) -> None:
    """Raise `EngineError` where there is no room for so many."""
    if tokens > step.LONGEST:
        raise EngineError(f"--tokens {tokens}: pick from 1 to {step.LONGEST}.")


def _clips(plan: clips.Plan) -> Benchmark:
    return Benchmark(
        clips.BENCHMARK,
        plan.settings(),
        lambda say: clips.measure(plan, say),
        clips.columns(plan.baseline),
        plan.results,
        (
            *("clips", "--engines", ",".join(plan.engines), "--models", ",".join(plan.models)),
            *("--clips", ",".join(plan.clips), "--beams", ",".join(map(str, plan.beams))),
            *("--repeats", str(plan.repeats), "--warm-ups", str(plan.warm_ups)),
        ),
    )


def _encoder(names: Sequence[str], repeats: int, threads: int) -> Benchmark:
    return Benchmark(
        encoder.BENCHMARK,
        {**encoder.settings(names, repeats), "threads": threads},
        lambda say: encoder.measure(names, repeats, say),
        encoder.COLUMNS,
        2 * len(names),
        ("encoder", "--sizes", ",".join(names), "--repeats", str(repeats)),
    )


def _start(engines: Sequence[str], model: str, cold: int, warm: int, threads: int) -> Benchmark:
    return Benchmark(
        start.BENCHMARK,
        {**start.settings(engines, model, cold, warm), "threads": threads},
        lambda say: start.measure(engines, model, cold, warm, say),
        start.COLUMNS,
        2 * len(engines),
        (
            *("start", "--engines", ",".join(engines), "--model", model),
            *("--cold", str(cold), "--warm", str(warm)),
        ),
    )


def _step(
    names: Sequence[str], tokens: int, repeats: int, threads: int, peer_names: Sequence[str]
) -> Benchmark:
    return Benchmark(
        step.BENCHMARK,
        {**step.settings(names, tokens, repeats), "threads": threads},
        lambda say: step.measure(names, tokens, repeats, threads, say, peer_names=peer_names),
        step.COLUMNS,
        (len(step.STEPPERS) + len(peers.writer_keys(peer_names)) + 1) * len(names),
        ("step", *_lengths(names, tokens, repeats)),
    )


def _cache(names: Sequence[str], tokens: int, repeats: int, threads: int) -> Benchmark:
    return Benchmark(
        cache.BENCHMARK,
        {**step.settings(names, tokens, repeats), "threads": threads},
        lambda say: cache.measure(names, tokens, repeats, say),
        cache.COLUMNS,
        len(cache.STEPPERS) * len(cache.lengths_up_to(tokens)) * len(names),
        ("kv-cache", *_lengths(names, tokens, repeats)),
    )


def _lengths(names: Sequence[str], tokens: int, repeats: int) -> tuple[str, ...]:
    return ("--sizes", ",".join(names), "--tokens", str(tokens), "--repeats", str(repeats))


def _memory(engines: Sequence[str], names: Sequence[str], repeats: int, threads: int) -> Benchmark:
    return Benchmark(
        memory.BENCHMARK,
        {**memory.settings(engines, names, repeats), "threads": threads},
        lambda say: memory.measure(engines, names, repeats, say),
        memory.COLUMNS,
        len(engines) * len(names),
        (
            *("memory", "--engines", ",".join(engines), "--sizes", ",".join(names)),
            *("--repeats", str(repeats)),
        ),
    )


# The command line.


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What a command line asks for; `plan` is how to measure it."""
    top = argparse.ArgumentParser(
        prog="python -m engines.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_shared(top)
    _add_grid(top, QUICK_CLIPS, (1,))
    top.set_defaults(plan=plan_clips)
    commands = top.add_subparsers(title="what to measure", metavar="")

    def command(name: str, help: str, plan: Plan) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=help, description=help)
        parser.set_defaults(plan=plan)
        _add_shared(parser, argparse.SUPPRESS)
        return parser

    whole = command("clips", "whole runs: engines, models, clips, beams", plan_clips)
    _add_grid(whole, DEFAULT_CLIPS, (1, 5))
    encoders = command("encoder", "the MAX encoder beside PyTorch's", plan_encoder)
    _add_sizes(encoders, sizes.names())
    starts = command("start", "cold and warm start, each in a new process", plan_start)
    starts.add_argument("--cold", type=types.positive, default=1, help="cold starts of each engine")
    starts.add_argument("--warm", type=types.positive, default=3, help="warm starts of each engine")
    starts.add_argument(
        "--engines", type=types.names, help="all that this machine has, unless told"
    )
    starts.add_argument("--model", default=NANO, help="nano, an official name, or a path")
    steps = command("step", "decode time per token", plan_step)
    _add_sizes(steps, ("nano", "tiny", "base"))
    steps.add_argument("--tokens", type=types.positive, default=64)
    caches = command("kv-cache", "decode time with the cache and without it", plan_cache)
    _add_sizes(caches, ("tiny",), repeats=3)
    caches.add_argument("--tokens", type=types.positive, default=224)
    caches.add_argument(
        "--plot", type=types.new_file_and_folder, metavar="FILE", help="draw it here, as SVG"
    )
    held = command("memory", "what each engine holds for a checkpoint's weights", plan_memory)
    _add_sizes(held, ("tiny", "base"), repeats=3)
    held.add_argument("--engines", type=types.names, help="all that this machine has, unless told")
    whole_record = command("all", "everything that the README's figures are made of", plan_all)
    whole_record.add_argument(
        "--quick", action="store_true", help="once, and the least of it: does all of it work here?"
    )
    whole_record.add_argument("--repeats", type=types.positive, default=5)
    whole_record.add_argument(
        "--engines", type=types.names, help="all that this machine has, unless told"
    )
    return top.parse_args(arguments)


def _add_grid(
    parser: argparse.ArgumentParser, clip_names: tuple[str, ...], beams: tuple[int, ...]
) -> None:
    """What whole runs are made of."""
    parser.add_argument(
        "--engines", type=types.names, help="all that this machine has, unless told"
    )
    parser.add_argument(
        "--models",
        "--model",
        type=types.names,
        default=(NANO,),
        help="nano, official names, or paths, with commas between them",
    )
    parser.add_argument(
        "--clips", type=types.names, default=clip_names, help="sample names, or paths"
    )
    parser.add_argument(
        "--beams", type=types.numbers, default=beams, help="beam sizes; 1 is greedy"
    )
    parser.add_argument("--repeats", type=types.positive, default=3)
    parser.add_argument("--warm-ups", type=types.count, default=1, help="runs that are not counted")


def _add_shared(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Options that may stand before or after the subcommand."""
    parser.add_argument(
        "--json", type=types.new_file, default=default, metavar="FILE", help="keep the record here"
    )
    parser.add_argument(
        "--lines", action="store_true", default=default or False, help="print lines of JSON"
    )
    parser.add_argument(
        "--threads",
        type=types.positive,
        default=default,
        help="of every side; PyTorch's choice if not",
    )
    parser.add_argument(
        "--peers",
        type=types.peer_names,
        default=default or peers.NAMES,
        metavar="MODULES",
        help="modules with other projects' engines (engines/measure/peers.py), or none",
    )


def _add_sizes(parser: argparse.ArgumentParser, default: tuple[str, ...], repeats: int = 5) -> None:
    parser.add_argument(
        "--sizes", type=types.size_names, default=default, help=", ".join(sizes.names())
    )
    parser.add_argument("--repeats", type=types.positive, default=repeats)


if __name__ == "__main__":
    sys.exit(main())
