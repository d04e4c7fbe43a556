"""Uploads under way: which may begin, the room they are promised, and what goes when one ends."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from starlette.formparsers import MultiPartException

from demo import uploads
from demo.limits import Allowance, format_wait
from engines.audio import MAX_BYTES

MOST_BYTES = MAX_BYTES + 2**20
"""What a request with a clip may have."""

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

current: ContextVar[Upload | None] = ContextVar("current", default=None)


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
        if uploads.free_bytes() - promised - upload.size < LEAST_DISK_BYTES:
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
        token = current.set(upload)
        try:
            yield
        finally:
            current.reset(token)
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
