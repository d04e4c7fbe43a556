"""What this machine has for engines; imports neither PyTorch nor MAX unless it must."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

GPU_DRIVERS = ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so")
"""Libraries of which one is there wherever PyTorch could use a GPU: NVIDIA's driver, or AMD's."""


def why_no_cuda() -> str | None:
    """Return why PyTorch has no CUDA device here, or None when it has one."""
    if has_gpu():
        return None
    from engines import zero_gpu

    return zero_gpu.why_not() or "no CUDA device was found on this machine"


def has_gpu() -> bool:
    """Return whether PyTorch can use a CUDA device.

    Importing PyTorch takes seconds and hundreds of megabytes, which a page without a GPU is spared.
    """
    from engines import zero_gpu

    if "torch" not in sys.modules and not _has_gpu_driver() and not zero_gpu.is_here():
        return False
    import torch

    return torch.cuda.is_available()


@cache
def _has_gpu_driver() -> bool:
    def loads(name: str) -> bool:
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True

    return any(loads(name) for name in GPU_DRIVERS) or Path("/opt/rocm").exists()


def why_no_max() -> str | None:
    """Return why MAX can't run here, or None when it can."""
    if find_spec("max") is None or find_spec("max.engine") is None:
        return "the package max is not installed; it is made for Linux and macOS"
    return None


def has_accelerator() -> bool:
    """Return whether half-precision engines have a device here: a CUDA GPU, or one that MAX has."""
    if has_gpu():
        return True
    apple = sys.platform == "darwin" and os.uname().machine == "arm64"
    if not apple or why_no_max() is not None:
        return False
    from max.driver import accelerator_count

    return accelerator_count() > 0
