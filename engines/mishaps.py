"""What went wrong, in words: one line for a lane, whatever PyTorch, MAX or the system raised."""

from __future__ import annotations

import errno
import re

LONGEST = 240
"""Characters of a foreign error that a sentence repeats; a compiler's can be pages."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

OF_A_GPU = re.compile(r"cuda|hip|gpu|accelerator|device memory", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(
    r"out of memory|out_of_memory|not enough memory|(can't|cannot|failed to) allocate|bad_alloc",
    re.IGNORECASE,
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether it is one of the many ways to say that memory, the GPU's or ours, ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True  # the latter is PyTorch's, which not every process has imported
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | ValueError) and bool(OUT_OF_MEMORY.search(str(error)))


def tell(error: BaseException) -> str:
    """What went wrong, as the end of a sentence, without its full stop."""
    if ran_out_of_memory(error):
        if OF_A_GPU.search(str(error)):
            return (
                "the GPU has not enough memory: pick a smaller model or float16, or run the "
                "engines one at a time"
            )
        return "there was not enough memory: pick a smaller model, or fewer engines at once"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return "the disk is full: free some space on it"
    said = " ".join(str(error).split())
    if len(said) > LONGEST:
        said = f"{said[:LONGEST]} …"
    return f"{type(error).__name__}: {said}".rstrip(".: ")
