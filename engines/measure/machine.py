"""Where a benchmark ran: the machine, the versions, and how many threads everyone may use."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from engines.base import EngineError

PACKAGES = ("torch", "max", "openai-whisper", "numpy", "ctranslate2", "faster-whisper")


@dataclass(frozen=True)
class Machine:
    """`threads`: the processors this process may use, PyTorch's threads as well.

    `memory_bytes`: installed memory. `load_average`: processes that wanted to run during the
    minute before the start; well above 0 means that others shared the machine.
    """

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    gpu: str | None
    system: str
    python: str
    versions: Mapping[str, str | None]
    load_average: float | None

    def in_words(self) -> str:
        """Two lines for people."""
        found = " · ".join(f"{name} {number}" for name, number in self.versions.items() if number)
        busy = "" if self.load_average is None else f" · load average {self.load_average:.1f}"
        return (
            f"{self.cpu} · {self.cores} cores, {self.threads} used by every side"
            f"{f' · {self.gpu}' if self.gpu else ''}{busy}\n{found} · Python {self.python}"
        )


def describe() -> Machine:
    """This machine, now."""
    return Machine(
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        system=platform.platform(),
        python=platform.python_version(),
        versions={name: version_of(name) for name in PACKAGES},
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def version_of(package: str) -> str | None:
    """The installed version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def share_threads(threads: int | None = None) -> int:
    """Give every side the same number of threads, PyTorch's choice unless told; returns it.

    MAX takes as many as there are processors that it may run on, and has no other switch
    (26.7), so fewer means fewer processors for this whole process. Raises `EngineError` where
    that can't be done.
    """
    check_threads(threads)
    if not can_share_threads():
        return torch.get_num_threads()
    allowed = one_of_each_core_first(os.sched_getaffinity(0))
    wanted = threads or min(torch.get_num_threads(), len(allowed))
    if wanted > len(allowed):
        raise EngineError(f"--threads {wanted}: only {len(allowed)} processors may be used here.")
    if wanted < len(allowed):
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(thread), allowed[:wanted])
    torch.set_num_threads(wanted)
    return wanted


def can_share_threads() -> bool:
    """Whether a process can be kept to some of the processors here: on Linux."""
    return sys.platform.startswith("linux")


def check_threads(threads: int | None) -> None:
    """Raise `EngineError` for a number of threads where there is no choice."""
    if threads is not None and not can_share_threads():
        raise EngineError("--threads needs Linux: elsewhere MAX takes every processor.")


def take_processors(place: int, threads: int) -> None:
    """Keep this process to processors of its own: the `place`-th so many of those it may use.

    Where there are too few, places share. Call it before anything starts threads; on Linux only,
    elsewhere nothing happens.
    """
    if not can_share_threads():
        return
    allowed = one_of_each_core_first(os.sched_getaffinity(0))
    if threads <= len(allowed):
        first = place * threads
        mine = {allowed[(first + number) % len(allowed)] for number in range(threads)}
        os.sched_setaffinity(0, mine)


def one_of_each_core_first(processors: Iterable[int]) -> list[int]:
    """Processors in order, but those that share a core with an earlier one at the end."""
    cores: set[str] = set()
    first: list[int] = []
    second: list[int] = []
    for processor in sorted(processors):
        siblings = f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
        try:
            core = Path(siblings).read_text()
        except OSError:
            core = str(processor)
        (second if core in cores else first).append(processor)
        cores.add(core)
    return first + second
