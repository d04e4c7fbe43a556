"""Snapshots of tasks: what all have, and those of a task with a single result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

State = Literal["running", "done", "failed", "stopped"]

Result = TypeVar("Result")


class Snapshot(Protocol):
    """A task as it stood at one moment; frozen. Times are on the clock of `time.perf_counter`."""

    @property
    def finished(self) -> bool:
        """Whether the result is there."""

    @property
    def over(self) -> bool:
        """Whether no snapshot follows."""

    @property
    def complete(self) -> bool:
        """Whether the work neither failed nor was stopped."""

    def as_started(self, now: float) -> Self:
        """Return it with its clock started."""

    def at(self, now: float) -> Self:
        """Return it with its clock set, while it runs."""

    def as_stopped(self) -> Self:
        """Return it with what ran stopped."""

    def to_save(self) -> Self | None:
        """Return what a reload of the page finds, if anything."""


AnySnapshot = TypeVar("AnySnapshot", bound=Snapshot)


@dataclass(frozen=True)
class JobSnapshot(Generic[Result]):
    """A task with a single result, as it stood at one moment.

    `stage`: what it is at; `share` of it that is done, 0 to 1; `seconds` since its `start`;
    `expected`: how many there may be; `result` once it is done; `reason`: a sentence, once it
    failed.
    """

    state: State = "running"
    stage: str = "getting ready"
    share: float = 0.0
    start: float = 0.0
    seconds: float = 0.0
    expected: float | None = None
    result: Result | None = None
    reason: str = ""

    @property
    def left(self) -> float | None:
        """Seconds that it may still take, 0 past the last time's; None where nothing tells."""
        return None if self.expected is None else max(self.expected - self.seconds, 0.0)

    def as_started(self, now: float) -> Self:
        return replace(self, start=now)

    def at(self, now: float) -> Self:
        return self if self.finished else replace(self, seconds=now - self.start)

    def as_stopped(self) -> Self:
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

    def to_save(self) -> Self | None:
        return self if self.complete else None
