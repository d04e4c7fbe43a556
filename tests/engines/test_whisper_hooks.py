"""What this project uses inside openai-whisper, which a new version may change."""

import inspect
import re
import sys
from pkgutil import resolve_name
from typing import Any

import pytest
import whisper
import whisper.decoding as decoding
import whisper.model as model
import whisper.timing as timing

from engines import whisper_hooks

TASK = ("n_group", "n_ctx", "sample_len", "sample_begin", "sot_index", "logit_filters")
NEEDED: list[tuple[Any, tuple[str, ...], str]] = [
    (
        whisper.transcribe,
        ("tqdm.tqdm(", "pbar.update(", "all_segments", "seek", "time_offset"),
        "live segments",
    ),
    (whisper.transcribe, ("log_mel_spectrogram(audio,",), "the clock of the spectrogram"),
    (whisper.transcribe, ("model.detect_language(", "model.decode("), "TimedWhisper"),
    (decoding.GreedyDecoder, ("Categorical(",), "the generator of each run"),
    (model.MultiHeadAttention, ("MultiHeadAttention.use_sdpa",), "fused attention per thread"),
    (timing.find_alignment, ("disable_sdpa()",), "fused attention per thread"),
    (decoding.DecodingTask._main_loop, ("(self, audio_features: ", "tokens: "), "the fast loop"),
    (decoding.DecodingTask.__init__, tuple(f"self.{name}" for name in TASK), "the fast loop"),
    (
        decoding.BeamSearchDecoder,
        ("self.finished_sequences", "self.max_candidates", "self.inference"),
        "beam search in the fast loop",
    ),
    (
        decoding.DecodingTask._main_loop,
        ("in self.logit_filters", "logit_filter.apply(logits, tokens)"),
        "the words of a window while it is decoded",
    ),
    (decoding.SuppressTokens, ("self.suppress_tokens",), "the mask of tokens"),
    (decoding.ApplyTimestampRules, ("self.max_initial_timestamp_index",), "timestamp rules"),
    (decoding.PyTorchInference, ("block.attn.key", "block.attn.value"), "MAX's decoder module"),
    (
        timing.find_alignment,
        ("block.cross_attn.register_forward_hook", "outs[-1][0]", "model.alignment_heads"),
        "word times from MAX's decoder",
    ),
]


OPTIONAL: list[tuple[str, tuple[str, ...], str]] = [
    (
        "faster_whisper:WhisperModel.generate_segments",
        ("time_offset =", "self.encode(segment)"),
        "the start of each window",
    ),
    (
        "transformers:WhisperForConditionalGeneration.generate",
        ("segments, segment_offset = self._retrieve_segment(",),
        "live segments",
    ),
]


@pytest.mark.parametrize(("where", "words", "what_for"), [*NEEDED, *OPTIONAL])
def test_a_new_version_of_whisper_still_has(
    where: Any, words: tuple[str, ...], what_for: str
) -> None:
    if isinstance(where, str):
        pytest.importorskip(where.partition(":")[0])
        where = resolve_name(where)
    package = where.__module__.partition(".")[0]
    source = inspect.getsource(where)
    if missing := [each for each in words if each not in source]:
        pytest.fail(
            f"{where.__module__}.{where.__qualname__} of {package} "
            f"{sys.modules[package].__version__} has no {' and no '.join(map(repr, missing))} any "
            f"more: {what_for} needs it ({whisper_hooks.__name__} lists the hooks)."
        )


def test_whisper_s_tables_of_checkpoints_have_addresses_digests_and_heads() -> None:
    for name, address in whisper._MODELS.items():
        assert re.fullmatch(r"https://.*/[0-9a-f]{64}/[\w.-]+\.pt", address), (
            f"the address of {name} in whisper._MODELS has no SHA-256 before the file's name"
        )
        assert name in whisper._ALIGNMENT_HEADS, f"whisper._ALIGNMENT_HEADS lacks {name}"
