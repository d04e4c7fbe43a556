"""Uploaded clips: their folder, who may name them, and when they are deleted.

A clip of an endpoint or a tool is deleted after its call, one of the page an hour after its last
use. The folder belongs to this process, is readable by its user only, and is deleted when the page
ends; what a killed page left is deleted at the next start. `GRADIO_TEMP_DIR` names the folder, or
where to make it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.formparsers import MultiPartException

from demo.limits import Allowance, format_wait
from engines.base import describe_error

KEEP_SECONDS = 3600.0
VARIABLE = "GRADIO_TEMP_DIR"

PLAYER_COPY = re.compile(r"\.\d+-\d+\.player\.flac$")
"""Ending of the copies for players, after the clip's own name."""


def make_folder() -> Path:
    """Make a new folder for uploads and name it to Gradio; called before the page is built.

    Ends the program with a sentence where it can't be made.
    """
    parent = os.environ.get(VARIABLE) or tempfile.gettempdir()
    try:
        Path(parent).mkdir(parents=True, exist_ok=True)
        folder = make_temporary("clips-", parent)
    except OSError as error:
        raise SystemExit(
            f"The folder for uploads can't be made in {parent}: {describe_error(error)}. "
            f"Set {VARIABLE} to a folder that can be written."
        ) from None
    os.environ[VARIABLE] = str(folder)
    return folder


def make_temporary(prefix: str, parent: str) -> Path:
    """Make a folder that is deleted when the program ends; delete those of killed programs.

    A folder is locked for as long as its program lives.
    """
    for left in Path(parent).glob(f"{prefix}*"):
        with suppress(OSError):
            if left.lstat().st_uid == os.getuid() and (lock := lock_folder(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
    lock_folder(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def lock_folder(folder: Path) -> int | None:
    """Lock a folder and return what holds the lock; None where another program does."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def find_folder() -> Path:
    """Return the folder of uploads."""
    return Path(os.environ.get(VARIABLE) or Path(tempfile.gettempdir(), "gradio")).resolve()


def free_bytes() -> int:
    """Return the free space of the disk for uploads."""
    folder = find_folder()
    return shutil.disk_usage(folder if folder.exists() else tempfile.gettempdir()).free


def is_upload(path: str) -> bool:
    """Return whether a path leads into the folder of uploads, links followed."""
    try:
        folder, real = find_folder(), Path(path).resolve()
    except (OSError, ValueError, RuntimeError):
        return False
    return real != folder and real.is_relative_to(folder)


def is_gone(value: Any) -> bool:
    """Return whether a control's value is a clip that was deleted since."""
    return isinstance(value, str) and is_upload(value) and not Path(value).exists()


def name_copy(path: Path, track: int, channel: int) -> Path:
    """Name the copy of a clip that browsers can play, beside it."""
    return path.with_name(f"{path.name}.{track}-{channel}.player.flac")


def find_original(path: str) -> Path:
    """Return the clip that was uploaded, of which the player may hold a copy."""
    original = Path(PLAYER_COPY.sub("", path))
    return original if is_upload(path) and original.is_file() else Path(path)


def touch(path: str | None) -> None:
    """Record that a clip is used now; anything but an upload is left as it is."""
    if path and is_upload(path):
        with suppress(OSError):
            os.utime(path)
            os.utime(find_original(path))


def discard(path: str | None) -> None:
    """Delete a clip that is done with, and its folder; anything but an upload is left alone."""
    if path and is_upload(path):
        with suppress(OSError):
            Path(path).unlink(missing_ok=True)
            Path(path).parent.rmdir()


def sweep(folder: Path, seconds: float = KEEP_SECONDS, ahead: float = 0.0) -> None:
    """Delete files not used for so long, and empty folders but new ones, which get a file soon.

    `ahead`: seconds by which the machine's clock was set forward since the last time, which no file
    was left unused for. Where it was set back, a file of the future counts as used now.
    """
    now = time.time()
    for place, _, names in os.walk(folder, topdown=False):
        for path in (Path(place, name) for name in names):
            with suppress(OSError):
                noted = path.lstat().st_mtime
                used = min(noted + ahead, now)
                if now - used >= seconds:
                    path.unlink()
                elif used != noted:
                    os.utime(path, (used, used), follow_symlinks=False)
        with suppress(OSError):
            if Path(place) != folder and now - Path(place).stat().st_mtime >= 60:
                Path(place).rmdir()


# Uploads under way: which may begin, and what goes when one ends.

MOST_FILES, MOST_OPEN_FILES = 100, 400
"""Files in one request, and in all at a time: each is open until its request ends. Many clips come
in one."""

MOST_OPEN, MOST_OPEN_EACH = 64, 4
"""Uploads under way at a time: of all visitors, and of one where strangers may come."""

LEAST_CHARGE = 2**20
"""What the smallest upload takes of a visitor's bytes in an hour, which limits their number."""

LEAST_DISK_BYTES = 256 * 2**20
"""Room that uploads leave; below, the page is not well."""

DISK_FULL = "The disk for clips is full: try again in an hour."
BAD_ID = "upload_id must be up to 64 letters, digits, - and _."

current_upload: ContextVar[Upload | None] = ContextVar("current_upload", default=None)


@dataclass(eq=False)
class Upload:
    """A request that brings clips. `size`: its bytes, or the most where it doesn't say; `seen`:
    those that came; `files`: where Gradio puts them first, before each gets a folder; `others`: all
    that are under way."""

    visitor: str
    size: int
    id: str = ""
    seen: int = 0
    files: list[Path] = field(default_factory=list)
    others: Collection[Upload] = ()

    def add(self, path: str) -> None:
        """Note a file that was begun; raise what Gradio's parser answers with 400."""
        self.files.append(Path(path))
        if len(self.files) > MOST_FILES:
            raise MultiPartException(
                f"{MOST_FILES} files may come at a time, and these are more: send the rest later."
            )
        if sum(len(each.files) for each in self.others) > MOST_OPEN_FILES:
            raise MultiPartException("Too many files are on their way: try again in a while.")


class OpenUploads:
    """The uploads under way on this page; used in the server's event loop."""

    def __init__(self, allowance: Allowance | None = None, open_to_all: bool = False) -> None:
        """`allowance`: bytes that one visitor may upload; None for as many as they like."""
        self._allowance, self._open_to_all = allowance, open_to_all
        self._open: set[Upload] = set()
        self._last_ids: deque[str] = deque(maxlen=MOST_OPEN)

    def refuse(self, upload: Upload) -> tuple[int, str] | None:
        """Return why an upload can't begin now, with the status; else count it as the visitor's."""
        if not is_id(upload.id):
            return 400, BAD_ID
        mine = sum(each.visitor == upload.visitor for each in self._open)
        most = MOST_OPEN_EACH if self._open_to_all else MOST_OPEN
        if len(self._open) >= MOST_OPEN or mine >= most:
            return 429, "Too many uploads are under way: try again when one has ended."
        promised = sum(max(each.size - each.seen, 0) for each in self._open)
        if free_bytes() - promised - upload.size < LEAST_DISK_BYTES:
            return 507, DISK_FULL
        if self._allowance is None:
            return None
        wait = self._allowance.take(upload.visitor, max(upload.size, LEAST_CHARGE))
        if wait is None:
            return None
        hourly = f"{self._allowance.most / 2**20:g} MB an hour are the most for one visitor"
        return 429, f"{hourly}: try again in {format_wait(wait)}."

    @contextmanager
    def track(self, upload: Upload) -> Iterator[None]:
        """Count an upload while it goes on; whatever is left of it goes at its end."""
        self._open.add(upload)
        upload.others = self._open
        token = current_upload.set(upload)
        try:
            yield
        finally:
            current_upload.reset(token)
            self._open.remove(upload)
            self._last_ids.append(upload.id)
            for path in upload.files:  # those that arrived have been moved
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def knows(self, upload_id: str) -> bool:
        """Whether an upload of that name goes on, or has just ended."""
        return upload_id in self._last_ids or any(each.id == upload_id for each in self._open)


def is_id(text: str) -> bool:
    """Whether a text can name an upload; none is needed."""
    return re.fullmatch(r"[\w-]{0,64}", text, re.ASCII) is not None
