"""The queue: turns, places, expected waits, refusals, and whose Stop stops what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from demo import runs as queue
from demo.limits import Limits
from demo.runs import Caller, PastRuns, Place, Refused, Runs, Standing, in_turn

ME, YOU, SHE = (Caller(name, name) for name in ("me", "you", "she"))
SORT = ("comparison", "tiny.en", "short")


class FakeRun:
    """Counts how often it is stopped."""

    def __init__(self) -> None:
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that is a coroutine; a hang is a failure."""

    def run() -> None:
        # In a thread of its own: the browser's tests leave a loop running in this one.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(asyncio.wait_for(test(), 60))).result()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def settle() -> None:
    """Let whoever was woken do what there is to do."""
    for _ in range(10):
        await asyncio.sleep(0)


@in_loop
async def test_the_first_computes_and_the_rest_hear_their_places() -> None:
    runs = Runs()
    heard: list[tuple[str, int]] = []
    turns: list[str] = []

    def note(caller: Caller, standing: Standing) -> None:
        heard.append((caller.visitor, standing.ahead))

    async def attend(caller: Caller, end: asyncio.Event) -> None:
        with runs.join(caller, SORT) as place:
            async for standing in runs.wait(place):
                note(caller, standing)
            turns.append(caller.visitor)
            await end.wait()

    ends = [asyncio.Event() for _ in range(3)]
    tasks = []
    for caller, end in zip((ME, YOU, SHE), ends, strict=True):
        tasks.append(asyncio.create_task(attend(caller, end)))
        await settle()
    assert turns == ["me"] and heard == [("you", 1), ("she", 2)]
    assert runs.count() == {"running": 1, "waiting": 2, "most_waiting": 50}
    ends[0].set()
    await settle()
    assert turns == ["me", "you"] and heard[2:] == [("she", 1)]
    tasks[1].cancel()
    await settle()
    assert turns == ["me", "you", "she"]
    ends[2].set()
    await settle()
    assert runs.count()["running"] == 0 and runs.count_ahead() == Standing(0, 5.0)


@in_loop
async def test_a_full_queue_refuses_and_says_when() -> None:
    runs = Runs(Limits(waiting=1))
    with runs.join(ME, SORT) as place, runs.join(YOU, SORT):
        with pytest.raises(Refused, match="full, 1 waiting: try again in a few minutes"):
            runs.join(SHE, SORT).__enter__()
        assert runs.look(place) is None
        assert place.started is not None
        place.started -= 300
        runs.learn(place)
        place.started += 300
        with pytest.raises(Refused, match="try again in about 10 minutes"):
            runs.join(SHE, SORT).__enter__()
    with runs.join(SHE, SORT) as place:
        assert runs.look(place) is None


@in_loop
async def test_one_visitor_has_so_many_at_once_and_so_many_a_minute() -> None:
    runs = Runs(Limits(at_once=2, a_minute=4))
    mine = Caller("another tab", "me")
    with runs.join(ME, SORT), runs.join(mine, SORT):
        with pytest.raises(Refused, match="2 runs from your address"):
            runs.join(ME, SORT).__enter__()
        with runs.join(YOU, SORT):
            pass
    for _ in range(2):
        with runs.join(ME, SORT):
            pass
    with pytest.raises(Refused, match=r"4 runs a minute .* try again in (59|60) s\.$"):
        runs.join(mine, SORT).__enter__()
    with runs.join(YOU, SORT):
        pass


@in_loop
async def test_a_stop_reaches_only_its_own_visitor_s_run() -> None:
    runs, mine, yours = Runs(), FakeRun(), FakeRun()
    with runs.join(ME, SORT) as place, runs.join(YOU, SORT) as waiting:
        assert runs.look(place) is None
        runs.enter(place, mine)
        assert runs.stop("you") and mine.stops == 0
        with pytest.raises(Refused, match="before its turn came"):
            runs.look(waiting)
        assert not runs.stop("me")
        assert [mine.stops] == [1]
        late = FakeRun()
        runs.enter(place, late)
        assert late.stops == 1
    assert not yours.stops and not runs.stop("me")


@in_loop
async def test_a_run_whose_caller_left_before_it_entered_is_stopped() -> None:
    """A call is cancelled while its thread starts: the place is gone when the run comes."""
    runs, run = Runs(), FakeRun()
    with runs.join(ME, SORT) as place:
        assert runs.look(place) is None
    runs.enter(place, run)
    assert run.stops == 1


@in_loop
async def test_a_run_stopped_between_the_click_and_the_queue_never_starts() -> None:
    runs = Runs()
    first = runs.draw_ticket("me")
    assert runs.stop("me")
    with pytest.raises(Refused) as caught:
        runs.join(ME, SORT, first).__enter__()
    assert not caught.value.alert
    second = runs.draw_ticket("me")
    with runs.join(ME, SORT, second) as place:
        assert runs.look(place) is None


@in_loop
async def test_work_is_followed_and_stopped_when_the_panel_goes_away() -> None:
    runs, run = Runs(), FakeRun()
    closed = asyncio.Event()

    def work(place: Place) -> Generator[str, None, None]:
        runs.enter(place, run)
        try:
            yield "one"
            yield "two"
        finally:
            closed.set()

    steps = in_turn(runs, ME, SORT, None, lambda standing: "waiting", work)
    assert await anext(steps) == "one"
    assert runs.count()["running"] == 1
    await steps.aclose()
    assert closed.is_set() and run.stops and runs.count()["running"] == 0


@in_loop
async def test_closing_refuses_everyone_and_stops_what_runs() -> None:
    runs, run = Runs(), FakeRun()
    with runs.join(ME, SORT) as place, runs.join(YOU, SORT) as waiting:
        runs.look(place)
        runs.enter(place, run)
        runs.close(seconds=0)
        assert run.stops == 1
        with pytest.raises(Refused, match="closing"):
            runs.look(waiting)
    with pytest.raises(Refused, match="closing"):
        runs.join(SHE, SORT).__enter__()


def test_a_wait_is_expected_from_the_runs_most_like_it() -> None:
    past = PastRuns()
    assert past.expect(SORT) is None
    for seconds in (10.0, 12.0, 500.0):
        past.note(("comparison", "tiny.en", "talk"), seconds)
    assert past.expect(("comparison", "tiny.en", "short")) == 12.0
    past.note(SORT, 1.0)
    assert past.expect(SORT) == 1.0
    assert past.expect(("comparison", "tiny", "short")) is None
    assert past.expect(("look", "tiny.en", "short")) is None


def test_tickets_that_are_never_used_are_bounded() -> None:
    runs = Runs()
    for number in range(2 * queue.MOST_TICKETS):
        runs.draw_ticket(f"visitor {number}")
    assert len(runs._tickets) == queue.MOST_TICKETS


def test_past_runs_are_bounded() -> None:
    past = PastRuns()
    for number in range(3 * queue.SORTS_REMEMBERED):
        past.note(("comparison", f"model {number}", "short"), 1.0)
    assert len(past._seconds) == queue.SORTS_REMEMBERED


@in_loop
async def test_an_expected_wait_is_left_out_where_it_is_not_known() -> None:
    runs = Runs()
    with runs.join(ME, SORT) as place:
        assert runs.count_ahead() == Standing(1, None)
        assert runs.count_ahead().describe() == ("Waiting: 1 run is ahead of yours.", "")
        runs.look(place)
        assert place.started is not None
        place.started -= 20
        runs.learn(place)
        assert runs.count_ahead().seconds is None  # it takes longer than expected
        place.started += 20
        standing = runs.count_ahead()
        assert standing.describe()[1] == "Your turn comes in about 20 s, going by past runs."
