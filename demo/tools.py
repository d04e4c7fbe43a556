"""Tools for language models, over the Model Context Protocol at `/gradio_api/mcp/`.

`compare_clip` and `list_engines`, with typed results. Gradio has such a server too, but it hands a
tool's result on as Python text and takes clips by address. A call here goes through the page's own
endpoint and so waits in the same queue as everyone. Needs the package `mcp`; without it the page
has no tools, and works.
"""

# No `from __future__ import annotations`: the server reads the tools' types as they stand.
import asyncio
import base64
import binascii
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gradio_client import Client, handle_file
from gradio_client.client import Job
from starlette.routing import Route

from demo.api import EngineRecord

PATHS = ("/gradio_api/mcp", "/gradio_api/mcp/")
"""Where Gradio's own server would be, so that clients find it."""

MOST_CLIP_BYTES = 32 * 2**20

CALLS = ThreadPoolExecutor(64, "tool")
"""Threads that open and close clients of the page; a pool of their own, so that what they wait for
never waits for them."""

LOOK_SECONDS = 0.1
"""Between two looks whether the result is there, or the caller gone."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LaneSummary:
    """One engine's transcript and figures; `reason` says why it failed, if it did.

    `words_unlike_baseline`: words that differ from the baseline's, as written.
    `word_error_rate`: against the true words, normalised, where they are known.
    """

    engine: str
    label: str
    state: str
    reason: str | None
    device: str
    dtype: str
    text: str
    total_seconds: float | None
    real_time_factor: float | None
    words_unlike_baseline: int | None
    word_error_rate: float | None


@dataclass(frozen=True)
class ComparisonSummary:
    """One clip through several engines; the headline says what came of it."""

    headline: str
    clip: str
    audio_seconds: float
    model: str
    shared_processor: bool
    baseline: str | None
    lanes: list[LaneSummary]


@dataclass(frozen=True)
class Tools:
    """What the web server needs: roads, and what runs while it runs."""

    routes: list[Route]
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]]


def make_tools(credentials: str = "", only_this_machine: bool = True) -> Tools | None:
    """The tools' server, or None without the package `mcp`.

    `credentials`: what the page itself asks for. `only_this_machine`: refuse requests that a
    browser was tricked into sending here under another host's name.
    """
    try:
        from mcp.server.fastmcp import Context, FastMCP
        from mcp.server.transport_security import TransportSecuritySettings
    except ImportError:
        logger.info("no MCP tools: the package mcp is not installed")
        return None
    local = ["127.0.0.1:*", "localhost:*", "[::1]:*"]
    server = FastMCP(
        "One clip, every engine",
        instructions="Transcribes one clip of speech with several engines and compares them.",
        stateless_http=True,
        json_response=True,
        log_level="WARNING",
        max_request_body_size=MOST_CLIP_BYTES * 2,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=only_this_machine,
            allowed_hosts=local,
            allowed_origins=[f"http://{host}" for host in local],
        ),
    )

    @server.tool()
    async def compare_clip(
        context: Context,
        sample: str = "",
        clip_base64: str = "",
        engines: list[str] | None = None,
        model: str = "base",
        language: str = "en",
        beam_size: int = 1,
        schedule: Literal["one at a time", "parallel"] = "one at a time",
    ) -> ComparisonSummary:
        """Transcribe a clip with several engines; give each one's words, times and differences.

        Give either `sample`, the key of a clip that comes with the page (short, half_minute, talk),
        or `clip_base64`, an audio file of at most 32 MB in base64 or as a data URL. `engines`: keys
        from list_engines, all of this machine unless given. `language`: a code, or "" to find out.
        """
        with saved(clip_base64) as path:
            arguments = {
                "sample": sample,
                "engines": engines or [],
                "model": model,
                "language": language,
                "beam_size": beam_size,
                "schedule": schedule,
                "clip": handle_file(path) if path else None,
            }
            found = await ask(context, credentials, "/compare", arguments)
        return summarise(found)

    @server.tool()
    async def list_engines(context: Context) -> list[EngineRecord]:
        """The engines of this page, and why this machine can't run one."""
        found = await ask(context, credentials, "/engines", {})
        return [EngineRecord(**record) for record in found]

    return mount(server)


def mount(server: Any) -> Tools:
    """The server's one endpoint under the paths that clients try."""
    (inner,) = server.streamable_http_app().routes

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    return Tools([Route(path, endpoint=inner.endpoint) for path in PATHS], lifespan)


async def ask(context: Any, credentials: str, name: str, arguments: dict[str, Any]) -> Any:
    """Call an endpoint of this very page, at the port that the request came in by.

    The address comes from the socket, never from what the request says of itself. A caller who
    leaves, or whose call is cancelled, has the run stopped. An error has the endpoint's sentence.
    """
    request = context.request_context.request
    host, port = request.scope["server"]
    address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    caller = request.client.host if request.client else ""
    run = asyncio.get_running_loop().run_in_executor
    client = await run(CALLS, connect, address, credentials, caller)
    job = None
    try:
        job = await run(CALLS, partial(client.submit, api_name=name, **arguments))
        while not job.done():
            if await request.is_disconnected():
                raise ConnectionError("The caller has left.")
            await asyncio.sleep(LOOK_SECONDS)
        return job.result()
    finally:
        CALLS.submit(leave, client, job)


def leave(client: Client, job: Job | None) -> None:
    """Close a client; what it still waits for is stopped."""
    if job is not None and not job.done():
        job.cancel()
    client.close()


def connect(address: str, credentials: str, caller: str) -> Client:
    """A client of the page at that address.

    `caller`: who called the tool, whose limits hold; the server believes this machine's word.
    """
    headers = {"X-Forwarded-For": caller} if caller else {}
    if credentials:
        code = base64.b64encode(credentials.encode()).decode()
        headers["Authorization"] = f"Basic {code}"
    return Client(address, verbose=False, analytics_enabled=False, headers=headers)


def summarise(found: dict[str, Any]) -> ComparisonSummary:
    """What a model needs of a record: words and figures, neither tokens nor segments."""
    return ComparisonSummary(
        headline=found["headline"],
        clip=found["clip"],
        audio_seconds=found["audio_seconds"],
        model=found["settings"]["model"],
        shared_processor=found["shared_processor"],
        baseline=found["baseline"],
        lanes=[summarise_lane(lane) for lane in found["lanes"]],
    )


def summarise_lane(lane: dict[str, Any]) -> LaneSummary:
    """One lane of a record."""
    errors, truth = lane["against_baseline"], lane["against_reference"]
    kinds = ("substituted", "inserted", "deleted")
    return LaneSummary(
        engine=lane["engine"],
        label=lane["label"],
        state=lane["state"],
        reason=lane["reason"],
        device=lane["device"],
        dtype=lane["dtype"],
        text=lane["text"],
        total_seconds=lane["seconds"] and lane["seconds"]["total"],
        real_time_factor=lane["real_time_factor"],
        words_unlike_baseline=sum(errors[kind] for kind in kinds) if errors else None,
        word_error_rate=truth and truth["normalised_word_error_rate"],
    )


@contextmanager
def saved(text: str) -> Iterator[str]:
    """A clip from base64 as a file, for as long as it is needed; no clip, no file.

    Yields the file's path, or nothing; raises `ValueError` with a sentence.
    """
    if not text:
        yield ""
        return
    content = decode(text)
    with tempfile.TemporaryDirectory(prefix="clip-") as folder:
        path = Path(folder) / "clip"
        path.write_bytes(content)
        yield str(path)


def decode(text: str) -> bytes:
    """The bytes of base64, or of a data URL; raises `ValueError` with a sentence."""
    code = text.partition(",")[2] if text.startswith("data:") else text
    try:
        content = base64.b64decode("".join(code.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("clip_base64 is not base64: addresses are not fetched.") from error
    if len(content) > MOST_CLIP_BYTES:
        raise ValueError(f"The clip has more than {MOST_CLIP_BYTES >> 20} MB: shorten it.")
    return content
