"""Clips that visitors bring: their folder, who may name them, and when they go.

A clip that came by an endpoint or a tool goes with its call. One that came by the page stays while
it may be used again, and goes an hour after its last use. The folder is this page's own, can be
read by nobody else, and goes when the page ends. `GRADIO_TEMP_DIR` names it, or where to make it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

KEEP_SECONDS = 3600.0
EMPTY_SECONDS = 60.0
"""How old an empty folder must be to go: a new one is about to get its file."""

VARIABLE = "GRADIO_TEMP_DIR"


def make_folder() -> Path:
    """Make a new folder for uploads and name it to Gradio; called before the page is built."""
    parent = os.environ.get(VARIABLE) or None
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="clips-", dir=parent)).resolve()
    os.environ[VARIABLE] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def find_folder() -> Path:
    """Where uploads are."""
    return Path(os.environ.get(VARIABLE) or Path(tempfile.gettempdir(), "gradio")).resolve()


def publish_samples(samples: Path) -> Path:
    """Copy the samples to a folder of their own, which the page may show without telling where
    it is installed."""
    folder = Path(tempfile.mkdtemp(prefix="samples-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path in (*samples.glob("*.flac"), *samples.glob("*.txt")):
        shutil.copy(path, folder)
    return folder


def free_bytes() -> int:
    """The room for uploads."""
    folder = find_folder()
    return shutil.disk_usage(folder if folder.exists() else tempfile.gettempdir()).free


def is_upload(path: str) -> bool:
    """Whether a path leads into the folder for uploads, links followed."""
    try:
        folder, real = find_folder(), Path(path).resolve()
    except (OSError, ValueError, RuntimeError):
        return False
    return real != folder and real.is_relative_to(folder)


def is_gone(value: Any) -> bool:
    """Whether something that a control held is a clip that was deleted since."""
    return isinstance(value, str) and is_upload(value) and not Path(value).exists()


def touch(path: str | None) -> None:
    """Note that a clip is used now; anything but an upload is left as it is."""
    if path and is_upload(path):
        with suppress(OSError):
            os.utime(path)


def discard(path: str | None) -> None:
    """Delete a clip that is done with, and its folder; anything but an upload is left alone."""
    if path and is_upload(path):
        with suppress(OSError):
            Path(path).unlink(missing_ok=True)
            Path(path).parent.rmdir()


def sweep(folder: Path, seconds: float = KEEP_SECONDS) -> int:
    """Delete files not used for so long, among them uploads that broke off; how many went."""
    gone, now = 0, time.time()
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place, name)
            with suppress(OSError):
                if now - path.lstat().st_mtime >= seconds:
                    path.unlink()
                    gone += 1
        with suppress(OSError):
            if Path(place) != folder and now - Path(place).stat().st_mtime >= EMPTY_SECONDS:
                Path(place).rmdir()
    return gone
