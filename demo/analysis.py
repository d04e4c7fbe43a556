"""Layer inspection and faults as tasks of the job queue, told of as frozen snapshots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, Literal

from engines import logs
from engines.base import Clip, EngineError, Listener, Progress, Stopped

SNAPSHOT_SECONDS = 0.2
"""Time between two snapshots: often enough to look live, seldom enough to cost nothing."""

NO_ENCODER = "Choose at least one encoder."

State = Literal["running", "done", "failed", "stopped"]

logger = logs.logger(__name__)


@dataclass(frozen=True)
class Analyses:
    """What the page asks of `engines.analysis`; tests put fakes here.

    `compare_layers(names, model, clip, listener, start)`, of the window at `start` seconds, and
    `run_fault(key, model, clip, language, listener)` raise `EngineError` with a sentence for the
    visitor. `candidates`: the encoders to inspect, the baseline first. `why_no_faults`: why this
    machine can't run faults, or None.
    """

    candidates: Callable[[], Sequence[Any]]
    compare_layers: Callable[[Sequence[str], str, Clip, Listener, float], Any]
    faults: Sequence[Any]
    run_fault: Callable[[str, str, Clip, str | None, Listener], Any]
    why_no_faults: Callable[[], str | None]


@dataclass(frozen=True)
class AnalysisSnapshot:
    """A task as it stood at one moment.

    `what` it is at; `share` of it that is done, 0 to 1; `seconds` since it began; `result` once it
    is done; `reason`: a sentence, once it failed.
    """

    state: State = "running"
    what: str = "getting ready"
    share: float = 0.0
    seconds: float = 0.0
    result: Any = None
    reason: str = ""

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


class AnalysisTask(Listener):
    """Runs `work(listener)` once; use each object once."""

    def __init__(self, work: Callable[[Listener], Any], kind: tuple[Any, ...] = ()) -> None:
        self.kind = kind
        self._work = work
        self._changed = threading.Condition()
        self._snapshot = AnalysisSnapshot()
        self._stop = False

    def stop(self) -> None:
        """End the snapshots at once; the work ends at its next check."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()

    def stopped(self) -> bool:
        """Whether the work is to end."""
        return self._stop

    def progress(self, progress: Progress) -> None:
        """Take in where the work stands."""
        known = progress.stage == "comparing" and progress.total
        share = progress.done / progress.total if known else 0.0
        what = progress.note or progress.stage
        self._show(replace(self._snapshot, what=what, share=share))

    def snapshots(self) -> Iterator[AnalysisSnapshot]:
        """Yield a snapshot about five times a second until the work is over."""
        start = time.perf_counter()
        spawn(self._run)
        try:
            while True:
                snapshot = replace(self._look(), seconds=time.perf_counter() - start)
                yield snapshot
                if snapshot.finished:
                    return
        finally:
            self.stop()

    def _look(self) -> AnalysisSnapshot:
        """The snapshot when the next one is due, or as soon as the work is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._stop or self._snapshot.finished, SNAPSHOT_SECONDS)
            if self._stop and not self._snapshot.finished:
                return replace(self._snapshot, state="stopped")
            return self._snapshot

    def _show(self, snapshot: AnalysisSnapshot) -> None:
        with self._changed:
            self._snapshot = snapshot
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            result = self._work(self)
            self._show(replace(self._snapshot, state="done", share=1.0, result=result))
        except Stopped:
            self._show(replace(self._snapshot, state="stopped"))
        except EngineError as error:
            self._show(replace(self._snapshot, state="failed", reason=str(error)))
        except Exception as error:
            logger.exception("an analysis failed")
            reason = f"{type(error).__name__}: {error}"
            self._show(replace(self._snapshot, state="failed", reason=reason))


def spawn(work: Callable[[], None]) -> None:
    """Start work in a thread that doesn't keep the program alive; its log lines name its run."""
    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
