"""A laboratory that goes wrong as its model's name says; see `tests/engines/test_laboratory.py`."""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from engines import worker
from engines.base import EngineError
from engines.worker import DistantListener
from tests.fake_lab import make_examination


class FaultyBench:
    """Examines nothing, unless its model's name is that of a fault."""

    device = "cpu"

    def answer(self, line: worker.Line, request: tuple[Any, ...]) -> Any:
        """Say how far it is, then go wrong, or don't."""
        listener = DistantListener(line)
        listener.report("comparing", 0.25, 1.0, "looking at stage 1")
        match request[2]:
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "deaf":
                time.sleep(600)
            case "refuses":
                raise EngineError("The clip has 6.0 s.")
            case "raises":
                raise RuntimeError("a graph did not fit")
            case "patient":
                while True:
                    listener.report("comparing", 0.5, 1.0, "looking at stage 2")
                    time.sleep(0.01)
        return make_examination()


if __name__ == "__main__":
    worker.serve(worker.Line(Connection(int(sys.argv[1]))), FaultyBench, FaultyBench.answer)
