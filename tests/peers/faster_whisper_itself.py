"""faster-whisper as its users have it, on the weights of our own checkpoint.

`tests.peers.ctranslate2_whisper` puts the library beneath it under the loop that every engine here
runs; this is faster-whisper's own port of that loop, with its own log-mel, so that the whole of
both projects is compared. The settings are ours: same beams, temperatures, prompts and threads, and
no voice detection. Its tokens may differ from whisper's where the two loops do.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from faster_whisper import WhisperModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engines import checkpoints
from engines.base import (
    Clip,
    Dtype,
    EngineError,
    FloatArray,
    Listener,
    Options,
    PrepareProgress,
    PrepareSeconds,
    Segment,
    StageSeconds,
    Transcript,
)
from engines.checkpoints import Checkpoint
from engines.whisper_engine import ignore_progress
from tests.peers.ctranslate2_whisper import COMPUTE_TYPES, convert, tokenizer_of

PREFIX = "faster_whisper_"
KEYS = tuple(f"{PREFIX}{compute_type}" for compute_type in COMPUTE_TYPES)
WRITERS = ()


def writers(checkpoint: Checkpoint, threads: int) -> dict[str, Callable[[], Any]]:
    """None: a step of it is a step of CTranslate2."""
    return {}


def engine(key: str, model: str) -> FasterWhisperEngine | None:
    """The engine of one of our keys, `faster_whisper_float32` or `faster_whisper_int8`."""
    return FasterWhisperEngine(key.removeprefix(PREFIX), model) if key in KEYS else None


class FasterWhisperEngine:
    """faster-whisper on the CPU; see `engines.base.Engine`."""

    label = encoder = decoder = "faster-whisper"
    device = "cpu"
    dtype: Dtype = "float32"

    def __init__(self, compute_type: str, model: str) -> None:
        self.key = f"{PREFIX}{compute_type}"
        self.model = model
        self._compute_type = compute_type
        self._whisper: Any = None
        self._clocks: dict[str, Clock] = {}
        self._prepared = PrepareSeconds()

    def prepare(
        self,
        progress: PrepareProgress = ignore_progress,
        stopped: Callable[[], bool] | None = None,
    ) -> PrepareSeconds:
        """Convert and load; a second call returns the first one's figures at once."""
        if self._whisper is None:
            progress("loading")
            start = perf_counter()
            threads = torch.get_num_threads()
            self._whisper = load(checkpoints.load(self.model), self._compute_type, threads)
            mel = Clock(self._whisper.feature_extractor)
            encode = Clock(self._whisper.encode)
            self._whisper.feature_extractor, self._whisper.encode = mel, encode
            self._clocks = {"mel": mel, "encode": encode}
            self._prepared = PrepareSeconds(perf_counter() - start)
        return self._prepared

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """Run the whole clip."""
        self.prepare()
        options = options or Options()
        for clock in self._clocks.values():
            clock.seconds = 0.0
        start = perf_counter()
        found, about = self._whisper.transcribe(
            clip.samples,
            language=options.language,
            beam_size=options.beam_size or 1,
            temperature=list(options.temperatures),
            condition_on_previous_text=options.condition_on_previous_text,
            word_timestamps=options.word_timestamps,
            vad_filter=False,
        )
        segments = tuple(
            Segment(each.start, each.end, each.text, tuple(each.tokens), each.temperature)
            for each in found
        )
        whole = perf_counter() - start
        mel, encode = (self._clocks[stage].seconds for stage in ("mel", "encode"))
        return Transcript(
            engine=self.key,
            model=self.model,
            device=self.device,
            dtype=self._compute_type,
            language=about.language,
            text="".join(segment.text for segment in segments),
            segments=segments,
            tokens=tuple(token for segment in segments for token in segment.tokens),
            features=np.zeros((0, 0, 0), np.float32),
            seconds=StageSeconds(clip.decode_seconds, mel, encode, whole - mel - encode),
            audio_seconds=clip.seconds,
            peak_memory_bytes=0,
        )

    def encode(self, mel: FloatArray) -> FloatArray:
        """It is CTranslate2's, which is measured under its own name."""
        raise EngineError("faster-whisper is measured in whole runs only.")

    def close(self) -> None:
        """Let the model go."""
        self._whisper = None


class Clock:
    """Something to call, and the seconds spent in it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        start = perf_counter()
        try:
            return self._inner(*arguments, **named)
        finally:
            self.seconds += perf_counter() - start

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def load(checkpoint: Checkpoint, compute_type: str, threads: int) -> Any:
    """A `faster_whisper.WhisperModel` of the checkpoint, on the CPU; nothing is downloaded."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert(checkpoint, folder)
        make_tokenizer(checkpoint).save(str(folder / "tokenizer.json"))
        features = {"feature_size": checkpoint.dims.n_mels}
        (folder / "preprocessor_config.json").write_text(json.dumps(features))
        return WhisperModel(
            str(folder), device="cpu", compute_type=compute_type, cpu_threads=threads
        )


def make_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Whisper's own tokenizer in the form of the package `tokenizers`."""
    encoding = tokenizer_of(checkpoint).encoding
    ranks: Mapping[bytes, int] = encoding._mergeable_ranks
    letters = letters_of_bytes()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    vocabulary |= encoding._special_tokens
    pairs = [halves(token, ranks) for token in sorted(ranks, key=ranks.__getitem__)]
    merges = [(spell(pair[0]), spell(pair[1])) for pair in pairs if len(pair) == 2]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(encoding._special_tokens))
    return tokenizer


def halves(token: bytes, ranks: Mapping[bytes, int]) -> Sequence[bytes]:
    """The two tokens that were merged into this one; one byte for a token that is a byte."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(parts[at] + parts[at + 1], math.inf) for at in range(len(parts) - 1)]
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def letters_of_bytes() -> dict[int, str]:
    """GPT-2's printable letter for each byte, as byte-level tokenizers spell their vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + number) for number, byte in enumerate(others)}
