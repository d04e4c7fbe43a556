"""Engines that need no model, for tests of the page: they say given words at a given pace."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engines.analysis.sound import SoundView
from engines.base import (
    SAMPLE_RATE,
    SILENT,
    AudioError,
    Clip,
    Dtype,
    FloatArray,
    Listener,
    Options,
    PrepareSeconds,
    Progress,
    Segment,
    Span,
    StageSeconds,
    Transcript,
    Word,
)
from engines.registry import EngineStatus, row

GATE_SECONDS = 60.0
"""A compile held longer than this belongs to a test that failed."""

WORDS = "The compiler turns the graph into fast code for every chip"

CPU, GPU, MAX = (
    EngineStatus(**{**vars(row(key)), "label": label, "about": ""}, reason=reason)
    for key, label, reason in (
        ("cpu", "CPU", None),
        ("gpu", "GPU", "no CUDA device was found"),
        ("max_hybrid", "MAX hybrid", None),
    )
)
STATUSES = (CPU, GPU, MAX)


@dataclass
class FakeEngine:
    """Says `words`, one segment for each four, `pace` seconds apart.

    `error` is raised after the first segment; `compile_seconds` is slept through in `prepare`.
    `compiled` and `last_word` are gates that a test opens to let the compile, or the last segment,
    pass; what they hold up can't be missed, however busy the machine is.
    """

    key: str = "cpu"
    label: str = "CPU"
    words: str = WORDS
    pace: float = 0.0
    compile_seconds: float = 0.0
    error: Exception | None = None
    model: str = "tiny.en"
    device: str = "cpu"
    dtype: Dtype = "float32"
    encoder: str = "PyTorch"
    decoder: str = "PyTorch"
    noise: float = 0.0
    windows: int = 1
    shape: tuple[int, int] = (100, 32)
    compiled: threading.Event | None = None
    last_word: threading.Event | None = None
    prepared: threading.Event = field(default_factory=threading.Event)

    def prepare(self, listener: Listener = SILENT) -> PrepareSeconds:
        listener.report("loading")
        if (self.compile_seconds or self.compiled) and not self.prepared.is_set():
            listener.report("compiling")
            time.sleep(self.compile_seconds)
            if self.compiled is not None:
                self.compiled.wait(GATE_SECONDS)
        self.prepared.set()
        return PrepareSeconds(load=0.01, compile=self.compile_seconds)

    def transcribe(
        self,
        clip: Clip,
        options: Options = Options(),  # noqa: B008
        listener: Listener = SILENT,
    ) -> Transcript:
        """Say the words; the features are the same for every fake but for its noise."""
        start = time.perf_counter()
        listener.progress(Progress("mel", 0.0, clip.seconds))
        listener.progress(Progress("encoding", 0.0, clip.seconds))
        segments = self.cut(clip.seconds, options.word_timestamps)
        for number, segment in enumerate(segments):
            if options.live:
                listener.progress(Progress("decoding", segment.start, clip.seconds))
            self.wait(listener, segment is segments[-1], segment.text if options.live else "")
            if self.error is not None and number:
                raise self.error
            listener.segment(segment)
            listener.progress(Progress("decoding", segment.end, clip.seconds))
        if self.error is not None:
            raise self.error
        return self.write(clip, tuple(segments), time.perf_counter() - start)

    def write(self, clip: Clip, segments: tuple[Segment, ...], spent: float) -> Transcript:
        """The transcript of a run that took so many seconds and a third of one."""
        half = spent / 2
        seconds = StageSeconds(clip.decode_seconds, mel=0.02, encode=0.1 + half, decode=0.2 + half)
        begun = time.perf_counter() - seconds.mel - seconds.encode - seconds.decode
        spans = [Span("mel", begun, seconds.mel)]
        for window in range(self.windows):
            for stage, length in (("encode", seconds.encode), ("decode", seconds.decode)):
                end = spans[-1].start + spans[-1].seconds
                spans.append(Span(stage, end, length / self.windows, window))
        return Transcript(
            engine=self.key,
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            language="en",
            text=self.words,
            segments=segments,
            tokens=tuple(token for segment in segments for token in segment.tokens),
            features=make_features(self.noise, self.windows, self.shape),
            seconds=seconds,
            audio_seconds=clip.seconds,
            peak_memory_bytes=300 * 2**20,
            window_starts=tuple(30.0 * window for window in range(self.windows)),
            spans=tuple(spans),
        )

    def wait(self, listener: Listener, held: bool, text: str = "") -> None:
        """Let the pace pass, while letter after letter of the text is told, and the gate open,
        unless somebody wants the run stopped."""
        start, gate = time.perf_counter(), self.last_word if held else None
        while True:
            listener.check_stopped()
            passed = time.perf_counter() - start
            if text:
                share = passed / self.pace if self.pace else 1.0
                listener.partial(text[: int(share * len(text))])
            if passed >= self.pace and (gate is None or gate.is_set()):
                return
            time.sleep(0.01)

    def cut(self, seconds: float, timed: bool) -> list[Segment]:
        """The words in segments of four, spread evenly over the clip."""
        words, segments = self.words.split(), []
        each = seconds / max(len(words), 1)
        spread = [Word(i * each, (i + 1) * each, f" {w}", 0.9) for i, w in enumerate(words)]
        for at in range(0, len(words), 4):
            part = tuple(spread[at : at + 4])
            text, tokens = "".join(word.text for word in part), tuple(range(at, at + len(part)))
            times = part if timed else None
            segments.append(Segment(part[0].start, part[-1].end, text, tokens, 0.0, times))
        return segments

    def encode(self, mel: FloatArray) -> FloatArray:
        return make_features(self.noise)

    def close(self) -> None:
        """Nothing to give back."""


def make_features(
    noise: float = 0.0, windows: int = 1, shape: tuple[int, int] = (100, 32)
) -> FloatArray:
    """Seeded features `(windows, *shape)`, with so much seeded noise on top."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=(windows, *shape))
    return (base + noise * rng.normal(size=base.shape)).astype(np.float32)


def make_clip(seconds: float = 6.0) -> Clip:
    """Silence of a given length."""
    return Clip(np.zeros(int(seconds * SAMPLE_RATE), np.float32), "fake", 0.003)


def read_fake_clip(path: str | Path, listener: Listener = SILENT) -> Clip:
    """Any FLAC or WAV is six seconds of silence; anything else is refused."""
    if Path(path).read_bytes()[:4] not in (b"fLaC", b"RIFF"):
        raise AudioError(f"{Path(path).name} holds no audio that can be read.")
    return make_clip()


def describe_fake_sound(clip: Clip, listener: Listener = SILENT) -> SoundView:
    """A tone that rises, with a silence in the middle."""
    columns = round(clip.seconds * 10)
    mel = np.zeros((96, columns), np.uint8)
    mel[np.linspace(0, 95, columns).astype(int), np.arange(columns)] = 254
    middle = clip.seconds / 2
    return SoundView(
        seconds=clip.seconds,
        mel=mel,
        hertz=tuple(np.linspace(50, 7800, 96).tolist()),
        column_seconds=0.1,
        loudness=(-20.0,) * columns,
        silences=((middle, middle + 1.0),),
        level=-20.0,
        peak=-3.0,
        notes=("Very quiet: 38 dB below full scale.",),
    )


def fake_max(**traits: Any) -> FakeEngine:
    """The other engine, whose features differ a little."""
    merged: dict[str, Any] = {"key": "max_hybrid", "label": "MAX hybrid", "noise": 1e-6, **traits}
    return FakeEngine(**merged)
