"""Decoders, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engines import checkpoints
from engines.base import EngineError, FloatArray
from engines.measure import step
from tests.bench.stand_ins import FakeClock, silent


class FakeStepper:
    """5 s to the first token, then 2 s a token."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.tokens: list[int] = []

    def start(self, features: FloatArray, prompt: Sequence[int]) -> None:
        """A new text."""
        self.tokens = list(prompt)
        self.clock.now += 5.0

    def step(self, token: int) -> None:
        """One token more."""
        self.tokens.append(token)
        self.clock.now += 2.0

    def write(self, features: FloatArray, prompt: Sequence[int], n_tokens: int) -> int:
        """The same figures for a writer, whose first token comes with the prompt."""
        self.start(features, prompt)
        for token in range(n_tokens - 1):
            self.step(token)
        return n_tokens


def test_steppers_and_writers_are_timed_alike() -> None:
    clock = FakeClock()
    task = step.Task(np.zeros((1, 1), np.float32), (1, 2), (7, 8, 9), clock)
    nano = checkpoints.load("nano")
    stepper = FakeStepper(clock)
    expected = {"first": 5.0, "step": 2.0}
    assert step.stepping(lambda checkpoint: stepper, nano, task)() == expected
    assert stepper.tokens == [1, 2, 7, 8, 9]
    assert step.writing(lambda: stepper, task)() == expected


def test_a_writer_that_stops_early_is_refused() -> None:
    class Short(FakeStepper):
        def write(self, features: FloatArray, prompt: Sequence[int], n_tokens: int) -> int:
            return min(n_tokens, 2)

    clock = FakeClock()
    task = step.Task(np.zeros((1, 1), np.float32), (1, 2), (7, 8, 9), clock)
    with pytest.raises(EngineError, match="wrote 2 tokens in place of 4"):
        step.writing(lambda: Short(clock), task)()


def test_steps_for_real() -> None:
    """openai-whisper only, so that neither MAX nor a peer need be installed."""
    torch_only = {step.BASELINE: step.TorchStepper}
    (result,) = step.measure(["nano"], 3, 1, 1, silent, torch_only, ["no.such.peer"])
    assert result.contender == "openai-whisper" and result.error is None
    assert set(result.seconds) == {"first", "step"}


@pytest.mark.max
def test_max_full_takes_steps() -> None:
    ours = {"max_full": step.STEPPERS["max_full"]}
    (result,) = step.measure(["nano"], 3, 1, 1, silent, ours, [])
    assert result.error is None and set(result.seconds) == {"first", "step"}
