"""The one decode loop: whisper's own `transcribe`, with a stage clock, live segments and a stop.

Every engine runs `whisper.transcribe` (20250625) over a `ClockedWhisper`, so whatever differs
between two transcripts comes from the encoder or decoder under test, or from the loop over one
window's tokens, which is whisper's or, for MAX's engines, `engines.token_loop`. It has no hooks of
its own, so four names inside the whisper package are replaced once, when this module is imported.
Each behaves exactly as the original unless this thread is inside `transcribe` below:

- its progress bar, which also reports the segments that just became final;
- its log-mel spectrogram, which is timed;
- the sampler used above temperature 0, which draws from the run's own seeded generator, since
  engines that run at the same time would otherwise disturb each other's random numbers;
- the switch that turns fused attention off while words are aligned, which is process-wide in
  whisper and would reach into the engines running beside this one: here it is per thread.
"""

from __future__ import annotations

import resource
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
import whisper.decoding
import whisper.model
import whisper.transcribe
from torch import Tensor, nn
from whisper.audio import SAMPLE_RATE as WHISPER_RATE
from whisper.decoding import DecodingOptions, DecodingResult, DecodingTask
from whisper.model import Whisper

from engines.base import (
    SAMPLE_RATE,
    Clip,
    Dtype,
    Listener,
    Options,
    Progress,
    Segment,
    Span,
    Stage,
    StageSeconds,
    Transcript,
    Word,
)

assert SAMPLE_RATE == WHISPER_RATE

SEED = 0
"""Seed of the generator that sampling above temperature 0 draws from, the same for every run."""

_transcribe_module = sys.modules["whisper.transcribe"]
_current: ContextVar[Run | None] = ContextVar("current run", default=None)


class Run:
    """What one transcription gathers while whisper's loop goes on."""

    def __init__(self, device: torch.device, clip: Clip, listener: Listener) -> None:
        self.device = device
        self.clip = clip
        self.listener = listener
        self.marks: list[Span] = []
        self.spans: tuple[Span, ...] = ()
        self.generator = torch.Generator(device).manual_seed(SEED)
        self.windows: list[np.ndarray] = []
        self.window_starts: list[float] = []
        self.audio_seconds_done = 0.0
        self._window_mel: Tensor | None = None
        self._segments_heard = 0

    def check_stop(self) -> None:
        """Raise `Stopped` if the listener asked for it."""
        self.listener.check_stopped()

    def report(self, stage: Stage) -> None:
        """Send the stage and the seconds of audio that are finished."""
        self.listener.progress(Progress(stage, self.audio_seconds_done, self.clip.seconds))

    def open_window(self, mel: Tensor) -> None:
        """A window is about to be decoded; a retry brings the same `mel` again."""
        if mel is not self._window_mel:
            self._window_mel = mel
            self.window_starts.append(_read_window_start())

    def keep_features(self, features: Tensor) -> None:
        """Keep a window's features, float32 `(n_audio_ctx, n_state)`; a retry replaces them."""
        del self.windows[len(self.window_starts) - 1 :]
        self.windows.append(features.float().cpu().numpy())

    def mark(self, stage: str, start: float, end: float) -> None:
        """Note when a stage ran; encoding belongs to the window that is open."""
        open_window = max(len(self.window_starts) - 1, 0)
        window = open_window if stage == "encode" else None
        self.marks.append(Span(stage, start, end - start, window))

    def sum_marks(self, stage: str) -> float:
        """Seconds that a marked stage took."""
        return sum(mark.seconds for mark in self.marks if mark.stage == stage)

    def hear(self, segments: list[dict[str, Any]], seek_frames: int) -> None:
        """Report what became final: `segments` are all so far, `seek_frames` where it stands."""
        for segment in segments[self._segments_heard :]:
            self.listener.segment(to_segment(segment))
        self._segments_heard = len(segments)
        seconds = seek_frames * whisper.audio.HOP_LENGTH / SAMPLE_RATE
        self.audio_seconds_done = min(seconds, self.clip.seconds)
        self.report("decoding")


class ClockedWhisper(Whisper):
    """A Whisper whose encoder is timed, whose decoder can be stopped, whose features are kept.

    `encoder` may be any module that maps `(batch, n_mels, 3000)` to
    `(batch, n_audio_ctx, n_audio_state)`.
    """

    def watch(self) -> None:
        """Install the clock and the stop check; call it once the modules are in place."""
        self.encoder.register_forward_pre_hook(_start_encoder_clock)
        self.encoder.register_forward_hook(_stop_encoder_clock)
        self.decoder.register_forward_pre_hook(_check_stop)

    def decode(self, mel: Tensor, options: Any = None, **kwargs: Any) -> Any:
        """Whisper's `decode` for one window, keeping the encoder features it used."""
        if mel.ndim == 3:
            return [self.decode(window, options, **kwargs) for window in mel]
        options = replace(options or DecodingOptions(), **kwargs)
        run = _current.get()
        if run is not None:
            run.open_window(mel)
        result: DecodingResult = self.task(options).run(mel[None])[0]
        if run is not None:
            run.keep_features(result.audio_features)
        return result

    def task(self, options: DecodingOptions) -> DecodingTask:
        """The loop over one window; an engine with a decoder of its own has another."""
        return DecodingTask(self, options)


def transcribe(
    model: ClockedWhisper, clip: Clip, options: Options, listener: Listener, dtype: Dtype
) -> tuple[dict[str, Any], Run, StageSeconds]:
    """Run whisper's loop over `clip`; returns its result, the run and the stage times."""
    run = Run(model.device, clip, listener)
    run.check_stop()
    listener.progress(Progress("mel", 0.0, clip.seconds))
    token = _current.set(run)
    try:
        synchronize(model.device)
        start = perf_counter()
        result = _call_whisper(model, clip, options, dtype)
        synchronize(model.device)
        end = perf_counter()
    finally:
        _current.reset(token)
    run.spans = fill_gaps(run.marks, start, end)
    mel, encode = run.sum_marks("mel"), run.sum_marks("encode")
    stages = StageSeconds(clip.decode_seconds, mel, encode, end - start - mel - encode)
    return result, run, stages


def fill_gaps(marks: list[Span], start: float, end: float) -> tuple[Span, ...]:
    """The marked stages in order, and `decode` wherever none was marked.

    What is left between two marks belongs to the window of the one before it.
    """
    spans: list[Span] = []
    now, window = start, None
    for mark in [*marks, Span("end", end, 0.0)]:
        if mark.start > now:
            spans.append(Span("decode", now, mark.start - now, window))
        spans.append(mark)
        now, window = mark.start + mark.seconds, mark.window
    return tuple(spans[:-1])


def _call_whisper(
    model: ClockedWhisper, clip: Clip, options: Options, dtype: Dtype
) -> dict[str, Any]:
    beam = options.beam_size if options.beam_size and options.beam_size > 1 else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Performing inference on CPU")
        return whisper.transcribe(
            model,
            clip.samples,
            temperature=options.temperatures,
            condition_on_previous_text=options.condition_on_previous_text,
            word_timestamps=options.word_timestamps,
            language=options.language,
            beam_size=beam,
            fp16=dtype == "float16" and model.device.type == "cuda",
        )


def to_transcript(
    result: dict[str, Any], run: Run, stages: StageSeconds, clip: Clip, **engine: str
) -> Transcript:
    """Whisper's result dictionary as a `Transcript`; `engine`: key, model, device and dtype."""
    segments = tuple(to_segment(segment) for segment in result["segments"])
    return Transcript(
        **engine,
        language=result["language"],
        text=result["text"],
        segments=segments,
        tokens=tuple(token for segment in segments for token in segment.tokens),
        features=np.stack(run.windows) if run.windows else np.zeros((0, 0, 0), np.float32),
        seconds=stages,
        audio_seconds=clip.seconds,
        peak_memory_bytes=peak_memory(run.device),
        window_starts=tuple(run.window_starts[: len(run.windows)]),
        spans=run.spans,
    )


def to_segment(segment: dict[str, Any]) -> Segment:
    """One of whisper's segment dictionaries as a record."""
    words = segment.get("words")
    return Segment(
        start=float(segment["start"]),
        end=float(segment["end"]),
        text=segment["text"],
        tokens=tuple(segment["tokens"]),
        temperature=segment["temperature"],
        words=None
        if words is None
        else tuple(
            Word(float(w["start"]), float(w["end"]), w["word"], float(w["probability"]))
            for w in words
        ),
    )


def synchronize(device: torch.device) -> None:
    """Wait for the device's queued work, so that a clock read next to it is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Peak bytes: PyTorch's allocations on CUDA, else this process's resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# The clock and the stop check, as hooks.

_encoder_clock = threading.local()


def _start_encoder_clock(module: nn.Module, inputs: Any) -> None:
    run = _current.get()
    if run is not None:
        run.check_stop()
        run.report("encoding")
        synchronize(run.device)
        _encoder_clock.start = perf_counter()


def _stop_encoder_clock(module: nn.Module, inputs: Any, output: Any) -> None:
    run = _current.get()
    if run is not None:
        synchronize(run.device)
        run.mark("encode", _encoder_clock.start, perf_counter())
        run.report("decoding")


def _check_stop(module: nn.Module, inputs: Any) -> None:
    check_stop()


def check_stop() -> None:
    """Raise `Stopped` if this thread's run was asked to stop."""
    run = _current.get()
    if run is not None:
        run.check_stop()


# The four replaced names.


class _ProgressBar(_transcribe_module.tqdm.tqdm):  # type: ignore[name-defined]
    """Whisper's progress bar; `update` is called once its loop has taken over new segments."""

    def update(self, n: float = 1) -> bool | None:
        run = _current.get()
        if run is not None:
            loop = sys._getframe(1).f_locals
            run.hear(loop["all_segments"], loop["seek"])
        return super().update(n)


class _TqdmModule:
    tqdm = _ProgressBar


def _timed_mel(audio: Any, *args: Any, **kwargs: Any) -> Tensor:
    start = perf_counter()
    mel = whisper.audio.log_mel_spectrogram(audio, *args, **kwargs)
    run = _current.get()
    if run is not None:
        run.mark("mel", start, perf_counter())
    return mel


def _read_window_start() -> float:
    """Where whisper's loop stands, in seconds of audio: its own variable, frames above this one."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not whisper.transcribe.__code__:
        frame = frame.f_back  # type: ignore[assignment]
    return float(frame.f_locals["time_offset"]) if frame is not None else 0.0


class _RunCategorical(torch.distributions.Categorical):
    def sample(self, sample_shape: Any = ()) -> Tensor:
        run = _current.get()
        if run is None:
            return super().sample(torch.Size(sample_shape))
        return torch.multinomial(self.probs, 1, generator=run.generator).squeeze(-1)


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
whisper.decoding.Categorical = _RunCategorical
whisper.model.MultiHeadAttention.use_sdpa = _fused_attention
whisper.model.disable_sdpa = _without_fused_attention
