"""faster-whisper, as its users have it, on the loaded checkpoint: CTranslate2 under its own loop.

The checkpoint is written in CTranslate2's format, in float16 where that holds it exactly. `int8`
rounds the matrices of products as CTranslate2 does when it loads them; convolutions stay float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np
import tokenizers
import torch
from ctranslate2.specs.model_spec import OPTIONAL, visit_spec
from ctranslate2.specs.whisper_spec import WhisperSpec
from faster_whisper.feature_extractor import FeatureExtractor
from tokenizers import decoders, pre_tokenizers
from whisper.tokenizer import Tokenizer

from engines import runtimes, whisper_hooks
from engines.base import Clip, FloatArray, Options
from engines.checkpoints import Checkpoint
from engines.checkpoints.formats import from_ctranslate2
from engines.transcription import FIGURES, TimedWhisper
from engines.whisper_arguments import list_arguments


class FasterWhisperEngine(runtimes.RuntimeEngine):
    """faster-whisper without voice detection, which is its default."""

    lacks = frozenset({"carry_initial_prompt"})

    def open_runtime(self, checkpoint: Checkpoint, model: runtimes.RuntimeWhisper) -> Any:
        folder = runtimes.convert_once(
            checkpoint, model, "ctranslate2-words", lambda folder: write(checkpoint, model, folder)
        )
        return TimedModel(
            str(folder),
            device="cpu",
            compute_type=self.dtype,
            cpu_threads=torch.get_num_threads(),
        )

    def encode_window(self, runtime: TimedModel, mel: FloatArray) -> FloatArray:
        return np.asarray(faster_whisper.WhisperModel.encode(runtime, mel))[0]

    def run_loop(self, model: TimedWhisper, clip: Clip, options: Options) -> dict[str, Any]:
        language, state = runtimes.language_code(model, options), runtimes.running_state()
        decoded, about = model.runtime.transcribe(
            clip.samples,
            language=language,
            beam_size=options.beam_size or 1,
            word_timestamps=options.word_timestamps,
            **name_arguments(options),
        )
        if language is None:
            state.language_probability = float(about.language_probability)
        segments: list[dict[str, Any]] = []
        for each in decoded:  # a window is decoded when its first segment is asked for
            segment = {name: getattr(each, name) for name in SEGMENT_FIELDS}
            words = None if each.words is None else [vars(word) for word in each.words]
            runtimes.add_segment(state, segments, {**segment, "words": words})
        text = "".join(segment["text"] for segment in segments)
        return {"text": text, "segments": segments, "language": about.language}


def name_arguments(options: Options) -> dict[str, Any]:
    """Return Whisper's options as faster-whisper names them; `best_of` and `patience` are its own
    where none were chosen."""
    arguments = list_arguments(options)
    left_out = {name for name in ("best_of", "patience") if not arguments[name]}
    left_out |= {"carry_initial_prompt"}
    arguments["log_prob_threshold"] = arguments.pop("logprob_threshold")
    return {
        **{name: value for name, value in arguments.items() if name not in left_out},
        "temperature": list(options.temperatures),
        "suppress_tokens": list(options.suppress_tokens),
        "clip_timestamps": list(options.clip_timestamps) or "0",
    }


SEGMENT_FIELDS = ("start", "end", "text", "tokens", "temperature", *FIGURES)


class TimedFeatures(FeatureExtractor):
    """faster-whisper's log-mel spectrogram, timed."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = perf_counter()
        features = super().__call__(*args, **kwargs)
        runtimes.running_state().add_mel_span(start, perf_counter())
        return features


class TimedModel(faster_whisper.WhisperModel):
    """faster-whisper's model whose encoder is timed, and stopped at, and its output kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.feature_extractor = TimedFeatures(**self.feat_kwargs)

    def encode(self, features: FloatArray) -> ctranslate2.StorageView:
        """Encode a window, `(n_mels, 3000)`; language detection, which calls this as well, has no
        start of one."""
        state = runtimes.running_state()
        start = whisper_hooks.find_window_start(faster_whisper.WhisperModel.generate_segments)
        if start is not None:
            state.window_starts.append(start)
        state.start_encoding()
        encoded = super().encode(features)
        state.end_encoding()
        if start is not None:
            state.keep_features(torch.from_numpy(np.array(encoded)[0]))
        return encoded


# The checkpoint's files


def write(checkpoint: Checkpoint, model: runtimes.RuntimeWhisper, folder: Path) -> None:
    """Write what `faster_whisper.WhisperModel` reads, so that it downloads nothing."""
    dims, tokenizer = checkpoint.dims, model.tokenizer
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    fill(spec, {name: tensor.numpy() for name, tensor in checkpoint.state.items()})
    own_tokenizer = make_tokenizer(tokenizer)
    names = {number: name for name, number in own_tokenizer.get_vocab().items()}
    # The words count too: by them CTranslate2 knows whether a checkpoint is multilingual.
    spec.register_vocabulary([names[number] for number in range(dims.n_vocab)])
    spec.config.suppress_ids = list(tokenizer.non_speech_tokens)
    spec.config.suppress_ids_begin = [*tokenizer.encode(" "), tokenizer.eot]
    spec.config.lang_ids = sorted(tokenizer.all_language_tokens) if model.is_multilingual else []
    spec.config.alignment_heads = model.heads
    spec.validate()
    spec.optimize("float16" if checkpoint.fits_float16 else None)
    spec.save(str(folder))
    own_tokenizer.save(str(folder / "tokenizer.json"))
    features = {"feature_size": dims.n_mels}
    (folder / "preprocessor_config.json").write_text(json.dumps(features), "utf-8")


def fill(spec: Any, state: Mapping[str, FloatArray]) -> None:
    """Set the weights of a CTranslate2 specification, those that it stacks stacked."""

    def set_variable(layer: Any, name: str, value: Any) -> None:
        if value is not None and not (isinstance(value, str) and value == OPTIONAL):
            return  # a number that the specification knows
        ours = from_ctranslate2(name.replace("decoder/projection", "decoder/embeddings"))
        tensors = [state.get(each) for each in ours]
        if all(part is None for part in tensors):
            return
        rows = next(part.shape for part in tensors if part is not None)
        zeros = np.zeros(rows, np.float32)  # Whisper's keys have no bias
        parts = [zeros if part is None else part for part in tensors]
        setattr(layer, name.rpartition("/")[2], np.concatenate(parts))

    visit_spec(spec, set_variable)


def make_tokenizer(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """Return whisper's tokenizer in the form of the package `tokenizers`."""
    encoding = tokenizer.encoding
    ranks: Mapping[bytes, int] = encoding._mergeable_ranks
    letters = list_byte_letters()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    vocabulary |= encoding._special_tokens
    pairs = [split_merge(token, ranks) for token in sorted(ranks, key=ranks.__getitem__)]
    merges = [(spell(pair[0]), spell(pair[1])) for pair in pairs if len(pair) == 2]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(encoding._special_tokens))
    return made


def split_merge(token: bytes, ranks: Mapping[bytes, int]) -> Sequence[bytes]:
    """Return the two tokens that were merged into this one; one byte for a token that is a byte."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(parts[at] + parts[at + 1], math.inf) for at in range(len(parts) - 1)]
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def list_byte_letters() -> dict[int, str]:
    """Return GPT-2's printable letter for each byte, as byte-level tokenizers spell their words."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + number) for number, byte in enumerate(others)}
