"""The snapshot of a job with a single result: an analysis, or many clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

State = Literal["running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class JobSnapshot:
    """A task with a single result, as it stood at one moment.

    `what` it is at; `share` of it that is done, 0 to 1; `seconds` since its `start`; `expected`:
    how many there may be; `result` once it is done; `reason`: a sentence, once it failed.
    """

    state: State = "running"
    what: str = "getting ready"
    share: float = 0.0
    start: float = 0.0
    seconds: float = 0.0
    expected: float | None = None
    result: Any = None
    reason: str = ""

    @property
    def left(self) -> float | None:
        """Seconds that it may still take, 0 past the last time's; None where nothing tells."""
        return None if self.expected is None else max(self.expected - self.seconds, 0.0)

    def as_started(self, now: float) -> JobSnapshot:
        return replace(self, start=now)

    def at(self, now: float) -> JobSnapshot:
        return self if self.finished else replace(self, seconds=now - self.start)

    def as_stopped(self) -> JobSnapshot:
        return self if self.finished else replace(self, state="stopped")

    @property
    def finished(self) -> bool:
        return self.state != "running"

    @property
    def over(self) -> bool:
        return self.finished

    @property
    def complete(self) -> bool:
        return self.state == "done"

    def to_save(self) -> JobSnapshot | None:
        return self if self.complete else None
