"""Routes for programs written for OpenAI's audio API: `/v1/audio/transcriptions` and the like.

A call is a comparison of one engine: it waits in the page's queue, and `ComparisonRequest` checks
what it asks for. `docs/api.md` has the fields.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from demo import uploads
from demo.api import compare, run_until_left, wait_until_gone
from demo.comparison import Backend
from demo.jobs import JobQueue, Refused, name_program
from demo.middleware import OPENAI_PATHS, refuse_as_openai
from demo.request import ComparisonRequest
from demo.rules import Choices, RequestError
from demo.snapshot import Comparison
from engines.base import Segment, Transcript
from engines.models import LANGUAGES
from engines.options import OPTIONS, show
from engines.registry import BASELINE
from engines.transcript_files import read_line_breaks, write_segments

FORMATS = ("json", "verbose_json", "text", "srt", "vtt")
OPENAI_MODEL = "whisper-1"
"""OpenAI's name of its model; here it stands for the model that the page starts with."""

GRANULARITIES = "timestamp_granularities[]"
LINE_FIELDS = ("max_line_width", "max_line_count")
REQUEST_FIELDS = {"beam_size", "track", "channel", *OPTIONS}
"""Fields that `ComparisonRequest` has by the same name."""
OPENAI_FIELDS = {
    *("file", "model", "language", "prompt", "temperature", "response_format", GRANULARITIES),
    *("stream", "include[]", "chunking_strategy"),  # of other models: left alone, as OpenAI does
}
MOST_FIELDS = 60


class RunFailed(Exception):
    """The engine failed; the text is its sentence."""


def make_routes(backend: Backend, queue: JobQueue) -> list[Route]:
    """Make a route for each task."""

    def make(path: str, task: str) -> Route:
        async def answer(request: Request) -> Response:
            try:
                async with read_form(request) as form:
                    return await transcribe(request, form, task, backend, queue)
            except (RequestError, ValueError) as error:
                return refuse_as_openai(400, str(error))
            except HTTPException as error:
                return refuse_as_openai(error.status_code, error.detail)
            except Refused as refusal:
                return refuse_as_openai(429, str(refusal))
            except RunFailed as failure:
                return refuse_as_openai(500, str(failure))

        return Route(path, answer, methods=["POST"])

    return [make(path, task) for path, task in OPENAI_PATHS.items()]


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[FormData]:
    """Read a form with one file; what was stored of it goes at the end."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RequestError("Send a form (multipart/form-data) with the clip as file.")
    async with request.form(max_files=1, max_fields=MOST_FIELDS) as form:
        yield form


async def transcribe(
    request: Request, form: FormData, task: str, backend: Backend, queue: JobQueue
) -> Response:
    """Run what a form asks for in its turn, and answer in the format that it names."""
    choices = backend.choices()
    sent = read_request(form, task, choices)
    response_format = str(form.get("response_format") or "json")
    if response_format not in FORMATS:
        raise RequestError(f"response_format must be one of {', '.join(FORMATS)}.")
    if sent["word_timestamps"] and response_format in ("json", "text"):
        raise RequestError(f"{GRANULARITIES} needs verbose_json, srt or vtt as response_format.")
    lines = read_line_breaks(*(form.get(name) for name in LINE_FIELDS))
    clip = form.get("file")
    if not isinstance(clip, UploadFile) or not clip.size:
        raise RequestError("file must be a clip, sent as a file of the form.")
    with tempfile.TemporaryDirectory(prefix="clip-", dir=uploads.find_folder()) as folder:
        path = Path(folder, Path(clip.filename or "").name[-100:] or "clip")
        await run_in_threadpool(save, clip, path)
        checked = ComparisonRequest.from_json(sent, choices, received=str(path))
        work = compare(backend, queue, name_program(request), checked)
        comparison = await run_until_left(work, wait_until_gone(request))
    lane = comparison.lanes[0]
    if lane.transcript is None:
        raise RunFailed(lane.reason or "The run was stopped.")
    if response_format in ("srt", "vtt"):
        end = comparison.source.file_time(comparison.audio_seconds, ends=True)
        return PlainTextResponse(write_segments(lane.segments, response_format, end, lines))
    if response_format == "text":
        return PlainTextResponse(lane.transcript.text.strip() + "\n")
    if response_format == "json":
        return JSONResponse({"text": lane.transcript.text.strip()})
    return JSONResponse(to_verbose_json(lane.transcript, comparison, task, checked.word_timestamps))


def save(clip: UploadFile, path: Path) -> None:
    """Copy a clip to a file of its own, by which the clip reader finds it."""
    with path.open("wb") as file:
        copyfileobj(clip.file, file)


def read_request(form: FormData, task: str, choices: Choices) -> dict[str, Any]:
    """Return a form's fields as `ComparisonRequest.from_json` takes them; raise `RequestError` for
    one that there isn't."""
    texts = {name: str(value) for name, value in form.items() if isinstance(value, str)}
    known = {*OPENAI_FIELDS, *REQUEST_FIELDS, *LINE_FIELDS, "engine"}
    if strange := sorted(set(texts) - known):
        raise RequestError(f"There is no field {show(strange[0])}: docs/api.md has all of them.")
    sent: dict[str, Any] = {name: text for name, text in texts.items() if name in REQUEST_FIELDS}
    granularities = {str(each) for each in form.getlist(GRANULARITIES)}
    if wrong := granularities - {"word", "segment"}:
        raise RequestError(f"{GRANULARITIES} can't be {show(wrong.pop())}: use word or segment.")
    model = texts.get("model") or OPENAI_MODEL
    sent |= {
        "engines": [texts.get("engine") or BASELINE],
        "model": ComparisonRequest.default(choices).model if model == OPENAI_MODEL else model,
        "language": texts.get("language") or None,
        "schedule": "one at a time",
        "task": task if task == "translate" else sent.get("task", task),
        "word_timestamps": "word" in granularities or bool(form.get("max_line_width")),
    }
    if prompt := texts.get("prompt"):
        sent["initial_prompt"] = prompt
    temperature = texts.get("temperature", "")
    if temperature.strip(" 0."):  # OpenAI's 0 lets the temperature rise, as our default does
        sent["temperatures"] = temperature
    return sent


def to_verbose_json(
    done: Transcript, comparison: Comparison, task: str, with_words: bool
) -> dict[str, Any]:
    """Return a transcript as OpenAI's `verbose_json` has it."""
    segments = comparison.lanes[0].segments
    answer: dict[str, Any] = {
        "task": task,
        "language": LANGUAGES.get(done.language, done.language),
        "duration": comparison.audio_seconds,
        "text": done.text.strip(),
        "segments": [segment_to_json(at, each, done) for at, each in enumerate(segments)],
    }
    if with_words:
        answer["words"] = [
            {"word": word.text.strip(), "start": word.start, "end": word.end}
            for each in segments
            for word in each.words or ()
        ]
    return answer


def segment_to_json(number: int, segment: Segment, done: Transcript) -> dict[str, Any]:
    """Return a segment in OpenAI's form; `seek` is its window's first frame of 10 ms."""
    heard = done.segments[number].start if number < len(done.segments) else segment.start
    window = max((start for start in done.window_starts if start <= heard), default=0.0)
    names = ("start", "end", "text", "tokens", "temperature")
    figures = ("avg_logprob", "compression_ratio", "no_speech_prob")
    return {
        "id": number,
        "seek": round(window * 100),
        **{name: getattr(segment, name) for name in (*names, *figures)},
    }
