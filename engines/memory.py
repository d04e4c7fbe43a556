"""Memory of this process as the system counts it, and the GPU's; imports no PyTorch by itself."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def give_back() -> None:
    """Hand freed memory back to the system, where the C library has a call for it (glibc).

    Loading a checkpoint leaves about as much freed memory as the weights take, and glibc keeps it.
    PyTorch keeps a GPU's in the same way, which the other engines' processes may need.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_resident_bytes() -> int:
    """Peak resident size of this process.

    From Linux's `VmHWM`: `ru_maxrss` survives `exec`, so that a process started by a larger one
    would report that one's size.
    """
    with suppress(OSError, ValueError, IndexError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_resident() -> None:
    """Let `peak_resident_bytes` count from the current size on, where Linux allows it."""
    with suppress(OSError):
        CLEAR_REFS.write_text("5")
