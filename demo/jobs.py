"""The job queue: one job runs at a time; page, endpoints and MCP tools share it.

A job is a `Task` of a caller: a comparison, a layer inspection or a fault. The queue is ours and
not Gradio's, which can neither tell every caller the place in it, estimate a wait by the kind of
job, nor limit a single visitor. `demo.limits` has the figures.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from starlette.concurrency import run_in_threadpool

from demo.limits import Allowance, Limits, name_address, say_about, say_seconds

Value = TypeVar("Value")
Kind = tuple[Any, ...]
"""What tells how long a job takes: first what and with which model, then everything else."""

STOPPED_WAITING = "Stopped before its turn came."
CLOSING = "The page is closing: try again in a while."

ESTIMATE_SECONDS = 2.0
"""How often the expected wait is looked at anew while nothing else happens."""

JOBS_REMEMBERED, KINDS_REMEMBERED = 9, 200
"""Past jobs of each kind that an expected wait is taken from, and how many kinds."""

MOST_CLICKS = 1000
"""Clicks whose job hasn't joined yet; it does within moments, or never."""

MOST_VISITS = 64
"""Visits whose results are kept, some hundred kilobytes each; the longest unused go first."""

_END = object()


class Task(Protocol):
    """What a job runs. `kind` tells how long it takes; use each object once."""

    kind: Kind

    def snapshots(self) -> Iterator[Any]:
        """Run it: yield snapshots until it is over, each with `finished`, `complete` and
        `to_save()`, what of it a reload shall find, or None."""
        ...

    def stop(self) -> None:
        """End the snapshots at once and the work soon."""
        ...


class Refused(Exception):
    """A job can't wait or won't start; the text is one sentence.

    `alert`: whether that is news, which it isn't to the visitor who stopped it.
    """

    def __init__(self, sentence: str, alert: bool = True) -> None:
        super().__init__(sentence)
        self.alert = alert


@dataclass(frozen=True)
class Caller:
    """Who asks. `visitor`: a panel of a browser's tab, or a program's session, which stops its own
    jobs; `address`: what limits are kept by."""

    visitor: str
    address: str


def name_caller(request: Any, panel: str = "") -> Caller:
    """The caller behind a `gr.Request`; each panel of a tab waits and stops by itself."""
    host = request.client.host if request.client else None
    return Caller(f"{request.session_hash} {panel}".strip(), name_address(host))


@dataclass(frozen=True)
class Waiting:
    """A place in the queue: the jobs ahead, and the seconds they may take, where past jobs tell."""

    ahead: int
    seconds: float | None = None
    finished = complete = False

    def describe(self) -> tuple[str, str]:
        """A sentence with the place, and a note with the expected wait, or none."""
        others = "1 run is" if self.ahead == 1 else f"{self.ahead} runs are"
        sentence = f"Waiting: {others} ahead of yours."
        if self.seconds is None:
            return sentence, ""
        return sentence, f"Your turn comes in {say_about(self.seconds)}, going by past runs."


class Job:
    """A caller's task in the queue, whose first job runs."""

    def __init__(self, caller: Caller, task: Task) -> None:
        self.caller, self.task = caller, task
        self.started: float | None = None
        self.refusal: Refused | None = None
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        """Tell that something changed, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def hear(self, seconds: float) -> None:
        """Wait for something to change, at most so long."""
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except (TimeoutError, asyncio.TimeoutError):
            return
        self._news.clear()


class JobQueue:
    """Jobs in the order they came, and what a visitor may ask of them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._lock = threading.RLock()
        self._clicks: dict[str, None] = {}
        self._jobs: list[Job] = []
        self._past = PastJobs()
        self._closing = False
        rate = self.limits.a_minute
        self._allowance = Allowance(rate, 60.0) if rate is not None else None

    def note_click(self, visitor: str) -> Waiting:
        """Expect a job of the visitor's in a moment, which a stop until then cancels.

        Returns where it would stand.
        """
        with self._lock:
            self._clicks[visitor] = None
            if len(self._clicks) > MOST_CLICKS:
                del self._clicks[next(iter(self._clicks))]
            return Waiting(len(self._jobs), self._expect(len(self._jobs)))

    @contextmanager
    def join(self, caller: Caller, task: Task, clicked: bool = False) -> Iterator[Job]:
        """A job in the queue for as long as the block lasts; at its end the task is stopped.

        Called in an event loop. Raises `Refused` where the queue or the visitor is at a limit, and
        where a click was stopped meanwhile.
        """
        with self._lock:
            if clicked and not self._take_click(caller.visitor):
                raise Refused(STOPPED_WAITING, alert=False)
            self._check(caller)
            job = Job(caller, task)
            self._jobs.append(job)
        try:
            yield job
        finally:
            with self._lock:
                self._jobs.remove(job)
                for other in self._jobs:
                    other.wake()
            task.stop()

    def _take_click(self, visitor: str) -> bool:
        """Whether the visitor has clicked, which is forgotten."""
        known = visitor in self._clicks
        self._clicks.pop(visitor, None)
        return known

    def _check(self, caller: Caller) -> None:
        """Raise `Refused` where nobody, or not this visitor, may join."""
        if self._closing:
            raise Refused(CLOSING)
        limits = self.limits
        if len(self._jobs) > limits.waiting:
            wait = self._expect(len(self._jobs))
            when = "a few minutes" if wait is None else say_about(wait)
            raise Refused(f"The queue is full, {limits.waiting} waiting: try again in {when}.")
        mine = sum(job.caller.address == caller.address for job in self._jobs)
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

    async def wait(self, job: Job) -> AsyncIterator[Waiting]:
        """How a job stands, whenever that changes, until its turn has come.

        Raises `Refused` when it is stopped before.
        """
        told = None
        while (waiting := self.look(job)) is not None:
            if waiting != told:
                told = waiting
                yield waiting
            await job.hear(ESTIMATE_SECONDS)

    def look(self, job: Job) -> Waiting | None:
        """How a job stands; None when it is its turn, which then begins."""
        with self._lock:
            if job.refusal is not None:
                raise job.refusal
            ahead = self._jobs.index(job)
            if ahead:
                return Waiting(ahead, self._expect(ahead))
            job.started = job.started or time.monotonic()
            return None

    def _expect(self, ahead: int) -> float | None:
        """The seconds that the first jobs may take, in steps of five; None where one is unknown, or
        the one that runs has taken longer than expected."""
        total, now = 0.0, time.monotonic()
        for job in self._jobs[:ahead]:
            expected = self._past.expect(job.task.kind)
            gone = now - job.started if job.started is not None else 0.0
            if expected is None or gone > expected:
                return None
            total += expected - gone
        return 5.0 * max(round(total / 5), 1) if total < 57.5 else 60.0 * max(round(total / 60), 1)

    def learn(self, job: Job) -> None:
        """Remember how long a job took that ran to its end."""
        if job.started is not None:
            with self._lock:
                self._past.note(job.task.kind, time.monotonic() - job.started)

    def stop(self, visitor: str) -> bool:
        """Stop a visitor's jobs; True when one was still waiting, and so will never start."""
        with self._lock:
            clicked = self._take_click(visitor)
            mine = [job for job in self._jobs if job.caller.visitor == visitor]
            waited = clicked or any(job.started is None for job in mine)
            self._end(mine, Refused(STOPPED_WAITING, alert=False))
        return waited

    def _end(self, jobs: Iterable[Job], refusal: Refused) -> None:
        for job in jobs:
            job.refusal = refusal
            job.wake()
            job.task.stop()

    def close(self, seconds: float = 2.0) -> None:
        """Stop everything and let nobody join, then wait so long for the jobs to leave."""
        with self._lock:
            self._closing = True
            self._end(self._jobs, Refused(CLOSING))
        deadline = time.monotonic() + seconds
        while self._jobs and time.monotonic() < deadline:
            time.sleep(0.02)

    def count(self) -> dict[str, int]:
        """For `/health`: how many run and wait, and how many may wait."""
        with self._lock:
            running = min(len(self._jobs), 1)
            waiting = len(self._jobs) - running
        return {"running": running, "waiting": waiting, "most_waiting": self.limits.waiting}


class PastJobs:
    """How long the last jobs of each kind took."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[Kind, deque[float]] = OrderedDict()

    def note(self, kind: Kind, seconds: float) -> None:
        """Remember a job, under all that is known of it and under less and less."""
        for key in generalise(kind):
            self._seconds.setdefault(key, deque(maxlen=JOBS_REMEMBERED)).append(seconds)
            self._seconds.move_to_end(key)
        while len(self._seconds) > KINDS_REMEMBERED:
            self._seconds.popitem(last=False)

    def expect(self, kind: Kind) -> float | None:
        """The median of jobs of the very same kind, else of those most like it, else None."""
        found = [self._seconds[key] for key in generalise(kind) if key in self._seconds]
        return statistics.median(found[0]) if found else None


def generalise(kind: Kind) -> list[Kind]:
    """A kind of job, and the more general ones that it belongs to, the last being what runs and
    with which model."""
    return [kind[:length] for length in range(len(kind), 1, -1)]


async def run_job(
    queue: JobQueue,
    caller: Caller,
    task: Task,
    draw: Callable[[Any], Iterable[Value]],
    clicked: bool = False,
) -> AsyncGenerator[Value, None]:
    """Wait for a task's turn and run it: yield what `draw` makes of each `Waiting` and snapshot.

    Snapshots are made and drawn in a thread. Raises `Refused`. Use it under `aclosing`, so that a
    caller who leaves stops the task.
    """
    with queue.join(caller, task, clicked) as job:
        async for waiting in queue.wait(job):
            for value in draw(waiting):
                yield value

        def work() -> Iterator[Value]:
            for snapshot in task.snapshots():
                if snapshot.complete:
                    queue.learn(job)
                yield from draw(snapshot)

        async with aclosing(follow(work())) as values:
            async for value in values:
                yield value


async def follow(steps: Iterator[Value]) -> AsyncGenerator[Value, None]:
    """A generator's values, each made in a thread, which may still work when we are cancelled."""
    try:
        while True:
            value: Any = await run_in_threadpool(next, steps, _END)
            if value is _END:
                return
            yield value
    finally:
        while getattr(steps, "gi_running", False):
            await asyncio.sleep(0.02)
        steps.close()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Saved:
    """What a panel's last job left: what its controls held, a snapshot to draw it from, and once
    the job ended what was drawn, by name."""

    controls: dict[str, Any]
    snapshot: Any
    drawn: dict[str, Any] = field(default_factory=dict)


class SavedResults:
    """The last result of each panel of a visit, so that a reload of the page finds it.

    A visit has a name that only the visitor's tab knows; nothing is kept without one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visits: OrderedDict[str, tuple[float, dict[str, Saved]]] = OrderedDict()

    def save(self, visit: str, panel: str, saved: Saved) -> None:
        """Replace what the visit's panel had."""
        if not visit:
            return
        with self._lock:
            _, panels = self._visits.pop(visit, (0.0, {}))
            self._visits[visit] = (time.monotonic(), {**panels, panel: saved})
            while len(self._visits) > MOST_VISITS:
                self._visits.popitem(last=False)

    def find(self, visit: str, panel: str) -> Saved | None:
        """What the visit's panel left, if it is still there."""
        with self._lock:
            return self._visits.get(visit, (0.0, {}))[1].get(panel)

    def forget(self, seconds: float) -> None:
        """Drop what was saved so long ago."""
        with self._lock:
            last = time.monotonic() - seconds
            while self._visits and next(iter(self._visits.values()))[0] <= last:
                self._visits.popitem(last=False)
