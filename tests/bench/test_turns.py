"""Contenders take turns; one that fails, or an interrupt, loses nothing that was finished."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from engines.base import EngineError
from engines.measure.turns import prefixed, ready, take_turns, timed
from tests.bench.stand_ins import FakeClock


def test_contenders_take_turns_and_warm_ups_are_not_kept() -> None:
    order: list[str] = []
    numbers = count()

    def run(name: str) -> int:
        order.append(name)
        return next(numbers)

    taken = take_turns({n: (lambda n=n: run(n)) for n in "abc"}, repeats=2)  # type: ignore[misc]
    assert "".join(order) == "abcabcabc"
    assert taken.outcomes == {"a": [3, 6], "b": [4, 7], "c": [5, 8]}
    assert not taken.errors and not taken.interrupted


def test_one_that_fails_is_left_out_and_keeps_what_it_finished() -> None:
    runs = iter([1, 2])

    def run() -> int:
        return next(runs)

    said: list[str] = []
    taken = take_turns({"bad": run, "good": lambda: 7}, repeats=4, say=said.append)
    assert taken.outcomes == {"bad": [2], "good": [7, 7, 7, 7]}
    assert taken.errors == {"bad": "StopIteration"}
    assert said[:3] == ["bad: warming up", "good: warming up", "bad: run 1 of 4"]
    assert "bad: run 3 of 4" not in said


def test_an_interrupt_keeps_what_was_finished() -> None:
    numbers = count()

    def run() -> int:
        if next(numbers) == 2:
            raise KeyboardInterrupt
        return 1

    taken = take_turns({"a": run, "b": lambda: 2}, repeats=5, warm_ups=0)
    assert taken.interrupted
    assert taken.outcomes == {"a": [1, 1], "b": [2, 2]}


def test_one_that_cannot_be_made_fails_at_its_turn() -> None:
    def make() -> Callable[[], int]:
        raise EngineError("There is none.")

    taken = take_turns({"bad": ready(make), "good": ready(lambda: lambda: 1)}, repeats=1)
    assert taken.errors == {"bad": "There is none."}
    assert taken.outcomes == {"bad": [], "good": [1]}


def test_timed_reads_the_clock_around_the_call() -> None:
    clock = FakeClock()

    def run() -> str:
        clock.now += 2.5
        return "done"

    assert timed(run, clock) == (2.5, "done")


def test_what_is_measured_stands_in_front() -> None:
    said: list[str] = []
    prefixed(said.append, "tiny")("max: run 1 of 2")
    assert said == ["tiny, max: run 1 of 2"]
