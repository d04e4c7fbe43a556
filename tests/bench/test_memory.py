"""What engines hold: the arithmetic, what fails, and what an interrupt leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from engines.base import EngineError
from engines.measure import memory, tables
from engines.measure.record import Result
from engines.measure.start import Start
from engines.measure.turns import Turns
from tests.bench.stand_ins import silent

MB = 1_000_000
HELD = {
    "smallest": {"cpu": (30, 10, 20), "max_full": (50, 50, 50)},
    "tiny": {"cpu": (220, 180, 320), "max_full": (150, 100, 90)},
}
"""Megabytes that each start adds, by checkpoint and engine."""


def start(megabytes: float | None, seconds: float = 1.0) -> Start:
    """A start that added so many megabytes."""
    return Start({"prepare": seconds}, None if megabytes is None else int(megabytes * MB))


def turns_of(held: Mapping[str, Sequence[int]]) -> Turns[Start]:
    """The starts of every engine."""
    return Turns({key: [start(each) for each in amounts] for key, amounts in held.items()})


def test_weights_are_what_the_smallest_checkpoint_does_not_take() -> None:
    cpu, ours = memory.results("tiny", turns_of(HELD["tiny"]), turns_of(HELD["smallest"]))
    assert cpu.figures == {"held_bytes": 220 * MB, "weights_bytes": 200 * MB, "of_baseline": 1.0}
    assert ours.figures == {"held_bytes": 100 * MB, "weights_bytes": 50 * MB, "of_baseline": 0.25}
    assert cpu.seconds == {"prepare": (1.0, 1.0, 1.0)} and cpu.case == {"size": "tiny"}
    table = tables.render(memory.COLUMNS, [cpu, ours])
    assert "| tiny | max_full |     100 |         50 |     0.25 |" in table


def test_a_system_that_does_not_tell_gives_dashes() -> None:
    unknown = Turns({"cpu": [start(None)], "max_full": [start(150)]})
    cpu, ours = memory.results("tiny", unknown, turns_of(HELD["smallest"]))
    assert cpu.figures == {"held_bytes": None, "weights_bytes": None} and cpu.error is None
    assert ours.figures == {"held_bytes": 150 * MB, "weights_bytes": 100 * MB}


def test_a_failure_with_the_smallest_checkpoint_is_one() -> None:
    smallest = turns_of({"cpu": (20,), "max_full": ()})
    smallest.errors["max_full"] = "It broke."
    cpu, ours = memory.results("tiny", turns_of(HELD["tiny"]), smallest)
    assert cpu.error is None and ours.error == "It broke."
    assert ours.figures == {"held_bytes": 100 * MB, "weights_bytes": None}
    later = turns_of(HELD["tiny"])
    later.errors["max_full"] = "It broke later."
    assert memory.results("tiny", later, smallest)[1].error == "It broke later."


class Starts:
    """Stands in for new processes: what each start adds, or what it raises at the `stop`-th."""

    def __init__(self, amounts: Sequence[int], stop: int = 1000, error: type = KeyboardInterrupt):
        self._amounts, self._stop, self._error = iter(amounts), stop, error
        self.asked: list[str] = []
        self.files: list[bytes] = []

    def __call__(self, key: str, model: str, cache: Path) -> Start:
        """One start."""
        self.asked.append(key)
        self.files.append(Path(model).read_bytes()[:4])
        if len(self.asked) == self._stop:
            raise self._error("stop")
        return start(next(self._amounts))


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of one byte, since no engine reads them."""
    monkeypatch.setattr(memory, "store", lambda state, dims, path: path.write_bytes(b"some"))
    monkeypatch.setattr(memory, "compiled_graphs", Path)


def measure(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Result]:
    """Two engines, one repeat after one warm-up, nano."""
    monkeypatch.setattr(memory, "start", starts)
    return memory.measure(["cpu", "max_full"], ["tiny.en"], 1, silent)


def test_the_smallest_comes_first_and_warm_ups_do_not_count(
    no_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts([900, 900, 10, 20, 900, 900, 110, 70])
    cpu, ours = measure(starts, monkeypatch)
    assert starts.asked == ["cpu", "max_full"] * 4 and set(starts.files) == {b"some"}
    assert cpu.figures["weights_bytes"] == 100 * MB and ours.figures["of_baseline"] == 0.5


@pytest.mark.parametrize("stop", [1, 4])
def test_ctrl_c_with_the_smallest_ends_it(
    stop: int, no_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts([10] * 8, stop)
    with pytest.raises(KeyboardInterrupt):
        list(measure(starts, monkeypatch))
    assert len(starts.asked) == stop


def test_ctrl_c_later_leaves_what_was_finished(
    no_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = measure(Starts([10, 10, 10, 10, 60, 60, 60], 8), monkeypatch)
    found = [next(results), next(results)]
    assert [bool(each.seconds) for each in found] == [True, False]
    with pytest.raises(KeyboardInterrupt):
        next(results)


def test_an_engine_that_fails_with_the_smallest_says_so(
    no_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, ours = measure(Starts([10] * 8, 2, EngineError), monkeypatch)
    assert cpu.error is None and ours.error == "stop"
