"""Clips that visitors bring: their folder, who may name them, when they go; what Gradio keeps.

A clip that came by an endpoint or a tool goes with its call. One that came by the page stays while
it may be used again, and goes an hour after its last use. The folder is this page's own, can be
read by nobody else, and goes when the page ends. `GRADIO_TEMP_DIR` names it, or where to make it.

`harden_gradio` and `forget_visits` reach behind Gradio's public interface (6.31): an upgrade may
break them, which the tests of what they do then say.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils, route_utils

KEEP_SECONDS = 3600.0
VARIABLE = "GRADIO_TEMP_DIR"


def make_folder() -> Path:
    """Make a new folder for uploads and name it to Gradio; called before the page is built."""
    parent = os.environ.get(VARIABLE) or None
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = make_temporary("clips-", parent)
    os.environ[VARIABLE] = str(folder)
    return folder


def make_temporary(prefix: str, parent: str | None = None) -> Path:
    """Make a folder that goes when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def find_folder() -> Path:
    """Where uploads are."""
    return Path(os.environ.get(VARIABLE) or Path(tempfile.gettempdir(), "gradio")).resolve()


def publish_samples(samples: Path) -> Path:
    """Copy the samples to a folder of their own, which the page may show without telling where
    it is installed."""
    folder = make_temporary("samples-")
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


def sweep(folder: Path, seconds: float = KEEP_SECONDS) -> None:
    """Delete files not used for so long, and empty folders but new ones, which get a file soon."""
    now = time.time()
    for place, _, names in os.walk(folder, topdown=False):
        for path in (Path(place, name) for name in names):
            with suppress(OSError):
                if now - path.lstat().st_mtime >= seconds:
                    path.unlink()
        with suppress(OSError):
            if Path(place) != folder and now - Path(place).stat().st_mtime >= 60:
                Path(place).rmdir()


class OwnFolder(route_utils.GradioUploadFile):
    """An upload whose folder is named by chance.

    Gradio names it by the content: two visitors with the same clip would share one file, and the
    first to be done with it would take it from the other.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sha.update(secrets.token_bytes(32))


async def refuse_address(url: str, *_: Any, **__: Any) -> NoReturn:
    """Stand in for Gradio's download."""
    raise gr.Error("Addresses are not fetched here: upload the file.", print_exception=False)


def harden_gradio() -> None:
    """Give every upload a folder of its own, and let Gradio fetch no address that a visitor names
    as a clip: any component takes one, so there is one place to close, not one for each."""
    route_utils.GradioUploadFile = OwnFolder  # type: ignore[misc]
    processing_utils.async_ssrf_protected_get = refuse_address
    processing_utils.async_ssrf_protected_download = refuse_address


def forget_visits(page: gr.Blocks, seconds: float) -> None:
    """Drop what Gradio holds of visits that did nothing for so long: inputs, panels' values,
    messages that nobody fetched, and the names of deleted files. Called in the server's loop.

    Of a visit that was displaced by newer ones Gradio no longer has the time; it counts from here.
    """
    for paths in page.temp_file_sets:
        paths -= {path for path in paths if not Path(path).exists()}
    holder, queue = page.server_app.state_holder, page._queue
    now = datetime.now()
    for visit in {*queue.pending_event_ids_session, *queue.pending_messages_per_session}:
        holder.time_last_used.setdefault(visit, now)
    for visit, used in list(holder.time_last_used.items()):
        events = queue.pending_event_ids_session.get(visit, set())
        at_work = any(event in queue.event_ids_to_events for event in events)
        if not at_work and now - used >= timedelta(seconds=seconds):
            holder.session_data.pop(visit, None)
            holder.time_last_used.pop(visit, None)
            queue.pending_messages_per_session.pop(visit, None)
            queue.pending_event_ids_session.pop(visit, None)
