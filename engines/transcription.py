"""Transcription by whisper's own loop, with a stage clock, live segments and cancellation.

Every engine runs `whisper.transcribe` (20250625) over a `TimedWhisper`, so two transcripts differ
only by the encoder or decoder under test, or by the loop over one window's tokens, which is
whisper's or, for MAX's engines, `engines.token_selection`. `WhisperEngine` is the base class of
these engines. The hooks into whisper are in `engines.whisper_hooks`.
"""

from __future__ import annotations

import codecs
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import torch
import whisper
from torch import Tensor
from whisper.audio import HOP_LENGTH
from whisper.decoding import DecodingOptions, DecodingResult, DecodingTask
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from engines import checkpoints, logs, whisper_hooks
from engines.base import (
    SAMPLE_RATE,
    SILENT,
    Clip,
    Dtype,
    EngineError,
    FloatArray,
    Listener,
    Options,
    PrepareSeconds,
    Segment,
    Span,
    StageSeconds,
    Transcript,
    Window,
    Word,
    describe_error,
    ran_out_of_memory,
)
from engines.checkpoints import Checkpoint
from engines.clip_clock import count_seconds, find_parts
from engines.hardware import PeakMemory, release_memory, synchronize
from engines.options import OPTIONS
from engines.registry import EngineRow
from engines.speech import compute_first_window, keep_to_speech
from engines.whisper_arguments import check_options, list_arguments

logger = logs.logger(__name__)

Result = TypeVar("Result")


class TranscriptionState:
    """What one transcription gathers in whisper's loop: a `whisper_hooks.Transcription`."""

    def __init__(
        self, device: torch.device, clip: Clip, listener: Listener, live: bool = False
    ) -> None:
        self.device = device
        self.clip = clip
        self.listener = listener
        self.live = live
        self.generator = torch.Generator(device).manual_seed(0)
        self.spans: list[Span] = []
        self.features: list[FloatArray] = []
        self.window_starts: list[float] = []
        self.windows: list[Window] = []
        self.language_probability: float | None = None
        self.speech: FloatArray | None = None
        self.computed: dict[object, tuple[FloatArray, Any]] = {}  # see `compute_once`
        self.recalled = False  # whether what was asked for last had been computed before
        self._seconds_done = 0.0
        self._window_mel: Tensor | None = None
        self._segments_sent = 0
        self._encode_start = 0.0

    def open_window(self, mel: Tensor) -> None:
        """Note the start of a window; a retry at another temperature brings the same `mel`."""
        if mel is not self._window_mel:
            self._window_mel = mel
            self.window_starts.append(whisper_hooks.read_window_start())

    def keep_window(self, prompt: Sequence[int], result: DecodingResult, drafted: int) -> None:
        """Keep what was decoded for a window; a retry replaces it."""
        del self.windows[len(self.window_starts) - 1 :]
        start, tokens = self.window_starts[-1], tuple(result.tokens)
        self.windows.append(Window(start, tuple(prompt), tokens, result.temperature, drafted))

    def keep_features(self, features: Tensor) -> None:
        """Keep a window's features, float32 `(n_audio_ctx, n_state)`; a retry replaces them."""
        del self.features[len(self.window_starts) - 1 :]
        self.features.append(features.float().cpu().numpy())

    def start_encoding(self) -> None:
        """Start the encoder's clock, once the device is idle; raise `Stopped` if asked to."""
        self.listener.report("encoding", self._seconds_done, self.clip.seconds)
        synchronize(self.device)
        self._encode_start, self.recalled = perf_counter(), False

    def end_encoding(self) -> None:
        """Stop the encoder's clock, once the device is idle; what was recalled takes no time."""
        synchronize(self.device)
        start, window = self._encode_start, max(len(self.window_starts) - 1, 0)
        if not self.recalled:
            self.spans.append(Span("encode", start, perf_counter() - start, window))
        self.listener.report("decoding", self._seconds_done, self.clip.seconds)

    def add_mel_span(self, start: float, end: float) -> None:
        """As `whisper_hooks.Transcription`."""
        self.spans.append(Span("mel", start, end - start))

    def add_segments(self, segments: list[dict[str, Any]], seek: int) -> None:
        """As `whisper_hooks.Transcription`: send the segments that became final."""
        for segment in segments[self._segments_sent :]:
            self.listener.segment(to_segment(segment))
        self._segments_sent = len(segments)
        self._seconds_done = min(seek * HOP_LENGTH / SAMPLE_RATE, self.clip.seconds)
        self.listener.report("decoding", self._seconds_done, self.clip.seconds)

    def report_words(self, tokenizer: Tokenizer, tokens: list[int]) -> None:
        """Send the text of a window's tokens so far, without an incomplete character at its end."""
        text = tokenizer.encoding.decode_bytes([each for each in tokens if each < tokenizer.eot])
        whole = codecs.getincrementaldecoder("utf-8")("replace").decode(text)
        self.listener.partial(whole)

    def all_spans(self, start: float, end: float) -> tuple[Span, ...]:
        """Return the spans in order, with `decode` wherever no other stage ran, and `setup` there
        until a window has been encoded.

        What lies between two spans belongs to the window of the one before it.
        """
        spans: list[Span] = []
        now, window, rest = start, None, "setup"
        for span in [*self.spans, Span("end", end, 0.0)]:
            if span.start > now:
                spans.append(Span(rest, now, span.start - now, window))
            spans.append(span)
            now, window = span.start + span.seconds, span.window
            rest = "decode" if span.stage == "encode" else rest
        return tuple(spans[:-1])


def current_state() -> TranscriptionState | None:
    """Return the state of this thread's transcription, None outside of one."""
    return cast("TranscriptionState | None", whisper_hooks.current_transcription.get())


def call_state(method: Callable[[TranscriptionState], None]) -> Callable[..., None]:
    """Return a hook of a module that calls a method of this thread's transcription, if any."""

    def hook(*_: Any) -> None:
        if state := current_state():
            method(state)

    return hook


def time_encoder(encoder: torch.nn.Module) -> None:
    """Time every call of an encoder."""
    encoder.register_forward_pre_hook(call_state(TranscriptionState.start_encoding))
    encoder.register_forward_hook(call_state(TranscriptionState.end_encoding))


class TimedWhisper(Whisper):
    """A Whisper that times its encoder, keeps its features and can be stopped in its decoder.

    `encoder` may be any module that maps `(batch, n_mels, 3000)` to
    `(batch, n_audio_ctx, n_audio_state)`.
    """

    def install_hooks(self) -> None:
        """Install the clock and the stop check; call it once the modules are in place."""
        time_encoder(self.encoder)
        self.decoder.register_forward_pre_hook(call_state(lambda s: s.listener.check_stopped()))

    def decode(self, mel: Tensor, options: Any = None, **kwargs: Any) -> Any:
        """Whisper's `decode` for one window `(n_mels, 3000)`, keeping the features it used."""
        state = current_state()
        if state:
            state.open_window(mel)
        task = self.decoding_task(replace(options or DecodingOptions(), **kwargs))
        if state and state.live:
            whisper_hooks.listen_to_tokens(task, partial(state.report_words, task.tokenizer))
        result: DecodingResult = task.run(mel[None])[0]
        if state:
            state.keep_window(task.initial_tokens, result, getattr(task, "drafted", 0))
            state.keep_features(result.audio_features)
        return result

    def decoding_task(self, options: DecodingOptions) -> DecodingTask:
        """Return the loop over one window's tokens; an engine may have one of its own."""
        return DecodingTask(self, options)

    def detect_language(self, mel: Tensor, tokenizer: Any = None) -> Any:
        """Whisper's, of the first speech where that was found; keeps the language's probability."""
        state = current_state()
        if state and state.speech is not None:
            mel = compute_first_window(state.speech, self.dims.n_mels).to(mel.device, mel.dtype)
        tokens, probabilities = super().detect_language(mel, tokenizer)
        if state and isinstance(probabilities, dict):
            state.language_probability = max(probabilities.values())
        return tokens, probabilities


FIGURES = ("avg_logprob", "compression_ratio", "no_speech_prob")
"""Whisper's figures of a segment's window."""


def to_segment(segment: dict[str, Any]) -> Segment:
    """Return one of whisper's segment dictionaries as a record."""
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
        **{name: None if segment.get(name) is None else float(segment[name]) for name in FIGURES},
    )


class WhisperEngine:
    """An `engines.base.Engine` over a `TimedWhisper`; a subclass builds that model.

    `prepare` and `transcribe` may be called from any thread; an engine serves one call at a time.
    `lacks`: fields of `engines.options` that it doesn't have.
    """

    lacks: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, row: EngineRow, model: str, device: str, dtype: Dtype) -> None:
        self.key, self.label = row.key, row.label
        self.encoder, self.decoder = row.encoder, row.decoder
        self.model = model
        self.device = device
        self.dtype: Dtype = dtype
        self._lock = threading.RLock()
        self._whisper: TimedWhisper | None = None
        self._prepared = PrepareSeconds()

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        """Return the model with encoder and decoder in place, and the seconds spent compiling."""
        raise NotImplementedError

    def prepare(self, listener: Listener = SILENT) -> PrepareSeconds:
        with self._lock:
            if self._whisper is None:
                self._guard_memory(lambda: self._load(listener))
            return self._prepared

    def _load(self, listener: Listener) -> None:
        listener.report("loading")
        start = perf_counter()
        checkpoint = checkpoints.load(self.model, listener)
        model, compiling = self.build(checkpoint, listener)
        del checkpoint
        release_memory()
        model.install_hooks()
        # Whisper reads its vocabulary at the first run, which would pay for it.
        get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
        self._whisper = model
        self._prepared = PrepareSeconds(perf_counter() - start - compiling, compiling)
        logger.info("prepared", engine=self.key, model=self.model, **vars(self._prepared))

    def ready(self) -> TimedWhisper:
        """Prepare the engine and return its model."""
        self.prepare()
        assert self._whisper is not None
        return self._whisper

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener = SILENT
    ) -> Transcript:
        with self._lock:
            return self.run(self.ready(), clip, options or Options(), listener)

    def run(
        self, model: TimedWhisper, clip: Clip, options: Options, listener: Listener
    ) -> Transcript:
        """As `transcribe`, with this model and without the lock."""
        check_options(self.model, model, options)
        self._check_offered(options)
        options = replace(options, clip_timestamps=find_parts(clip, options.clip_timestamps))
        if options.word_timestamps:
            whisper_hooks.compile_alignment()  # before the clock starts
        found = self._guard_memory(lambda: self._transcribe(model, clip, options, listener))
        about = {"engine": self.key, "model": self.model, "clip": clip.name}
        logger.info("transcribed", **about, audio_seconds=clip.seconds, **found.seconds.as_dict())
        logger.debug("said", **about, text=found.text)
        return found

    def _check_offered(self, options: Options) -> None:
        """Raise `EngineError` for changed options that the engine doesn't have."""
        lacking = [OPTIONS[name].label for name in options.changed() if name in self.lacks]
        if lacking:
            raise EngineError(
                f"{self.label} has no choice of {', '.join(map(repr, lacking))}: set that back to "
                "its usual value, or leave this engine out."
            )

    def _transcribe(
        self, model: TimedWhisper, clip: Clip, options: Options, listener: Listener
    ) -> Transcript:
        device = model.device
        state = TranscriptionState(device, clip, listener, options.live)
        asked = count_seconds(clip, options.clip_timestamps)
        listener.report("mel", 0.0, clip.seconds)
        token = whisper_hooks.current_transcription.set(state)
        try:
            synchronize(device)
            memory = PeakMemory(device.type == "cuda")
            start = perf_counter()
            with memory, warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Performing inference on CPU")
                options, state.speech = keep_to_speech(clip, options, listener)
                result = self.run_loop(model, clip, options)
            synchronize(device)
            end = perf_counter()
        finally:
            whisper_hooks.current_transcription.reset(token)
        segments = tuple(to_segment(segment) for segment in result["segments"])
        spans = state.all_spans(start, end)
        stages = {
            stage: sum(span.seconds for span in spans if span.stage == stage)
            for stage in ("mel", "encode", "decode", "setup")
        }
        return Transcript(
            engine=self.key,
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            language=result["language"],
            text=result["text"],
            segments=segments,
            tokens=tuple(token for segment in segments for token in segment.tokens),
            features=np.stack(state.features) if state.features else np.zeros((0, 0, 0), "f4"),
            seconds=StageSeconds(clip.decode_seconds, **stages),
            audio_seconds=asked,
            peak_memory_bytes=memory.peak_bytes,
            window_starts=tuple(state.window_starts[: len(state.features)]),
            windows=tuple(state.windows),
            spans=spans,
            language_probability=state.language_probability,
        )

    def run_loop(self, model: TimedWhisper, clip: Clip, options: Options) -> dict[str, Any]:
        """Return `text`, `segments` and `language` as `whisper.transcribe` has them."""
        result: dict[str, Any] = whisper.transcribe(
            model,
            clip.samples,
            **list_arguments(options),
            word_timestamps=options.word_timestamps,
            language=options.language,
            beam_size=None if options.beam_size == 1 else options.beam_size,
            fp16=self.dtype == "float16" and model.device.type == "cuda",
        )
        return result

    def encode(self, mel: FloatArray) -> FloatArray:
        with self._lock, torch.inference_mode():
            model = self.ready()
            return self._guard_memory(lambda: self._encode(model, mel))

    def _encode(self, model: TimedWhisper, mel: FloatArray) -> FloatArray:
        windows = torch.from_numpy(np.ascontiguousarray(mel)).to(model.device)
        if self.dtype == "float16" and windows.is_cuda:
            windows = windows.half()
        features: FloatArray = model.encoder(windows).float().cpu().numpy()
        return features

    def close(self) -> None:
        with self._lock:
            self._whisper = None
            release_memory()

    def _guard_memory(self, work: Callable[[], Result]) -> Result:
        """Call `work`; where memory runs out, free what it took and raise `EngineError`."""
        try:
            return work()
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            sentence = f"{self.label} failed: {describe_error(error)}."
        release_memory()  # out here, where the error no longer holds on to the run's tensors
        raise EngineError(sentence)
