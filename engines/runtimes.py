"""What engines over other projects' runtimes share: their base class, the converted checkpoint.

Such an engine overrides `run_loop` by the loop of its runtime, as that project's users have it; its
row in the registry says how that loop differs from whisper's. It reports to the clock of
`engines.transcription` as far as the runtime allows, and its packages are optional.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import filelock
import numpy as np
import torch
from torch import nn
from whisper.audio import FRAMES_PER_SECOND
from whisper.timing import WordTiming, merge_punctuations
from whisper.tokenizer import TO_LANGUAGE_CODE, Tokenizer, get_tokenizer

from engines.base import Dtype, EngineError, FloatArray, Listener, Options, describe_error
from engines.checkpoints import Checkpoint
from engines.checkpoints.content import digest_tensors
from engines.graph_whisper import EncoderModule
from engines.hardware import cache_folder
from engines.registry import EngineRow
from engines.transcription import (
    TimedWhisper,
    TranscriptionState,
    WhisperEngine,
    current_state,
)

SIZES = "sizes.json"
"""In each folder of the cache: every other file's size, by which a damaged folder is recognised."""


class RuntimeWhisper(TimedWhisper):
    """A checkpoint's dimensions, alignment heads and languages; its tensors are in `runtime`, the
    model of the runtime."""

    runtime: Any

    @property
    def device(self) -> torch.device:
        """The host, where arrays are handed over."""
        return torch.device("cpu")

    @property
    def tokenizer(self) -> Tokenizer:
        """Whisper's tokenizer for this vocabulary."""
        return get_tokenizer(self.is_multilingual, num_languages=self.num_languages)

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Layer and head of each cross-attention that word times come from."""
        return [(layer, head) for layer, head in self.alignment_heads.indices().T.tolist()]


class RuntimeEngine(WhisperEngine):
    """An engine on the processor that runs a runtime's own loop; see `engines.base.Engine`."""

    def __init__(self, row: EngineRow, model: str, dtype: Dtype) -> None:
        super().__init__(row, model, "cpu", dtype)

    def open_runtime(self, checkpoint: Checkpoint, model: RuntimeWhisper) -> Any:
        """Return the runtime's model of the checkpoint; see `convert_once`."""
        raise NotImplementedError

    def encode_window(self, runtime: Any, mel: FloatArray) -> FloatArray:
        """Encode `(n_mels, 3000)` to `(n_audio_ctx, n_state)`."""
        raise EngineError(f"{self.label} doesn't hand out what its encoder computes.")

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        model = checkpoint.build(RuntimeWhisper)
        listener.report("compiling", note=f"Converting {self.model} for {self.label}")
        start = perf_counter()
        model.runtime = self.open_runtime(checkpoint, model)
        model.encoder = EncoderModule(lambda mel: self.encode_window(model.runtime, mel))
        model.decoder = nn.Identity()
        return model, perf_counter() - start


def running_state() -> TranscriptionState:
    """Return the state of the transcription that this thread runs."""
    state = current_state()
    assert state is not None, "a runtime's loop runs inside a transcription"
    return state


def language_code(model: TimedWhisper, options: Options) -> str | None:
    """Return the code of the language to transcribe, None to detect it."""
    if not model.is_multilingual:
        return "en"
    name = options.language and options.language.lower()
    return TO_LANGUAGE_CODE.get(name, name) if name else None


def add_segment(
    state: TranscriptionState, segments: list[dict[str, Any]], segment: dict[str, Any]
) -> None:
    """Append a segment that is final, in whisper's form, and tell the listener."""
    segments.append(segment)
    state.add_segments(segments, int(min(segment["end"], state.clip.seconds) * FRAMES_PER_SECOND))


def join_words(
    timed: Sequence[tuple[int, float, float]], start: float, tokenizer: Tokenizer, options: Options
) -> list[dict[str, Any]]:
    """Join the tokens of a segment to words, and signs to these, as whisper does, in its form.

    `timed`: token, end in seconds and probability of each. A word begins where the one before it
    ended, the first at `start`.
    """
    texts, groups = tokenizer.split_to_word_tokens([token for token, _, _ in timed])
    words, rest = [], list(timed)
    for text, group in zip(texts, groups, strict=True):
        part, rest = rest[: len(group)], rest[len(group) :]
        end = max([start, *(time for _, time, _ in part)])
        chance = float(np.mean([chance for _, _, chance in part])) if part else 0.0
        words.append(WordTiming(text, group, start, end, chance))
        start = end
    merge_punctuations(words, options.prepend_punctuations, options.append_punctuations)
    return [
        {"word": each.word, "start": each.start, "end": each.end, "probability": each.probability}
        for each in words
        if each.word
    ]


def convert_once(
    checkpoint: Checkpoint, model: RuntimeWhisper, form: str, write: Callable[[Path], None]
) -> Path:
    """Return the cache's folder of a checkpoint in a runtime's form.

    `write(folder)` makes it the first time, and again where a file has another size. The name has a
    digest of the checkpoint's content, so that no two share a folder. Raises `EngineError` where it
    can't be stored.
    """
    digest = digest_tensors({**checkpoint.state, "heads": torch.tensor(model.heads)}, torch.float32)
    folder = cache_folder() / "converted" / f"{form}-{digest[:20]}"
    new = folder.with_suffix(".new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_suffix(".lock")):
            if not _is_whole(folder):
                shutil.rmtree(new, ignore_errors=True)  # left by a killed process
                new.mkdir()
                write(new)
                sizes = {path.name: path.stat().st_size for path in new.iterdir()}
                (new / SIZES).write_text(json.dumps(sizes), "utf-8")
                shutil.rmtree(folder, ignore_errors=True)
                new.rename(folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise EngineError(
            f"The converted checkpoint can't be stored in {folder.parent}: {describe_error(error)}."
            " MAX_WHISPER_CACHE can name another folder."
        ) from error
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / SIZES).read_text("utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
