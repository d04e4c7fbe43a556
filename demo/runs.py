"""The queue before the processor: who computes, who waits, and how long that may take.

One run computes at a time, whoever asked for it and by which door: the page's panels, the endpoints
and the tools for models all stand in this queue. It is ours and not Gradio's, so that whoever waits
is told the place in it while it changes, and whoever finds it full hears why. `demo.limits` has the
figures.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from starlette.concurrency import run_in_threadpool

from demo.limits import Allowance, Limits, name_address, say_about, say_seconds

Value = TypeVar("Value")

STOPPED_WAITING = "Stopped before its turn came."
CLOSING = "The page is closing: try again in a while."

ESTIMATE_SECONDS = 2.0
"""How often the expected wait is looked at anew while nothing else happens."""

RUNS_REMEMBERED, SORTS_REMEMBERED = 9, 200
"""Past runs of each sort that an expected wait is taken from, and how many sorts."""

MOST_TICKETS = 1000
"""Drawn and not yet used; one is used within moments, or never."""

Sort = tuple[Any, ...]
"""What tells how long a run takes: first what and with which model, then everything else."""

_END = object()


class Stoppable(Protocol):
    """Whatever a visitor can start and stop: a comparison, a look, a run of the fault lab."""

    def stop(self) -> None:
        """End it soon."""
        ...


class Refused(Exception):
    """A run can't wait or won't start; the text is one sentence.

    `alert`: whether that is news, which it isn't to the visitor who stopped it.
    """

    def __init__(self, sentence: str, alert: bool = True) -> None:
        super().__init__(sentence)
        self.alert = alert


@dataclass(frozen=True)
class Caller:
    """Who asks: `visitor` is a browser's tab or a program's session, which stops its own runs;
    `address` is what limits are kept by."""

    visitor: str
    address: str


def name_caller(request: Any, panel: str = "") -> Caller:
    """Who sent a `gr.Request`; each panel of a tab waits and stops by itself."""
    host = request.client.host if request.client else None
    return Caller(f"{request.session_hash} {panel}".strip(), name_address(host))


@dataclass(frozen=True)
class Standing:
    """A place in the queue: runs that come before it, and the seconds that they may take, if past
    runs tell."""

    ahead: int
    seconds: float | None = None

    def describe(self) -> tuple[str, str]:
        """A sentence with the place, and a note with the expected wait, or none."""
        others = "1 run is" if self.ahead == 1 else f"{self.ahead} runs are"
        sentence = f"Waiting: {others} ahead of yours."
        if self.seconds is None:
            return sentence, ""
        return sentence, f"Your turn comes in {say_about(self.seconds)}, going by past runs."


class Place:
    """One run's place in the queue, the first of which computes."""

    def __init__(self, caller: Caller, sort: Sort) -> None:
        self.caller, self.sort = caller, sort
        self.started: float | None = None
        self.refusal: Refused | None = None
        self.run: Stoppable | None = None
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        """Something changed; any thread may say so."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def hear(self, seconds: float) -> None:
        """Wait for something to change, or so long."""
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except (TimeoutError, asyncio.TimeoutError):
            return
        self._news.clear()


class Runs:
    """The queue, and what a visitor may ask of it.

    A run lives here and not in `gr.State`, which would copy it. The page draws a ticket at the
    click and joins with it a moment later, so that a Stop in between is not lost.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._tickets: dict[str, int] = {}
        self._places: list[Place] = []
        self._past = PastRuns()
        self._closing = False
        rate = self.limits.a_minute
        self._allowance = Allowance(rate, 60.0) if rate is not None else None

    def draw_ticket(self, visitor: str) -> int:
        """A number for a run that will join the queue in a moment."""
        with self._lock:
            self._tickets[visitor] = next(self._numbers)
            if len(self._tickets) > MOST_TICKETS:
                del self._tickets[next(iter(self._tickets))]
            return self._tickets[visitor]

    @contextmanager
    def join(self, caller: Caller, sort: Sort, ticket: int | None = None) -> Iterator[Place]:
        """A place in the queue for as long as the block lasts, at whose end its run is stopped.

        Called in an event loop. Raises `Refused` where the queue or the visitor is at a limit, and
        where the ticket was stopped.
        """
        with self._lock:
            if ticket is not None and self._tickets.pop(caller.visitor, None) != ticket:
                raise Refused(STOPPED_WAITING, alert=False)
            self._check(caller)
            place = Place(caller, sort)
            self._places.append(place)
        try:
            yield place
        finally:
            self._leave(place)

    def _check(self, caller: Caller) -> None:
        """Raise `Refused` where nobody, or not this visitor, may join."""
        if self._closing:
            raise Refused(CLOSING)
        limits = self.limits
        if len(self._places) > limits.waiting:
            wait = self._expect(len(self._places))
            when = "a few minutes" if wait is None else say_about(wait)
            raise Refused(f"The queue is full, {limits.waiting} waiting: try again in {when}.")
        mine = sum(place.caller.address == caller.address for place in self._places)
        if limits.at_once is not None and mine >= limits.at_once:
            raise Refused(
                f"{mine} runs from your address are waiting or going on, the most that may: "
                "try again when one has ended."
            )
        wait = self._allowance.take(caller.address) if self._allowance else None
        if wait is not None:
            raise Refused(
                f"{limits.a_minute} runs a minute are the most for one visitor: "
                f"try again in {say_seconds(wait)}."
            )

    def _leave(self, place: Place) -> None:
        with self._lock:
            self._places.remove(place)
            self._tell_all()
        if place.run is not None:
            place.run.stop()

    def _tell_all(self) -> None:
        """The first place's turn has come, if it hasn't yet; everybody looks at theirs."""
        for place in self._places:
            place.wake()

    async def wait(self, place: Place) -> AsyncIterator[Standing]:
        """How a place stands, whenever that changes, until its turn has come.

        Raises `Refused` when it is stopped before.
        """
        told = None
        while (standing := self.look(place)) is not None:
            if standing != told:
                told = standing
                yield standing
            await place.hear(ESTIMATE_SECONDS)

    def look(self, place: Place) -> Standing | None:
        """How a place stands; None when it is its turn, which then begins."""
        with self._lock:
            if place.refusal is not None:
                raise place.refusal
            ahead = self._places.index(place)
            if ahead:
                return Standing(ahead, self._expect(ahead))
            place.started = place.started or time.monotonic()
            return None

    def count_ahead(self) -> Standing:
        """Where whoever joined now would stand."""
        with self._lock:
            return Standing(len(self._places), self._expect(len(self._places)))

    def _expect(self, ahead: int) -> float | None:
        """The seconds that the first places may take, in steps of five; None where one is unknown,
        or the one that goes on has taken longer than expected."""
        total, now = 0.0, time.monotonic()
        for place in self._places[:ahead]:
            expected = self._past.expect(place.sort)
            gone = now - place.started if place.started is not None else 0.0
            if expected is None or gone > expected:
                return None
            total += expected - gone
        return 5.0 * max(round(total / 5), 1) if total < 57.5 else 60.0 * max(round(total / 60), 1)

    def enter(self, place: Place, run: Stoppable) -> None:
        """Note what runs at a place whose turn has come, so that Stop finds it.

        Whoever left meanwhile, as a cancelled call does, has it stopped at once.
        """
        with self._lock:
            place.run = run
            if place.refusal is not None or place not in self._places:
                run.stop()

    def learn(self, place: Place) -> None:
        """The run went to its end, so that its time tells something of the next one's."""
        if place.started is not None:
            with self._lock:
                self._past.note(place.sort, time.monotonic() - place.started)

    def stop(self, visitor: str) -> bool:
        """Stop a visitor's runs; True when one was still waiting, and so will never start."""
        with self._lock:
            waited = self._tickets.pop(visitor, None) is not None
            mine = [place for place in self._places if place.caller.visitor == visitor]
            waited = waited or any(place.started is None for place in mine)
            self._end(mine, Refused(STOPPED_WAITING, alert=False))
        return waited

    def _end(self, places: list[Place], refusal: Refused) -> None:
        for place in places:
            place.refusal = refusal
            place.wake()
            if place.run is not None:
                place.run.stop()

    def close(self, seconds: float = 2.0) -> None:
        """Stop everything and let nobody join, then wait so long for the runs to say so."""
        with self._lock:
            self._closing = True
            self._end(self._places, Refused(CLOSING))
        deadline = time.monotonic() + seconds
        while self._places and time.monotonic() < deadline:
            time.sleep(0.02)

    def count(self) -> dict[str, int]:
        """For `/health`: how many run and wait, and how many may wait."""
        with self._lock:
            running = min(len(self._places), 1)
            waiting = len(self._places) - running
        return {"running": running, "waiting": waiting, "most_waiting": self.limits.waiting}


class PastRuns:
    """How long the last runs of each sort took."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[Sort, deque[float]] = OrderedDict()

    def note(self, sort: Sort, seconds: float) -> None:
        """Remember a run, under all that is known of it and under less and less."""
        for key in shorten(sort):
            self._seconds.setdefault(key, deque(maxlen=RUNS_REMEMBERED)).append(seconds)
            self._seconds.move_to_end(key)
        while len(self._seconds) > SORTS_REMEMBERED:
            self._seconds.popitem(last=False)

    def expect(self, sort: Sort) -> float | None:
        """The median of runs of the very same sort, else of those most like it, else None."""
        found = [self._seconds[key] for key in shorten(sort) if key in self._seconds]
        return statistics.median(found[0]) if found else None


def shorten(sort: Sort) -> list[Sort]:
    """A sort of run, and the more general ones that it belongs to: at the least what, and with
    which model."""
    return [sort[:length] for length in range(len(sort), 1, -1)]


async def follow(steps: Generator[Value, None, None]) -> AsyncGenerator[Value, None]:
    """A generator's values, each made in a thread; use it under `aclosing`."""
    try:
        while True:
            value: Any = await run_in_threadpool(next, steps, _END)
            if value is _END:
                return
            yield value
    finally:
        await close(steps)


async def close(steps: Generator[Any, None, None]) -> None:
    """Close a generator, which may be working still in its thread when we were cancelled."""
    while getattr(steps, "gi_running", False):
        await asyncio.sleep(0.02)
    steps.close()


async def in_turn(
    runs: Runs,
    caller: Caller,
    sort: Sort,
    ticket: int | None,
    tell: Callable[[Standing], Value],
    work: Callable[[Place], Generator[Value, None, None]],
) -> AsyncGenerator[Value, None]:
    """Values for a panel: `tell` of the place while it waits, then those of `work`.

    Raises `Refused`. Use it under `aclosing`.
    """
    with runs.join(caller, sort, ticket) as place:
        async for standing in runs.wait(place):
            yield tell(standing)
        async with aclosing(follow(work(place))) as values:
            async for value in values:
                yield value
