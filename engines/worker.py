"""Engines, the clip reader and the analyses, each in a process of its own (`engines.process`).

A handler runs in the process; the functions that call it stand below it. PyTorch and MAX are
imported in these processes only, and not by the clip reader. The reader writes a clip's samples to
a file, which every other process maps into memory.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
import uuid
import weakref
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from engines import audio, base, logs, registry, zero_gpu
from engines.analysis import records, sound
from engines.analysis.divergence_records import Divergence
from engines.analysis.faults import FaultResult
from engines.analysis.records import Inspection, LayerComparison
from engines.analysis.sound import SoundView
from engines.base import (
    SILENT,
    AudioError,
    Clip,
    Dtype,
    EngineError,
    FloatArray,
    Listener,
    Options,
    PrepareSeconds,
    Stopped,
    Transcript,
    describe_error,
)
from engines.clip_clock import fill_pauses
from engines.clip_source import Source
from engines.hardware import cache_folder
from engines.models import DEFAULT_MODEL
from engines.process import Died, TooLong, Worker

MAX_READER_BYTES = 1536 * 2**20
"""Address space of the clip reader: half an hour of sound is 58 MB as it is decoded and 115 MB as
it is given, with two copies of each on the way; the libraries map some hundred MB."""
READ_SECONDS = 120.0
"""How long reading a clip may take: three hours of silence, packed small, took 8 s."""

DESCRIBE_SECONDS = 300.0
"""How long describing a clip's sound may take: librosa's first import alone took 160 s on a busy
machine that had just been installed."""

logger = logs.logger(__name__)

COMPILER = "engines.max_graph.ahead:CompileHandler"


class EngineHandler:
    """Runs one engine; see `engines.base.Engine`."""

    def __init__(self, key: str, model: str, dtype: Dtype) -> None:
        self._engine = registry.get(key, model, dtype)

    def prepare(self, listener: Listener) -> PrepareSeconds:
        return self._engine.prepare(listener)

    def transcribe(self, clip: Clip, options: Options, listener: Listener) -> Transcript:
        return self._engine.transcribe(clip, options, listener)

    def transcribe_batch(
        self, clips: Sequence[Clip], options: Sequence[Options], at_once: int, listener: Listener
    ) -> Any:
        return self._engine.transcribe_batch(clips, options, at_once, listener)  # type: ignore[attr-defined]

    def encode(self, mel: FloatArray, listener: Listener) -> FloatArray:
        return self._engine.encode(mel)


class RemoteEngine:
    """An engine whose work is done by a worker; see `engines.base.Engine`."""

    worker_class = Worker

    def __init__(
        self,
        key: str,
        model: str,
        dtype: Dtype = "float32",
        handler: str = "engines.worker:EngineHandler",
    ) -> None:
        row = registry.row(key)
        self.key, self.model, self.dtype = key, model, dtype
        self.label, self.encoder, self.decoder = row.label, row.encoder, row.decoder
        self.device = "cpu"
        self.worker = self.worker_class(row.label, handler, key, model, dtype)

    def prepare(self, listener: Listener = SILENT) -> PrepareSeconds:
        return self.worker.ask("prepare", listener=listener)

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener = SILENT
    ) -> Transcript:
        transcript: Transcript = self.worker.ask(
            "transcribe", clip, options or Options(), listener=listener
        )
        self.device = transcript.device
        return transcript

    def encode(self, mel: FloatArray) -> FloatArray:
        return self.worker.ask("encode", mel)

    def close(self) -> None:
        self.worker.close()


class ZeroGpuEngine(RemoteEngine):
    """An engine each of whose runs is a call for ZeroGPU's GPU."""

    worker_class = zero_gpu.GpuWorker
    worker: zero_gpu.GpuWorker

    def prepare(self, listener: Listener = SILENT) -> PrepareSeconds:
        """Download the checkpoint and compile MAX's graphs, if need be; the rest takes a GPU, which
        only a run has."""
        from engines import checkpoints

        start = time.perf_counter()
        checkpoints.fetch(self.model, listener)
        loaded = time.perf_counter() - start
        architecture = os.environ.get(zero_gpu.ARCHITECTURE) or zero_gpu.BLACKWELL
        if not self.encoder.startswith("MAX") or architecture == "none":
            return PrepareSeconds(load=loaded)
        compiler = Worker(f"the compiler of {self.label}", COMPILER, architecture)
        try:
            lane = (self.key, self.model, self.dtype)
            spent = compiler.ask("compile", *lane, listener=listener)
        finally:
            compiler.close()
        return PrepareSeconds(load=loaded, compile=spent)

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener = SILENT
    ) -> Transcript:
        """Transcribe in a call that asks for the seconds that this clip may take."""
        beam_size = (options or Options()).beam_size or 1
        self.worker.seconds = zero_gpu.estimate_seconds(self.model, clip.seconds, beam_size)
        return super().transcribe(clip, options, listener)


_engines: dict[tuple[str, str, str], RemoteEngine] = {}


def get_engine(key: str, model: str = DEFAULT_MODEL, dtype: Dtype | None = None) -> RemoteEngine:
    """Return the engine `key` for `model` in a process of its own, the same object each time.

    `key` and `dtype`: as `registry.get` has them, and so are errors. An engine takes no room while
    it has no process.
    """
    name = registry.resolve_lane(key, model, dtype)
    if reason := registry.row(name[0]).why_unavailable():
        raise base.EngineUnavailable(reason)
    return _engines.get(name) or _engines.setdefault(name, pick_class(name[0])(*name))


def keep_engines(kept: Collection[tuple[str, str, Dtype]]) -> None:
    """End the processes that hold an engine of `kept` with another model or type.

    `kept`: key, model and type of each engine of a job. Without this, visitors who try model after
    model would fill the memory. One job runs at a time, so no other needs them; a process that is
    busy is left alone.
    """
    used = {key for key, _, _ in kept}
    for name, engine in tuple(_engines.items()):
        if engine.key in used and name not in kept:
            engine.worker.close(wait=False)


def is_lent_gpu(key: str) -> bool:
    """Whether an engine has its GPU in calls only, which is so on ZeroGPU."""
    return registry.row(key).uses_gpu and zero_gpu.is_usable()


def pick_class(key: str) -> type[RemoteEngine]:
    """Return the class that reaches an engine."""
    return ZeroGpuEngine if is_lent_gpu(key) else RemoteEngine


def close_engines() -> None:
    """End every engine's process."""
    for name in tuple(_engines):
        _engines.pop(name).close()


class ClipHandler:
    """Reads clips within a limit of memory."""

    def __init__(self) -> None:
        with suppress(OSError, ValueError):  # a system without such limits, or with a lower one
            resource.setrlimit(resource.RLIMIT_AS, (MAX_READER_BYTES, MAX_READER_BYTES))

    def read(
        self, path: str, target: str, track: int, channel: int, listener: Listener
    ) -> tuple[str, float, Source]:
        """Write a clip's samples to `target`, a .npy file; return what else `Clip` holds."""
        name = audio.printable(Path(path).name)
        try:
            clip = audio.load_clip(path, listener, track=track, channel=channel)
            Path(target).parent.mkdir(mode=0o700, exist_ok=True)  # a cleaner of /tmp may take it
            np.save(target, clip.samples)
        except MemoryError as error:
            raise AudioError(
                f"{name} takes more memory than reading a clip may: shorten it, or save it as WAV "
                "or FLAC and try again."
            ) from error
        except OSError as error:
            raise AudioError(f"{name} can't be stored: {describe_error(error)}.") from error
        return clip.name, clip.decode_seconds, clip.source

    def show(
        self, path: str, copy: str, track: int, channel: int, listener: Listener
    ) -> tuple[Source, bool]:
        """Describe a clip; write a `copy` for the player where browsers can't play it as it is."""
        source = audio.describe_clip(path, track=track, channel=channel)
        if source.is_playable(Path(path).suffix):
            return source, False
        if not os.path.exists(copy):
            clip = audio.load_clip(path, listener, track=track, channel=channel)
            audio.write_flac(fill_pauses(clip).samples, copy)
        return source, True


reader = Worker("the clip reader", "engines.worker:ClipHandler")


@cache
def clip_folder() -> tempfile.TemporaryDirectory[str]:
    """Make this program's private folder for samples."""
    return tempfile.TemporaryDirectory(prefix="max-whisper-clips-", ignore_cleanup_errors=True)


def start_reader() -> None:
    """Start the clip reader's process, which removes the folder however this program ends."""
    reader.folder = clip_folder().name
    reader.start()


def load_clip(
    path: str | os.PathLike[str], listener: Listener = SILENT, track: int = 0, channel: int = 0
) -> Clip:
    """Read a clip as `audio.load_clip` does, within limits of time and memory.

    Raises `AudioError` for whatever the file does to its reader, and `Stopped`. The samples' file
    is removed when the clip is no longer used.
    """
    name = audio.printable(Path(path).name)
    where = os.fspath(path) if "://" in os.fspath(path) else os.path.abspath(path)
    file = Path(clip_folder().name, f"{uuid.uuid4().hex}.npy")
    start_reader()  # whatever fails from here on is the clip's fault, a death that comes twice too
    try:
        ask = partial(reader.ask, "read", listener=listener, max_seconds=READ_SECONDS)
        read_once = partial(ask, where, str(file), track, channel)
        try:
            read = read_once()
        except Died:
            start_reader()
            read = read_once()
        clip = base.open_clip(str(file), *read)
        weakref.finalize(clip, file.unlink, missing_ok=True)
        return clip
    except BaseException as error:
        with suppress(OSError):
            file.unlink()
        match error:
            case AudioError() | Stopped():
                raise
            case OSError():
                why = f"can't be stored: {describe_error(error)}"
            case TooLong():
                why = f"takes longer than {READ_SECONDS:.0f} s to read: {audio.SUGGESTION}"
            case EngineError():
                logger.warning("a clip broke its reader", clip=name, error=str(error))
                why = f"broke the program that reads clips: {audio.SUGGESTION}"
            case _:
                raise
        raise AudioError(f"{name} {why}.") from error


def show_clip(path: str, copy: str, track: int = 0, channel: int = 0) -> tuple[Source, bool]:
    """Return what a clip's file holds, and whether a `copy` was written that browsers can play.

    Raises `EngineError` for whatever the file does to its reader.
    """
    start_reader()
    arguments = (os.path.abspath(path), copy, track, channel)
    return reader.ask("show", *arguments, max_seconds=READ_SECONDS)


class AnalysisHandler:
    """Compares layers and transcripts, runs faults and describes sound; keeps one model's engines
    for the next request."""

    def __init__(self) -> None:
        self._model = ""

    def compare_halves(
        self, inspection: Inspection, clip: Clip, listener: Listener
    ) -> LayerComparison:
        self._keep_only(inspection.model)
        return records.compare_halves(inspection, clip, listener)

    def explain(
        self,
        transcripts: tuple[Transcript, Transcript],
        clip: Clip,
        options: Options,
        listener: Listener,
    ) -> Divergence:
        from engines.analysis import replay

        self._keep_only(transcripts[0].model)
        return replay.explain_transcripts(transcripts, clip, options, listener)

    def run_fault(
        self, key: str, model: str, clip: Clip, language: str | None, listener: Listener
    ) -> FaultResult:
        from engines.analysis import faults

        self._keep_only(model)
        return faults.run_fault(faults.get_fault(key), model, clip, language, listener)

    def describe_sound(self, clip: Clip, listener: Listener) -> SoundView:
        return sound.describe_sound(clip)

    def _keep_only(self, model: str) -> None:
        if self._model != model:
            registry.release(self._model)
        self._model = model


analysis = Worker("the analysis", "engines.worker:AnalysisHandler", idle_seconds=300.0)


def compare_halves(
    inspection: Inspection, clip: Clip, listener: Listener = SILENT
) -> LayerComparison:
    """Compare encoders or decoders layer by layer, as `analysis.records.compare_halves` does."""
    return analysis.ask("compare_halves", inspection, clip, listener=listener)


def explain(
    found: tuple[Transcript, Transcript],
    clip: Clip,
    options: Options,
    listener: Listener = SILENT,
) -> Divergence:
    """Explain where two transcripts part, as `analysis.replay.explain_transcripts` does."""
    light = tuple(each.without_features() for each in found)
    return analysis.ask("explain", light, clip, options, listener=listener)


def run_fault(
    key: str,
    model: str,
    clip: Clip,
    language: str | None = None,
    listener: Listener = SILENT,
) -> FaultResult:
    """Transcribe with and without the fault `key`; the result has no encoder features."""
    return analysis.ask("run_fault", key, model, clip, language, listener=listener)


def describe_sound(clip: Clip, listener: Listener = SILENT) -> SoundView:
    """Describe what a clip sounds like, as `analysis.sound.describe_sound` does.

    librosa can't be imported where numba has no folder to keep compiled functions in, as in a home
    that can't be written.
    """
    kept = cache_folder()
    kept = kept if os.access(kept, os.W_OK | os.X_OK) else Path(clip_folder().name)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(kept / "numba"))  # the process inherits it
    return analysis.ask("describe_sound", clip, listener=listener, max_seconds=DESCRIBE_SECONDS)
