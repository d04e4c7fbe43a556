"""The command line of `engines.bench`: what may be asked, and which plan answers it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from engines import random_checkpoints as sizes
from engines.checkpoints import DEFAULT_MODEL
from engines.measure import peers, types
from engines.measure.questions import (
    DEFAULT_CLIPS,
    Plan,
    plan_all,
    plan_cache,
    plan_clips,
    plan_encoder,
    plan_memory,
    plan_start,
    plan_step,
)

QUICK_CLIPS = ("short", "half_minute")


def parse(arguments: Sequence[str], description: str | None = None) -> argparse.Namespace:
    """What a command line asks for; `plan` is how to measure it."""
    top = argparse.ArgumentParser(
        prog="python -m engines.bench",
        description=description,
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
    starts.add_argument("--cold", type=types.positive, default=3, help="cold starts of each engine")
    starts.add_argument("--warm", type=types.positive, default=3, help="warm starts of each engine")
    starts.add_argument(
        "--engines", type=types.names, help="all that this machine has, unless told"
    )
    starts.add_argument("--model", default=DEFAULT_MODEL, help="nano, an official name, or a path")
    steps = command("step", "decode time per token", plan_step)
    _add_sizes(steps, ("base", "tiny", "base"))
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
        default=(DEFAULT_MODEL,),
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
