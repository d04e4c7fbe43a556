"""Layer inspection and faults as tasks of the job queue, told of as frozen snapshots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from demo.jobs import Kind, Task
from engines.base import Listener, Progress

NO_ENCODER = "Choose at least one encoder."

State = Literal["running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class AnalysisSnapshot:
    """A task as it stood at one moment.

    `what` it is at; `share` of it that is done, 0 to 1; `seconds` since its `start`; `result` once
    it is done; `reason`: a sentence, once it failed.
    """

    state: State = "running"
    what: str = "getting ready"
    share: float = 0.0
    start: float = 0.0
    seconds: float = 0.0
    result: Any = None
    reason: str = ""

    def as_started(self, now: float) -> AnalysisSnapshot:
        """Start the clock."""
        return replace(self, start=now)

    def at(self, now: float) -> AnalysisSnapshot:
        """Set the clock, while it runs."""
        return self if self.finished else replace(self, seconds=now - self.start)

    def as_stopped(self) -> AnalysisSnapshot:
        """Stop it, unless it is over."""
        return self if self.finished else replace(self, state="stopped")

    @property
    def finished(self) -> bool:
        """True when it will not change any more."""
        return self.state != "running"

    @property
    def complete(self) -> bool:
        """True when it ran to its end."""
        return self.state == "done"

    def to_save(self) -> AnalysisSnapshot | None:
        """What a reload of the page shall find."""
        return self if self.complete else None


class AnalysisTask(Task):
    """Runs `work(listener)`."""

    def __init__(self, work: Callable[[Listener], Any], kind: Kind = ()) -> None:
        super().__init__(AnalysisSnapshot(), kind)
        self._work = work

    def work(self) -> None:
        """Do the work and keep its result."""

        def fail(reason: str | None) -> None:
            state: State = "stopped" if reason is None else "failed"
            self.update(lambda last, _: replace(last, state=state, reason=reason or ""))

        with self.failures(fail):
            result = self._work(self)
            self.update(
                lambda last, now: replace(last.at(now), state="done", share=1.0, result=result)
            )

    def progress(self, progress: Progress) -> None:
        """Take in where the work stands."""
        known = progress.stage == "comparing" and progress.total
        share = progress.done / progress.total if known else 0.0
        what = progress.note or progress.stage
        self.update(lambda last, _: replace(last, what=what, share=share))
