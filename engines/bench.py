"""`python -m engines.bench`: the figures, from one command, as tables or as one JSON record.

Contenders take turns, one run each, after warm-ups, so that a machine that gets slower or faster
in between hurts all alike; what is printed are medians, their spread, and ratios of medians. All
sides have the same settings and the same number of threads, printed above the table. Without a
subcommand: `clips` and `encoder`, on `nano`, in a minute or two.

`--json FILE` writes the record that `engines.measure.record` documents, raw samples included.
Ctrl-C prints, and writes, what was finished (exit status 130). A contender that fails is a row and
a record with its error, and the others go on (exit status 1).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engines import registry, sizes
from engines.base import EngineError
from engines.checkpoints import NANO
from engines.measure import clips, encoder, machine, record, start, step, tables
from engines.measure.record import Record, Result

DEFAULT_CLIPS = ("short", "half_minute", "talk")
QUICK_CLIPS = ("short", "half_minute")
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """One question: what is equal on all sides, how to measure, and the columns of its table."""

    name: str
    settings: dict[str, Any]
    measure: Callable[[Say], Iterator[Result]]
    columns: Sequence[tables.Column]


Plan = Callable[[argparse.Namespace, int], list[Benchmark]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit status."""
    arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    asked = _parse(arguments)
    try:
        threads = machine.share_threads(asked.threads)
        benchmarks = asked.plan(asked, threads)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    done = run(benchmarks, arguments, say_on_terminal)
    say_on_terminal("")
    print(render(done, benchmarks))
    if asked.json:
        record.write(done, asked.json)
    if done.interrupted:
        return INTERRUPTED
    return int(any(result.error for result in done.results))


def run(benchmarks: Sequence[Benchmark], arguments: Sequence[str], say: Say) -> Record:
    """Measure all; an interrupt ends it, and the record has what was finished."""
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    here = machine.describe()
    found: list[Result] = []
    interrupted = False
    try:
        for benchmark in benchmarks:
            found.extend(benchmark.measure(say))
    except KeyboardInterrupt:
        interrupted = True
    settings = {benchmark.name: benchmark.settings for benchmark in benchmarks}
    return Record(started, tuple(arguments), here, settings, tuple(found), interrupted)


def render(done: Record, benchmarks: Sequence[Benchmark]) -> str:
    """The machine, then for each benchmark its settings and its table."""
    parts = [done.machine.in_words()]
    for benchmark in benchmarks:
        results = [result for result in done.results if result.benchmark == benchmark.name]
        settings = ", ".join(f"{key} {_words(value)}" for key, value in benchmark.settings.items())
        parts.append(f"{benchmark.name}: {settings}")
        parts.append(tables.render(benchmark.columns, results))
    if done.interrupted:
        parts.append("Interrupted: above is what was finished.")
    return "\n\n".join(parts)


def say_on_terminal(text: str) -> None:
    """Show what is being done on one line of a terminal; say nothing into a pipe."""
    if sys.stderr.isatty():
        width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        print(f"\r\033[K{text[: width - 1]}", end="", file=sys.stderr, flush=True)


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


# What each subcommand measures.


def plan_encoder(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """MAX's encoder and PyTorch's."""
    return [_encoder(asked.sizes, asked.repeats, threads)]


def plan_start(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """New processes, cold and warm."""
    engines = asked.engines or registry.available()
    settings = start.settings(engines, asked.model, asked.cold, asked.warm)
    return [
        Benchmark(
            start.BENCHMARK,
            {**settings, "threads": threads},
            lambda say: start.measure(engines, asked.model, asked.cold, asked.warm, say),
            start.COLUMNS,
        )
    ]


def plan_clips(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """Whole runs."""
    engines = asked.engines or registry.available()
    return [_clips(engines, asked.clips, asked.beams, asked.repeats, asked.model, threads)]


def plan_step(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """Decoders, token by token."""
    if not 1 <= asked.tokens <= step.LONGEST:
        raise EngineError(f"--tokens {asked.tokens}: pick from 1 to {step.LONGEST}.")
    return [
        Benchmark(
            step.BENCHMARK,
            {**step.settings(asked.sizes, asked.tokens, asked.repeats), "threads": threads},
            lambda say: step.measure(asked.sizes, asked.tokens, asked.repeats, threads, say),
            step.COLUMNS,
        )
    ]


def plan_quick(asked: argparse.Namespace, threads: int) -> list[Benchmark]:
    """What a newcomer sees first."""
    engines = registry.available()
    return [
        _clips(engines, QUICK_CLIPS, (1,), 3, NANO, threads),
        _encoder((NANO,), 5, threads),
    ]


def _encoder(names: Sequence[str], repeats: int, threads: int) -> Benchmark:
    return Benchmark(
        encoder.BENCHMARK,
        {**encoder.settings(names, repeats), "threads": threads},
        lambda say: encoder.measure(names, repeats, say),
        encoder.COLUMNS,
    )


def _clips(
    engines: Sequence[str],
    names: Sequence[str],
    beams: Sequence[int],
    repeats: int,
    model: str,
    threads: int,
) -> Benchmark:
    return Benchmark(
        clips.BENCHMARK,
        {**clips.settings(engines, names, beams, repeats, model), "threads": threads},
        lambda say: clips.measure(engines, names, beams, repeats, model, say),
        clips.columns(clips.baseline_of(engines)),
    )


# The command line.


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    top = argparse.ArgumentParser(
        prog="python -m engines.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_shared(top, default=None)
    top.set_defaults(plan=plan_quick)
    commands = top.add_subparsers(title="what to measure", metavar="")

    def command(name: str, help: str, plan: Plan) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=help, description=help)
        parser.set_defaults(plan=plan)
        _add_shared(parser, default=argparse.SUPPRESS)
        return parser

    encoders = command("encoder", "the MAX encoder beside PyTorch's", plan_encoder)
    _add_sizes(encoders, sizes.names())
    starts = command("start", "cold and warm start, each in a new process", plan_start)
    starts.add_argument("--cold", type=_positive, default=1, help="cold starts of each engine")
    starts.add_argument("--warm", type=_positive, default=3, help="warm starts of each engine")
    whole = command("clips", "whole runs, one at a time", plan_clips)
    whole.add_argument("--clips", type=_names, default=DEFAULT_CLIPS, help="sample names, or paths")
    whole.add_argument("--beams", type=_numbers, default=(1, 5), help="beam sizes; 1 is greedy")
    whole.add_argument("--repeats", type=_positive, default=3)
    steps = command("step", "decode time per token", plan_step)
    _add_sizes(steps, ("nano", "tiny", "base"))
    steps.add_argument("--tokens", type=_positive, default=64)
    for parser in (starts, whole):
        parser.add_argument("--engines", type=_names, help="all that this machine has, unless told")
        parser.add_argument("--model", default=NANO, help="nano, an official name, or a path")
    return top.parse_args(arguments)


def _add_shared(parser: argparse.ArgumentParser, default: object) -> None:
    """Options that may stand before or after the subcommand."""
    parser.add_argument(
        "--json", type=_new_file, default=default, metavar="FILE", help="write the record here"
    )
    parser.add_argument(
        "--threads", type=_positive, default=default, help="of every side; PyTorch's choice if not"
    )


def _add_sizes(parser: argparse.ArgumentParser, default: tuple[str, ...]) -> None:
    parser.add_argument("--sizes", type=_sizes, default=default, help=", ".join(sizes.names()))
    parser.add_argument("--repeats", type=_positive, default=5)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError("at least one name is needed")
    return names


def _sizes(text: str) -> tuple[str, ...]:
    for name in _names(text):
        if name not in sizes.names():
            raise argparse.ArgumentTypeError(
                f"there is no size {name!r}: pick {', '.join(sizes.names())}"
            )
    return _names(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(number) for number in _names(text))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def _new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} can't be written")
    return path


if __name__ == "__main__":
    sys.exit(main())
