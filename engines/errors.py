"""Turn any exception into a sentence: what PyTorch, MAX or the system raised, for the user."""

from __future__ import annotations

import errno
import re

LONGEST = 240
"""Characters of another library's message to repeat; a compiler's can be pages."""

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

ON_A_GPU = re.compile(r"cuda|hip|gpu|accelerator|device memory", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(
    r"out of memory|out_of_memory|not enough memory|(can't|cannot|failed to) allocate|bad_alloc",
    re.IGNORECASE,
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether the error says that memory, the GPU's or the machine's, ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True  # the latter is PyTorch's, which not every process has imported
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | ValueError) and bool(OUT_OF_MEMORY.search(str(error)))


def describe_error(error: BaseException) -> str:
    """Return a user-readable description of an exception, without a trailing period."""
    if ran_out_of_memory(error):
        if ON_A_GPU.search(str(error)):
            return (
                "the GPU has not enough memory: pick a smaller model or float16, or run the "
                "engines one at a time"
            )
        return "there was not enough memory: pick a smaller model, or fewer engines at once"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return "the disk is full: free some space on it"
    message = " ".join(str(error).split())
    if len(message) > LONGEST:
        message = f"{message[:LONGEST]} …"
    return f"{type(error).__name__}: {message}".rstrip(".: ")
