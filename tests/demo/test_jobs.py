"""The queue: turns, places, expected waits, refusals, whose stop stops what, and saved results."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from demo import jobs
from demo.jobs import Caller, JobQueue, PastJobs, Refused, Saved, SavedResults, Task, Waiting
from demo.limits import Limits

ME, YOU, SHE = (Caller(name, name) for name in ("me", "you", "she"))
KIND = ("comparison", "base", "jfk")


@dataclass(frozen=True)
class FakeSnapshot:
    """`complete` once the work is done."""

    complete: bool = False
    finished: bool = False

    def as_started(self, now: float) -> FakeSnapshot:
        return self

    def at(self, now: float) -> FakeSnapshot:
        return self

    def as_stopped(self) -> FakeSnapshot:
        return FakeSnapshot(self.complete, finished=True)


class FakeTask(Task):
    """Is done once its gate is open."""

    def __init__(self, *, held: bool = False) -> None:
        super().__init__(FakeSnapshot(), KIND)
        self.gate = threading.Event()
        if not held:
            self.gate.set()

    def work(self) -> None:
        if self.gate.wait(60):
            self.update(lambda snapshot, now: FakeSnapshot(complete=True, finished=True))


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine; a hang is a failure."""

    def run() -> None:
        # In a thread of its own: the browser's tests leave a loop running in this one.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(asyncio.wait_for(test(), 60))).result()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class Visitor:
    """Somebody whose task is in the queue: what was heard of it, and why it was refused."""

    def __init__(self, queue: JobQueue, caller: Caller, *, held: bool = True) -> None:
        self.heard: list[Any] = []
        self.refusal: Refused | None = None
        self.task = FakeTask(held=held)
        self.ran = asyncio.create_task(self.attend(queue, caller))

    async def attend(self, queue: JobQueue, caller: Caller) -> None:
        try:
            async for heard in queue.run(caller, self.task, lambda step: (step,)):
                self.heard.append(heard)
        except Refused as refusal:
            self.refusal = refusal

    @property
    def places(self) -> list[int]:
        return [heard.ahead for heard in self.heard if isinstance(heard, Waiting)]

    @property
    def runs(self) -> bool:
        return any(isinstance(heard, FakeSnapshot) for heard in self.heard)

    async def wait(self, what: Callable[[Visitor], Any]) -> None:
        while not what(self):
            await asyncio.sleep(0.01)

    async def end(self) -> str:
        """Let the task end; why it was refused, if it was."""
        self.task.gate.set()
        await self.ran
        return str(self.refusal or "")


@in_loop
async def test_the_first_runs_and_the_rest_hear_their_places() -> None:
    queue = JobQueue()
    me = Visitor(queue, ME)
    await me.wait(lambda one: one.runs)
    you, she = Visitor(queue, YOU), Visitor(queue, SHE)
    await she.wait(lambda one: one.places == [2])
    assert you.places == [1] and not you.runs
    assert queue.count() == {"running": 1, "waiting": 2, "most_waiting": 50}
    await me.end()
    await you.wait(lambda one: one.runs)
    await she.wait(lambda one: one.places == [2, 1])
    you.ran.cancel()  # leaves
    await she.wait(lambda one: one.runs)
    assert you.task.stopped()
    await she.end()
    assert she.heard[-1].complete and queue.count()["running"] == 0


@in_loop
async def test_a_full_queue_and_a_busy_visitor_are_refused_in_a_sentence() -> None:
    queue = JobQueue(Limits(waiting=1))
    me, you = Visitor(queue, ME), Visitor(queue, YOU)
    await you.wait(lambda one: one.places)
    full = await Visitor(queue, SHE).end()
    assert full == "The queue is full, 1 waiting: try again in a few minutes."
    queue._past.note(KIND, 300.0)
    assert "try again in about 10 minutes" in await Visitor(queue, SHE).end()
    for one in (me, you):
        assert await one.end() == ""
    queue, mine = JobQueue(Limits(at_once=2, a_minute=3)), Caller("another tab", "me")
    first, second = Visitor(queue, ME), Visitor(queue, mine)
    await second.wait(lambda one: one.places)
    assert "2 runs from your address" in await Visitor(queue, ME).end()
    assert await first.end() == await second.end() == await Visitor(queue, ME).end() == ""
    assert "3 runs a minute are the most for one visitor" in await Visitor(queue, mine).end()
    assert await Visitor(queue, YOU).end() == ""


@in_loop
async def test_a_stop_reaches_only_its_own_visitor_and_closing_reaches_all() -> None:
    queue = JobQueue()
    me, you, she = (Visitor(queue, caller) for caller in (ME, YOU, SHE))
    await she.wait(lambda one: one.places)
    queue.stop("you")
    assert await you.end() == "Stopped before its turn came."
    assert you.refusal and not you.refusal.alert and not you.runs
    assert not me.task.stopped()
    queue.stop("me")
    await me.ran
    assert me.heard[-1].finished and not me.heard[-1].complete
    await she.wait(lambda one: one.runs)
    waiting = Visitor(queue, YOU)
    await waiting.wait(lambda one: one.places)
    await asyncio.to_thread(queue.close)
    await she.ran
    assert "closing" in await waiting.end() and "closing" in await Visitor(queue, ME).end()


@in_loop
async def test_an_expected_wait_is_left_out_where_it_is_not_known() -> None:
    assert Waiting(1).describe() == ("Waiting: 1 run is ahead of yours.", "")
    queue = JobQueue()
    await Visitor(queue, ME).end()  # is learnt from, and took no time
    queue._past.note(KIND, 20.0)
    queue._past.note(KIND, 20.0)
    me, you = Visitor(queue, ME), Visitor(queue, YOU)
    await you.wait(lambda one: one.places)
    assert you.heard[0].describe()[1] == "Your turn comes in about 20 s, going by past runs."
    (running, _) = queue._jobs
    running.started = time.monotonic() - 30.0  # longer than expected
    queue._jobs[1].notify()
    await you.wait(lambda one: one.heard[-1] == Waiting(1, None))
    await me.end()
    await you.end()


def test_a_wait_is_expected_from_the_jobs_most_like_it() -> None:
    past = PastJobs()
    assert past.estimate(KIND) is None
    for seconds in (10.0, 12.0, 500.0):
        past.note(("comparison", "base", "columbia"), seconds)
    assert past.estimate(KIND) == 12.0
    past.note(KIND, 1.0)
    assert past.estimate(KIND) == 1.0
    assert past.estimate(("comparison", "tiny", "jfk")) is None
    assert past.estimate(("layers", "base", "jfk")) is None


def test_a_visit_finds_its_own_results_for_an_hour_and_what_is_kept_is_bounded() -> None:
    saved, mine = SavedResults(), Saved({"model": "base"}, None, {"layers": "drawn"})
    saved.save("mine", "comparison", mine)
    saved.save("mine", "layers", Saved({}, None))
    saved.save("", "comparison", mine)
    assert saved.find("mine", "comparison") is mine
    assert saved.find("mine", "layers") is not None and saved.find("mine", "faults") is None
    assert saved.find("yours", "comparison") is None and saved.find("", "comparison") is None
    saved.forget(3600)
    assert saved.find("mine", "comparison")
    saved.forget(0)
    assert saved.find("mine", "comparison") is None
    past = PastJobs()
    for number in range(1000):
        past.note(("comparison", f"model {number}", "jfk"), 1.0)
        saved.save(f"visit {number}", "comparison", mine)
    assert len(past._seconds) == jobs.KINDS_REMEMBERED
    assert saved.find("visit 0", "comparison") is None
    assert saved.find("visit 999", "comparison") is mine
