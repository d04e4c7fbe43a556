"""MCP tools `compare_clip` and `list_engines` at `/gradio_api/mcp/`, with typed results.

A call is a job of the same queue as everyone's and has the caller's limits. Gradio's own MCP server
returns Python text, takes clips by address, checks no host against DNS rebinding and doesn't stop
what a caller leaves, so this one stands in its place. Needs the package `mcp`; without it the page
has no tools, and works.
"""

# No `from __future__ import annotations`: the server reads the tools' types as they stand.
import asyncio
import base64
import binascii
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from starlette.routing import Mount

from demo import api
from demo.comparison import Backend
from demo.jobs import Caller, JobQueue, Refused
from demo.limits import name_address
from demo.record import ComparisonRecord, EngineRecord, describe, describe_engine
from demo.request import ComparisonRequest, RequestError

PATH = "/gradio_api/mcp"
"""Where Gradio's own server would be, so that clients find it."""

MOST_CLIP_BYTES = 32 * 2**20
LOOK_SECONDS = 0.1
"""Between two looks whether the caller has left."""

PURPOSE = f"""Transcribe a clip with several engines; each one's words, times and differences.

Give either `sample` or `clip_base64`, an audio file of at most {MOST_CLIP_BYTES >> 20} MB in base64
or as a data URL. `details` adds segments and tokens to each engine's text.

Args:
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tools:
    """The tools' routes, and what runs while the web server runs."""

    routes: list[Mount]
    run: Callable[[], AbstractAsyncContextManager[None]]


def make_tools(backend: Backend, queue: JobQueue, only_this_machine: bool = True) -> Tools | None:
    """The MCP server, or None without the package `mcp`.

    `only_this_machine`: refuse requests that a browser was tricked into sending here under another
    host's name.
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
        streamable_http_path="/",
        max_request_body_size=MOST_CLIP_BYTES * 2,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=only_this_machine,
            allowed_hosts=local,
            allowed_origins=[f"http://{host}" for host in local],
        ),
    )

    async def compare_clip(
        context: Any, clip_base64: str, details: bool, **sent: Any
    ) -> ComparisonRecord:
        with saved(clip_base64) as path:
            asked = ComparisonRequest.from_json(sent, backend.choices(), received=path)
            record = describe(await run(context, backend, queue, asked))
        return record if details else leave_out_details(record)

    async def list_engines() -> list[EngineRecord]:
        """The engines of this page, and why this machine can't run one."""
        return [describe_engine(status) for status in backend.statuses()]

    options = api.list_parameters(schedule=api.SCHEDULE)
    parameters = [
        Parameter("context", Parameter.POSITIONAL_OR_KEYWORD, annotation=Context),
        *(each for each in options if each.name == "sample"),
        api.new_parameter("clip_base64", str, ""),
        *(each for each in options if each.name != "sample"),
        api.new_parameter("details", bool, False),
    ]
    called: Any = compare_clip
    called.__signature__ = Signature(parameters, return_annotation=ComparisonRecord)
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    called.__annotations__["return"] = ComparisonRecord
    server.add_tool(called, description=PURPOSE + api.describe_parameters())
    server.add_tool(list_engines)
    return Tools([Mount(PATH, app=server.streamable_http_app())], server.session_manager.run)


async def run(context: Any, backend: Backend, queue: JobQueue, asked: ComparisonRequest) -> Any:
    """The finished comparison. A caller who leaves, or whose call is cancelled, has it stopped."""
    request = context.request_context.request
    host = request.client.host if request.client else None
    caller = Caller(f"tool {id(request)}", name_address(host))
    job = asyncio.create_task(api.compare(backend, queue, caller, asked))
    try:
        while not job.done():
            if await request.is_disconnected():
                raise ConnectionError("The caller has left.")
            await asyncio.wait([job], timeout=LOOK_SECONDS)
        return job.result()
    except Refused as refusal:
        raise RequestError(str(refusal)) from None
    finally:
        job.cancel()


def leave_out_details(record: ComparisonRecord) -> ComparisonRecord:
    """The record without segments and tokens, which a model seldom needs and which are long."""
    lanes = [replace(lane, segments=[], tokens=[]) for lane in record.lanes]
    return replace(record, lanes=lanes)


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
