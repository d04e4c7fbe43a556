"""Whether this is a Space with ZeroGPU, and whether its GPU can be had.

On ZeroGPU a GPU is there only inside the calls of functions that `spaces.GPU` wraps. Spaces brings
the package `spaces` itself, and nothing here needs it elsewhere.

    SPACES_ZERO_GPU   set by Spaces
    DEMO_GPU_SECONDS  how long a call may keep the GPU: 120 unless told
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from engines.errors import describe_error

SECONDS, CALL_SECONDS = "DEMO_GPU_SECONDS", 120

Function = TypeVar("Function", bound=Callable[..., Any])


def is_here() -> bool:
    """Whether this Space has ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def is_usable() -> bool:
    """Whether the GPU can be had, in calls."""
    return is_here() and why_not() is None


def why_not() -> str | None:
    """Why ZeroGPU's GPU can't be had; None where it can, and where there is no ZeroGPU."""
    if not is_here():
        return None
    package = load_spaces()
    return package if isinstance(package, str) else None


@cache
def load_spaces() -> Any:
    """The package `spaces`, which changes PyTorch when it is imported, or why it can't be had."""
    try:
        return importlib.import_module("spaces")
    except ImportError:
        return "ZeroGPU needs the package spaces, which is not installed"
    except Exception as error:  # it asks the machine for much, and raises what it likes
        return f"ZeroGPU could not be set up: {describe_error(error)}"


def wrap(function: Function) -> Function:
    """The function with the GPU around each call."""
    wrapped: Function = load_spaces().GPU(duration=read_seconds())(function)
    return wrapped


def read_seconds() -> int:
    """How long a call may keep the GPU; raises `ValueError` with a sentence for no number."""
    text = os.environ.get(SECONDS, "").strip()
    if not text:
        return CALL_SECONDS
    if not text.isdecimal() or int(text[:9]) < 1:
        raise ValueError(f"{SECONDS} must be a whole number from 1 up, and {text!r} isn't.")
    return int(text[:9])
