"""Contenders taking turns, so that a machine that gets slower or faster hurts all alike."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, sleep
from typing import Generic, NoReturn, TypeVar

from engines.base import EngineError

SETTLE_SECONDS = 0.25
"""Pause before each run: OpenMP's threads go on spinning for up to 0.2 s after their work
(`KMP_BLOCKTIME`), which would be taken from whoever comes next."""

Outcome = TypeVar("Outcome")
Clock = Callable[[], float]
Say = Callable[[str], None]
"""Called with what is being done now."""


@dataclass
class Turns(Generic[Outcome]):
    """What became of every contender: outcomes in the order of the runs, or why it failed."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def take_turns(
    runs: Mapping[str, Callable[[], Outcome]],
    repeats: int,
    warm_ups: int = 1,
    say: Say = lambda text: None,
) -> Turns[Outcome]:
    """Run each contender once, then each again: A B C, A B C, …; the warm-ups' outcomes are lost.

    One that fails is left out from then on and its error is kept. An interrupt ends the turns;
    what was finished is kept.
    """
    turns: Turns[Outcome] = Turns({name: [] for name in runs})
    try:
        for turn in range(warm_ups + repeats):
            for name, run in runs.items():
                if name in turns.errors:
                    continue
                number = turn - warm_ups + 1
                say(f"{name}: {f'run {number} of {repeats}' if number > 0 else 'warming up'}")
                sleep(SETTLE_SECONDS)
                take_turn(turns, name, run, keep=number > 0)
    except KeyboardInterrupt:
        turns.interrupted = True
    return turns


def take_turn(
    turns: Turns[Outcome], name: str, run: Callable[[], Outcome], keep: bool = True
) -> None:
    """One run of one contender; its outcome or its error goes into `turns`."""
    try:
        outcome = run()
    except Exception as error:  # whatever an engine or a peer raises must not end the others
        turns.errors[name] = in_words(error)
        return
    if keep:
        turns.outcomes[name].append(outcome)


def ready(make: Callable[[], Callable[..., Outcome]]) -> Callable[..., Outcome]:
    """What `make` gives: a run. If making it fails, a run that fails in the same way."""
    try:
        return make()
    except Exception as error:  # a contender that can't start must not end the others
        return partial(_fail, error)


def _fail(error: Exception, *_: object) -> NoReturn:
    raise error


def in_words(error: Exception) -> str:
    """One line: an engine's own sentence, else the last line of a traceback."""
    if isinstance(error, EngineError):
        return str(error)
    return " ".join("".join(traceback.format_exception_only(type(error), error)).split())


def timed(run: Callable[[], Outcome], clock: Clock = perf_counter) -> tuple[float, Outcome]:
    """The seconds that one call took, and what it returned."""
    start = clock()
    outcome = run()
    return clock() - start, outcome


def prefixed(say: Say, what: str) -> Say:
    """`say`, with what is being measured in front."""
    return lambda text: say(f"{what}, {text}")
