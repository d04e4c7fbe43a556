"""What visitors leave behind, and when it goes.

A clip that came by an endpoint or a tool goes with its call. One that came by the page stays while
it may be used again, and goes an hour after it was last used; so do results, and what Gradio (6.31)
remembers of a visit. The folder for uploads is this page's own, is nobody else's to read, and goes
when the page ends.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils, route_utils
from gradio.utils import get_upload_folder
from starlette.concurrency import run_in_threadpool

from demo.keepsakes import Keepsakes

KEEP_SECONDS = 3600.0
SWEEP_SECONDS = 60.0
EMPTY_SECONDS = 60.0
"""How old an empty folder must be to go: a new one is about to get its file."""

MOST_SESSIONS = 64
"""Visits of which Gradio remembers what the panels held; it asks for none of that here."""

VARIABLE = "GRADIO_TEMP_DIR"

_copies: set[str] = set()
"""The folders, inside that for uploads, of Gradio's copies of our samples."""

logger = logging.getLogger(__name__)


def make_folder() -> Path:
    """A new folder for uploads, in Gradio's own variable; called before the page is built.

    Where the variable is set, the folder is made inside the one it names.
    """
    parent = os.environ.get(VARIABLE) or None
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="clips-", dir=parent)).resolve()
    os.environ[VARIABLE] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class OwnFolder(route_utils.GradioUploadFile):
    """An upload whose folder is named by chance.

    Gradio names it by the content, so that two visitors with the same clip would share one file,
    and the first to be done with it would take it from the other.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sha.update(secrets.token_bytes(32))


def part_uploads() -> None:
    """Give every upload a folder of its own."""
    route_utils.GradioUploadFile = OwnFolder  # type: ignore[misc]


def touch(path: str | None) -> None:
    """Note that a clip is used now; a sample of ours is left as it is."""
    if path and is_upload(path):
        with suppress(OSError):
            os.utime(path)


def discard(path: str | None) -> None:
    """Delete a clip that is done with, and its folder; anything but an upload is left alone."""
    if path and is_upload(path):
        with suppress(OSError):
            Path(path).unlink(missing_ok=True)
            Path(path).parent.rmdir()


def is_upload(path: str) -> bool:
    """Whether a path leads to what a visitor brought into the folder for uploads, links followed;
    the copies of our samples there are everybody's."""
    try:
        folder, real = Path(get_upload_folder()).resolve(), Path(path).resolve()
    except (OSError, ValueError, RuntimeError):
        return False
    if real == folder or not real.is_relative_to(folder):
        return False
    return _copies.isdisjoint(real.relative_to(folder).parts)


def is_gone(value: Any) -> bool:
    """Whether something that a control held is a clip that was deleted since."""
    return isinstance(value, str) and is_upload(value) and not Path(value).exists()


def name_copies(samples: Iterable[Path]) -> set[str]:
    """The folders in which Gradio keeps its copies of our samples, which are for everybody."""
    return {processing_utils.hash_file(path) for path in samples}


def sweep(folder: Path, keep: set[str], seconds: float = KEEP_SECONDS) -> int:
    """Delete files not used for so long, except under the folders `keep`; how many went.

    Uploads that broke off in the middle are such files too.
    """
    gone, now = 0, time.time()
    for place, _, names in os.walk(folder, topdown=False):
        if keep & set(Path(place).relative_to(folder).parts):
            continue
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


def forget_paths(page: gr.Blocks) -> None:
    """Take deleted files from the lists that Gradio keeps."""
    for paths in page.temp_file_sets:
        for path in [path for path in list(paths) if not Path(path).exists()]:
            paths.discard(path)


def forget_visits(page: gr.Blocks, seconds: float = KEEP_SECONDS) -> None:
    """Drop what Gradio holds of visits that did nothing for so long: inputs, panels' values, and
    messages that nobody fetched. Called in the server's loop.

    Of a visit that was displaced by newer ones Gradio no longer has the time; it counts from here.
    """
    holder, queue = page.server_app.state_holder, page._queue
    now = datetime.now()
    for visit in {*queue.pending_event_ids_session, *queue.pending_messages_per_session}:
        holder.time_last_used.setdefault(visit, now)
    for visit, used in list(holder.time_last_used.items()):
        events = queue.pending_event_ids_session.get(visit, set())
        if now - used < timedelta(seconds=seconds) or any(
            event in queue.event_ids_to_events for event in events
        ):
            continue
        holder.session_data.pop(visit, None)
        holder.time_last_used.pop(visit, None)
        queue.pending_messages_per_session.pop(visit, None)
        queue.pending_event_ids_session.pop(visit, None)


async def tidy_up(
    page: gr.Blocks, keepsakes: Keepsakes, keep: set[str], seconds: float = KEEP_SECONDS
) -> None:
    """One round of all of it."""
    await run_in_threadpool(sweep, Path(get_upload_folder()), keep, seconds)
    await run_in_threadpool(forget_paths, page)
    keepsakes.forget(seconds)
    forget_visits(page, seconds)


@asynccontextmanager
async def tidying(
    page: gr.Blocks, keepsakes: Keepsakes, samples: Iterable[Path]
) -> AsyncIterator[None]:
    """Tidy up every minute for as long as the server runs."""
    keep = name_copies(samples)
    _copies.update(keep)

    async def go_on() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await tidy_up(page, keepsakes, keep)
            except Exception:
                logger.exception("tidying up failed")

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
