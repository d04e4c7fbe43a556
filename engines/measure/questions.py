"""What `engines.bench` can be asked: each question's settings, measurement and table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines import registry, sizes
from engines.base import EngineError
from engines.checkpoints import DEFAULT_MODEL
from engines.measure import (
    apart,
    cache,
    clips,
    encoder,
    machine,
    memory,
    peers,
    start,
    step,
    tables,
)
from engines.measure.record import Result

DEFAULT_CLIPS = ("short", "half_minute", "talk")

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
        warm_ups=0 if asked.quick else 1,
        threads=threads,
        peers=asked.peers,
    )
    if asked.quick:
        return [
            _clips(plan),
            _step((DEFAULT_MODEL,), 8, 1, threads, asked.peers),
            _encoder((DEFAULT_MODEL,), 1, threads),
            _start(ours, DEFAULT_MODEL, 1, 1, threads),
            _cache((DEFAULT_MODEL,), 32, 1, threads),
            _memory(ours, ("tiny",), 1, threads),
        ]
    return [
        _clips(plan),
        _step(("base", "tiny", "base"), 64, asked.repeats, threads, asked.peers),
        _encoder(sizes.names(), asked.repeats, threads),
        _start(ours, DEFAULT_MODEL, 3, 3, threads),
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
