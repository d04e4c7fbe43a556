"""ASGI middleware before every request: whom it serves, optional basic auth, closed routes, limits.

Gradio has none of these: its login is a form and leaves routes open; it limits neither JSON bodies
nor what one visitor uploads in an hour, nor looks at the disk; and it answers a page of another
site whose name was made to lead to this machine (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import os
import re
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from gradio.route_utils import FnIndexInferError
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.limits import name_address
from demo.streams import Streams
from demo.uploads import BAD_ID, DISK_FULL, OpenUploads, Upload, is_id
from engines import logs
from engines.audio import MAX_BYTES
from engines.base import DISK_FULL as DISK_FULL_CODES

logger = logs.logger(__name__)

AUTH = "DEMO_AUTH"
PREFIX = "/gradio_api"
UPLOAD, PROGRESS = f"{PREFIX}/upload", f"{PREFIX}/upload_progress"
OPENAI_PATHS = {"/v1/audio/transcriptions": "transcribe", "/v1/audio/translations": "translate"}
"""Where programs written for OpenAI's API send their clips, and what each is for."""

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

MOST_BYTES = MAX_BYTES + 2**20
"""What a request with a clip may have."""

MOST_JSON_BYTES = 2**20
MOST_TOOL_BYTES = 48 * 2**20
"""A clip comes to an MCP tool in base64, which is a third longer than its bytes."""

MOST_DEPTH = 100
"""Lists and objects in one another in a request; what parses JSON gives up at some hundreds."""

OPENS = bytes.maketrans(b"[{]}", b"\1\1\0\0")
NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))

UNREADABLE = "This request can't be read: docs/api.md says what may be sent."
RANGE = re.compile(r"bytes=(\d{1,15}-\d{0,15}|-\d{1,15})", re.ASCII)
CHALLENGE = {"www-authenticate": 'Basic realm="One clip, every engine", charset="UTF-8"'}


class Guard:
    """Lets a request through to the page, or answers it with one sentence."""

    def __init__(
        self,
        app: ASGIApp,
        opened: OpenUploads,
        streams: Streams,
        find_session: Callable[[str], str],
        credentials: str = "",
        only_this_machine: bool = False,
    ) -> None:
        """`find_session`: of an event's id. `credentials`: `name:password`, or nothing to let
        everyone in. `only_this_machine`: whether other names of this host are refused."""
        self._app, self._opened, self._streams = app, opened, streams
        self._find_session = find_session
        self._credentials, self._only_this_machine = credentials.encode(), only_this_machine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket" and (self._credentials or self._only_this_machine):
                return  # nothing here speaks it, and it would pass what follows by
            await self._app(scope, receive, send)
            return
        path = find_path(scope)
        headers, most = Headers(scope=scope), find_most_bytes(path)
        started = False
        upload: Upload | None = None

        async def marked(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-content-type-options"] = "nosniff"
            await send(message)

        declared = headers.get("content-length", "")
        size = int(declared[:20]) if declared.isdecimal() else None
        refusal = self._refuse(scope["method"], path, headers, size)
        if refusal is None and scope["method"] == "POST" and brings_clip(path):
            visitor = name_address((scope.get("client") or (None,))[0])
            begun = Upload(visitor, most if size is None else size, read_query(scope, "upload_id"))
            refusal = self._opened.refuse(begun)
            upload = begun if refusal is None else None
        if refusal is None and path.rstrip("/") == PROGRESS:
            refusal = await self._refuse_progress(read_query(scope, "upload_id"))
        if refusal is not None:
            await answer(path, *refusal)(scope, receive, marked)
            return
        with ExitStack() as during:
            if upload is not None:
                during.enter_context(self._opened.track(upload))
            if scope["method"] == "GET" and (session := self._read_session(scope, path)):
                during.enter_context(self._streams.listen(session))
            try:
                await self._app(scope, CheckedBody(receive, most, upload).receive, marked)
            except OSError as error:
                if started or error.errno not in DISK_FULL_CODES:
                    raise
                await answer(path, 507, DISK_FULL)(scope, receive, send)
            except ClientDisconnect:
                pass  # nobody is there to answer
            except (ValueError, TypeError, LookupError, RecursionError, FnIndexInferError) as error:
                if started:
                    raise
                logger.warning("a request could not be read", path=path[:80], error=repr(error))
                await answer(path, 400, UNREADABLE)(scope, receive, send)

    def _refuse(
        self, method: str, path: str, headers: Headers, size: int | None
    ) -> tuple[int, str] | None:
        """Return the status and a sentence for a request that is refused."""
        if self._only_this_machine and not is_from_here(headers):
            return 421, "This page answers on its own machine only: open it as localhost there."
        if not self._is_authorised(path, headers):
            return 401, "This page asks for a name and a password."
        if method not in ("GET", "HEAD") and is_cross_site(headers):
            return (
                403,
                "A page of another site sent this, and may not act here: open this page itself.",
            )
        if path.lower().startswith(CLOSED):
            return 403, "Nothing on this page needs that address, so it is closed."
        if "range" in headers and not RANGE.fullmatch(headers["range"].strip()):
            return 416, "Range must name one run of bytes, as bytes=0-1023."
        if size is not None and size > find_most_bytes(path):
            return 413, name_most_bytes(find_most_bytes(path))
        return None

    async def _refuse_progress(self, upload_id: str) -> tuple[int, str] | None:
        """Return the status and a sentence where an upload's progress can't be told.

        Gradio keeps every id that it is asked about, so it is asked about known ones only.
        """
        if not upload_id or not is_id(upload_id):
            return 400, BAD_ID
        for _ in range(30):  # a browser may ask a little before it begins
            if self._opened.knows(upload_id):
                return None
            await asyncio.sleep(0.1)
        return 404, "There is no such upload."

    def _read_session(self, scope: Scope, path: str) -> str:
        """Return the session whose events a request is for, or nothing."""
        if path.rstrip("/") == f"{PREFIX}/queue/data":
            return read_query(scope, "session_hash")
        parts = path.removeprefix(f"{PREFIX}/call/").removeprefix("v2/").split("/")
        is_stream = path.startswith(f"{PREFIX}/call/") and len(parts) == 2
        return self._find_session(parts[1]) if is_stream else ""

    def _is_authorised(self, path: str, headers: Headers) -> bool:
        """Return whether the request has the page's password; compared in constant time.

        Clients of OpenAI's API send name and password as their key. Gradio asks itself for its
        startup events, without a password.
        """
        if not self._credentials or path in ("/health", f"{PREFIX}/startup-events"):
            return True
        kind, _, code = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and path in OPENAI_PATHS:
            return secrets.compare_digest(code.encode(), self._credentials)
        try:
            credentials = base64.b64decode(code, validate=True)
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and secrets.compare_digest(credentials, self._credentials)


class CheckedBody:
    """Limits the size of a request's body as it comes and, unless it is an upload, its depth."""

    def __init__(self, receive: Receive, most: int, upload: Upload | None) -> None:
        self._receive, self._most, self._upload = receive, most, upload
        self._seen, self._depth = 0, 0

    async def receive(self) -> Message:
        """Return the next part; raise `HTTPException` for one too much."""
        message = await self._receive()
        body = message.get("body", b"")
        self._seen += len(body)
        if self._seen > self._most:
            raise HTTPException(413, name_most_bytes(self._most))
        if self._upload is not None:
            self._upload.seen = self._seen
            return message
        for opens in body.translate(OPENS, NO_BRACKETS):  # those in texts too, which come in pairs
            self._depth += 1 if opens else -1
            if self._depth > MOST_DEPTH:
                raise HTTPException(400, UNREADABLE)
        return message


def brings_clip(path: str) -> bool:
    """Return whether a request to an address uploads a clip."""
    return path.rstrip("/") == UPLOAD or path in OPENAI_PATHS


def find_most_bytes(path: str) -> int:
    """Return the most bytes that a request to an address may have."""
    if path.startswith(UPLOAD) or path in OPENAI_PATHS:
        return MOST_BYTES
    return MOST_TOOL_BYTES if path.startswith(f"{PREFIX}/mcp") else MOST_JSON_BYTES


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


def name_most_bytes(most: int) -> str:
    return f"A request may have {most / 2**20:g} MB here, and this one has more."


def read_query(scope: Scope, name: str) -> str:
    """Return a parameter of the address, or nothing."""
    return QueryParams(scope.get("query_string", b"")).get(name, "")


def is_local(address: str) -> bool:
    """Return whether an address such as `http://localhost:7860` is of this machine."""
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_from_here(headers: Headers) -> bool:
    """Return whether a request, and the page that sent it, name this machine as host."""
    origin = headers.get("origin")
    return is_local(f"http://{headers.get('host', '')}") and (origin is None or is_local(origin))


def is_cross_site(headers: Headers) -> bool:
    """Return whether a browser sends this for a page of another site.

    Browsers say so where the page came by HTTPS; else they name that page's own host, which must be
    the one that was asked for. Ports are not compared: a proxy may leave its own out of `Host`.
    Programs send neither.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site in ("same-origin", "none", "cross-site"):
        return site == "cross-site"
    return origin is not None and find_host(origin) != find_host(f"//{headers.get('host', '')}")


def find_host(address: str) -> str:
    """Return the name of an address's host, or nothing."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def answer(path: str, status: int, sentence: str) -> Response:
    """Return a sentence as JSON; to an upload as plain text, which the browser shows as it is."""
    headers = CHALLENGE if status == 401 else None
    if path in OPENAI_PATHS:
        return refuse_as_openai(status, sentence, headers)
    if path.startswith(UPLOAD):
        return PlainTextResponse(sentence, status, headers)
    return JSONResponse({"detail": sentence}, status, headers)


def refuse_as_openai(status: int, sentence: str, headers: Any = None) -> Response:
    """Return a sentence in the form of OpenAI's errors; its client is told when not to retry."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": sentence, "type": kind, "param": None, "code": None}
    again = "true" if status == 429 else "false"
    return JSONResponse({"error": error}, status, {**(headers or {}), "x-should-retry": again})


def read_credentials() -> str:
    """Return `name:password` from the environment, or ""; raise `ValueError` for half of it."""
    credentials = os.environ.get(AUTH, "")
    name, colon, password = credentials.partition(":")
    if credentials and not (name and colon and password):
        raise ValueError(f"{AUTH} must be name:password, with something on both sides.")
    return credentials
