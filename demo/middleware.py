"""ASGI middleware before every request: optional basic auth, closed routes, size limits.

    DEMO_AUTH   `name:password`; then every address but `/health` asks for them (HTTP Basic)

Gradio has none of these: its login is a form and leaves routes open, and it limits neither JSON
bodies nor what one visitor uploads in an hour, nor looks at the disk.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from demo import uploads
from demo.gradio_internals import CLOSED, UNGUARDED
from demo.limits import Allowance, name_address, say_seconds
from engines.audio import MAX_BYTES
from engines.errors import DISK_FULL as DISK_FULL_CODES

AUTH = "DEMO_AUTH"
PREFIX = "/gradio_api"
UPLOAD = f"{PREFIX}/upload"
OPEN = ("/health", *UNGUARDED)

MOST_JSON_BYTES = 2**20
MOST_UPLOAD_BYTES = MAX_BYTES + 2**20
MOST_TOOL_BYTES = 48 * 2**20
"""A clip comes to an MCP tool in base64, which is a third longer than its bytes."""

LEAST_DISK_BYTES = 256 * 2**20
"""Room for two uploads of the largest size; below, a visitor's clip may not arrive."""

DISK_FULL = "The disk for clips is full: try again in an hour."
CHALLENGE = [(b"www-authenticate", b'Basic realm="One clip, every engine", charset="UTF-8"')]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class TooLarge(Exception):
    """A body is longer than its route allows."""


class Guard:
    """Lets a request through to the page, or answers it with one sentence."""

    def __init__(self, app: App, credentials: str = "", uploads: Allowance | None = None) -> None:
        """`credentials`: `name:password`, or nothing to let everyone in. `uploads`: the bytes that
        one visitor may send, or None for as many as they like."""
        self._app, self._credentials, self._uploads = app, credentials.encode(), uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket" and self._credentials:
                return  # nothing here speaks it, and it would pass the password by
            await self._app(scope, receive, send)
            return
        path, headers = read_path(scope), dict(scope["headers"])
        if not self._knows(path, headers):
            await answer(send, 401, "This page asks for a name and a password.", CHALLENGE)
        elif path.lower().startswith(CLOSED):
            await answer(send, 403, "Nothing on this page needs that address, so it is closed.")
        elif path.startswith(UPLOAD) and (refusal := self._refuse_upload(scope, headers)):
            await answer(send, *refusal, plain=True)
        else:
            await self._pass_on(scope, receive, send, path)

    def _refuse_upload(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Why a clip can't be taken now, with the status; an unsaid size counts as the largest."""
        if scope["method"] != "POST":
            return None
        if uploads.free_bytes() < LEAST_DISK_BYTES:
            return 507, DISK_FULL
        if self._uploads is None:
            return None
        declared = headers.get(b"content-length", b"")
        size = int(declared[:20]) if declared.isdigit() else MOST_UPLOAD_BYTES
        client = scope.get("client") or (None,)
        wait = self._uploads.take(name_address(client[0]), min(size, MOST_UPLOAD_BYTES))
        if wait is None:
            return None
        most = f"{self._uploads.most / 2**20:g} MB an hour"
        return 429, f"{most} are the most for one visitor: try again in {say_seconds(wait)}."

    def _knows(self, path: str, headers: dict[bytes, bytes]) -> bool:
        """Whether the request may pass; compared in a time that tells nothing."""
        if not self._credentials or path in OPEN:
            return True
        kind, _, code = headers.get(b"authorization", b"").partition(b" ")
        try:
            given = base64.b64decode(code, validate=True)
        except binascii.Error:
            return False
        return kind.lower() == b"basic" and secrets.compare_digest(given, self._credentials)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """Count the body while it comes, whatever its header says."""
        most, seen, started = limit_body(path), 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise TooLarge
            return message

        async def marked(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if declared.isdigit() and int(declared[:20]) > most:
                raise TooLarge
            await self._app(scope, counted, marked)
        except TooLarge:
            if not started:
                sentence = f"A request may have {most / 2**20:g} MB here, and this one has more."
                await answer(send, 413, sentence, plain=path.startswith(UPLOAD))
        except OSError as error:
            if started or error.errno not in DISK_FULL_CODES:
                raise
            await answer(send, 507, DISK_FULL)


def read_path(scope: Scope) -> str:
    """The path as the page's routes see it, without a prefix that a proxy put before it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if root else path


def limit_body(path: str) -> int:
    """The longest body that a route takes, in bytes."""
    if path.startswith(UPLOAD):
        return MOST_UPLOAD_BYTES
    return MOST_TOOL_BYTES if path.startswith(f"{PREFIX}/mcp") else MOST_JSON_BYTES


async def answer(
    send: Send,
    status: int,
    sentence: str,
    headers: list[tuple[bytes, bytes]] | None = None,
    plain: bool = False,
) -> None:
    """One sentence as JSON or, where the browser shows it as it comes, as plain text."""
    body = (sentence if plain else json.dumps({"detail": sentence})).encode()
    media_type = b"text/plain; charset=utf-8" if plain else b"application/json"
    kind = [(b"content-type", media_type), (b"x-content-type-options", b"nosniff")]
    start = {"type": "http.response.start", "status": status, "headers": [*kind, *(headers or [])]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def read_credentials() -> str:
    """`name:password` from the environment, or nothing; raises `ValueError` for half of it."""
    credentials = os.environ.get(AUTH, "")
    name, colon, password = credentials.partition(":")
    if credentials and not (name and colon and password):
        raise ValueError(f"{AUTH} must be name:password, with something on both sides.")
    return credentials
