"""Memory of this process, as the system counts it, and the GPU's."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch


def give_back() -> None:
    """Hand freed memory back to the system, where the C library has a call for it (glibc).

    Loading a checkpoint leaves about as much freed memory as the weights take, and glibc keeps it.
    PyTorch keeps a GPU's in the same way, which the other engines' processes may need.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
