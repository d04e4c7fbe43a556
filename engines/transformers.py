"""transformers, as its users have it: Hugging Face's Whisper in PyTorch, under its own loop.

The model takes the loaded tensors as they are; nothing is converted or written. Where words are
asked for, its alignment gives times of tokens, which are joined to words as whisper joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    StoppingCriteriaList,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.utils import logging as transformers_logging
from whisper.audio import FRAMES_PER_SECOND, N_SAMPLES, SAMPLE_RATE
from whisper.tokenizer import LANGUAGES, Tokenizer

from engines import runtimes, whisper_hooks
from engines.base import Clip, FloatArray, Options
from engines.checkpoints import Checkpoint
from engines.checkpoints.formats import from_hugging_face
from engines.transcription import TimedWhisper, TranscriptionState, time_encoder

transformers_logging.set_verbosity_error()  # its warnings are about how it calls itself

TOKEN_COMPRESSION = 1.35
"""Its threshold of compression, of the tokens' bytes and not of the text's, which is 2.4."""


class TransformersEngine(runtimes.RuntimeEngine):
    """Hugging Face's Whisper with every test for fallback that it has."""

    lacks = frozenset(
        {
            *("best_of", "patience", "compression_ratio_threshold", "clip_timestamps"),
            *("hallucination_silence_threshold", "vad"),
        }
    )

    def open_runtime(self, checkpoint: Checkpoint, model: runtimes.RuntimeWhisper) -> Any:
        return load(checkpoint, model)

    def encode_window(self, runtime: TimedGeneration, mel: FloatArray) -> FloatArray:
        features: FloatArray = runtime.model.encoder(torch.from_numpy(mel)[None])[0][0].numpy()
        return features

    def run_loop(self, model: TimedWhisper, clip: Clip, options: Options) -> dict[str, Any]:
        assert isinstance(model, runtimes.RuntimeWhisper)
        state, language = runtimes.running_state(), runtimes.language_code(model, options)
        start = perf_counter()
        extract = WhisperFeatureExtractor(feature_size=model.dims.n_mels)
        features = extract(
            clip.samples,
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            truncation=False,
            padding="max_length" if len(clip.samples) <= N_SAMPLES else "longest",
            return_attention_mask=True,
        )
        state.add_mel_span(start, perf_counter())
        run = TransformersRun(state, model, options, language)
        arguments = {"language": language, "task": options.task} if model.is_multilingual else {}
        arguments |= name_prompt(model.tokenizer, options)
        runtime: TimedGeneration = model.runtime
        runtime.run = run
        try:
            with torch.inference_mode():
                runtime.generate(
                    features.input_features,
                    attention_mask=features.attention_mask,
                    return_timestamps=True,
                    return_segments=True,
                    return_token_timestamps=options.word_timestamps,
                    num_beams=options.beam_size or 1,
                    temperature=options.temperatures,
                    compression_ratio_threshold=TOKEN_COMPRESSION,
                    logprob_threshold=options.logprob_threshold,
                    no_speech_threshold=options.no_speech_threshold,
                    suppress_tokens=list_suppressed(model.tokenizer, options),
                    condition_on_prev_tokens=options.condition_on_previous_text,
                    monitor_progress=run.open_window,
                    stopping_criteria=StoppingCriteriaList([run.report_tokens]),
                    **arguments,
                )
        finally:
            runtime.run = None
        text = "".join(segment["text"] for segment in run.segments)
        return {"text": text, "segments": run.segments, "language": run.language or "en"}


def list_suppressed(tokenizer: Tokenizer, options: Options) -> list[int] | None:
    """Return the tokens never written, as whisper lists them."""
    if not options.suppress_tokens:
        return None
    special = ("transcribe", "translate", "sot", "sot_prev", "sot_lm", "no_speech")
    unspoken = tokenizer.non_speech_tokens if -1 in options.suppress_tokens else ()
    chosen = (token for token in options.suppress_tokens if token >= 0)
    return sorted({*chosen, *unspoken, *(getattr(tokenizer, name) for name in special)})


def name_prompt(tokenizer: Tokenizer, options: Options) -> dict[str, Any]:
    """Return the prompt as its loop takes it, if there is one."""
    text = options.initial_prompt.strip()
    if not text:
        return {}
    when = "all-segments" if options.carry_initial_prompt else "first-segment"
    tokens = [tokenizer.sot_prev, *tokenizer.encode(f" {text}")]
    return {"prompt_ids": torch.tensor(tokens), "prompt_condition_type": when}


class TransformersRun:
    """One transcription, to which the loop reports."""

    def __init__(
        self,
        state: TranscriptionState,
        model: runtimes.RuntimeWhisper,
        options: Options,
        language: str | None,
    ) -> None:
        self.segments: list[dict[str, Any]] = []
        self.language = language
        self._state, self._model, self._options = state, model, options
        self._tokenizer = model.tokenizer
        self._reported = perf_counter()

    def open_window(self, progress: Tensor) -> None:
        """Take in where the next window begins, `[[frame, frames]]`."""
        self._state.window_starts.append(float(progress[0, 0]) / FRAMES_PER_SECOND)

    def report_tokens(self, tokens: Tensor, scores: Any, **_: Any) -> Tensor:
        """Raise `Stopped` once asked to, and report the best beam of `(beams, tokens)` so far."""
        self._state.listener.check_stopped()
        now = perf_counter()
        if self._state.live and now - self._reported >= whisper_hooks.TELL_SECONDS:
            self._reported = now
            best = tokens[0].tolist()
            begin = len(best) - best[::-1].index(self._tokenizer.sot)
            self._state.report_words(self._tokenizer, best[begin:])
        return torch.zeros(len(tokens), dtype=torch.bool)

    def keep_features(self, features: Tensor) -> None:
        """Keep what a window's encoder put out, `(batch, n_audio_ctx, n_state)`."""
        if self._state.window_starts:  # else it was for the language
            self._state.keep_features(features[0])

    def add_segments(self, segments: Sequence[dict[str, Any]]) -> None:
        """Take in the segments of a window."""
        for each in segments:
            tokens = each["tokens"].tolist()
            words = [token for token in tokens if token < self._tokenizer.eot]
            text = self._tokenizer.decode(words)
            if not text.strip():
                continue
            segment = {
                "start": float(each["start"]),
                "end": float(each["end"]),
                "text": text,
                "tokens": tokens,
                "temperature": self._options.temperatures[0],
            }
            if self._options.word_timestamps:
                times, first = each["token_timestamps"].tolist(), each["idxs"][0]
                scores = each["result"]["scores"]
                skipped = len(each["result"]["sequences"]) - len(scores)
                timed = [
                    (token, time, float(scores[first - skipped + place].softmax(-1)[token]))
                    for place, (token, time) in enumerate(zip(tokens, times, strict=True))
                    if token < self._tokenizer.eot
                ]
                segment["words"] = runtimes.join_words(
                    timed, segment["start"], self._tokenizer, self._options
                )
            runtimes.add_segment(self._state, self.segments, segment)


class TimedGeneration(WhisperForConditionalGeneration):
    """Hugging Face's Whisper that tells a `TransformersRun` what its loop does."""

    run: TransformersRun | None = None

    def detect_language(self, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = super().detect_language(*args, **kwargs)
        if self.run is not None:
            first = min(self.generation_config.lang_to_id.values())
            self.run.language = list(LANGUAGES)[int(found[0]) - first]
        return found


def load(checkpoint: Checkpoint, model: runtimes.RuntimeWhisper) -> TimedGeneration:
    """Return Hugging Face's model over the checkpoint's tensors, its encoder timed."""
    dims, tokenizer = checkpoint.dims, model.tokenizer
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eot)
    ends["decoder_start_token_id"] = tokenizer.sot
    config = WhisperConfig(
        vocab_size=dims.n_vocab,
        num_mel_bins=dims.n_mels,
        encoder_layers=dims.n_audio_layer,
        encoder_attention_heads=dims.n_audio_head,
        decoder_layers=dims.n_text_layer,
        decoder_attention_heads=dims.n_text_head,
        d_model=dims.n_audio_state,
        encoder_ffn_dim=4 * dims.n_audio_state,
        decoder_ffn_dim=4 * dims.n_audio_state,
        max_source_positions=dims.n_audio_ctx,
        max_target_positions=dims.n_text_ctx,
        **ends,
    )
    with torch.device("meta"):
        made = TimedGeneration(config)
    names = {name: from_hugging_face(name) for name in made.state_dict()}
    state = {
        name: checkpoint.state[ours] for name, ours in names.items() if ours != "proj_out.weight"
    }
    made.load_state_dict(state, strict=False, assign=True)
    made.tie_weights()
    made.generation_config = GenerationConfig(**ends, **list_rules(model))
    made.eval().requires_grad_(False)

    def keep_features(_: Any, __: Any, output: Any) -> None:
        if made.run is not None:
            made.run.keep_features(output[0])

    def add_segments(segments: list[dict[str, Any]]) -> None:
        if made.run is not None:
            made.run.add_segments(segments)

    time_encoder(made.model.encoder)
    made.model.encoder.register_forward_hook(keep_features)
    whisper_hooks.report_segments(made, add_segments)
    return made


def list_rules(model: runtimes.RuntimeWhisper) -> dict[str, Any]:
    """Return what `generation_config.json` has for this vocabulary: special tokens and heads."""
    tokenizer = model.tokenizer
    rules = {
        "suppress_tokens": list_suppressed(tokenizer, Options()),
        "begin_suppress_tokens": [*tokenizer.encode(" "), tokenizer.eot],
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.sot_prev,
        "max_initial_timestamp_index": 50,
        "max_length": model.dims.n_text_ctx,
        "is_multilingual": model.is_multilingual,
        "alignment_heads": [list(pair) for pair in model.heads],
    }
    if model.is_multilingual:
        codes = list(LANGUAGES)[: model.num_languages]
        rules["lang_to_id"] = {f"<|{code}|>": tokenizer.to_language_token(code) for code in codes}
        rules["task_to_id"] = {
            name: getattr(tokenizer, name) for name in ("transcribe", "translate")
        }
    return rules
