"""One long piece of work in a thread of its own, told of as immutable views."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from demo.compare import SNAPSHOT_SECONDS, spawn
from engines.base import EngineError, Listener, Progress, Stopped

Result = TypeVar("Result")
State = Literal["running", "done", "failed", "stopped"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class View(Generic[Result]):
    """An errand as it stood at one moment.

    `what`: what it is at; `share`: how much of it is done, 0 to 1; `seconds` since it began;
    `result` once it is done; `reason`: a sentence, once it failed.
    """

    state: State = "running"
    what: str = "getting ready"
    share: float = 0.0
    seconds: float = 0.0
    result: Result | None = None
    reason: str = ""


class Errand(Listener, Generic[Result]):
    """Runs `work(listener)` once; use each object once."""

    def __init__(self, work: Callable[[Listener], Result]) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._view: View[Result] = View()
        self._stop = False

    def stop(self) -> None:
        """End the views at once; the work ends before its next stage or token."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()

    def stopped(self) -> bool:
        """What the work asks."""
        return self._stop

    def progress(self, progress: Progress) -> None:
        """What the work says."""
        share = progress.done / progress.total if progress.stage == "comparing" else 0.0
        self._show(replace(self._view, what=progress.note or progress.stage, share=share))

    def views(self) -> Iterator[View[Result]]:
        """Yield a view about five times a second until the work rests."""
        start = time.perf_counter()
        spawn(self._run)
        try:
            while True:
                view = replace(self._look(), seconds=time.perf_counter() - start)
                yield view
                if view.state != "running":
                    return
        finally:
            self.stop()

    def _look(self) -> View[Result]:
        """The view when the next one is due, or as soon as the errand is over."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stop or self._view.state != "running", SNAPSHOT_SECONDS
            )
            if self._view.state == "running" and self._stop:
                return replace(self._view, state="stopped")
            return self._view

    def _show(self, view: View[Result]) -> None:
        with self._changed:
            self._view = view
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            result = self._work(self)
            self._show(replace(self._view, state="done", share=1.0, result=result))
        except Stopped:
            self._show(replace(self._view, state="stopped"))
        except EngineError as error:
            self._show(replace(self._view, state="failed", reason=str(error)))
        except Exception as error:
            logger.exception("an errand failed")
            self._show(
                replace(self._view, state="failed", reason=f"{type(error).__name__}: {error}")
            )
