"""What all engines share: loading once, one clip at a time, and whisper's decode loop."""

from __future__ import annotations

import threading
from time import perf_counter

import numpy as np
import torch

from engines import checkpoints, decoding, logs
from engines.base import (
    Clip,
    Dtype,
    EngineError,
    FloatArray,
    Listener,
    Options,
    PrepareProgress,
    PrepareSeconds,
    Transcript,
)
from engines.checkpoints import Checkpoint
from engines.decoding import ClockedWhisper
from engines.memory import give_back

logger = logs.logger(__name__)


def ignore_progress(stage: str) -> None:
    """The default `progress`: nobody listens."""


class WhisperEngine:
    """An engine over a `ClockedWhisper`; a subclass says how that model is built.

    `prepare` and `transcribe` may be called from any thread; each engine does one thing at a time.
    """

    key: str
    label: str
    encoder: str
    decoder: str

    def __init__(self, model: str, device: str, dtype: Dtype) -> None:
        self.model = model
        self.device = device
        self.dtype: Dtype = dtype
        self._lock = threading.RLock()
        self._whisper: ClockedWhisper | None = None
        self._prepared = PrepareSeconds()

    def build(
        self, checkpoint: Checkpoint, progress: PrepareProgress
    ) -> tuple[ClockedWhisper, float]:
        """The model with its encoder and decoder in place, and the seconds spent compiling."""
        raise NotImplementedError

    def prepare(self, progress: PrepareProgress = ignore_progress) -> PrepareSeconds:
        """Load and compile; a second call returns the first one's figures at once."""
        with self._lock:
            if self._whisper is None:
                progress("loading")
                start = perf_counter()
                checkpoint = checkpoints.load(self.model, progress)
                model, compiling = self.build(checkpoint, progress)
                del checkpoint
                give_back()
                model.watch()
                self._whisper = model
                self._prepared = PrepareSeconds(perf_counter() - start - compiling, compiling)
                logger.info("prepared", engine=self.key, model=self.model, **vars(self._prepared))
            return self._prepared

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """Run the whole clip; raises `Stopped`, or another `EngineError`."""
        options = options or Options()
        listener = listener or Listener()
        with self._lock:
            self.prepare()
            assert self._whisper is not None
            self._check_language(self._whisper, options)
            result, run, stages = decoding.transcribe(
                self._whisper, clip, options, listener, self.dtype
            )
        about = {"engine": self.key, "model": self.model, "clip": clip.name}
        logger.info("transcribed", **about, audio_seconds=clip.seconds, **stages.as_dict())
        logger.debug("said", **about, text=result["text"])
        return decoding.to_transcript(
            result,
            run,
            stages,
            clip,
            engine=self.key,
            model=self.model,
            device=self.device,
            dtype=self.dtype,
        )

    def encode(self, mel: FloatArray) -> FloatArray:
        """Encode log-mel windows `(batch, n_mels, 3000)` to `(batch, n_audio_ctx, n_state)`."""
        with self._lock, torch.inference_mode():
            self.prepare()
            assert self._whisper is not None
            windows = torch.from_numpy(np.ascontiguousarray(mel)).to(self._whisper.device)
            if self.dtype == "float16" and windows.is_cuda:
                windows = windows.half()
            return self._whisper.encoder(windows).float().cpu().numpy()

    def close(self) -> None:
        """Give the memory back; the engine can be prepared again."""
        with self._lock:
            self._whisper = None
            give_back()

    def _check_language(self, model: ClockedWhisper, options: Options) -> None:
        if options.language not in (None, "en") and not model.is_multilingual:
            raise EngineError(
                f"{self.model} knows English only: leave the language on automatic, "
                "or pick a multilingual model."
            )
