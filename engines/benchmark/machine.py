"""The machine: its parts, its packages, the threads that every engine gets, and its limits."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from engines.base import EngineError, Listener
from engines.hardware import read_processor, request_amx
from engines.process import Worker

PACKAGES = ("torch", "max", "openai-whisper", "numpy")


@dataclass(frozen=True)
class Machine:
    """`threads`: those of every engine. `memory_bytes`: installed memory.

    `load_average`: processes that wanted to run during the minute before; well above 0 means that
    others shared the machine.
    """

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    gpu: str | None
    system: str
    python: str
    versions: Mapping[str, str | None]
    load_average: float

    def describe(self) -> str:
        """Return two lines for people."""
        versions = (f"{name} {number}" for name, number in self.versions.items() if number)
        return (
            f"{self.cpu} · {self.cores} cores, {self.threads} used by every engine"
            f"{f' · {self.gpu}' if self.gpu else ''} · load average {self.load_average:.1f}\n"
            f"{' · '.join(versions)} · Python {self.python}"
        )


def describe() -> Machine:
    """Look at this machine, without importing PyTorch."""
    name, _ = read_processor()
    name = name or platform.processor() or platform.machine()
    gpu = ""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpu = subprocess.check_output(command, text=True, timeout=20, stderr=subprocess.DEVNULL)
    return Machine(
        cpu=f"{name} with AMX" if request_amx() else name,
        cores=os.cpu_count() or 1,
        threads=int(os.environ.get("OMP_NUM_THREADS") or len(list_cores())),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=gpu.strip().partition("\n")[0] or None,
        system=platform.platform(),
        python=platform.python_version(),
        versions={name: version_of(name) for name in PACKAGES},
        load_average=os.getloadavg()[0],
    )


def version_of(package: str) -> str | None:
    """Return the installed version; None where the package is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def limit_threads(threads: int | None = None, place: int = 0) -> int:
    """Limit the threads of this process and those that it will start; return how many they have.

    PyTorch uses as many as OpenMP is told, MAX (26.7) as many as it may run on processors, so the
    processors are limited as well: to one of each core by default. `place`: the number of this
    process among those that run at the same time, each on processors of its own. Raises
    `EngineError` where the system doesn't allow it.
    """
    if not sys.platform.startswith("linux"):
        if threads is not None:
            raise EngineError("--threads needs Linux: elsewhere MAX takes every processor.")
        return os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0))
    cores = list_cores()
    ordered = [*cores, *(each for each in allowed if each not in cores)]
    wanted = threads or len(cores)
    if wanted > len(ordered):
        raise EngineError(f"--threads {wanted}: only {len(ordered)} processors may be used here.")
    chosen = {ordered[(place * wanted + number) % len(ordered)] for number in range(wanted)}
    for task in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(task), chosen)
    os.environ["OMP_NUM_THREADS"] = str(wanted)
    return wanted


def list_cores() -> list[int]:
    """Return the processors that this process may use, without a core's second and later ones."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    first: dict[str, int] = {}
    for processor in sorted(os.sched_getaffinity(0)):
        siblings = f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
        core = str(processor)
        with suppress(OSError):
            core = Path(siblings).read_text()
        first.setdefault(core, processor)
    return list(first.values())


READ_BYTES = 512 * 2**20
"""More than the last-level cache of most processors holds."""

VALUES, DEPTH, ROUNDS = 4096, 4, 20_000
"""Numbers that stay in the first-level cache, multiply-adds on each in a row, and how often."""

LIMIT_RUNS = 7


def measure_limits() -> dict[str, dict[str, Any]]:
    """Measure bytes read and float32 operations a second, with the threads of every engine.

    In a process of its own: its memory and its compiler leave nothing behind in this one.
    """
    worker = Worker("the measurement of the machine", "engines.benchmark.machine:LimitsHandler")
    try:
        limits: dict[str, dict[str, Any]] = worker.ask("measure")
        return limits
    finally:
        worker.close()


class LimitsHandler:
    """The worker's handler."""

    def measure(self, listener: Listener) -> dict[str, dict[str, Any]]:
        return _measure_limits()


def _measure_limits() -> dict[str, dict[str, Any]]:
    from llvmlite import binding

    if platform.machine() in ("x86_64", "AMD64"):
        # LLVM uses half of a 512-bit register unless told; read when numba is first imported.
        features = f"{binding.get_host_cpu_features().flatten()},-prefer-256-bit"
        os.environ["NUMBA_CPU_FEATURES"] = features
    import numpy as np
    from numba import get_num_threads, njit, prange

    @njit(parallel=True, fastmath=True)
    def read(x):  # type: ignore[no-untyped-def]
        total = np.float32(0)
        for i in prange(len(x)):
            total += x[i]
        return total

    @njit(parallel=True, fastmath={"contract"})
    def multiply_add(parts, a, b):  # type: ignore[no-untyped-def]
        sums = np.zeros(parts, np.float32)
        for part in prange(parts):
            x = np.full(VALUES, np.float32(0.5), np.float32)
            for _ in range(ROUNDS):
                for i in range(VALUES):
                    value = x[i]
                    for _ in range(DEPTH):
                        value = value * a + b
                    x[i] = value
            sums[part] = x.sum()
        return sums

    numbers, parts = np.ones(READ_BYTES // 4, np.float32), get_num_threads()
    a, b = np.float32(0.999), np.float32(0.001)
    operations = 2 * parts * ROUNDS * VALUES * DEPTH
    return {
        "read_bytes_per_second": measure_rate(lambda: read(numbers), READ_BYTES),
        "multiply_add_flops": measure_rate(lambda: multiply_add(parts, a, b), operations),
    }


def measure_rate(run: Callable[[], object], amount: int) -> dict[str, Any]:
    """Summarise an amount over the seconds of each run; a first run, which compiles, is dropped."""
    rates = []
    for _ in range(1 + LIMIT_RUNS):
        start = perf_counter()
        run()
        rates.append(amount / (perf_counter() - start))
    return summarise(rates[1:])


def summarise(samples: Sequence[float]) -> dict[str, Any]:
    """Return the samples, at least one, with their median, least and most."""
    return {
        "samples": list(samples),
        "median": median(samples),
        "min": min(samples),
        "max": max(samples),
    }
