"""ASGI middleware before every request: optional basic auth, closed routes, size limits.

Gradio has none of these: its login is a form and leaves routes open, and it limits neither JSON
bodies nor what one visitor uploads in an hour, nor looks at the disk.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo import uploads
from demo.limits import Allowance, format_wait, name_address
from engines.audio import MAX_BYTES
from engines.base import DISK_FULL as DISK_FULL_CODES

AUTH = "DEMO_AUTH"
PREFIX = "/gradio_api"
UPLOAD = f"{PREFIX}/upload"

CLOSED = tuple(
    f"{PREFIX}/{route}"
    for route in (
        "file=http",
        "file/http",
        "proxy=",
        "component_server",
        "process_recording",
        "deep_link",
        "vibe",
    )
)
"""Routes that fetch, convert or store what a visitor sends, or call a component's own functions.
Nothing here needs them; Gradio (6.31) has no switch for most."""

MOST_JSON_BYTES = 2**20
MOST_UPLOAD_BYTES = MAX_BYTES + 2**20
MOST_TOOL_BYTES = 48 * 2**20
"""A clip comes to an MCP tool in base64, which is a third longer than its bytes."""

LEAST_DISK_BYTES = 256 * 2**20
"""Room for two uploads of the largest size; below, a visitor's clip may not arrive."""

DISK_FULL = "The disk for clips is full: try again in an hour."
CHALLENGE = {"www-authenticate": 'Basic realm="One clip, every engine", charset="UTF-8"'}


class Guard:
    """Lets a request through to the page, or answers it with one sentence."""

    def __init__(
        self, app: ASGIApp, credentials: str = "", allowance: Allowance | None = None
    ) -> None:
        """`credentials`: `name:password`, or nothing to let everyone in. `allowance`: the bytes
        that one visitor may upload, or None for as many as they like."""
        self._app, self._credentials, self._allowance = app, credentials.encode(), allowance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket" and self._credentials:
                return  # nothing here speaks it, and it would pass the password by
            await self._app(scope, receive, send)
            return
        path = find_path(scope)
        headers, most = Headers(scope=scope), MOST_JSON_BYTES
        seen, started = 0, False
        if path.startswith(UPLOAD):
            most = MOST_UPLOAD_BYTES
        elif path.startswith(f"{PREFIX}/mcp"):
            most = MOST_TOOL_BYTES
        too_large = f"A request may have {most / 2**20:g} MB here, and this one has more."

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:  # whatever its header says
                raise HTTPException(413, too_large)
            return message

        async def marked(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-content-type-options"] = "nosniff"
            await send(message)

        declared = headers.get("content-length", "")
        size = int(declared[:20]) if declared.isdecimal() else None
        response: ASGIApp
        if not self._knows(path, headers):
            sentence = "This page asks for a name and a password."
            response = answer(path, 401, sentence, CHALLENGE)
        elif path.lower().startswith(CLOSED):
            sentence = "Nothing on this page needs that address, so it is closed."
            response = answer(path, 403, sentence)
        elif size is not None and size > most:
            response = answer(path, 413, too_large)
        elif path.startswith(UPLOAD) and (refusal := self._refuse_upload(scope, size)):
            response = answer(path, *refusal)
        else:
            response = self._app
        try:
            await response(scope, counted, marked)
        except OSError as error:
            if started or error.errno not in DISK_FULL_CODES:
                raise
            await answer(path, 507, DISK_FULL)(scope, receive, send)

    def _knows(self, path: str, headers: Headers) -> bool:
        """Whether the request may pass; compared in a time that tells nothing.

        Gradio asks itself for its startup events, without a password.
        """
        if not self._credentials or path in ("/health", f"{PREFIX}/startup-events"):
            return True
        kind, _, code = headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(code, validate=True)
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and secrets.compare_digest(given, self._credentials)

    def _refuse_upload(self, scope: Scope, size: int | None) -> tuple[int, str] | None:
        """Why a clip can't be taken now, with the status; an unsaid size counts as the largest."""
        if scope["method"] != "POST":
            return None
        if uploads.free_bytes() < LEAST_DISK_BYTES:
            return 507, DISK_FULL
        if self._allowance is None:
            return None
        visitor = name_address((scope.get("client") or (None,))[0])
        wait = self._allowance.take(visitor, MOST_UPLOAD_BYTES if size is None else size)
        if wait is None:
            return None
        most = f"{self._allowance.most / 2**20:g} MB an hour"
        return 429, f"{most} are the most for one visitor: try again in {format_wait(wait)}."


class PageCompression:
    """Compresses the page itself, the largest part of a first visit, which Gradio (6.31) sends as
    it is. All else passes untouched: events must not wait, and a part of a clip is counted in
    bytes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._compressed = app, GZipMiddleware(app, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and (scope["method"], find_path(scope)) == ("GET", "/")
        await (self._compressed if is_page else self._app)(scope, receive, send)


def find_path(scope: Scope) -> str:
    """Return the path as the page's routes see it, without a prefix that a proxy put before it."""
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def answer(
    path: str, status: int, sentence: str, headers: dict[str, str] | None = None
) -> Response:
    """One sentence as JSON or, to an upload, as plain text, which the browser shows as it comes."""
    if path.startswith(UPLOAD):
        return PlainTextResponse(sentence, status, headers)
    return JSONResponse({"detail": sentence}, status, headers)


def read_credentials() -> str:
    """`name:password` from the environment, or nothing; raises `ValueError` for half of it."""
    credentials = os.environ.get(AUTH, "")
    name, colon, password = credentials.partition(":")
    if credentials and not (name and colon and password):
        raise ValueError(f"{AUTH} must be name:password, with something on both sides.")
    return credentials
