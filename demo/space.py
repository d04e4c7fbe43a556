"""What the page sets in its environment, and what differs on a Hugging Face Space.

    SPACE_ID  `owner/name`, which Spaces sets: the page is then public, so that no file of the
              machine may be named as a checkpoint and visitors have limits, and it listens on every
              address

Persistent storage, which a Space's owner pays for, is the folder `/data` where it was bought. What
was compiled and downloaded is kept there, unless the variables of `settle` say otherwise, so that
it outlives the container.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from engines import zero_gpu

STORAGE = Path("/data")


def is_here() -> bool:
    """Whether this is a Space."""
    return bool(os.environ.get("SPACE_ID"))


def settle(storage: Path = STORAGE) -> None:
    """Set the variables that the server and the engines go by, where nobody has set them.

    Call it before the page is built and an engine made: the engines' processes inherit them. A
    variable that is no number ends the program with a sentence.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        zero_gpu.read_seconds()
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if not is_here():
        return
    if can_keep(storage):
        os.environ.setdefault("XDG_CACHE_HOME", str(storage / "cache"))  # OpenAI's checkpoints
        os.environ.setdefault("MAX_WHISPER_CACHE", str(storage / "max-whisper"))
    if zero_gpu.is_usable():
        zero_gpu.register()


def pick_address() -> str | None:
    """Where the server listens: on a Space everywhere, unless Gradio's own variable says more."""
    return "0.0.0.0" if is_here() and not os.environ.get("GRADIO_SERVER_NAME") else None


def can_keep(folder: Path) -> bool:
    """Whether a folder is there and takes files."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError:
        return False
    return True
