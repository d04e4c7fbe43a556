"""What this project uses inside openai-whisper and other loops, which a new version may change."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
import whisper

from engines import whisper_hooks

TASK = ("n_group", "n_ctx", "sample_len", "sample_begin", "sot_index", "logit_filters")
NEEDED: dict[str, tuple[str, ...]] = {
    "whisper:transcribe": (
        *("tqdm.tqdm(", "pbar.update(", "all_segments", "seek", "time_offset"),
        *("log_mel_spectrogram(audio,", "model.detect_language(", "model.decode("),
    ),
    "whisper.decoding:GreedyDecoder": ("Categorical(",),
    "whisper.decoding:DecodingTask.__init__": tuple(f"self.{name}" for name in TASK),
    "whisper.decoding:DecodingTask._main_loop": (
        *("(self, audio_features: ", "tokens: "),
        *("in self.logit_filters", "logit_filter.apply(logits, tokens)"),
    ),
    "whisper.decoding:BeamSearchDecoder": (
        *("self.finished_sequences", "self.max_candidates", "self.inference"),
    ),
    "whisper.decoding:SuppressTokens": ("self.suppress_tokens",),
    "whisper.decoding:ApplyTimestampRules": ("self.max_initial_timestamp_index",),
    "whisper.decoding:PyTorchInference": ("block.attn.key", "block.attn.value"),
    "whisper.model:MultiHeadAttention": ("MultiHeadAttention.use_sdpa",),
    "whisper.timing:dtw": ("return dtw_cpu(x.double().cpu().numpy())",),
    "whisper.timing:dtw_cpu.py_func": ("return backtrace(trace)",),
    "whisper.timing:find_alignment": (
        *("disable_sdpa()", "model.alignment_heads", "outs[-1][0]"),
        "block.cross_attn.register_forward_hook",
    ),
    "faster_whisper:WhisperModel.generate_segments": ("time_offset =", "self.encode(segment)"),
    "transformers:WhisperForConditionalGeneration.generate": (
        "segments, segment_offset = self._retrieve_segment(",
    ),
}


@pytest.mark.parametrize("where", NEEDED)
def test_a_new_version_of_whisper_still_has(where: str) -> None:
    package = pytest.importorskip(where.partition(":")[0].partition(".")[0])
    source = inspect.getsource(resolve_name(where))
    missing = [each for each in NEEDED[where] if each not in source]
    assert not missing, (
        f"{where} in version {package.__version__} has no {' and no '.join(missing)} any more: "
        f"{whisper_hooks.__name__} says what needs it"
    )


def test_whisper_s_tables_of_checkpoints_have_addresses_digests_and_heads() -> None:
    for name, address in whisper._MODELS.items():
        assert re.fullmatch(r"https://.*/[0-9a-f]{64}/[\w.-]+\.pt", address), (
            f"the address of {name} in whisper._MODELS has no SHA-256 before the file's name"
        )
        assert name in whisper._ALIGNMENT_HEADS, f"whisper._ALIGNMENT_HEADS lacks {name}"


RUN = """
from dataclasses import replace
import whisper.timing
from engines import registry, transcription
from engines.audio import load_clip
from engines.base import Options
found, compiled = whisper.timing.dtw_cpu, []
loop = transcription.WhisperEngine.run_loop
def run_loop(*args):
    compiled.append(len(found.signatures))
    return loop(*args)
transcription.WhisperEngine.run_loop = run_loop
clip = load_clip("audio_samples/jfk.flac")
clip = replace(clip, samples=clip.samples[:32000])
for words in (False, True):
    registry.get("cpu", "tiny.en").transcribe(clip, Options(word_timestamps=words))
print(compiled, sum(found.stats.cache_hits.values()))
"""


def test_alignment_is_compiled_before_the_clock_starts_and_kept(tmp_path: Path) -> None:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for expected in ("[0, 1] 0", "[0, 1] 1"):
        run = [sys.executable, "-c", RUN]
        done = subprocess.run(run, env=env, capture_output=True, text=True)
        assert done.stdout.strip() == expected, done.stderr[-3000:]
