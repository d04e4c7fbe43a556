"""What all engines share: loading once, one clip at a time, and whisper's decode loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

from engines import checkpoints, decoding, logs
from engines.base import (
    Clip,
    Dtype,
    EngineError,
    FloatArray,
    Listener,
    Options,
    PrepareSeconds,
    Transcript,
)
from engines.checkpoints import Checkpoint
from engines.decoding import ClockedWhisper
from engines.memory import give_back
from engines.mishaps import ran_out_of_memory, tell

logger = logs.logger(__name__)

Result = TypeVar("Result")

WIDEST_BEAM = 50
"""Whisper allows 51 tokens at a window's first position: a wider beam has nothing to hold."""


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

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[ClockedWhisper, float]:
        """The model with its encoder and decoder in place, and the seconds spent compiling."""
        raise NotImplementedError

    def prepare(self, listener: Listener | None = None) -> PrepareSeconds:
        """Load and compile; a second call returns the first one's figures at once."""
        with self._lock:
            if self._whisper is None:
                self._or_out_of_memory(lambda: self._load(listener or Listener()))
            return self._prepared

    def _load(self, listener: Listener) -> None:
        listener.report("loading")
        start = perf_counter()
        checkpoint = checkpoints.load(self.model, listener)
        model, compiling = self.build(checkpoint, listener)
        del checkpoint
        give_back()
        model.watch()
        self._whisper = model
        self._prepared = PrepareSeconds(perf_counter() - start - compiling, compiling)
        logger.info("prepared", engine=self.key, model=self.model, **vars(self._prepared))

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """Run the whole clip; raises `Stopped`, or another `EngineError`."""
        options = options or Options()
        listener = listener or Listener()
        with self._lock:
            self.prepare()
            assert self._whisper is not None
            model = self._whisper
            self._check_options(model, options)
            result, run, stages = self._or_out_of_memory(
                lambda: decoding.transcribe(model, clip, options, listener, self.dtype)
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
            model = self._whisper
            return self._or_out_of_memory(lambda: self._encode(model, mel))

    def _encode(self, model: ClockedWhisper, mel: FloatArray) -> FloatArray:
        windows = torch.from_numpy(np.ascontiguousarray(mel)).to(model.device)
        if self.dtype == "float16" and windows.is_cuda:
            windows = windows.half()
        features: FloatArray = model.encoder(windows).float().cpu().numpy()
        return features

    def close(self) -> None:
        """Give the memory back; the engine can be prepared again."""
        with self._lock:
            self._whisper = None
            give_back()

    def _or_out_of_memory(self, work: Callable[[], Result]) -> Result:
        """Do it; where memory runs out, free what it took and raise `EngineError`."""
        try:
            return work()
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            sentence = f"{self.label} failed: {tell(error)}."
        give_back()  # out here, where the error no longer holds on to the run's tensors
        raise EngineError(sentence)

    def _check_options(self, model: ClockedWhisper, options: Options) -> None:
        beams = options.beam_size
        if beams is not None and not 1 <= beams <= WIDEST_BEAM:
            raise EngineError(f"The beam size may be 1 to {WIDEST_BEAM}, not {beams}.")
        self._check_language(model, options)

    def _check_language(self, model: ClockedWhisper, options: Options) -> None:
        if options.language is None:
            return
        code = TO_LANGUAGE_CODE.get(options.language.lower(), options.language.lower())
        if code not in list(LANGUAGES)[: model.num_languages]:
            raise EngineError(
                f"{self.model} knows no language {options.language!r}: give a code such as en or "
                "de, or leave the language on automatic."
            )
        if code != "en" and not model.is_multilingual:
            raise EngineError(
                f"{self.model} knows English only: leave the language on automatic, "
                "or pick a multilingual model."
            )
