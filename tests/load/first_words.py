"""How long an engine with a lent GPU takes to its first words: `python -m tests.load.first_words`.

As on a warm ZeroGPU Space, a call forks, starts the engine's process and loads the model; here a
stand-in lends nothing, so that the engine runs on the processor. It prints the seconds to each
stage, by the clock and of the processor; the latter don't depend on what else the machine does.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from time import perf_counter
from typing import Annotated

import psutil
import typer

from engines import worker, zero_gpu
from engines.audio import find_clip, load_clip
from engines.base import Listener, Options, Progress
from tests.stand_in import spaces


class Stages(Listener):
    """Prints when each stage was first heard of, and the first words."""

    def __init__(self) -> None:
        self.start, self.heard = perf_counter(), set[str]()

    def progress(self, progress: Progress) -> None:
        self.note(progress.stage)

    def partial(self, text: str) -> None:
        if text.strip():
            self.note("first words")

    def note(self, stage: str) -> None:
        if stage not in self.heard:
            self.heard.add(stage)
            used = 0.0  # of the call's processes
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    used += sum(process.cpu_times()[:2])
            print(f"{stage:12} {perf_counter() - self.start:6.1f} s, processor {used:5.1f} s")


def main(
    engine: str = "max_full",
    model: str = "base",
    clip: str = "jfk",
    repeats: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Transcribe a sample several times, each in a call of its own."""
    os.environ |= {"SPACES_ZERO_GPU": "true", zero_gpu.ARCHITECTURE: "none"}
    sys.modules["spaces"] = spaces
    zero_gpu.register()
    lent, sound = worker.ZeroGpuEngine(engine, model), load_clip(find_clip(clip))
    lent.prepare()
    for _ in range(repeats):
        print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
        lent.transcribe(sound, Options(live=True), Stages())


if __name__ == "__main__":
    typer.run(main)
