"""What the key and value cache is worth: decode time against tokens written, with and without it.

Without a cache each step gives the decoder all tokens again, and the window's features with them;
with one it gives the last token only. Everyone decodes the same forced tokens after the same
prompt, from the same features, as in `engines.measure.step`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch
from whisper.model import Whisper

from engines import random_checkpoints as sizes
from engines.base import EngineUnavailable, FloatArray
from engines.checkpoints import Checkpoint
from engines.max_full import MaxFullEngine, load_max_decoder
from engines.max_hybrid import why_no_max
from engines.measure import charts, tables
from engines.measure.record import Case, Figure, Result, with_ratios
from engines.measure.step import (
    BASELINE,
    DEVICE,
    WARM_UPS,
    MaxStepper,
    Stepper,
    Task,
    TorchStepper,
    encode,
    forced_tokens,
    prompt_of,
)
from engines.measure.turns import Say, Turns, prefixed, ready, take_turns

BENCHMARK = "kv-cache"
CACHES = ("with", "without")
SHORTEST = 16
"""Tokens at which the time is first noted; then at each doubling."""


class CachedStepper(Stepper, Protocol):
    """A stepper that knows how much memory its cache has."""

    def cache_bytes(self) -> int:
        """Bytes kept from one step for the next, cross-attention's keys and values included."""
        ...


class TorchWith(TorchStepper):
    """openai-whisper with its cache."""

    def cache_bytes(self) -> int:
        """As `CachedStepper.cache_bytes`."""
        assert self._inference is not None, "start comes before this"
        tensors = self._inference.kv_cache.values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Without(ABC):
    """A stepper without a cache: all tokens at each step."""

    def start(self, features: FloatArray, prompt: Sequence[int]) -> None:
        """As `Stepper.start`."""
        self._features = features
        self._tokens = list(prompt)
        self._run()

    def step(self, token: int) -> None:
        """As `Stepper.step`."""
        self._tokens.append(token)
        self._run()

    def cache_bytes(self) -> int:
        """Nothing is kept."""
        return 0

    @abstractmethod
    def _run(self) -> None:
        """Decode all tokens so far."""


class TorchWithout(Without):
    """openai-whisper."""

    device, dtype = DEVICE, "float32"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._decoder = checkpoint.build(Whisper).decoder

    def _run(self) -> None:
        with torch.inference_mode():
            self._decoder(torch.tensor([self._tokens]), torch.from_numpy(self._features)[None])


class MaxWith(MaxStepper):
    """`max_full` with its cache, which has room for all positions from the start."""

    def cache_bytes(self) -> int:
        """As `CachedStepper.cache_bytes`."""
        return bytes_of(self._inference.cache) + bytes_of(self._inference.audio)


class MaxWithout(Without):
    """`max_full`'s decoder, in a cache that is new each time."""

    device, dtype = DEVICE, "float32"

    def __init__(self, checkpoint: Checkpoint) -> None:
        if reason := why_no_max():
            raise EngineUnavailable(reason)
        self._decoder = load_max_decoder(checkpoint, on_cpu=True)[0]

    def _run(self) -> None:
        tokens = np.array([self._tokens], np.int64)
        last = np.array([len(self._tokens) - 1], np.int64)
        audio = self._decoder.listen(self._features)
        self._decoder.step(tokens, audio, self._decoder.new_cache(1), last)


def bytes_of(record: Any) -> int:
    """Bytes of the arrays and buffers in a dataclass."""
    total = 0
    for each in fields(record):
        value = getattr(record, each.name)
        if isinstance(value, np.ndarray):
            total += value.nbytes
        elif hasattr(value, "num_elements"):
            total += value.num_elements * value.dtype.size_in_bytes
    return total


Make = Callable[[Checkpoint], CachedStepper]

STEPPERS: dict[tuple[str, str], Make] = {
    (BASELINE, "with"): TorchWith,
    (BASELINE, "without"): TorchWithout,
    (MaxFullEngine.key, "with"): MaxWith,
    (MaxFullEngine.key, "without"): MaxWithout,
}
"""By contender and cache: how to make each decoder ready."""


@dataclass(frozen=True)
class Writing:
    """One run: by length in tokens, the seconds so far and the bytes of the cache.

    `device` and `dtype`: the stepper's.
    """

    seconds: Mapping[int, float]
    cache_bytes: Mapping[int, int]
    device: str = DEVICE
    dtype: str = "float32"


def lengths_up_to(tokens: int) -> tuple[int, ...]:
    """16, 32, 64, … and the last."""
    doubled = [SHORTEST << n for n in range(16)]
    return (*(length for length in doubled if length < tokens), tokens)


def measure(
    names: Sequence[str],
    tokens: int,
    repeats: int,
    say: Say,
    steppers: Mapping[tuple[str, str], Make] = STEPPERS,
) -> Iterator[Result]:
    """One result for each size, length, contender and cache."""
    lengths = lengths_up_to(tokens)
    for size in names:
        tell = prefixed(say, size)
        tell("loading")
        checkpoint = sizes.checkpoint(size)
        task = Task(encode(checkpoint), prompt_of(checkpoint), forced_tokens(tokens))
        runs = {
            f"{name}, {cache} cache": ready(partial(writing, make, checkpoint, task, lengths))
            for (name, cache), make in steppers.items()
        }
        turns = take_turns(runs, repeats, WARM_UPS, tell)
        yield from results(size, lengths, turns, tuple(steppers))
        if turns.interrupted:
            raise KeyboardInterrupt


def writing(
    make: Make, checkpoint: Checkpoint, task: Task, lengths: Sequence[int]
) -> Callable[[], Writing]:
    """A run that writes the forced tokens and notes the time at each length."""
    stepper = make(checkpoint)

    def run() -> Writing:
        seconds: dict[int, float] = {}
        memory: dict[int, int] = {}
        begin = task.clock()
        stepper.start(task.features, task.prompt)
        spent, written = task.clock() - begin, 0
        for length in lengths:
            begin = task.clock()
            for token in task.forced[written:length]:
                stepper.step(token)
            spent += task.clock() - begin
            written = length
            seconds[length], memory[length] = spent, stepper.cache_bytes()
        return Writing(seconds, memory, stepper.device, stepper.dtype)

    return run


def results(
    size: str,
    lengths: Sequence[int],
    turns: Turns[Writing],
    steppers: Sequence[tuple[str, str]],
) -> list[Result]:
    """One result for each length, contender and cache; ratios are to openai-whisper with the same
    cache, `speed_up` is to the same contender without one."""
    found: list[Result] = []
    for cache in CACHES:
        for at, length in enumerate(lengths):
            before = lengths[at - 1] if at else None
            case = [
                result_at(size, length, before, name, cache, turns)
                for name, kind in steppers
                if kind == cache
            ]
            found.extend(with_ratios(case, "total", BASELINE))
    return [*with_speed_ups(found)]


def result_at(
    size: str, length: int, before: int | None, name: str, cache: str, turns: Turns[Writing]
) -> Result:
    """One contender's result at a length; `step`: seconds a token since the length before it."""
    key = f"{name}, {cache} cache"
    outcomes = turns.outcomes.get(key, [])
    total = tuple(outcome.seconds[length] for outcome in outcomes)
    seconds = {"total": total} if total else {}
    if total and before is not None:
        seconds["step"] = tuple(
            (outcome.seconds[length] - outcome.seconds[before]) / (length - before)
            for outcome in outcomes
        )
    figures: dict[str, Figure] = {
        "cache_bytes": outcomes[-1].cache_bytes[length] if outcomes else None,
        "slope_seconds": slope(outcomes),
    }
    if outcomes:
        figures |= {"device": outcomes[-1].device, "dtype": outcomes[-1].dtype}
    case: Case = {"size": size, "tokens": length, "cache": cache}
    return Result(BENCHMARK, case, name, seconds, figures, turns.errors.get(key))


def slope(outcomes: Sequence[Writing]) -> float | None:
    """Seconds by which a step grows with each token written: a line through the stretches.

    A stretch, from one length to the next, has its mean step at its middle; two are needed.
    """
    if not outcomes or len(outcomes[0].seconds) < 3:
        return None
    lengths = list(outcomes[0].seconds)
    middles, steps = [], []
    for start, end in pairwise(lengths):
        spent = [outcome.seconds[end] - outcome.seconds[start] for outcome in outcomes]
        middles.append((start + end) / 2)
        steps.append(median(spent) / (end - start))
    return float(np.polyfit(middles, steps, 1)[0])


def with_speed_ups(results: Sequence[Result]) -> Iterator[Result]:
    """Each result with what the cache makes of it: the total without, over this one's."""
    without = {
        (result.contender, result.case["tokens"]): result.median("total")
        for result in results
        if result.case["cache"] == "without"
    }
    for result in results:
        own, other = result.median("total"), without.get((result.contender, result.case["tokens"]))
        ratio = other / own if own and other and result.case["cache"] == "with" else None
        yield Result(
            result.benchmark,
            result.case,
            result.contender,
            result.seconds,
            {**result.figures, "speed_up": ratio},
            result.error,
        )


def draw(results: Sequence[Result]) -> str:
    """The seconds that writing takes against tokens written, as SVG; of the first size there is."""
    drawn = [result for result in results if result.benchmark == BENCHMARK and not result.error]
    size = drawn[0].case["size"] if drawn else "nothing"
    lines: dict[str, list[tuple[float, float]]] = {}
    for result in drawn:
        total = result.median("total")
        if result.case["size"] == size and total is not None:
            name = f"{result.contender}, {result.case['cache']} cache"
            lines.setdefault(name, []).append((float(result.case["tokens"]), total))
    return charts.draw_lines(f"Decoding, {size}", "tokens written", "seconds", lines)


COLUMNS = (
    tables.of_case("size"),
    tables.of_case("cache"),
    tables.of_case("tokens", numeric=True),
    tables.contender("decoder"),
    tables.times_faster(BASELINE),
    tables.figure("speed_up", "times faster than without", ".1f"),
    tables.milliseconds("total", "all ms"),
    tables.milliseconds("step", "ms a token"),
    tables.figure("slope_seconds", "slope µs a token", ".1f", 1e6),
    tables.figure("cache_bytes", "cache MB", ".1f", 1e-6),
    tables.runs("total"),
)
