"""The page's endpoints for programs: `/compare`, `/transcribe` and `/engines`.

They take plain JSON and a clip uploaded with `gradio_client.handle_file`, wait in the same queue as
the page's visitors, and return the records of `demo.record`. Gradio checks none of what comes in:
`ComparisonRequest.from_json` does. `docs/api.md` is for those who call.
"""

# No `from __future__ import annotations`: Gradio reads the endpoints' types as they stand.
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict
from inspect import Parameter, Signature
from typing import Any, Literal, TypedDict, get_type_hints

import gradio as gr

from demo import uploads
from demo.comparison import Backend
from demo.jobs import Caller, JobQueue, Refused, Waiting, name_caller
from demo.record import (
    ComparisonRecord,
    EngineRecord,
    LaneRecord,
    describe,
    describe_engine,
    describe_lane,
)
from demo.request import (
    DEFAULTS,
    RULES,
    ComparisonRequest,
    RequestError,
    find_upload,
)
from demo.snapshot import Comparison

SCHEDULE = "one at a time"
"""Programs want times that can be compared."""


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
    tell: Callable[[str], Any] = lambda sentence: None,
) -> Comparison:
    """Run a request to its end in its turn; cancelling the call stops it.

    `tell` hears the place in the queue. Raises `Refused`, and `RequestError` for a clip that can't
    be read.
    """
    uploads.touch(request.upload)
    steps = queue.run(caller, backend.start_comparison(request), lambda step: (step,))
    last: Any = None
    async with aclosing(steps):
        async for last in steps:
            if isinstance(last, Waiting):
                tell(" ".join(last.describe()).strip())
    if last.refusal is not None:
        raise RequestError(last.refusal)
    return last


def add_endpoints(backend: Backend, queue: JobQueue) -> None:
    """Name the endpoints; call it inside the page's `Blocks`, first, so that the names are free."""

    async def run(request: gr.Request, sent: dict[str, Any]) -> Comparison:
        with used_once(sent.get("clip")):
            try:
                asked = ComparisonRequest.from_json(sent, backend.choices())
                return await compare(backend, queue, name_caller(request), asked, gr.Info)
            except (RequestError, Refused) as error:
                raise gr.Error(str(error), print_exception=False) from None

    async def compare_all(request: gr.Request, *values: Any) -> ComparisonRecord:
        comparison = await run(request, dict(zip(names(compare_all), values, strict=True)))
        return asdict(describe(comparison))  # type: ignore[return-value]

    async def transcribe(request: gr.Request, *values: Any) -> LaneRecord:
        sent = dict(zip(names(transcribe), values, strict=True))
        comparison = await run(request, {**sent, "engines": [sent["engine"]]})
        lane = comparison.lanes[0]
        if lane.transcript is None:
            reason = lane.reason or "The run was stopped."
            raise gr.Error(reason, print_exception=False)
        return asdict(describe_lane(lane, comparison))  # type: ignore[return-value]

    def engines() -> list[EngineRecord]:
        """The engines of this project, and why this machine lacks one."""
        return [asdict(describe_engine(each)) for each in backend.statuses()]  # type: ignore[misc]

    clip = new_parameter("clip", ClipFile | None, None)
    engine = new_parameter("engine", str, "cpu")
    sample, *rest = list_parameters(schedule=SCHEDULE)
    sign(
        compare_all,
        "Run one clip through several engines; their words, times and differences.",
        [clip, sample, *rest],
    )
    left_out = ("engines", "schedule", "repeats")
    sign(
        transcribe,
        "Run one clip through one engine; its words with their times, and the run's seconds.",
        [clip, sample, engine, *(each for each in rest if each.name not in left_out)],
    )
    unlimited: dict[str, Any] = {"concurrency_limit": None}  # `JobQueue` is the queue
    gr.api(compare_all, api_name="compare", **unlimited)
    gr.api(transcribe, api_name="transcribe", **unlimited)
    gr.api(engines, api_name="engines", queue=False)


def new_parameter(name: str, kind: Any, default: Any) -> Parameter:
    """A parameter that programs may leave out."""
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)


def sign(function: Any, purpose: str, parameters: list[Parameter]) -> None:
    """Give an endpoint the signature and docstring that Gradio, and a caller, read."""
    request = Parameter("request", Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    returned = function.__annotations__["return"]
    function.__signature__ = Signature([request, *parameters], return_annotation=returned)
    annotations = {each.name: each.annotation for each in (request, *parameters)}
    function.__annotations__ = {**annotations, "return": returned}
    left_out = {each.name for each in list_parameters()} - set(annotations)
    lines = describe_parameters(*left_out)
    clip = "    clip: the file to transcribe, uploaded; leave it out to name a sample instead"
    engine = "\n    engine: a key as in /engines" if "engine" in annotations else ""
    function.__doc__ = f"{purpose}\n\nArgs:\n{clip}{engine}\n{lines}"


def names(function: Any) -> list[str]:
    """The parameters of a signed endpoint, but for the request."""
    return list(function.__signature__.parameters)[1:]


@contextmanager
def used_once(clip: Any) -> Iterator[None]:
    """Delete the uploaded clip of a call at its end, whatever came of it."""
    try:
        yield
    finally:
        with suppress(RequestError):
            uploads.discard(find_upload(clip))


def list_parameters(*left_out: str, **defaults: Any) -> list[Parameter]:
    """The fields as parameters of a function that programs call, with its own defaults."""
    types = get_type_hints(ComparisonRequest)
    return [
        Parameter(
            name,
            Parameter.POSITIONAL_OR_KEYWORD,
            default=defaults.get(name, None if name == "engines" else DEFAULTS[name]),
            annotation=list[str] | None if name == "engines" else types[name],
        )
        for name in RULES
        if name not in left_out
    ]


def describe_parameters(*left_out: str) -> str:
    """A line for each field, as a docstring's `Args:` has it."""
    lines = (f"    {name}: {rule.help}" for name, rule in RULES.items() if name not in left_out)
    return "\n".join(lines)
