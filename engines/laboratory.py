"""The microscope and the fault lab in a process of their own: a native crash ends that and no page.

`look` and `run_fault` are those of `engines.microscope` and `engines.faults.lab` behind a pipe, as
`engines.isolation` has it for engines. One process serves both; it starts with the first request,
and ends after a while without one, or when somebody stops it and it goes on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from engines import logs, microscope, registry, worker
from engines.base import SILENT, Clip, Listener
from engines.checkpoints import DEFAULT_MODEL
from engines.examination import Examination
from engines.faults import catalogue, lab
from engines.faults.catalogue import FAULTS
from engines.faults.lab import Finding
from engines.isolation import IsolatedEngine
from engines.max_hybrid import why_no_max
from engines.microscope import candidates

__all__ = ["FAULTS", "Laboratory", "candidates", "close", "look", "run_fault", "why_no_max"]

IDLE_SECONDS = 300.0
"""A process that nobody asked anything for so long gives its memory back."""

ROW = registry.Row(
    "the laboratory", "The laboratory", "", "", make=registry.get, why_not=lambda: None
)
"""Names for the messages of `engines.isolation`."""


class Laboratory(IsolatedEngine):
    """A process that looks into encoders and runs faults; use one object for all requests."""

    def __init__(
        self,
        command: Sequence[str] = (sys.executable, "-m", "engines.laboratory"),
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        super().__init__(ROW.key, DEFAULT_MODEL, "float32", ROW, command)
        self._idle_seconds = idle_seconds
        self._end: threading.Timer | None = None

    def look(
        self,
        names: Sequence[str],
        model: str,
        clip: Clip,
        listener: Listener = SILENT,
        start: float = 0.0,
    ) -> Examination:
        """As `microscope.look`."""
        examination: Examination = self._request(
            ("look", tuple(names), model, clip, start), listener
        )
        return examination

    def run_fault(
        self,
        key: str,
        model: str,
        clip: Clip,
        language: str | None = "en",
        listener: Listener = SILENT,
    ) -> Finding:
        """As `faults.lab.run_fault`, of the fault with that key, without the encoder's features."""
        catalogue.get(key)
        finding: Finding = self._request(("fault", key, model, clip, language), listener)
        return finding

    def _request(self, request: tuple[Any, ...], listener: Listener) -> Any:
        """What the process gives for a request; raises any `EngineError`, `Stopped` among them."""

        def hear(kind: str, *rest: Any) -> None:
            if kind == "progress":
                listener.progress(*rest)

        try:
            return self._ask(request, hear, listener.stopped)
        finally:
            self._end_later()

    def _end_later(self) -> None:
        """End the process unless another request comes in time."""
        if self._end is not None:
            self._end.cancel()
        self._end = threading.Timer(self._idle_seconds, self.close_if_idle)
        self._end.daemon = True
        self._end.start()


_laboratory = Laboratory()
look, run_fault, close = _laboratory.look, _laboratory.run_fault, _laboratory.close


# The other side.


class Bench:
    """What answers requests in the process; one model's engines are kept, for the next request."""

    device = "cpu"

    def __init__(self) -> None:
        self._model = ""

    def answer(self, line: worker.Line, request: tuple[Any, ...]) -> Any:
        """An examination or a finding."""
        listener = worker.DistantListener(line)
        match request:
            case ("look", names, model, clip, start):
                self._take(model)
                return microscope.look(names, model, clip, listener, start)
            case ("fault", key, model, clip, language):
                self._take(model)
                fault = catalogue.get(key)
                return lab.run_fault(fault, model, clip, language, listener).without_features()
        raise ValueError(f"no such request: {request[0]}")

    def _take(self, model: str) -> None:
        """Forget another model's engines."""
        if self._model != model:
            registry.release(self._model)
        self._model = model


def main() -> None:
    """Serve requests over the pipe that the command line names."""
    descriptor, *_, level = sys.argv[1:6]
    logs.set_up(level)
    worker.serve(worker.Line(Connection(int(descriptor))), Bench, Bench.answer)


if __name__ == "__main__":
    main()
