"""For programs: the page's endpoints `/compare`, `/transcribe` and `/engines`, and MCP tools.

Both take plain JSON, wait in the same queue as the page's visitors, and return the records of
`demo.record`. Nothing but `ComparisonRequest.from_json` checks what comes in. `docs/api.md` is for
those who call.

Gradio's own MCP server returns Python text, takes clips by address, checks no host against DNS
rebinding and doesn't stop what a caller leaves, so another stands in its place.
"""

# No `from __future__ import annotations`: Gradio and the MCP server read types as they stand.
import asyncio
import base64
import logging
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict, replace
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, Literal, TypedDict, get_type_hints

import gradio as gr

from demo import uploads
from demo.comparison import Backend
from demo.job_snapshot import AnySnapshot
from demo.jobs import (
    Caller,
    JobQueue,
    Refused,
    Task,
    Value,
    Waiting,
    name_caller,
    name_program,
)
from demo.record import (
    ComparisonRecord,
    EngineRecord,
    LaneRecord,
    describe,
    describe_engine,
    describe_lane,
)
from demo.request import DEFAULTS, ComparisonRequest, find_upload
from demo.rules import RULES, RequestError
from demo.snapshot import Comparison
from engines.options import OPTIONS
from engines.registry import BASELINE

MOST_CLIP_BYTES = 32 * 2**20

PURPOSE = f"""Transcribe a clip with several engines; each one's words, times and differences.

Give either `sample` or `clip_base64`, an audio file of at most {MOST_CLIP_BYTES >> 20} MB in base64
or as a data URL. `details` adds segments and tokens to each engine's text."""

logger = logging.getLogger(__name__)


class FileMeta(TypedDict):
    """What Gradio knows an uploaded file by."""

    _type: Literal["gradio.FileData"]


class ClipFile(TypedDict):
    """An uploaded clip, as `gradio_client.handle_file` makes it."""

    path: str
    meta: FileMeta


async def compare(
    backend: Backend,
    queue: JobQueue,
    caller: Caller,
    request: ComparisonRequest,
    notify: Callable[[str], Any] = lambda sentence: None,
) -> Comparison:
    """Run a request to its end in its turn; cancelling the call stops it.

    `notify` is called with the place in the queue. Raises `Refused`, and `RequestError` for a clip
    that can't be read.
    """
    uploads.touch(request.upload)
    backend = replace(backend, describe_sound=None)  # which is for eyes
    last = await run_task(queue, caller, backend.start_comparison(request), notify)
    if last.refusal is not None:
        raise RequestError(last.refusal)
    return last


async def run_task(
    queue: JobQueue, caller: Caller, task: Task[AnySnapshot], notify: Callable[[str], Any]
) -> AnySnapshot:
    """Run a task in its turn, telling `notify` its place; return its last snapshot."""
    last = task.snapshot
    async with aclosing(queue.run(caller, task, lambda step: (step,))) as steps:
        async for step in steps:
            if isinstance(step, Waiting):
                notify(" ".join(step.describe()).strip())
            else:
                last = step
    return last


async def run_until_left(
    work: Coroutine[Any, Any, Value], left: Coroutine[Any, Any, None]
) -> Value:
    """Run a job until its caller leaves, which `left` waits for, or the call is cancelled; either
    stops it. Raises as the job does, and `Refused` for a caller who left."""
    job = asyncio.create_task(work)
    leaving = asyncio.create_task(left)
    try:
        await asyncio.wait([job, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise Refused("The caller has left.", alert=False)
        return job.result()
    finally:
        job.cancel()
        leaving.cancel()


async def wait_until_gone(request: Any) -> None:
    """Return once the connection of a request is closed."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


# Arguments, and how programs learn of them.

Arguments = Mapping[str, tuple[Any, Any, str]]
"""Type, default and help by name."""


def list_options() -> dict[str, tuple[Any, Any, str]]:
    """Return the fields of a request as arguments, for times that can be compared."""
    types = {**get_type_hints(ComparisonRequest), "engines": list[str] | None}
    lists = {name: row for name, row in OPTIONS.items() if row.kind == "numbers"}
    types |= {name: list[int] if row.whole else list[float] for name, row in lists.items()}
    defaults = {**DEFAULTS, "engines": None, "schedule": "one at a time"}
    return {name: (types[name], defaults[name], rule.help) for name, rule in RULES.items()}


def set_signature(function: Any, context: type, purpose: str, arguments: Arguments) -> None:
    """Give a function the signature and docstring that Gradio, the MCP server and a caller read.

    `context`: the type of its first parameter, which is not the caller's.
    """
    kind, returned = Parameter.POSITIONAL_OR_KEYWORD, function.__annotations__["return"]
    parameters = [Parameter("context", kind, annotation=context)] + [
        Parameter(name, kind, annotation=annotation, default=default)
        for name, (annotation, default, _) in arguments.items()
    ]
    function.__signature__ = Signature(parameters, return_annotation=returned)
    function.__annotations__ = {each.name: each.annotation for each in parameters}
    function.__annotations__["return"] = returned
    lines = [f"    {name}: {text}" for name, (_, _, text) in arguments.items()]
    function.__doc__ = "\n".join([purpose, "", "Args:", *lines])


def list_arguments() -> tuple[Arguments, Arguments]:
    """Return the arguments of `/compare` and of `/transcribe`."""
    about_clip = "the file to transcribe, uploaded; leave it out to name a sample instead"
    of_compare: Arguments = {"clip": (ClipFile | None, None, about_clip), **list_options()}
    of_transcribe: Arguments = {
        "engine" if name == "engines" else name: argument
        for name, argument in of_compare.items()
        if name not in ("schedule", "repeats", "other_model", "baseline")
    } | {"engine": (str, BASELINE, "a key as in /engines")}
    return of_compare, of_transcribe


@contextmanager
def errors_as_answers(sent: Mapping[str, Any]) -> Iterator[None]:
    """Turn what can't be done into an answer with its sentence; discard the clip that was sent."""
    try:
        yield
    except (RequestError, Refused) as error:
        raise gr.Error(str(error), print_exception=False) from None
    finally:
        with suppress(RequestError):
            uploads.discard(find_upload(sent.get("clip")))


def add_endpoints(backend: Backend, queue: JobQueue) -> None:
    """Name the endpoints; call it inside the page's `Blocks`, first, so that the names are free."""
    of_compare, of_transcribe = list_arguments()

    async def run(request: gr.Request, sent: dict[str, Any]) -> Comparison:
        with errors_as_answers(sent):
            checked = ComparisonRequest.from_json(sent, backend.choices())
            caller, left = name_caller(request), queue.streams.wait_until_left(request.session_hash)
            return await run_until_left(compare(backend, queue, caller, checked, gr.Info), left)

    async def compare_all(request: gr.Request, *values: Any) -> ComparisonRecord:
        comparison = await run(request, dict(zip(of_compare, values, strict=True)))
        return asdict(describe(comparison))  # type: ignore[return-value]

    async def transcribe(request: gr.Request, *values: Any) -> LaneRecord:
        sent = dict(zip(of_transcribe, values, strict=True))
        comparison = await run(request, {**sent, "engines": [sent["engine"]]})
        lane = comparison.lanes[0]
        if lane.transcript is None:
            reason = lane.reason or "The run was stopped."
            raise gr.Error(reason, print_exception=False)
        return asdict(describe_lane(lane, comparison))  # type: ignore[return-value]

    def engines() -> list[EngineRecord]:
        """The engines of this project, and why this machine lacks one."""
        return [asdict(describe_engine(each)) for each in backend.statuses()]  # type: ignore[misc]

    purpose = "Run one clip through several engines; their words, times and differences."
    set_signature(compare_all, gr.Request, purpose, of_compare)
    purpose = "Run one clip through one engine; its words with their times, and the run's seconds."
    set_signature(transcribe, gr.Request, purpose, of_transcribe)
    unlimited: dict[str, Any] = {"concurrency_limit": None}  # `JobQueue` is the queue
    gr.api(compare_all, api_name="compare", **unlimited)
    gr.api(transcribe, api_name="transcribe", **unlimited)
    gr.api(engines, api_name="engines", queue=False)


# MCP tools.


def make_tools(backend: Backend, queue: JobQueue) -> Any:
    """Make the `FastMCP` of `compare_clip` and `list_engines`; None without the package `mcp`.

    `demo.middleware` refuses other hosts' names before they come here.
    """
    try:
        from mcp.server.fastmcp import Context, FastMCP
        from mcp.server.transport_security import TransportSecuritySettings
    except ImportError:
        logger.info("no MCP tools: the package mcp is not installed")
        return None
    server = FastMCP(
        "One clip, every engine",
        instructions="Transcribes one clip of speech with several engines and compares them.",
        stateless_http=True,
        json_response=True,
        log_level="WARNING",
        streamable_http_path="/",
        max_request_body_size=MOST_CLIP_BYTES * 2,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    async def compare_clip(
        context: Any, clip_base64: str, details: bool, **sent: Any
    ) -> ComparisonRecord:
        with save_clip(clip_base64) as path:
            checked = ComparisonRequest.from_json(sent, backend.choices(), received=path)
            request = context.request_context.request
            work = compare(backend, queue, name_program(request), checked)
            try:
                comparison = await run_until_left(work, wait_until_gone(request))
            except Refused as refusal:
                raise RequestError(str(refusal)) from None
            record = describe(comparison)
        if details:
            return record
        lanes = [replace(lane, segments=(), tokens=()) for lane in record.lanes]
        return replace(record, lanes=lanes)

    async def list_engines() -> list[EngineRecord]:
        """The engines of this page, and why this machine can't run one."""
        return [describe_engine(status) for status in backend.statuses()]

    own = {"clip_base64": (str, "", "a clip"), "details": (bool, False, "adds segments and tokens")}
    set_signature(compare_clip, Context, PURPOSE, {**list_options(), **own})
    server.add_tool(compare_clip)
    server.add_tool(list_engines)
    return server


@contextmanager
def save_clip(text: str) -> Iterator[str]:
    """Save a clip in base64, or a data URL, for as long as it is needed; yield its path.

    Without a clip the path is empty. Raises `ValueError` with a sentence.
    """
    if not text:
        yield ""
        return
    code = text.partition(",")[2] if text.startswith("data:") else text
    try:
        content = base64.b64decode("".join(code.split()), validate=True)
    except ValueError as error:
        raise ValueError("clip_base64 is not base64: addresses are not fetched.") from error
    if len(content) > MOST_CLIP_BYTES:
        raise ValueError(f"The clip has more than {MOST_CLIP_BYTES >> 20} MB: shorten it.")
    with tempfile.TemporaryDirectory(prefix="clip-", dir=uploads.find_folder()) as folder:
        path = Path(folder) / "clip"
        path.write_bytes(content)
        yield str(path)
