"""Strangers' clips read in a process of their own: a file that breaks FFmpeg breaks no page.

`load_clip` is that of `engines.audio`, behind a pipe as `engines.isolation` has it for engines:
whoever stops frees the processor, a file that takes too long or too much memory is refused, and
whatever ends the process costs its clip one sentence. The next clip gets a new process.

    python -m engines.reading audio_samples/talk.flac    prints what the process costs
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engines import audio, logs, registry
from engines.base import AudioError, Clip, EngineError, Stopped
from engines.isolation import IsolatedEngine, StopAsked

READ_SECONDS = 120.0
"""How long reading a clip may take, on the slowest machine: three hours of silence packed small
took 8 s."""

logger = logs.logger(__name__)

ROW = registry.Row(
    "the reader", "The reader of clips", "", "", make=registry.get, why_not=lambda: None
)
"""Names for the messages of `engines.isolation`."""


class Reader(IsolatedEngine):
    """A process that reads clips, one at a time; use one object for all."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "engines.reader")) -> None:
        super().__init__(ROW.key, "", "float32", ROW, command)

    def load_clip(self, path: str | os.PathLike[str], stopped: StopAsked | None = None) -> Clip:
        """As `audio.load_clip`; raises `AudioError` for whatever the file does to its reader, and
        `Stopped`."""
        until = time.monotonic() + READ_SECONDS

        def has_ended() -> bool:
            return time.monotonic() > until or (stopped is not None and stopped())

        name = audio.printable(Path(path).name)
        where = os.fspath(path) if "://" in os.fspath(path) else os.path.abspath(path)
        try:
            self.start()
        except Stopped:
            raise
        except EngineError as error:
            raise AudioError(str(error)) from error
        try:
            clip: Clip = self._ask(("read", where), lambda *message: None, has_ended)
            return clip
        except AudioError:
            raise
        except Stopped:
            if time.monotonic() <= until or (stopped is not None and stopped()):
                raise
            raise AudioError(
                f"{name} takes longer than {READ_SECONDS:.0f} s to read: {audio.SUGGESTION}."
            ) from None
        except EngineError as error:
            logger.warning("a clip broke its reader", clip=name, error=str(error))
            raise AudioError(
                f"{name} broke the program that reads clips: {audio.SUGGESTION}."
            ) from error


_reader = Reader()
load_clip, start, close = _reader.load_clip, _reader.start, _reader.close


def main() -> None:
    """Print what reading a clip takes here and apart, in turn."""
    path = sys.argv[1]
    begun = time.perf_counter()
    load_clip(path)
    first = time.perf_counter() - begun
    here: list[float] = []
    apart: list[float] = []
    for _ in range(9):
        here.append(measure(lambda: audio.load_clip(path)))
        apart.append(measure(lambda: load_clip(path)))
    print(f"{Path(path).name}, {len(here)} times in turn after a first")
    print(f"read in {statistics.median(here):.3f} s here, {statistics.median(apart):.3f} s apart")
    print(f"the first one, with the start of the process, {first:.2f} s")
    if sys.platform == "linux":
        print(f"its own memory: {_reader.private_bytes() / 1e6:.0f} MB")
    close()


def measure(work: Callable[[], object]) -> float:
    """The seconds that something takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
