"""What workers do: the classes whose methods `engines.worker_process` calls on request.

Every method takes a `Listener` last. Modules that import PyTorch or MAX are imported where they are
used: the clip reader needs neither.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from engines import audio
from engines.base import (
    AudioError,
    Clip,
    Dtype,
    FloatArray,
    Listener,
    Options,
)
from engines.errors import describe_error

MAX_READER_BYTES = 1536 * 2**20
"""Address space of the clip reader: half an hour of sound is 58 MB as it is decoded and 115 MB as
it is given, with two copies of each on the way; the libraries map some hundred MB."""


class EngineHandler:
    """Runs one engine; each result comes with the engine's device."""

    def __init__(self, key: str, model: str, dtype: Dtype) -> None:
        from engines import registry

        self._engine = registry.get(key, model, dtype)

    def prepare(self, listener: Listener) -> Any:
        """Load and compile."""
        return self._engine.prepare(listener), self._engine.device

    def transcribe(self, clip: Clip, options: Options, listener: Listener) -> Any:
        """Run the whole clip."""
        return self._engine.transcribe(clip, options, listener), self._engine.device

    def encode(self, mel: FloatArray, listener: Listener) -> Any:
        """Encode log-mel windows."""
        return self._engine.encode(mel), self._engine.device


class ClipHandler:
    """Reads clips within a limit of memory, without PyTorch or MAX, so that it starts at once."""

    def __init__(self) -> None:
        with suppress(OSError, ValueError):  # a system without such limits, or with a lower one
            resource.setrlimit(resource.RLIMIT_AS, (MAX_READER_BYTES, MAX_READER_BYTES))

    def read(self, path: str, target: str, listener: Listener) -> tuple[str, float]:
        """Write a clip's samples to `target`, a .npy file; return its name and decode seconds."""
        name = audio.printable(Path(path).name)
        try:
            clip = audio.load_clip(path, listener)
            np.save(target, clip.samples)
        except MemoryError as error:
            raise AudioError(
                f"{name} takes more memory than reading a clip may: shorten it, or save it as WAV "
                "or FLAC and try again."
            ) from error
        except OSError as error:
            raise AudioError(f"{name} can't be stored: {describe_error(error)}.") from error
        return clip.name, clip.decode_seconds


class AnalysisHandler:
    """Compares layers and runs faults; keeps one model's engines for the next request."""

    def __init__(self) -> None:
        self._model = ""

    def compare_layers(
        self, names: tuple[str, ...], model: str, clip: Clip, start: float, listener: Listener
    ) -> Any:
        """Compare the stages of encoders."""
        from engines.analysis import layers

        self._keep_only(model)
        return layers.compare_layers(names, model, clip, listener, start)

    def run_fault(
        self, key: str, model: str, clip: Clip, language: str | None, listener: Listener
    ) -> Any:
        """Transcribe with and without a fault."""
        from engines.analysis import faults

        self._keep_only(model)
        return faults.run_fault(key, model, clip, language, listener).without_features()

    def _keep_only(self, model: str) -> None:
        from engines import registry

        if self._model != model:
            registry.release(self._model)
        self._model = model
