"""Decoders, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engines import checkpoints
from engines.base import EngineError, FloatArray
from engines.measure import cache, step, tables, turns
from tests.bench.stand_ins import FakeClock, silent


class FakeStepper:
    """5 s to the first token, then 2 s a token."""

    device, dtype = "cpu", "float32"

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
    nano = checkpoints.load("tiny.en")
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
    (result,) = step.measure(["tiny.en"], 3, 1, 1, silent, torch_only, [])
    assert result.contender == "openai-whisper" and result.error is None
    assert set(result.seconds) == {"first", "step"}
    assert (result.figures["device"], result.figures["dtype"]) == ("cpu", "float32")


def test_a_plain_read_is_no_decoder_and_never_the_fastest() -> None:
    outcomes = {
        step.BASELINE: [{"first": 1.0, "step": 8.0}],
        "max_full": [{"first": 1.0, "step": 2.0}],
        step.PLAIN_READ: [{"step": 1.0}],
    }
    found = step.results("tiny.en", turns.Turns(outcomes), 6000)
    assert [each.figures.get("times_faster") for each in found] == [1.0, 4.0, None]
    assert [each.contender for each in tables._fastest(found)] == ["max_full"]


def test_the_share_of_a_plain_read_is_by_medians() -> None:
    outcomes = {
        step.BASELINE: [{"first": 1.0, "step": 8.0}],
        "max_full": [{"first": 1.0, "step": 2.0}, {"first": 1.0, "step": 4.0}],
        step.PLAIN_READ: [{"step": 1.5}],
    }
    torch, ours, read = step.results("tiny.en", turns.Turns(outcomes), 6000)
    assert ours.figures["of_plain_read"] == 0.5 and ours.figures["bytes_per_second"] == 2000.0
    assert read.figures["of_plain_read"] == 1.0 and read.figures["bytes_read"] == 6000
    assert set(read.seconds) == {"step"} and "bytes_read" not in torch.figures
    unread = step.results("tiny.en", turns.Turns({"max_full": outcomes["max_full"]}), 6000)
    assert "of_plain_read" not in unread[0].figures


def test_a_plain_read_reads_what_a_step_must() -> None:
    """nano's decoder, counted from its tensors: all but the positions, and cross-attention's keys
    and values of the window, which are there instead of the matrices that make them."""
    nano = checkpoints.load("tiny.en")
    task = step.Task(np.zeros((1, 1), np.float32), (1, 2), (7, 8))
    matrices = [
        tensor.numel()
        for name, tensor in nano.state.items()
        if name.startswith("decoder.") and tensor.ndim == 2 and "positional" not in name
        if "cross_attn.key" not in name and "cross_attn.value" not in name
    ]
    dims = nano.dims
    keys_values = 2 * dims.n_text_layer * dims.n_text_state * (1500 + 2 + 1)
    expected = sum(matrices) * (2 if nano.fits_float16 else 4) + 4 * keys_values
    assert step.bytes_of_step(nano, task) == expected
    assert set(step.reading(expected, task)()) == {"step"}


@pytest.mark.max
def test_max_full_takes_steps() -> None:
    ours = {"max_full": step.STEPPERS["max_full"]}
    result, *read = step.measure(["tiny.en"], 3, 1, 1, silent, ours, [])
    assert result.error is None and set(result.seconds) == {"first", "step"}
    assert [each.contender for each in read] == [step.PLAIN_READ]
    assert result.figures["device"] == "cpu" and "times_faster" not in read[0].figures


@pytest.mark.max
def test_max_full_decodes_on_the_processor_where_there_is_an_accelerator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All decoders of `step` and `kv-cache` run there, so none is held against another device."""
    pytest.importorskip("max")
    from engines.max_graph import session

    def accelerator() -> None:
        raise AssertionError("the accelerator was asked for")

    monkeypatch.setattr(session, "pick_device", accelerator)
    nano = checkpoints.load("tiny.en")
    assert step.MaxStepper(nano).device == cache.MaxWithout(nano).device == "cpu"
