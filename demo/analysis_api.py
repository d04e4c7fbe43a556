"""For programs: the page's endpoint `/why`, like those of `demo.api`."""

# No `from __future__ import annotations`: Gradio reads types as they stand.
from dataclasses import asdict
from typing import Any

import gradio as gr

from demo import api
from demo.analysis_task import make_explanation
from demo.comparison import Backend
from demo.jobs import JobQueue, name_caller
from demo.record import DivergenceRecord, describe_divergence
from demo.request import ComparisonRequest
from demo.rules import RequestError
from engines.registry import BASELINE


def add_why(backend: Backend, queue: JobQueue) -> None:
    """Name the endpoint that asks why two engines differ, with arguments like `/transcribe`'s."""
    of_why: api.Arguments = {
        name: argument
        for name, argument in api.list_arguments()[1].items()
        if name not in ("word_timestamps", "gpu_dtype", "reference")
    } | {"against": (str, BASELINE, "the engine that it is held against")}

    async def why(request: gr.Request, *values: Any) -> DivergenceRecord:
        sent = dict(zip(of_why, values, strict=True))
        pair = sent.pop("against"), sent.pop("engine")
        with api.errors_as_answers(sent):
            wanted = ComparisonRequest.from_json({**sent, "engines": list(pair)}, backend.choices())
            task = make_explanation(backend, wanted, pair)
            caller, left = name_caller(request), queue.streams.wait_until_left(request.session_hash)
            last = await api.run_until_left(api.run_task(queue, caller, task, gr.Info), left)
            if last.result is None:
                raise RequestError(last.reason or "The run was stopped.")
            return asdict(describe_divergence(last.result))  # type: ignore[return-value]

    purpose = "Where two engines' tokens part, the half of the model behind it, and who is right."
    api.set_signature(why, gr.Request, purpose, of_why)
    gr.api(why, api_name="why", concurrency_limit=None)
