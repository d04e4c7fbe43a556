"""The queue: turns, places, expected waits, refusals, whose stop stops what, and saved results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from demo import jobs
from demo.jobs import (
    Caller,
    Job,
    JobQueue,
    PastJobs,
    Refused,
    Saved,
    SavedResults,
    Waiting,
    run_job,
)
from demo.limits import Limits

ME, YOU, SHE = (Caller(name, name) for name in ("me", "you", "she"))
KIND = ("comparison", "base", "jfk")


@dataclass(frozen=True)
class FakeSnapshot:
    """The snapshot of that number, of two."""

    number: int

    @property
    def complete(self) -> bool:
        return self.number == 2


class FakeTask:
    """Two snapshots; counts how often it is stopped."""

    def __init__(self, kind: tuple[Any, ...] = KIND) -> None:
        self.kind, self.stops, self.closed = kind, 0, False

    def snapshots(self) -> Iterator[FakeSnapshot]:
        try:
            yield FakeSnapshot(1)
            yield FakeSnapshot(2)
        finally:
            self.closed = True

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


def refusal(queue: JobQueue, caller: Caller, **named: Any) -> Refused:
    """Why a caller can't join."""
    with pytest.raises(Refused) as caught:
        queue.join(caller, FakeTask(), **named).__enter__()
    return caught.value


def age(job: Job, seconds: float) -> None:
    """Let a job have run for so much longer."""
    assert job.started is not None
    job.started -= seconds


@in_loop
async def test_the_first_runs_and_the_rest_hear_their_places() -> None:
    queue = JobQueue()
    heard: list[tuple[str, int]] = []
    turns: list[str] = []

    async def attend(caller: Caller, end: asyncio.Event) -> None:
        with queue.join(caller, FakeTask()) as job:
            async for waiting in queue.wait(job):
                heard.append((caller.visitor, waiting.ahead))
            turns.append(caller.visitor)
            await end.wait()

    ends = [asyncio.Event() for _ in range(3)]
    tasks = []
    for caller, end in zip((ME, YOU, SHE), ends, strict=True):
        tasks.append(asyncio.create_task(attend(caller, end)))
        await settle()
    assert turns == ["me"] and heard == [("you", 1), ("she", 2)]
    assert queue.count() == {"running": 1, "waiting": 2, "most_waiting": 50}
    ends[0].set()
    await settle()
    assert turns == ["me", "you"] and heard[2:] == [("she", 1)]
    tasks[1].cancel()
    await settle()
    assert turns == ["me", "you", "she"]
    ends[2].set()
    await settle()
    assert queue.count()["running"] == 0


@in_loop
async def test_a_full_queue_refuses_and_says_when() -> None:
    queue = JobQueue(Limits(waiting=1))
    with queue.join(ME, FakeTask()) as job, queue.join(YOU, FakeTask()):
        assert "full, 1 waiting: try again in a few minutes" in str(refusal(queue, SHE))
        assert queue.look(job) is None
        age(job, 300)
        queue.learn(job)
        age(job, -300)
        assert "try again in about 10 minutes" in str(refusal(queue, SHE))
    with queue.join(SHE, FakeTask()) as job:
        assert queue.look(job) is None


@in_loop
async def test_one_visitor_has_so_many_at_once_and_so_many_a_minute() -> None:
    queue = JobQueue(Limits(at_once=2, a_minute=4))
    mine = Caller("another tab", "me")
    with queue.join(ME, FakeTask()), queue.join(mine, FakeTask()):
        assert "2 runs from your address" in str(refusal(queue, ME))
        with queue.join(YOU, FakeTask()):
            pass
    for _ in range(2):
        with queue.join(ME, FakeTask()):
            pass
    assert "4 runs a minute are the most" in str(refusal(queue, mine))
    with queue.join(YOU, FakeTask()):
        pass


@in_loop
async def test_a_stop_reaches_only_its_own_visitor_s_job() -> None:
    queue, mine, yours = JobQueue(), FakeTask(), FakeTask()
    with queue.join(ME, mine) as job, queue.join(YOU, yours) as waiting:
        assert queue.look(job) is None
        assert queue.stop("you") and mine.stops == 0
        with pytest.raises(Refused, match="before its turn came"):
            queue.look(waiting)
        assert not queue.stop("me") and mine.stops == 1
    assert not queue.stop("me")


@in_loop
async def test_a_job_stopped_between_the_click_and_the_queue_never_starts() -> None:
    queue = JobQueue()
    assert queue.note_click("me") == Waiting(0, 5.0)
    assert queue.stop("me")
    assert not refusal(queue, ME, clicked=True).alert
    queue.note_click("me")
    with queue.join(ME, FakeTask(), clicked=True) as job:
        assert queue.look(job) is None


@in_loop
async def test_a_job_is_drawn_learnt_from_and_ended() -> None:
    queue, task = JobQueue(), FakeTask()
    steps = run_job(queue, ME, task, lambda snapshot: (snapshot.number, -snapshot.number))
    assert [value async for value in steps] == [1, -1, 2, -2]
    assert task.closed and queue.count()["running"] == 0
    assert queue._past.expect(KIND) is not None


@in_loop
async def test_a_caller_who_leaves_stops_the_job() -> None:
    queue, task = JobQueue(), FakeTask()
    steps = run_job(queue, ME, task, lambda snapshot: (snapshot.number,))
    assert await anext(steps) == 1 and queue.count()["running"] == 1
    await steps.aclose()
    assert task.closed and task.stops and queue.count()["running"] == 0


@in_loop
async def test_closing_refuses_everyone_and_stops_what_runs() -> None:
    queue, task = JobQueue(), FakeTask()
    with queue.join(ME, task) as job, queue.join(YOU, FakeTask()) as waiting:
        queue.look(job)
        queue.close(seconds=0)
        assert task.stops == 1
        with pytest.raises(Refused, match="closing"):
            queue.look(waiting)
    assert "closing" in str(refusal(queue, SHE))


@in_loop
async def test_an_expected_wait_is_left_out_where_it_is_not_known() -> None:
    queue = JobQueue()
    with queue.join(ME, FakeTask()) as job:
        assert queue.note_click("you") == Waiting(1, None)
        assert Waiting(1, None).describe() == ("Waiting: 1 run is ahead of yours.", "")
        queue.look(job)
        age(job, 20)
        queue.learn(job)
        assert queue.note_click("you").seconds is None  # it takes longer than expected
        age(job, -20)
        said = queue.note_click("you").describe()[1]
        assert said == "Your turn comes in about 20 s, going by past runs."


def test_a_wait_is_expected_from_the_jobs_most_like_it() -> None:
    past = PastJobs()
    assert past.expect(KIND) is None
    for seconds in (10.0, 12.0, 500.0):
        past.note(("comparison", "base", "columbia"), seconds)
    assert past.expect(KIND) == 12.0
    past.note(KIND, 1.0)
    assert past.expect(KIND) == 1.0
    assert past.expect(("comparison", "tiny", "jfk")) is None
    assert past.expect(("layers", "base", "jfk")) is None


def test_what_is_remembered_is_bounded() -> None:
    queue, past, saved = JobQueue(), PastJobs(), SavedResults()
    for number in range(2 * jobs.MOST_CLICKS):
        queue.note_click(f"visitor {number}")
        past.note(("comparison", f"model {number}", "jfk"), 1.0)
        saved.save(f"visit {number}", "comparison", Saved({}, None))
    assert len(queue._clicks) == jobs.MOST_CLICKS
    assert len(past._seconds) == jobs.KINDS_REMEMBERED
    assert saved.find("visit 0", "comparison") is None
    assert len(saved._visits) == jobs.MOST_VISITS


def test_a_visit_finds_its_own_results_for_an_hour() -> None:
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
