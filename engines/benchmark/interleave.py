"""Contenders that take turns, so that a machine that gets slower or faster hurts all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import sleep
from typing import Generic, TypeVar

from engines.base import EngineError, describe_error

SETTLE_SECONDS = 0.25
"""Pause before each run: OpenMP's threads go on spinning for up to 0.2 s after their work
(`KMP_BLOCKTIME`), which would be taken from the next run."""

Outcome = TypeVar("Outcome")
Say = Callable[[str], None]
"""Called with what is being done now."""


@dataclass
class Turns(Generic[Outcome]):
    """Outcomes of every contender in the order of its runs, or why it failed."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def interleave(
    runs: Mapping[str, Callable[[], Outcome]],
    repeats: int,
    warm_ups: int = 1,
    say: Say = lambda text: None,
) -> Turns[Outcome]:
    """Run each contender once, then each again: A B C, A B C, …; outcomes of warm-ups are dropped.

    One that fails is left out from then on. An interrupt ends the turns. What was finished is kept
    in both cases.
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
                try:
                    outcome = run()
                except Exception as error:  # whatever one raises must not end the others
                    turns.errors[name] = explain(error)
                else:
                    turns.outcomes[name] += [outcome] if number > 0 else []
    except KeyboardInterrupt:
        turns.interrupted = True
    return turns


def explain(error: Exception) -> str:
    """Return an engine's own sentence, or one about any other error."""
    return str(error) if isinstance(error, EngineError) else f"{describe_error(error)}."
