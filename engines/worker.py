"""Engines, the clip reader and the analysis, each in a process of its own (`engines.process`).

Clips travel once: the reader writes the samples to a file, which every process maps into memory.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import filelock

from engines import audio, base, checkpoints, errors, logs, registry, zero_gpu
from engines.base import (
    SILENT,
    AudioError,
    Clip,
    Dtype,
    Engine,
    EngineError,
    FloatArray,
    Listener,
    Options,
    PrepareSeconds,
    Stopped,
    Transcript,
)
from engines.models import DEFAULT_MODEL
from engines.process import TooLong, Worker, WorkerProcess, shut_down

__all__ = [
    "RemoteEngine",
    "borrow_engine",
    "close_engines",
    "compare_layers",
    "get_engine",
    "load_clip",
    "release_engine",
    "run_fault",
    "shut_down",
    "start_reader",
]

READ_SECONDS = 120.0
"""How long reading a clip may take, on the slowest machine: three hours of silence packed small
took 8 s."""
IDLE_SECONDS = 300.0
"""How long the analysis keeps its process, and its memory, without a request."""
CLIP_FOLDER = "max-whisper-clips-"

logger = logs.logger(__name__)


class RemoteEngine:
    """An engine whose work is done by a worker; see `engines.base.Engine`."""

    def __init__(
        self, key: str, model: str, dtype: Dtype, row: registry.EngineRow, kind: str = "engine"
    ) -> None:
        self.key, self.model, self.dtype = key, model, dtype
        self.label, self.encoder, self.decoder = row.label, row.encoder, row.decoder
        self.device = "cpu"
        self.borrowers = 0
        start = partial(WorkerProcess, key, kind, key, model, dtype)
        self.worker = Worker(row.label, self._pick_process(start))

    def _pick_process(self, start: Callable[[], WorkerProcess]) -> Callable[[], Any]:
        return start

    def prepare(self, listener: Listener = SILENT) -> PrepareSeconds:
        """Load and compile; a second call returns the first one's figures at once."""
        prepared: PrepareSeconds = self._ask("prepare", listener=listener)
        return prepared

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """Run the whole clip."""
        transcript: Transcript = self._ask(
            "transcribe", clip, options or Options(), listener=listener or Listener()
        )
        return transcript

    def encode(self, mel: FloatArray) -> FloatArray:
        """Encode log-mel windows `(batch, n_mels, 3000)` to `(batch, n_audio_ctx, n_state)`."""
        features: FloatArray = self._ask("encode", mel)
        return features

    def close(self) -> None:
        """End the worker's process; the engine can be prepared again."""
        self.worker.close()

    def _ask(self, method: str, *arguments: Any, listener: Listener = SILENT) -> Any:
        result, self.device = self.worker.ask(method, *arguments, listener=listener)
        return result


class ZeroGpuEngine(RemoteEngine):
    """An engine each of whose runs is a call for ZeroGPU's GPU."""

    def prepare(self, listener: Listener = SILENT) -> PrepareSeconds:
        """Download the checkpoint, if need be; the rest takes a GPU, which only a run has."""
        start = time.perf_counter()
        checkpoints.fetch(self.model, listener)
        return PrepareSeconds(load=time.perf_counter() - start)

    def _pick_process(self, start: Callable[[], WorkerProcess]) -> Callable[[], Any]:
        return partial(zero_gpu.GpuCall, start)


# Engines, of which one model each is kept.

_engines: dict[tuple[str, str, str], RemoteEngine] = {}
_last_borrowed: dict[str, RemoteEngine] = {}
_lock = threading.Lock()


def get_engine(key: str, model: str = DEFAULT_MODEL, dtype: Dtype = "float32") -> Engine:
    """Return the engine `key` for `model` in a process of its own, the same object each time.

    Raises as `registry.get` does.
    """
    with _lock:
        return _find(key, model, dtype)


def borrow_engine(key: str, model: str = DEFAULT_MODEL, dtype: Dtype = "float32") -> Engine:
    """`get_engine` for a run: nobody ends its process before `release_engine`.

    One model is kept for each engine: another one's process ends, as soon as no run has borrowed
    it, since visitors who try model after model would else fill the memory.
    """
    with _lock:
        engine = _find(key, model, dtype)
        engine.borrowers += 1
        _last_borrowed[key] = engine
        for other in _engines.values():
            if other.key == key and other is not engine and not other.borrowers:
                other.worker.close_if_idle()
        return engine


def release_engine(engine: Engine) -> None:
    """Give a borrowed engine back; its process ends if another model was borrowed since."""
    assert isinstance(engine, RemoteEngine)
    with _lock:
        engine.borrowers -= 1
        if not engine.borrowers and _last_borrowed.get(engine.key) is not engine:
            engine.worker.close_if_idle()


def _find(key: str, model: str, dtype: Dtype) -> RemoteEngine:
    """Find an engine or make it; it is kept for good, as it takes no room without a process."""
    row = registry.row(key)
    if reason := row.why_unavailable():
        raise base.EngineUnavailable(reason)
    name = (key, model, dtype)
    if name not in _engines:
        _engines[name] = pick_class(key)(key, model, dtype, row)
    return _engines[name]


def pick_class(key: str) -> type[RemoteEngine]:
    """Pick how an engine is reached: on ZeroGPU those that use a GPU have it in calls."""
    in_calls = registry.row(key).uses_gpu and zero_gpu.is_usable()
    return ZeroGpuEngine if in_calls else RemoteEngine


def close_engines() -> None:
    """End every engine's process."""
    with _lock:
        for engine in _engines.values():
            engine.close()
        _engines.clear()
        _last_borrowed.clear()


# Clips.

_reader = Worker("the clip reader", partial(WorkerProcess, "the clip reader", "clips"))


def start_reader() -> None:
    """Start the clip reader's process ahead of the first clip."""
    _reader.start()


def load_clip(path: str | os.PathLike[str], listener: Listener = SILENT) -> Clip:
    """Read a clip as `audio.load_clip` does, within limits of time and memory.

    Raises `AudioError` for whatever the file does to its reader, and `Stopped`. The samples' file
    is removed when the clip is no longer used.
    """
    name = audio.printable(Path(path).name)
    where = os.fspath(path) if "://" in os.fspath(path) else os.path.abspath(path)
    _reader.start()  # whatever fails from here on is the clip's fault
    try:
        return _read(where, listener)
    except (AudioError, Stopped):
        raise
    except TooLong:
        raise AudioError(
            f"{name} takes longer than {READ_SECONDS:.0f} s to read: {audio.SUGGESTION}."
        ) from None
    except OSError as error:
        raise AudioError(f"{name} can't be stored: {errors.describe_error(error)}.") from error
    except EngineError as error:
        logger.warning("a clip broke its reader", clip=name, error=str(error))
        raise AudioError(
            f"{name} broke the program that reads clips: {audio.SUGGESTION}."
        ) from error


def _read(path: str, listener: Listener) -> Clip:
    if not os.path.isdir(_clip_folder()):  # whatever tidies up old temporary files took it
        _clip_folder.cache_clear()
    file, owner = os.path.join(_clip_folder(), f"{uuid.uuid4().hex}.npy"), os.getpid()
    try:
        name, decode_seconds = _reader.ask(
            "read", path, file, listener=listener, max_seconds=READ_SECONDS
        )
        clip = base.open_clip(file, name, decode_seconds)
    except BaseException:
        _remove(file, owner)
        raise
    weakref.finalize(clip, _remove, file, owner)
    return clip


def _remove(path: str, owner: int) -> None:
    """Remove a clip's file or all of them, unless this is a fork of the process that owns it."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            os.remove(path)


@cache
def _clip_folder() -> str:
    """Make this process's private folder for samples; remove those of processes that were killed.

    A lock in the folder tells whether its process lives. The folder gets its final name once the
    lock is held.
    """
    place = Path(tempfile.gettempdir())
    for folder in place.glob(f"{CLIP_FOLDER}*"):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            continue  # whatever somebody else put there
        with (
            suppress(filelock.Timeout, OSError, NotImplementedError),
            filelock.FileLock(folder / "lock", blocking=False),
        ):
            shutil.rmtree(folder, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix="max-whisper-new-"))
    lock = filelock.FileLock(made / "lock", blocking=False, thread_local=False)
    _clip_locks.append(lock)
    with suppress(OSError, NotImplementedError):  # a disk without locks
        lock.acquire()
    folder = made.rename(place / f"{CLIP_FOLDER}{uuid.uuid4().hex}")
    atexit.register(_remove, str(folder), os.getpid())
    return str(folder)


_clip_locks: list[filelock.BaseFileLock] = []
"""The locks of this process's folders, held for as long as the process lives."""


# The analysis.

_analysis = Worker(
    "the analysis", partial(WorkerProcess, "the analysis", "analysis"), idle_seconds=IDLE_SECONDS
)


def compare_layers(
    names: Sequence[str],
    model: str,
    clip: Clip,
    listener: Listener = SILENT,
    start: float = 0.0,
) -> Any:
    """Compare encoders layer by layer, as `analysis.layers.compare_layers` does."""
    return _analysis.ask("compare_layers", tuple(names), model, clip, start, listener=listener)


def run_fault(
    key: str,
    model: str,
    clip: Clip,
    language: str | None = None,
    listener: Listener = SILENT,
) -> Any:
    """Transcribe with and without the fault `key`; the result has no encoder features."""
    return _analysis.ask("run_fault", key, model, clip, language, listener=listener)
