"""What this project uses inside openai-whisper, which a new version may change."""

import inspect

import pytest
import whisper
import whisper.decoding as decoding
import whisper.model as model

from engines import whisper_hooks


def test_a_new_version_of_whisper_still_has_what_is_hooked() -> None:
    loop = inspect.getsource(whisper.transcribe)
    hooked = {
        "whisper.transcribe calls `tqdm.tqdm(` and `pbar.update(`": (
            "tqdm.tqdm(" in loop and "pbar.update(" in loop
        ),
        "whisper.transcribe has the variables all_segments, seek and time_offset": (
            {"all_segments", "seek", "time_offset"} <= set(whisper.transcribe.__code__.co_varnames
            + whisper.transcribe.__code__.co_cellvars)
        ),
        "whisper.transcribe calls `log_mel_spectrogram(audio,`": (
            "log_mel_spectrogram(audio," in loop
        ),
        "whisper.transcribe calls `model.detect_language(` and `model.decode(`": (
            "model.detect_language(" in loop and "model.decode(" in loop
        ),
        "sampling in whisper.decoding uses `Categorical(`": (
            "Categorical(" in inspect.getsource(decoding.GreedyDecoder)
        ),
        "MultiHeadAttention reads `use_sdpa`": (
            "MultiHeadAttention.use_sdpa" in inspect.getsource(model.MultiHeadAttention)
        ),
        "word timing uses `disable_sdpa()`": (
            "disable_sdpa()" in inspect.getsource(whisper.timing.find_alignment)
        ),
        "DecodingTask has _main_loop(audio_features, tokens)": (
            list(inspect.signature(decoding.DecodingTask._main_loop).parameters)
            == ["self", "audio_features", "tokens"]
        ),
        "DecodingTask has n_group, n_ctx, sample_len, sample_begin, sot_index and logit_filters": (
            all(
                f"self.{name}" in inspect.getsource(decoding.DecodingTask.__init__)
                for name in (
                    "n_group", "n_ctx", "sample_len", "sample_begin", "sot_index", "logit_filters"
                )
            )
        ),
        "BeamSearchDecoder has finished_sequences and max_candidates": (
            all(
                f"self.{name}" in inspect.getsource(decoding.BeamSearchDecoder)
                for name in ("finished_sequences", "max_candidates", "inference")
            )
        ),
    }  # fmt: skip
    changed = [promise for promise, kept in hooked.items() if not kept]
    if changed:
        pytest.fail(
            f"openai-whisper {whisper.__version__} is no longer as {whisper_hooks.__name__} and "
            f"engines.token_selection need it: {'; '.join(changed)} no longer holds."
        )
