"""The job queue: one job runs at a time; page, endpoints and MCP tools share it.

A job is a `Task` of a caller. The queue is ours and not Gradio's, which can neither tell every
caller the place in it, estimate a wait by the kind of job, nor limit a single visitor.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from starlette.concurrency import iterate_in_threadpool

from demo.job_snapshot import AnySnapshot
from demo.limits import (
    Allowance,
    Limits,
    describe_timeout,
    format_estimate,
    format_wait,
    name_address,
)
from demo.streams import Streams
from engines import logs
from engines.base import EngineError, Listener, Stopped

Value = TypeVar("Value")
Kind = tuple[Any, ...]
"""Key of a job's expected duration: first what and with which model, then everything else."""

CLOSING = "The page is closing: try again in a while."

ESTIMATE_SECONDS = 2.0
"""Time after which the expected wait is computed anew while nothing else happens."""

JOBS_REMEMBERED, KINDS_REMEMBERED = 9, 200
"""Past jobs of each kind that an expected wait is taken from, and how many kinds."""

logger = logs.logger(__name__)


class Task(Listener, Generic[AnySnapshot]):
    """Work in a thread that is shown as snapshots, and the listener of that work; used once."""

    def __init__(self, snapshot: AnySnapshot, kind: Kind = ()) -> None:
        """`snapshot`: the one before anything ran."""
        self.kind = kind
        self._snapshot = snapshot
        self._changed = threading.Condition()
        self._stopping = False
        self._begun, self._deadline, self._longest = 0.0, math.inf, math.inf

    @property
    def snapshot(self) -> AnySnapshot:
        """How it stands."""
        return self._snapshot

    def work(self) -> None:
        """Do the work and `update` the snapshot until it is over; subclasses override this."""
        raise NotImplementedError

    def update(self, change: Callable[[AnySnapshot, float], AnySnapshot]) -> None:
        """Replace the snapshot by `change(snapshot, now)`, from any thread."""
        with self._changed:
            self._snapshot = change(self._snapshot, time.perf_counter())
            self._changed.notify_all()

    def stop(self) -> None:
        """End the snapshots at once and the work at its next check."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def stopped(self) -> bool:
        return self._stopping or time.monotonic() > self._deadline

    def limit(self, seconds: float) -> None:
        """Stop the work so long after the first limit was set; the shortest limit counts."""
        self._begun = self._begun or time.monotonic()
        self._longest = min(seconds, self._longest)
        self._deadline = self._begun + self._longest

    def snapshots(self) -> Generator[AnySnapshot, None, None]:
        """Start the work and yield a snapshot about five times a second until it is over."""
        self.update(lambda snapshot, now: snapshot.as_started(now))
        snapshot = self._snapshot
        start_thread(self.work)
        try:
            yield snapshot
            while not snapshot.over:
                with self._changed:  # often enough to look live, seldom enough to cost nothing
                    seconds = None if snapshot.finished else 0.2
                    self._changed.wait_for(partial(self._has_news, snapshot), seconds)
                    snapshot = self._snapshot.at(time.perf_counter())
                if self._stopping:
                    snapshot = snapshot.as_stopped()
                yield snapshot
        finally:
            self.stop()

    def _has_news(self, snapshot: AnySnapshot) -> bool:
        """Whether what comes after a snapshot can't wait."""
        now = self._snapshot
        return self._stopping or now.over or now.finished != snapshot.finished

    @contextmanager
    def failures(self, fail: Callable[[str | None], None], **about: Any) -> Iterator[None]:
        """Log what goes wrong and hand it to `fail` as a sentence, or None for a stop."""
        try:
            yield
        except Stopped:
            late = time.monotonic() > self._deadline and not self._stopping
            fail(describe_timeout(self._longest) if late else None)
        except EngineError as error:
            logger.error("failed", error=str(error), **about)
            fail(str(error))
        except Exception as error:
            sentence = f"{type(error).__name__}: {error}"
            logger.exception("failed", error=sentence, **about)
            fail(sentence)


def start_thread(work: Callable[[], None]) -> threading.Thread:
    """Start a thread whose log lines name the run around the call.

    It is a daemon and of no pool, whose threads are joined when the program ends: a compile that
    can't be interrupted would hold that up for minutes.
    """
    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    return thread


class Refused(Exception):
    """A job can't wait or won't start; the text is one sentence.

    `alert`: whether to show it as a warning: not to the visitor who stopped the job.
    """

    def __init__(self, sentence: str, alert: bool = True) -> None:
        super().__init__(sentence)
        self.alert = alert


@dataclass(frozen=True)
class Caller:
    """Who asks for a job.

    `client`: a panel of a browser's tab, a program's session or one call of a program, which can
    stop its own jobs only. `address`: the visitor's, by which limits are counted.
    """

    client: str
    address: str


def name_caller(request: Any, panel: str = "") -> Caller:
    """Return the caller behind a `gr.Request`; each panel of a tab waits and stops by itself."""
    return Caller(f"{request.session_hash} {panel}".strip(), _find_address(request))


def name_program(request: Any) -> Caller:
    """Return the caller behind a Starlette request, of which every call is a client."""
    return Caller(f"program {id(request)}", _find_address(request))


def _find_address(request: Any) -> str:
    return name_address(request.client.host if request.client else None)


@dataclass(frozen=True)
class Waiting:
    """A place in the queue: the jobs ahead, and the seconds they may take, where past jobs tell."""

    ahead: int
    seconds: float | None = None

    def describe(self) -> tuple[str, str]:
        """Return a sentence with the place, and a note with the expected wait, or none."""
        others = "1 run is" if self.ahead == 1 else f"{self.ahead} runs are"
        sentence = f"Waiting: {others} ahead of this one."
        if self.seconds is None:
            return sentence, ""
        return sentence, f"Your turn comes in {format_estimate(self.seconds)}, going by past runs."


class Job:
    """A caller's task in the queue, whose first job runs."""

    def __init__(self, caller: Caller, task: Task[Any]) -> None:
        self.caller, self.task = caller, task
        self.started: float | None = None
        self.refusal: Refused | None = None
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def notify(self) -> None:
        """Wake the coroutine that waits for the job's turn, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.changed.set)


class JobQueue:
    """Jobs in the order they came, and each visitor's limits."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._lock = threading.RLock()
        self._jobs: list[Job] = []
        self._past = PastJobs()
        self._closing = False
        self.streams = Streams()
        rate = self.limits.a_minute
        self._allowance = Allowance(rate, 60.0) if rate is not None else None

    async def run(
        self,
        caller: Caller,
        task: Task[AnySnapshot],
        draw: Callable[[Waiting | AnySnapshot], Iterable[Value]],
    ) -> AsyncGenerator[Value, None]:
        """Wait for a task's turn and run it; yield what `draw` makes of each place and snapshot.

        A place is a `Waiting`; snapshots are made and drawn in a thread. Raises `Refused` where the
        queue or the visitor is at a limit, and when the job is stopped before its turn. Use it
        under `aclosing`, so that a caller who leaves stops the task.
        """
        with self._lock:
            self._check(caller)
            job = Job(caller, task)
            self._jobs.append(job)
        try:
            last_told = None
            while (waiting := self._poll(job)) is not None:
                if waiting != last_told:
                    last_told = waiting
                    for value in draw(waiting):
                        yield value
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(job.changed.wait(), ESTIMATE_SECONDS)
                job.changed.clear()
            if self.limits.run_seconds is not None:
                task.limit(self.limits.run_seconds)
            async for value in iterate_in_threadpool(self._draw_snapshots(job, task, draw)):
                yield value
        finally:
            with self._lock:
                self._jobs.remove(job)
                for other in self._jobs:
                    other.notify()
            task.stop()

    def _check(self, caller: Caller) -> None:
        """Raise `Refused` where nobody, or not this visitor, may join."""
        if self._closing:
            raise Refused(CLOSING)
        limits = self.limits
        if len(self._jobs) > limits.waiting:
            wait = self._estimate(len(self._jobs))
            when = "a few minutes" if wait is None else format_estimate(wait)
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
                f"try again in {format_wait(wait)}."
            )

    def _poll(self, job: Job) -> Waiting | None:
        """Return a job's place, or None when its turn has come, which then begins."""
        with self._lock:
            if job.refusal is not None:
                raise job.refusal
            if ahead := self._jobs.index(job):
                return Waiting(ahead, self._estimate(ahead))
            job.started = time.monotonic()
            return None

    def _draw_snapshots(
        self,
        job: Job,
        task: Task[AnySnapshot],
        draw: Callable[[Waiting | AnySnapshot], Iterable[Value]],
    ) -> Iterator[Value]:
        """Run a job's task and remember how long it took, if it ran to its end."""
        for snapshot in task.snapshots():
            if snapshot.over and snapshot.complete and job.started is not None:
                with self._lock:
                    self._past.note(task.kind, time.monotonic() - job.started)
            yield from draw(snapshot)

    def _estimate(self, ahead: int) -> float | None:
        """Return the seconds that the first jobs may take, in steps of five; None where one is
        unknown, or the one that runs has taken longer than expected."""
        total, now = 0.0, time.monotonic()
        for job in self._jobs[:ahead]:
            expected = self._past.estimate(job.task.kind)
            gone = now - job.started if job.started is not None else 0.0
            if expected is None or gone > expected:
                return None
            total += expected - gone
        return 5.0 * max(round(total / 5), 1) if total < 57.5 else 60.0 * max(round(total / 60), 1)

    def stop(self, client: str) -> None:
        """Stop a client's jobs; one that still waits never starts."""
        with self._lock:
            mine = [job for job in self._jobs if job.caller.client == client]
            self._end(mine, Refused("Stopped before its turn came.", alert=False))

    def _end(self, jobs: Iterable[Job], refusal: Refused) -> None:
        for job in jobs:
            job.refusal = refusal
            job.notify()
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
        """Count for `/health` how many run and wait, and how many may wait."""
        with self._lock:
            running = min(len(self._jobs), 1)
            waiting = len(self._jobs) - running
        return {"running": running, "waiting": waiting, "most_waiting": self.limits.waiting}


class PastJobs:
    """Durations of the last jobs of each kind.

    A kind's first two parts or more are a more general kind, down to what runs with which model.
    """

    def __init__(self) -> None:
        self._seconds: OrderedDict[Kind, deque[float]] = OrderedDict()

    def note(self, kind: Kind, seconds: float) -> None:
        """Remember a job under its kind and all more general ones."""
        for length in range(len(kind), 1, -1):
            key = kind[:length]
            self._seconds.setdefault(key, deque(maxlen=JOBS_REMEMBERED)).append(seconds)
            self._seconds.move_to_end(key)
        while len(self._seconds) > KINDS_REMEMBERED:
            self._seconds.popitem(last=False)

    def estimate(self, kind: Kind) -> float | None:
        """Return the median of the same kind's jobs, else of those most like it, else None."""
        for length in range(len(kind), 1, -1):
            if known := self._seconds.get(kind[:length]):
                return statistics.median(known)
        return None
