"""What the cache is worth: times at each length, slopes, speed-ups, memory, and the plot."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
import pytest

from engines import checkpoints
from engines.base import FloatArray
from engines.measure import cache, charts
from engines.measure.step import Task
from engines.measure.turns import Turns
from tests.bench.stand_ins import FakeClock, silent


class FakeStepper:
    """2 s for the prompt, then 1 s a token; without a cache, one more for each token so far."""

    device, dtype = "cpu", "float32"

    def __init__(self, clock: FakeClock, cached: bool) -> None:
        self.clock, self.cached, self.written = clock, cached, 0

    def start(self, features: FloatArray, prompt: Sequence[int]) -> None:
        """A new text."""
        self.written = 0
        self.clock.now += 2.0

    def step(self, token: int) -> None:
        """One token more."""
        self.clock.now += 1.0 if self.cached else 1.0 + self.written
        self.written += 1

    def cache_bytes(self) -> int:
        """Ten bytes a token."""
        return 10 * self.written if self.cached else 0


def write(cached: bool, lengths: Sequence[int]) -> cache.Writing:
    """What a run of the fake gives."""
    clock = FakeClock()
    task = Task(np.zeros((1, 1), np.float32), (1,), tuple(range(lengths[-1])), clock)
    nano = checkpoints.load("tiny.en")
    return cache.writing(lambda _: FakeStepper(clock, cached), nano, task, lengths)()


def test_the_time_is_noted_at_each_length() -> None:
    assert cache.lengths_up_to(100) == (16, 32, 64, 100)
    assert cache.lengths_up_to(16) == (16,)
    assert write(True, (2, 4)) == cache.Writing({2: 4.0, 4: 6.0}, {2: 20, 4: 40})
    assert write(False, (2, 4)) == cache.Writing({2: 5.0, 4: 12.0}, {2: 0, 4: 0})


def test_slopes_speed_ups_and_ratios() -> None:
    lengths = (2, 4, 8)
    names = ("openai-whisper", "max_full")
    turns: Turns[cache.Writing] = Turns(
        {
            f"{name}, {kind} cache": [write(kind == "with", lengths)]
            for name in names
            for kind in cache.CACHES
        }
    )
    twice = {length: spent / 2 for length, spent in write(True, lengths).seconds.items()}
    turns.outcomes["max_full, with cache"] = [cache.Writing(twice, dict.fromkeys(lengths, 1))]
    steppers = [(name, kind) for name in names for kind in cache.CACHES]
    found = {
        (result.contender, result.case["cache"], result.case["tokens"]): result
        for result in cache.results("tiny", lengths, turns, steppers)
    }
    assert len(found) == 12
    last = found["openai-whisper", "with", 8]
    assert last.seconds == {"total": (10.0,), "step": (1.0,)}
    # Without a cache the fake takes n(n + 1)/2 + 2 s for n tokens.
    assert found["openai-whisper", "without", 8].seconds["total"] == (38.0,)
    assert last.figures["speed_up"] == 3.8
    assert last.figures["slope_seconds"] == pytest.approx(0.0, abs=1e-12)
    slope = found["openai-whisper", "without", 8].figures["slope_seconds"]
    assert slope == pytest.approx(1.0)
    assert found["max_full", "with", 8].figures["times_faster"] == 2.0
    assert found["max_full", "without", 8].figures["speed_up"] is None
    assert "step" not in found["max_full", "with", 2].seconds
    drawn = cache.draw(list(found.values()))
    assert drawn == cache.draw(list(found.values()))
    assert drawn.count("<polyline") == 4


def test_openai_whisper_for_real() -> None:
    """With the cache and without it, over the steppers that need only PyTorch."""
    torch_only = {key: make for key, make in cache.STEPPERS.items() if key[0] != "max_full"}
    found = list(cache.measure(["tiny.en"], 17, 1, silent, torch_only))
    assert [result.error for result in found] == [None] * 4
    of = {(r.case["cache"], r.case["tokens"]): r.figures["cache_bytes"] for r in found}
    # Keys and values of 1500 positions of audio, and of the two tokens of the prompt and the rest.
    dims = checkpoints.load("tiny.en").dims
    row = 2 * dims.n_text_layer * dims.n_text_state * 4
    assert of["with", 17] == row * (1500 + 2 + 17)
    assert of["without", 17] == 0


def test_both_ways_choose_the_same_tokens() -> None:
    """Else the two would not be measured at the same work."""
    import torch

    from engines.measure.step import encode, prompt_of

    nano = checkpoints.load("tiny.en")
    features, prompt = encode(nano), prompt_of(nano)
    seen: dict[str, list[FloatArray]] = {"with": [], "without": []}
    with_cache, without = cache.TorchWith(nano), cache.TorchWithout(nano)

    def keep(name: str) -> object:
        return lambda module, inputs, output: seen[name].append(output[0, -1].numpy())

    with_cache._model.decoder.register_forward_hook(keep("with"))
    without._decoder.register_forward_hook(keep("without"))
    with torch.inference_mode():
        for stepper in (with_cache, without):
            stepper.start(features, prompt)
            for token in (500, 600, 700):
                stepper.step(token)
    for ours, theirs in zip(seen["with"], seen["without"], strict=True):
        # Sums in another order: 2e-6 of the largest logit was measured.
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.max
def test_max_full_for_real() -> None:
    ours = {key: make for key, make in cache.STEPPERS.items() if key[0] == "max_full"}
    found = list(cache.measure(["tiny.en"], 17, 1, silent, ours))
    assert [result.error for result in found] == [None] * 4
    assert all(result.figures["cache_bytes"] for result in found if result.case["cache"] == "with")


# Charts.


def test_charts_are_sound_xml_with_their_names() -> None:
    lines = charts.draw_lines("A & B", "tokens", "s", {"a < b": [(0, 0), (16, 1.5)], "c": [(1, 2)]})
    root = ElementTree.fromstring(lines)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"A & B", "a < b", "c", "tokens", "s"} <= set(texts)
    bars = charts.draw_bars("T", [("one", 2.0, "2 times"), ("two", 1.0, "once")])
    widths = [
        float(element.attrib["width"])
        for element in ElementTree.fromstring(bars).iter()
        if element.tag.endswith("rect")
    ]
    assert widths[1] == 2 * widths[2]
    ElementTree.fromstring(charts.draw_lines("none", "x", "y", {}))


@pytest.mark.parametrize(("most", "last"), [(1.0, 1.0), (0.37, 0.4), (224, 250), (0, 1.0)])
def test_ticks_are_round_and_reach_the_largest(most: float, last: float) -> None:
    ticks = charts.nice_ticks(most)
    assert ticks[0] == 0 and ticks[-1] == pytest.approx(last)


def test_labels_do_not_lie_on_each_other() -> None:
    placed = charts.spread_labels([100.0, 102.0, 50.0])
    assert sorted(placed) == [50.0, 100.0, 117.0]
