"""`/health`: whether the page is well, for whoever watches over it.

The answer is 200 with `status` `ok`, or 503 with a sentence in `status`; both say how long the page
has been up, its memory, the disk's room, how many runs go on and wait, and each engine with the
reason where it can't run.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from demo.snapshot import Status

LEAST_DISK_BYTES = 256 * 2**20
"""Room for two uploads of the largest size; below, a visitor's clip may not arrive."""


def make_route(
    statuses: Callable[[], Sequence[Status]], queue: Callable[[], dict[str, int]]
) -> Route:
    """The road to `/health`; the page's uptime counts from here."""
    started = time.monotonic()

    def answer(request: Request) -> JSONResponse:
        report = examine(statuses(), time.monotonic() - started, queue())
        status = 200 if report["status"] == "ok" else 503
        return JSONResponse(report, status, headers={"cache-control": "no-store"})

    return Route("/health", answer, methods=["GET"])


def examine(statuses: Sequence[Status], uptime: float, queue: dict[str, int]) -> dict[str, Any]:
    """The report; nothing in it names a visitor, a clip or a path."""
    free = read_free_disk()
    return {
        "status": find_fault(statuses, free) or "ok",
        "uptime_seconds": round(uptime, 1),
        "memory_bytes": read_memory(),
        "free_disk_bytes": free,
        "queue": queue,
        "engines": {s.key: "ok" if s.available else s.reason for s in statuses},
    }


def find_fault(statuses: Sequence[Status], free_disk: int) -> str | None:
    """Why a visitor would be disappointed, as a sentence."""
    if statuses and not any(status.available for status in statuses):
        return "No engine can run."
    if free_disk < LEAST_DISK_BYTES:
        return f"The disk for uploads has {free_disk / 2**20:.0f} MB left."
    return None


def read_free_disk() -> int:
    """The room for uploads, in bytes."""
    folder = Path(get_upload_folder())
    return shutil.disk_usage(folder if folder.exists() else tempfile.gettempdir()).free


def read_memory() -> int | None:
    """The process's resident bytes; None where the system does not say."""
    try:
        fields = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    lines = (line.split() for line in fields if line.startswith("VmRSS:"))
    return next((int(words[1]) * 1024 for words in lines), None)
