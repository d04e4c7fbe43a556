"""What the server keeps for a visit: its panels' results and the jobs that go on over a reload.

A visit is a tab of a browser. Its name is known to that tab only, and outlives a reload.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from operator import attrgetter
from typing import Any, Generic

from demo.job_snapshot import AnySnapshot
from demo.streams import Streams

MOST_RUNS = 12
"""Comparisons that a visit keeps."""

GRACE_SECONDS = 8.0
"""Time in which a page that is loaded anew comes back to its jobs, on a slow line as well."""

MOST_VISITS = 128
MOST_BYTES = 128 * 2**20
"""What all visits keep together; a run with its drawn charts takes some hundred kilobytes."""


@dataclass(frozen=True, eq=False)
class Saved(Generic[AnySnapshot]):
    """One result of a panel: what its controls held, a snapshot to draw it from, and what was
    drawn, by name.

    `drawn` is empty while the job runs, and of old runs when room is short. `finished`: whether
    the job ended. `made`: when this was saved, in UTC. `pinned`: whether the visitor wants it kept.
    """

    controls: dict[str, Any]
    snapshot: AnySnapshot
    drawn: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    made: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    pinned: bool = False

    @property
    def run(self) -> str:
        """The id of a comparison's run; analyses have none, and each replaces the last."""
        return getattr(self.snapshot, "run", "")

    @cached_property
    def bytes(self) -> int:
        """Roughly the memory that this takes."""
        return measure([self.snapshot, self.drawn, self.controls])


def measure(value: Any) -> int:
    """Return roughly the bytes of a value made of records, containers, texts, numbers, arrays."""
    size = sys.getsizeof(value)
    if is_dataclass(value):
        return size + sum(measure(getattr(value, each.name)) for each in fields(value))
    if isinstance(value, Mapping):
        return size + sum(map(measure, value.values()))
    if isinstance(value, list | tuple):
        return size + sum(map(measure, value))
    return size


class SavedResults:
    """The results of each panel of a visit; nothing is kept without the visit's name.

    Of a panel's results the last is the one that the page shows.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._visits: OrderedDict[str, dict[str, list[Saved[Any]]]] = OrderedDict()
        self._used: dict[str, float] = {}
        self._jobs: list[LiveJob] = []

    def save(self, visit: str, panel: str, saved: Saved[Any]) -> None:
        """Add a result to the visit's panel, in place of what there was of the same run."""
        if not visit:
            return
        with self._lock:
            self._visits.setdefault(visit, {})
            results = self._use(visit).setdefault(panel, [])
            before = next((each for each in results if each.run == saved.run), None)
            if before is not None and before.finished:  # the sound's picture comes later, say
                saved = replace(saved, made=before.made, pinned=before.pinned)
            results[:] = [each for each in results if each.run != saved.run and each.finished]
            while len(results) >= MOST_RUNS:
                results.remove(min(results, key=attrgetter("pinned", "made")))
            results.append(saved)
            if saved.finished:
                self._make_room()

    def keep_job(self, job: LiveJob) -> None:
        """Keep a job for as long as it goes on."""
        self._jobs.append(job)
        job.task.add_done_callback(lambda _: self._jobs.remove(job))

    def find_job(self, visit: str, panel: str) -> LiveJob | None:
        """Return the job of the visit's panel that goes on, the last one started."""
        jobs = [
            job for job in list(self._jobs) if visit and (job.visit, job.panel) == (visit, panel)
        ]
        return jobs[-1] if jobs else None

    def list_followers(self, session: str | None) -> list[tuple[LiveJob, Follower]]:
        """List the jobs that a page follows."""
        return [
            (job, follower)
            for job in self._jobs
            for follower in job.followers
            if follower.session == session
        ]

    def find(self, visit: str, panel: str) -> Saved[Any] | None:
        """Return what the visit's panel showed last, if it is still there."""
        with self._lock:
            results = self._use(visit).get(panel)
            return results[-1] if results else None

    def list_runs(self, visit: str, panel: str) -> list[Saved[Any]]:
        """List the results of a visit's panel whose jobs ended, the newest first."""
        with self._lock:
            results = [each for each in self._use(visit).get(panel, ()) if each.finished]
        return sorted(results, key=attrgetter("made"), reverse=True)

    def show(self, visit: str, panel: str, run: str) -> Saved[Any] | None:
        """Make a run the one that the page shows; return it, or None where it is gone."""
        with self._lock:
            results = self._use(visit).get(panel, [])
            chosen = next((each for each in results if each.run == run and each.finished), None)
            if chosen is not None:
                results.remove(chosen)
                results.append(chosen)
            return chosen

    def pin(self, visit: str, panel: str, run: str) -> None:
        """Pin a run, or unpin it."""
        with self._lock:
            results = self._use(visit).get(panel, [])
            results[:] = [
                replace(each, pinned=not each.pinned) if each.run == run else each
                for each in results
            ]

    def forget(self, seconds: float) -> None:
        """Drop the visits that did nothing for so long."""
        with self._lock:
            last = time.monotonic() - seconds
            while self._visits and self._used[next(iter(self._visits))] <= last:
                self._drop_visit()

    def _use(self, visit: str) -> dict[str, list[Saved[Any]]]:
        """Return a visit's results by panel, and note that the visit goes on."""
        if visit not in self._visits:
            return {}
        self._used[visit] = time.monotonic()
        self._visits.move_to_end(visit)
        return self._visits[visit]

    def _drop_visit(self) -> None:
        """Drop the visit that did nothing for longest."""
        visit, _ = self._visits.popitem(last=False)
        del self._used[visit]

    def _make_room(self) -> None:
        """Drop what was drawn of runs that no page shows, pinned ones last; then whole visits."""
        everything = [each for visit in self._visits.values() for each in visit.values()]
        total = sum(saved.bytes for results in everything for saved in results)
        hidden = [
            (results, saved) for results in everything for saved in results[:-1] if saved.drawn
        ]
        hidden.sort(key=lambda pair: (pair[1].pinned, pair[1].made))
        for results, saved in hidden:
            if total <= MOST_BYTES:
                break
            light = replace(saved, drawn={})
            results[results.index(saved)] = light
            total -= saved.bytes - light.bytes
        while len(self._visits) > MOST_VISITS or (total > MOST_BYTES and len(self._visits) > 1):
            oldest = next(iter(self._visits.values()))
            total -= sum(saved.bytes for results in oldest.values() for saved in results)
            self._drop_visit()


# Jobs that go on while their page is loaded anew.


class LiveJob:
    """A job that goes on, and what its panel shows of it, by component.

    The pages that follow it come and go: it is stopped when the last one has been away for
    `GRACE_SECONDS`. Made and used in the server's event loop. `client`: the job's in the queue.
    `controls`: the values of the panel's inputs.
    """

    def __init__(
        self,
        visit: str,
        panel: str,
        client: str,
        controls: dict[str, Any],
        steps: AsyncGenerator[dict[Any, Any], None],
    ) -> None:
        self.visit, self.panel, self.client, self.controls = visit, panel, client, controls
        self._shown: dict[Any, Any] = {}
        self.followers: set[Follower] = set()
        self.task = asyncio.create_task(self._go_on(steps))

    async def _go_on(self, steps: AsyncGenerator[dict[Any, Any], None]) -> None:
        async with aclosing(steps):
            async for step in steps:
                self._shown |= step
                for follower in self.followers:
                    follower.tell(step)

    def join(self, follower: Follower) -> None:
        """Tell a page what is shown now, and from now on what changes."""
        self.followers.add(follower)
        follower.tell(self._shown)
        self.task.add_done_callback(lambda _: follower.tell({}))

    def part(self, follower: Follower) -> None:
        """Tell a page no more, and stop before long if there is none."""
        self.followers.discard(follower)
        if not self.followers and not self.task.done():  # one that is over is not kept by a timer
            self.task.get_loop().call_later(GRACE_SECONDS, self._stop_if_left)

    def _stop_if_left(self) -> None:
        if not self.followers:
            self.task.cancel()


class Follower:
    """A page that follows jobs; `session`: Gradio's name for it, another one after a reload."""

    def __init__(self, session: str | None) -> None:
        self.session = session
        self.gone = False
        self.news: dict[Any, Any] = {}
        self.changed = asyncio.Event()

    def tell(self, step: dict[Any, Any]) -> None:
        """Take in what changed; a page that is slow gets several steps at once."""
        self.news |= step
        self.changed.set()

    def leave(self) -> None:
        """Let the page's `follow` end."""
        self.gone = True
        self.changed.set()


async def follow(
    jobs: Sequence[LiveJob], session: str | None, streams: Streams
) -> AsyncGenerator[dict[Any, Any], None]:
    """Yield what jobs show and then what changes, until they end or the page leaves."""
    follower = Follower(session)
    leaving = asyncio.create_task(streams.wait_until_left(session))
    leaving.add_done_callback(lambda _: follower.leave())
    for job in jobs:
        job.join(follower)
    try:
        while not follower.gone:
            step, follower.news = follower.news, {}
            if step:
                yield step
            elif all(job.task.done() for job in jobs):
                break
            else:
                await follower.changed.wait()
                follower.changed.clear()
    finally:
        leaving.cancel()
        for job in jobs:
            job.part(follower)
    for job in jobs:
        if job.task.done() and not job.task.cancelled():
            job.task.result()  # raises what nobody foresaw
