"""`python -m engines.reader`: reads clips in a process of its own, told which over a pipe.

Started by `engines.reading`. It imports neither PyTorch nor MAX, so that it is there at once, and
may take so much memory and no more.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engines import logs, worker
from engines.audio import load_clip, printable
from engines.base import AudioError, Clip

MOST_BYTES = 1536 * 2**20
"""Address space: half an hour of sound is 58 MB as it is decoded and 115 MB as it is given, with
two copies of each on the way; the libraries map some hundred MB."""


class Desk:
    """What answers requests in the process."""

    device = "cpu"

    def answer(self, line: worker.Line, request: tuple[Any, ...]) -> Any:
        """A clip."""
        match request:
            case ("read", path):
                return read(path, line.stop.is_set)
        raise ValueError(f"no such request: {request[0]}")


def read(path: str, stopped: Callable[[], bool]) -> Clip:
    """As `load_clip`; a clip for which memory is too small is refused too."""
    try:
        return load_clip(path, stopped)
    except MemoryError as error:
        raise AudioError(
            f"{printable(Path(path).name)} takes more memory than reading a clip may: shorten it, "
            "or save it as WAV or FLAC and try again."
        ) from error


def main() -> None:
    """Serve requests over the pipe that the command line names."""
    descriptor, *_, level = sys.argv[1:]
    with suppress(OSError, ValueError):  # a system without such limits, or with a lower one
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    logs.set_up(level)
    worker.serve(worker.Line(Connection(int(descriptor))), Desk, Desk.answer)


if __name__ == "__main__":
    main()
