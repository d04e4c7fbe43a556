"""`python -m engines.gpu_check`: what PyTorch and MAX see of an accelerator, and whether it works.

Each of the two computes a small sum on it and is held to the processor's result. Exit
status 0 when both can use one, 1 when one of the two can't, with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch

from engines.base import EngineError, EngineUnavailable, FloatArray
from engines.max_hybrid import why_no_max
from engines.measure.turns import in_words
from engines.whisper_torch import why_no_cuda

LENGTH = 2**20
"""Numbers in each of the two vectors."""

TOLERANCE = 1e-6
"""Largest relative error of `a * b + a` in float32: rounding once or twice is off by 2⁻²⁴ = 6e-8
each time; what did not run, or ran on something else, is off by about 1."""

Add = Callable[[FloatArray, FloatArray], FloatArray]


def main() -> int:
    """Print what there is; returns the exit status."""
    worked = [report("PyTorch", check_torch), report("MAX", check_max)]
    return int(not all(worked))


def report(name: str, check: Callable[[], list[str]]) -> bool:
    """Print one side's findings; whether it can use an accelerator."""
    try:
        print(f"{name:<9}{', '.join(check())}")
        return True
    except Exception as error:  # a driver may raise anything, and the other side is asked too
        print(f"{name:<9}no: {in_words(error)}")
        return False


def check_torch() -> list[str]:
    """The device, its memory and CUDA's version, and a sum on it."""
    if reason := why_no_cuda():
        raise EngineUnavailable(f"{reason} (PyTorch {torch.__version__})")
    device = torch.cuda.get_device_properties(0)
    capability = f"sm_{device.major}{device.minor}"

    def add(a: FloatArray, b: FloatArray) -> FloatArray:
        first = torch.from_numpy(a).cuda()
        total: FloatArray = (first * torch.from_numpy(b).cuda() + first).cpu().numpy()
        return total

    memory = f"{device.total_memory / 2**30:.0f} GiB"
    return [device.name, capability, memory, f"CUDA {torch.version.cuda}", hold(add)]


def check_max() -> list[str]:
    """The accelerator, and a graph compiled and run on it."""
    if reason := why_no_max():
        raise EngineUnavailable(reason)
    from max.driver import accelerator_api, accelerator_architecture_name, accelerator_count

    if not accelerator_count():
        raise EngineUnavailable("MAX finds no accelerator on this machine")
    from engines.max_graph.small import Sum

    add = Sum(LENGTH, "accelerator")
    found = [accelerator_api(), accelerator_architecture_name()]
    return [*found, f"compiled in {add.seconds:.1f} s", hold(add)]


def hold(add: Add) -> str:
    """Run it twice, the first time to warm up; raises `EngineError` when it is wrong."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(LENGTH).astype(np.float32) for _ in range(2))
    add(a, b)
    start = perf_counter()
    found = add(a, b)
    seconds = perf_counter() - start
    expected = a * b + a
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    if not error < TOLERANCE:
        raise EngineError(f"a sum of {LENGTH} numbers is off by {error:.1e}")
    return f"a sum of {LENGTH} numbers, there and back, in {seconds * 1e3:.1f} ms: right"


if __name__ == "__main__":
    sys.exit(main())
