"""The page's endpoints for programs: `/compare`, `/transcribe` and `/engines`.

They take plain JSON and a clip uploaded with `gradio_client.handle_file`, wait in the same queue as
the page's visitors, and give the records of `demo.record`. Gradio checks none of it, so everything
that comes in is checked here, and refused with one sentence. `docs/api.md` is for those who call.
"""

# No `from __future__ import annotations`: Gradio reads the endpoints' types as they stand.
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import gradio as gr
from starlette.concurrency import run_in_threadpool

from demo import tidy
from demo.compare import Run
from demo.record import ComparisonRecord, LaneRecord, describe, describe_lane
from demo.runs import Place, Refused, Runs, name_caller
from demo.samples import Sample, list_samples
from demo.session import Backend, Wish
from demo.snapshot import Comparison, Schedule, Settings
from engines.base import Dtype, EngineError, Options

MOST_BEAMS = 10
MOST_REPEATS = 5
LONGEST_SHOWN = 60
"""Characters of a wrong value that a sentence repeats."""


class RequestError(EngineError):
    """What a program asked for can't be done; the text is one sentence."""


class FileMeta(TypedDict):
    """What Gradio knows an uploaded file by."""

    _type: Literal["gradio.FileData"]


class ClipFile(TypedDict):
    """An uploaded clip, as `gradio_client.handle_file` makes it."""

    path: str
    meta: FileMeta


@dataclass(frozen=True)
class EngineRecord:
    """One engine of the project; `reason`: why this machine can't run it, else None."""

    engine: str
    label: str
    encoder: str
    decoder: str
    available: bool
    reason: str | None


def connect_api(backend: Backend, runs: Runs) -> None:
    """Name the endpoints; call it inside the page's `Blocks`."""
    queue: dict[str, Any] = {"concurrency_limit": None}  # `Runs` is the queue

    async def compare(
        request: gr.Request,
        clip: ClipFile | None = None,
        sample: str = "",
        engines: list[str] | None = None,
        model: str = "base",
        language: str = "en",
        beam_size: int = 1,
        schedule: Schedule = "one at a time",
        word_timestamps: bool = False,
        gpu_dtype: Dtype = "float32",
        repeats: int = 1,
    ) -> ComparisonRecord:
        """Run one clip through several engines; their words, times and differences.

        Args:
            clip: the file to transcribe, uploaded; leave it out to name a sample instead
            sample: the key of a clip that comes with the project, such as short or talk
            engines: keys as in /engines; all that this machine has, unless told
            model: nano, or one of OpenAI's names, which is downloaded on first use
            language: a code such as en, or nothing to let the model find out
            beam_size: 1 is greedy
            schedule: "one at a time" for times that can be compared, or "parallel"
            word_timestamps: whether segments have words with times
            gpu_dtype: float32 or float16, for the engine gpu alone
            repeats: runs of each engine; of several the median's times are given
        """
        with used_once(clip):
            asked = Request(backend).read(
                clip, sample, engines, model, language, beam_size, schedule, word_timestamps,
                gpu_dtype, repeats,
            )  # fmt: skip
            comparison = await finish(asked, backend, runs, request)
        return asdict(describe(comparison))  # type: ignore[return-value]

    async def transcribe(
        request: gr.Request,
        clip: ClipFile | None = None,
        sample: str = "",
        engine: str = "cpu",
        model: str = "base",
        language: str = "en",
        beam_size: int = 1,
        word_timestamps: bool = False,
        gpu_dtype: Dtype = "float32",
    ) -> LaneRecord:
        """Run one clip through one engine; its words with their times, and the run's seconds.

        Args:
            clip: the file to transcribe, uploaded; leave it out to name a sample instead
            sample: the key of a clip that comes with the project, such as short or talk
            engine: a key as in /engines
            model: nano, or one of OpenAI's names, which is downloaded on first use
            language: a code such as en, or nothing to let the model find out
            beam_size: 1 is greedy
            word_timestamps: whether segments have words with times
            gpu_dtype: float32 or float16, for the engine gpu alone
        """
        with used_once(clip):
            asked = Request(backend).read(
                clip, sample, [engine], model, language, beam_size, "one at a time",
                word_timestamps, gpu_dtype, 1,
            )  # fmt: skip
            comparison = await finish(asked, backend, runs, request)
        lane = comparison.lanes[0]
        if lane.transcript is None:
            raise refuse(lane.reason or "The run was stopped.")
        return asdict(describe_lane(lane, comparison))  # type: ignore[return-value]

    def engines() -> list[EngineRecord]:
        """The engines of this project, and why this machine lacks one."""
        return [asdict(record) for record in list_engines(backend)]  # type: ignore[misc]

    gr.api(compare, api_name="compare", **queue)
    gr.api(transcribe, api_name="transcribe", **queue)
    gr.api(engines, api_name="engines", queue=False)


def list_engines(backend: Backend) -> list[EngineRecord]:
    """Every engine as a record."""
    return [
        EngineRecord(s.key, s.label, s.encoder, s.decoder, s.available, s.reason)
        for s in backend.statuses()
    ]


async def finish(asked: Wish, backend: Backend, runs: Runs, request: gr.Request) -> Comparison:
    """Wait for a turn, then run what was asked for to its end; the caller's leaving stops it.

    A caller that listens to the log hears the place in the queue while it waits.
    """
    try:
        with runs.join(name_caller(request), asked.sort) as place:
            async for standing in runs.wait(place):
                gr.Info(" ".join(standing.describe()).strip())
            comparison = await run_in_threadpool(run_to_end, asked.make_run(backend), runs, place)
    except Refused as refusal:
        raise refuse(str(refusal)) from None
    if comparison.refusal is not None:
        raise refuse(comparison.refusal)
    return comparison


def run_to_end(run: Run, runs: Runs, place: Place) -> Comparison:
    """The finished comparison of a run whose turn has come."""
    runs.enter(place, run)
    (comparison,) = deque(run.snapshots(), maxlen=1)
    if len(comparison.done) == len(comparison.lanes):
        runs.learn(place)
    return comparison


def refuse(sentence: str) -> gr.Error:
    """An error that reaches the caller as this sentence, without a trace in the log."""
    return gr.Error(sentence, print_exception=False)


class Request:
    """Reads what a program sent, any JSON at all, into what a visitor could have wished for."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def read(self, *arguments: Any) -> Wish:
        """The wish; raises `gr.Error` with one sentence for anything that isn't one."""
        try:
            return self.check(*arguments)
        except RequestError as error:
            raise refuse(str(error)) from error

    def check(
        self,
        clip: Any,
        sample: Any,
        engines: Any,
        model: Any,
        language: Any,
        beam_size: Any,
        schedule: Any,
        word_timestamps: Any,
        gpu_dtype: Any,
        repeats: Any,
    ) -> Wish:
        """As `read`, but raises `RequestError`."""
        beams = check_number("beam_size", beam_size, MOST_BEAMS)
        options = Options(
            language=check_language(language),
            beam_size=beams if beams > 1 else None,
            word_timestamps=check_flag("word_timestamps", word_timestamps),
        )
        settings = Settings(
            engines=self.check_engines(engines),
            model=check_choice("model", model, self._backend.models()),
            options=options,
            schedule=check_choice("schedule", schedule, get_args(Schedule)),  # type: ignore[arg-type]
            gpu_dtype=check_choice("gpu_dtype", gpu_dtype, get_args(Dtype)),  # type: ignore[arg-type]
            repeats=check_number("repeats", repeats, MOST_REPEATS),
        )
        return self.check_clip(clip, sample, settings)

    def check_clip(self, clip: Any, sample: Any, settings: Settings) -> Wish:
        """A sample of ours or a file that was uploaded; never another file of this machine."""
        if clip is not None and sample:
            raise RequestError("Give either a clip or a sample, not both.")
        if clip is not None:
            return Wish(None, find_upload(clip), settings)
        found: Sequence[Sample] = list_samples(self._backend.samples)
        key = check_choice("sample", sample, [one.key for one in found])
        return Wish(next(one for one in found if one.key == key), None, settings)

    def check_engines(self, engines: Any) -> tuple[str, ...]:
        """Keys in the registry's order; none means all that this machine has."""
        statuses = self._backend.statuses()
        if engines is not None and not isinstance(engines, list):
            raise RequestError(f"engines must be a list of keys, not {show(engines)}.")
        if not engines:
            return tuple(status.key for status in statuses if status.available)
        asked = {check_choice("engine", key, [s.key for s in statuses]) for key in engines}
        return tuple(status.key for status in statuses if status.key in asked)


def find_upload(clip: Any) -> str:
    """The path of an uploaded clip, which must lie in the folder for uploads."""
    path = clip.get("path") if isinstance(clip, dict) else None
    if not isinstance(path, str) or not path:
        raise RequestError("clip must be an uploaded file: send it with gradio_client.handle_file.")
    try:
        real = Path(path).resolve(strict=True)
        known = real.is_file() and tidy.is_upload(path)
    except (OSError, ValueError, RuntimeError):  # a NUL byte, a loop of links, no such file
        known = False
    if not known:
        raise RequestError("clip is not a file that was uploaded here: upload it first.")
    return str(real)


@contextmanager
def used_once(clip: Any) -> Iterator[None]:
    """Delete the uploaded clip of a call at its end, whatever came of it."""
    try:
        yield
    finally:
        with suppress(RequestError):
            tidy.discard(find_upload(clip))


def check_choice(name: str, value: Any, known: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in known:
        raise RequestError(f"{name} can't be {show(value)}: use one of {', '.join(known)}.")
    return value


def check_language(value: Any) -> str | None:
    """A language's code; None, or nothing, to find it out."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or value not in list_languages():
        raise RequestError(
            f"language can't be {show(value)}: use a code such as en, or nothing to find it out."
        )
    return value


@cache
def list_languages() -> frozenset[str]:
    """The codes Whisper knows; imported late because it pulls in torch."""
    from whisper.tokenizer import LANGUAGES

    return frozenset(LANGUAGES)


def check_number(name: str, value: Any, most: int) -> int:
    """A whole number from 1 to `most`; JSON may write 5 as 5.0."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole or not 1 <= value <= most:
        raise RequestError(
            f"{name} must be a whole number from 1 to {most}, and {show(value)} isn't."
        )
    return int(value)


def check_flag(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false, not {show(value)}.")
    return value


def show(value: Any) -> str:
    """A wrong value on one line, not too long."""
    try:
        text = repr(value)[: 4 * LONGEST_SHOWN]
    except RecursionError:  # a list in a list in a list, a thousand times
        text = f"such a {type(value).__name__}"
    line = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 1] + "…"
