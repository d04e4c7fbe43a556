"""The contract every engine keeps, the records that pass through it, and its errors.

An engine takes a `Clip` and frozen `Options` and gives back a `Transcript`. Nothing here imports
PyTorch, whisper or MAX.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from engines.clip_source import UNKNOWN, Source
from engines.options import WhisperOptions

SAMPLE_RATE = 16_000
"""Samples per second of every `Clip`, the rate Whisper was trained on."""

FloatArray = npt.NDArray[np.float32]

Stages = Iterator[tuple[str, npt.NDArray[Any]]]
"""Name and output of every stage of an encoder, in order of depth."""

Dtype = Literal["float32", "float16", "bfloat16", "int8", "q8_0"]
"""What an engine computes in; the last two are types of weights that some runtimes round to."""


# Errors


class EngineError(Exception):
    """Base of every error an engine raises on purpose; its text is a sentence for a person."""


class AudioError(EngineError):
    """The clip can't be read, or is outside the limits."""


class CheckpointError(EngineError):
    """The model name or file is unknown, unreachable, or not a Whisper checkpoint."""


class EngineUnavailable(EngineError):
    """This machine can't run the engine; the text says why."""


class Stopped(EngineError):
    """The listener asked the run to stop."""


DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_ON_A_GPU = re.compile(r"cuda|hip|gpu|accelerator|device memory", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|out_of_memory|not enough memory|(can't|cannot|failed to) allocate|bad_alloc|"
    "failed to map segment",  # of a library that was to be imported
    re.IGNORECASE,
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether the error says that memory, the GPU's or the machine's, ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True  # the latter is PyTorch's, which not every process has imported
    if isinstance(error, OSError) and error.errno is not None:  # without, a library's
        return error.errno == errno.ENOMEM
    kinds = RuntimeError | ValueError | ImportError | OSError
    return isinstance(error, kinds) and bool(_OUT_OF_MEMORY.search(str(error)))


def describe_error(error: BaseException) -> str:
    """Return a user-readable description of any exception, without a trailing period."""
    if ran_out_of_memory(error):
        if _ON_A_GPU.search(str(error)):
            return (
                "the GPU has not enough memory: pick a smaller model or float16, or run the "
                "engines one at a time"
            )
        return "there was not enough memory: pick a smaller model, or fewer engines at once"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return "the disk is full: free some space on it"
    message = " ".join(str(error).split())
    if len(message) > 240:  # a compiler's can be pages
        message = f"{message[:240]} …"
    return f"{type(error).__name__}: {message}".rstrip(".: ")


def explain(error: Exception) -> str:
    """Return an engine's own sentence, or one about any other error."""
    return str(error) if isinstance(error, EngineError) else f"{describe_error(error)}."


# What goes in


@dataclass(frozen=True)
class Clip:
    """Decoded audio.

    `samples`: float32 `(n,)`, mono, 16 kHz, finite, nominally within [-1, 1].
    `decode_seconds`: wall time that decoding and resampling the file took. `file`: the .npy file
    whose memory map `samples` is (`open_clip`); pickling such a clip sends its path only.
    `source`: what else is known of the file.
    """

    samples: FloatArray
    name: str = "clip"
    decode_seconds: float = 0.0
    source: Source = UNKNOWN
    file: str | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def seconds(self) -> float:
        """Length of the audio in seconds."""
        return len(self.samples) / SAMPLE_RATE

    def __reduce__(self) -> tuple[Any, ...]:
        if self.file is None:
            return Clip, (self.samples, self.name, self.decode_seconds, self.source)
        return open_clip, (self.file, self.name, self.decode_seconds, self.source)


def open_clip(file: str, name: str, decode_seconds: float, source: Source = UNKNOWN) -> Clip:
    """Map the samples in a .npy file into memory; whoever wrote the file removes it.

    The pages are copied on a write, so that PyTorch takes the array for a writable one.
    """
    clip = Clip(np.asarray(np.load(file, mmap_mode="c")), name, decode_seconds, source)
    object.__setattr__(clip, "file", file)  # not an argument: `replace` must not keep it
    return clip


@dataclass(frozen=True)
class Options(WhisperOptions):
    """What to decode and how: the same object goes to every engine of a run.

    `language`: a code such as `en`, or None to detect it (multilingual checkpoints).
    `beam_size`: None or 1 is greedy. `live`: whether `Listener.partial` gets the words of a window
    while it is decoded, for which the decoder takes some time. The rest is in `engines.options`;
    sampling above temperature 0 draws from a generator seeded per run.
    """

    language: str | None = None
    beam_size: int | None = None
    word_timestamps: bool = False
    live: bool = False


# What comes out


@dataclass(frozen=True)
class Word:
    """One word with its times in seconds from the start of the clip."""

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """One of Whisper's segments; `start` and `end` are seconds from the start of the clip.

    The last three are whisper's figures of the segment's window, None where a loop doesn't tell.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    words: tuple[Word, ...] | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_prob: float | None = None


@dataclass(frozen=True)
class StageSeconds:
    """Wall seconds of each stage of one run, the device synchronised at both ends.

    `audio`: file to samples; `mel`: log-mel spectrogram; `encode`: inside the encoder;
    `decode`: all the rest of the decode loop (decoder, token selection, alignment);
    `setup`: what else comes before the first window is encoded, most of it once in a process.
    Loading and compiling are apart (`Engine.prepare`).
    """

    audio: float
    mel: float
    encode: float
    decode: float
    setup: float = 0.0

    @property
    def total(self) -> float:
        """Sum of the stages: the whole run."""
        return self.audio + self.setup + self.mel + self.encode + self.decode

    def as_dict(self) -> dict[str, float]:
        """Return the stages and their total by name, in seconds."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class Span:
    """One stretch of a run: from `start`, on the clock of `time.perf_counter`, for `seconds`.

    `stage`: a field of `StageSeconds` but `audio`. `window`: which decoded 30 s window it belongs
    to, counted from 0; None for what belongs to none of them.
    """

    stage: str
    start: float
    seconds: float
    window: int | None = None


@dataclass(frozen=True)
class Window:
    """What the decoder was given for one 30 s window, and what it chose.

    `start`: in seconds of audio. `prompt`: the tokens before the first chosen one. `tokens`: those
    chosen at `temperature` without the end's, `drafted` of them guessed; segments may hold fewer.
    """

    start: float
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    temperature: float
    drafted: int = 0


@dataclass(frozen=True)
class PrepareSeconds:
    """Wall seconds that made an engine ready: reading weights, and building or reading graphs."""

    load: float = 0.0
    compile: float = 0.0

    @property
    def total(self) -> float:
        """Load and compile together."""
        return self.load + self.compile


@dataclass(frozen=True)
class Transcript:
    """What one engine made of one clip.

    `tokens`: the ids of all segments in order, timestamps included. `audio_seconds`: length of the
    clip, or of the parts that were asked for. `language_probability`: of a language that was
    detected; None where it was given, or the checkpoint knows English only.

    `features`: encoder output on the host, float32 `(windows, n_audio_ctx, n_audio_state)`, one
    row for each decoded 30 s window. `window_starts`: where each of these windows starts, in
    seconds of audio. `windows`: what was decoded for each; empty where a runtime's loop doesn't
    tell. `spans`: when each stage of each window ran, in order and without gaps; the spans of a
    stage sum to its seconds.

    `peak_memory_bytes`: during the run, of the device's memory on CUDA, else of the process's
    resident size; see `hardware.PeakMemory` for systems that don't measure a run's own.
    """

    engine: str
    model: str
    device: str
    dtype: str
    language: str
    text: str
    segments: tuple[Segment, ...]
    tokens: tuple[int, ...]
    features: FloatArray = field(repr=False)
    seconds: StageSeconds
    audio_seconds: float
    peak_memory_bytes: int
    window_starts: tuple[float, ...] = ()
    windows: tuple[Window, ...] = field(default=(), repr=False)
    spans: tuple[Span, ...] = field(default=(), repr=False)
    language_probability: float | None = None

    @property
    def real_time_factor(self) -> float:
        """Processing seconds per second of audio: below 1 is faster than real time."""
        return self.seconds.total / self.audio_seconds if self.audio_seconds else float("nan")

    def without_features(self) -> Transcript:
        """Return the same without `features`, which may hold hundreds of megabytes."""
        return replace(self, features=np.zeros((0, 0, 0), np.float32), window_starts=())


# What is told meanwhile


Stage = Literal[
    "reading", "downloading", "loading", "compiling", "mel", "encoding", "decoding", "comparing"
]


@dataclass(frozen=True)
class Progress:
    """Where a long task stands.

    `done` of `total` in one unit: seconds of audio (`mel`, `encoding`, `decoding`), bytes
    (`downloading`) or a share (`comparing`); a `total` of 0 is unknown. `note`: a sentence to show
    in place of the stage's name.
    """

    stage: Stage
    done: float = 0.0
    total: float = 0.0
    note: str = ""


class Listener:
    """Receives the progress of a long task; override what you need. Called on the task's thread."""

    def progress(self, progress: Progress) -> None:
        """Take in where the task stands."""

    def segment(self, segment: Segment) -> None:
        """Take in a segment that is final."""

    def partial(self, text: str) -> None:
        """Take in what is decoded so far of the present window, of several beams the best."""

    def stopped(self) -> bool:
        """Return True to make the task raise `Stopped` at its next check."""
        return False

    def check_stopped(self) -> None:
        """Raise `Stopped` once the task was asked to stop."""
        if self.stopped():
            raise Stopped("stopped")

    def report(self, stage: Stage, done: float = 0.0, total: float = 0.0, note: str = "") -> None:
        """Send progress on behalf of a task; raise `Stopped` instead once it was asked to stop."""
        self.check_stopped()
        self.progress(Progress(stage, done, total, note))


SILENT = Listener()
"""A listener that ignores everything, the default of every long task."""


class PartListener(Listener):
    """The listener of one part of a longer task: shares from `begin` to `end` of the whole."""

    def __init__(self, whole: Listener, begin: float, end: float, note: str = "") -> None:
        self._whole, self._begin, self._end, self._note = whole, begin, end, note

    def progress(self, progress: Progress) -> None:
        share = progress.done / progress.total if progress.total else 0.0
        done = self._begin + share * (self._end - self._begin)
        note = self._note or progress.note or progress.stage
        self._whole.progress(Progress("comparing", done, 1.0, note))

    def stopped(self) -> bool:
        return self._whole.stopped()


@runtime_checkable
class Engine(Protocol):
    """One way to run Whisper.

    `key` is the word used in the page, the API, the tests and the JSON; `encoder` and `decoder`
    say in a few words what runs each half, for example `MAX graph` and `PyTorch`.
    """

    key: str
    label: str
    model: str
    device: str
    dtype: Dtype
    encoder: str
    decoder: str

    def prepare(self, listener: Listener = SILENT) -> PrepareSeconds:
        """Load and compile; a second call returns the first one's figures at once.

        Raises `Stopped` when the listener asks for it: soon, where the engine has a process of its
        own, and else before the next stage.
        """

    def transcribe(
        self, clip: Clip, options: Options = ..., listener: Listener = ...
    ) -> Transcript:
        """Run the whole clip; raises `Stopped`, or another `EngineError`."""

    def encode(self, mel: FloatArray) -> FloatArray:
        """Encode log-mel windows `(batch, n_mels, 3000)` to `(batch, n_audio_ctx, n_state)`."""

    def close(self) -> None:
        """Give the memory back; the engine can be prepared again."""
