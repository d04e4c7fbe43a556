"""Every private hook into openai-whisper (20250625), whose loop has none of its own, and into the
loops of faster-whisper and transformers.

Four names inside the whisper package are replaced once, when this module is imported. Each behaves
as the original unless this thread has a current `Transcription`:

- the progress bar of `whisper.transcribe`, which also reports the segments that became final;
- its log-mel spectrogram, which is timed;
- the sampler above temperature 0, which draws from the transcription's own seeded generator, as
  engines that run at the same time would else disturb each other's random numbers;
- the switch that turns fused attention off while words are aligned: it is process-wide in whisper
  and would reach into engines running beside this one, so here it is per thread.

A `TokenListener` stands among a window's logit filters, which whisper's loop calls for each token.
Two local variables of `whisper.transcribe` are read from its frame: `all_segments` and `seek` by
the progress bar, `time_offset` by `read_window_start`; faster-whisper's loop has one of that name.
Elsewhere `engines.token_selection` overrides `DecodingTask._main_loop`, `engines.graph_whisper`
stands in for the decoder's blocks, and `engines.checkpoints` reads `whisper._MODELS` and
`whisper._ALIGNMENT_HEADS`. A test names each of these if a new version lacks it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from time import perf_counter
from types import FrameType
from typing import Any, Protocol

import numba
import torch
import whisper.audio
import whisper.decoding
import whisper.model
import whisper.timing
import whisper.transcribe
from torch import Tensor
from whisper.decoding import DecodingTask, LogitFilter

from engines.base import EngineError
from engines.hardware import cache_folder

_transcribe_module = sys.modules["whisper.transcribe"]  # `whisper.transcribe` is the function


class Transcription(Protocol):
    """What the hooks report to; `generator`: for sampling above temperature 0."""

    generator: torch.Generator

    def add_mel_span(self, start: float, end: float) -> None:
        """Take in when the log-mel spectrogram was computed, on the clock of `perf_counter`."""

    def add_segments(self, segments: list[dict[str, Any]], seek: int) -> None:
        """Take in all segments so far, and the frame at which whisper's loop stands."""


current_transcription: ContextVar[Transcription | None] = ContextVar(
    "current_transcription", default=None
)


@cache
def compile_alignment() -> None:
    """Compile whisper's alignment of words, or read what was compiled before, and keep it.

    numba does so at its first use in a process, where it would count as decoding: four seconds, or
    under one where it was kept.
    """
    functions = (whisper.timing.dtw_cpu, whisper.timing.backtrace)
    numba.config.CACHE_DIR = numba.config.CACHE_DIR or str(cache_folder() / "numba")
    try:
        for each in functions:
            each.enable_caching()
        whisper.timing.dtw(torch.zeros(1, 1))
    except (RuntimeError, OSError):  # no folder that numba can write, or a full disk
        for each in functions:
            each._cache.disable()
        whisper.timing.dtw(torch.zeros(1, 1))


def read_window_start() -> float:
    """Return where the window that whisper's loop decodes begins, in seconds of audio."""
    return find_window_start(whisper.transcribe) or 0.0


def find_window_start(loop: Callable[..., Any]) -> float | None:
    """Return where the window begins that a loop further up the stack decodes, in seconds of audio;
    None outside of that loop."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not loop.__code__:
        frame = frame.f_back
    return float(frame.f_locals["time_offset"]) if frame is not None else None


def report_segments(model: Any, take: Callable[[list[dict[str, Any]]], None]) -> None:
    """Call `take` with the segments of each window that a transformers Whisper has decoded."""
    retrieve = model._retrieve_segment

    def retrieve_and_report(*args: Any, **kwargs: Any) -> tuple[list[dict[str, Any]], Any]:
        segments, offset = retrieve(*args, **kwargs)
        take(segments)
        return segments, offset

    model._retrieve_segment = retrieve_and_report


TELL_SECONDS = 0.1
"""Least time between two reports of a `TokenListener`: about as often as the page is drawn."""


class TokenListener(LogitFilter):
    """Reports the tokens chosen so far in a window; leaves the logits as they are."""

    def __init__(self, begin: int, tell: Callable[[list[int]], None]) -> None:
        """`begin`: the length of the prompt, which `tell` doesn't get."""
        self._begin, self._tell = begin, tell
        self._told = perf_counter()

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        """Take in the beams so far, `(beams, tokens)`, of which a search keeps the best first."""
        self.hear(tokens[0])

    def hear(self, beam: Tensor | Sequence[int]) -> None:
        """Take in the best beam so far, its prompt included; reading one off a GPU waits for it."""
        now = perf_counter()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            tokens = beam[self._begin :]
            self._tell(tokens.tolist() if isinstance(tokens, Tensor) else list(tokens))


def listen_to_tokens(task: DecodingTask, tell: Callable[[list[int]], None]) -> None:
    """Call `tell` with the tokens of the task's window so far, several times a second."""
    filters, begin = getattr(task, "logit_filters", None), getattr(task, "sample_begin", None)
    if not isinstance(filters, list) or not isinstance(begin, int):
        raise EngineError(
            f"Words can't be shown while they are decoded: openai-whisper {whisper.__version__} "
            "has another loop over tokens than 20250625."
        )
    filters.append(TokenListener(begin, tell))


class _ProgressBar(_transcribe_module.tqdm.tqdm):  # type: ignore[name-defined]
    """Whisper's progress bar; `update` is called once its loop has taken over new segments."""

    def update(self, n: float = 1) -> bool | None:
        if transcription := current_transcription.get():
            loop = sys._getframe(1).f_locals
            transcription.add_segments(loop["all_segments"], loop["seek"])
        return super().update(n)


class _TqdmModule:
    tqdm = _ProgressBar


def _timed_mel(audio: Any, *args: Any, **kwargs: Any) -> Tensor:
    start = perf_counter()
    mel = whisper.audio.log_mel_spectrogram(audio, *args, **kwargs)
    if transcription := current_transcription.get():
        transcription.add_mel_span(start, perf_counter())
    return mel


class _SeededCategorical(torch.distributions.Categorical):
    def sample(self, sample_shape: Any = ()) -> Tensor:
        transcription = current_transcription.get()
        if transcription is None:
            return super().sample(torch.Size(sample_shape))
        return torch.multinomial(self.probs, 1, generator=transcription.generator).squeeze(-1)


class _PerThreadSwitch(threading.local):
    on = True

    def __bool__(self) -> bool:
        return self.on


_fused_attention = _PerThreadSwitch()


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    before = _fused_attention.on
    _fused_attention.on = False
    try:
        yield
    finally:
        _fused_attention.on = before


_transcribe_module.tqdm = _TqdmModule  # type: ignore[attr-defined]
_transcribe_module.log_mel_spectrogram = _timed_mel  # type: ignore[attr-defined]
whisper.decoding.Categorical = _SeededCategorical
whisper.model.MultiHeadAttention.use_sdpa = _fused_attention
whisper.model.disable_sdpa = _without_fused_attention
