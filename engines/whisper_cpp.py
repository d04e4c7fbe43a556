"""whisper.cpp, as its users have it through pywhispercpp, on the loaded checkpoint.

The checkpoint is written as a ggml file, in float16, which is exact where the checkpoint is, or in
q8_0, blocks of 32 values that share a scale, rounded. Biases, norms and positions stay float32,
convolutions of a q8_0 file float16, as whisper.cpp's own tools write them. (whisper.cpp
1.8.5 also reads files in float32, but aborts in their first convolution.)

Word times are those of its alignment by cross-attention (DTW), the same idea as whisper's. It finds
the alignment heads by a model's official name; for other checkpoints it takes all heads of the
upper half of the decoder, which is whisper's rule too.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import _pywhispercpp as bindings
import numpy as np
import torch
from pywhispercpp.model import Model
from whisper.audio import mel_filters

from engines import runtimes
from engines.base import SAMPLE_RATE, Clip, EngineError, FloatArray, Options, Span, Stopped
from engines.checkpoints import Checkpoint
from engines.transcription import TimedWhisper, TranscriptionState

MOST_BEAMS = 8
"""whisper.cpp's WHISPER_MAX_DECODERS."""

CENTISECOND = 0.01
"""Its unit of time, in seconds."""


class WhisperCppEngine(runtimes.RuntimeEngine):
    """whisper.cpp with its own loop, search and fallback."""

    lacks = frozenset(
        {
            *("compression_ratio_threshold", "suppress_tokens", "vad"),
            "hallucination_silence_threshold",
        }
    )

    def open_runtime(self, checkpoint: Checkpoint, model: runtimes.RuntimeWhisper) -> ContextLoader:
        form = f"ggml-{self.dtype}"
        ranks = model.tokenizer.encoding._mergeable_ranks
        folder = runtimes.convert_once(
            checkpoint, model, form, lambda folder: write(checkpoint, ranks, self.dtype, folder)
        )
        return ContextLoader(folder / GGML_FILE, self.model, model.dims.n_text_layer)

    def run_loop(self, model: TimedWhisper, clip: Clip, options: Options) -> dict[str, Any]:
        assert isinstance(model, runtimes.RuntimeWhisper)
        if (options.beam_size or 1) > MOST_BEAMS:
            raise EngineError(f"{self.label} searches with {MOST_BEAMS} beams at most.")
        if (options.best_of or 1) > MOST_BEAMS:
            raise EngineError(f"{self.label} takes the best of {MOST_BEAMS} samples at most.")
        if len(options.clip_timestamps) > 2:
            raise EngineError(f"{self.label} can be given one part of a clip only.")
        state = runtimes.running_state()
        context: Model = model.runtime.open(options.word_timestamps)
        segments: list[dict[str, Any]] = []

        def take(_: object = None, count: int = 0) -> None:
            """Add the segments that came since the last call."""
            for number in range(len(segments), bindings.whisper_full_n_segments(context._ctx)):
                segment = read_segment(context._ctx, number, model, options)
                runtimes.add_segment(state, segments, segment)

        def take_quietly(_: object, count: int) -> None:
            with suppress(Stopped):  # `stopped` says so again; nothing is raised through C++
                take()

        def begin_window(_: object) -> bool:
            windows.append(perf_counter())
            return not state.listener.stopped()

        windows: list[float] = []
        parameters = set_options(options, runtimes.language_code(model, options))
        bindings.assign_abort_callback(parameters, state.listener.stopped)
        bindings.assign_encoder_begin_callback(parameters, begin_window)
        # With word times its own callback misses segments, so they come at the end.
        bindings.assign_new_segment_callback(
            parameters, None if options.word_timestamps else take_quietly
        )
        bindings.whisper_reset_timings(context._ctx)
        start = perf_counter()
        samples = clip.samples
        if len(options.clip_timestamps) == 2:  # its own end of a part lets the last window go on
            samples = samples[: round(options.clip_timestamps[1] * SAMPLE_RATE)]
        failed = bindings.whisper_full(context._ctx, parameters, samples, len(samples))
        state.listener.check_stopped()
        if failed:
            raise EngineError(f"{self.label} gave up on {clip.name} (its status was {failed}).")
        take()
        add_spans(state, read_timings(context._ctx), start, windows)
        language = bindings.whisper_lang_str(bindings.whisper_full_lang_id(context._ctx))
        text = "".join(segment["text"] for segment in segments)
        return {"text": text, "segments": segments, "language": language}


class ContextLoader:
    """whisper.cpp's context of the model, with word alignment or without.

    Alignment switches flash attention off, so runs without word times have a context of their own.
    One context is in memory at a time.
    """

    def __init__(self, path: Path, name: str, n_text_layer: int) -> None:
        self._path, self._name, self._n_text_layer = str(path), name, n_text_layer
        self._aligns = False
        self._context = self._load()

    def open(self, aligns: bool) -> Model:
        """Return the context that aligns words, or the one that doesn't."""
        if aligns is not self._aligns:
            self._aligns = aligns
            del self._context
            self._context = self._load()
        return self._context

    def _load(self) -> Model:
        settings: dict[str, Any] = {"use_gpu": False}
        if self._aligns:
            preset = "WHISPER_AHEADS_" + re.sub(r"\W", "_", OFFICIAL.get(self._name, self._name))
            heads = getattr(bindings, preset.upper(), bindings.WHISPER_AHEADS_N_TOP_MOST)
            settings |= {
                "flash_attn": False,
                "dtw_token_timestamps": True,
                "dtw_aheads_preset": heads,
                "dtw_n_top": self._n_text_layer - self._n_text_layer // 2,
            }
        return Model(
            self._path,
            redirect_whispercpp_logs_to=None,
            context_params=settings,
            print_progress=False,
        )


OFFICIAL = {"large": "large-v3", "turbo": "large-v3-turbo"}
"""Short names of official checkpoints."""


def set_options(options: Options, language: str | None) -> Any:
    """Return whisper.cpp's parameters: its defaults, with the given options."""
    beams, temperatures = options.beam_size or 1, (*options.temperatures, 0.0)
    strategy = bindings.whisper_sampling_strategy
    parameters = bindings.whisper_full_default_params(
        strategy.WHISPER_SAMPLING_BEAM_SEARCH if beams > 1 else strategy.WHISPER_SAMPLING_GREEDY
    )
    if beams > 1:
        parameters.beam_search = {"beam_size": beams, "patience": options.patience or -1.0}
    if options.best_of:
        parameters.greedy = {"best_of": options.best_of}
    parameters.n_threads = torch.get_num_threads()
    parameters.language = language or ""  # detected
    parameters.temperature = temperatures[0]
    parameters.temperature_inc = max(temperatures[1] - temperatures[0], 0.0)
    most, least = options.no_speech_threshold, options.logprob_threshold
    parameters.no_speech_thold = 2.0 if most is None else most  # no probability is above 1
    parameters.logprob_thold = -1e9 if least is None else least
    parameters.translate = options.task == "translate"
    parameters.initial_prompt = options.initial_prompt.strip()
    parameters.carry_initial_prompt = options.carry_initial_prompt
    parameters.offset_ms = (
        round(1000 * options.clip_timestamps[0]) if options.clip_timestamps else 0
    )
    parameters.n_max_text_ctx = 16384 if options.condition_on_previous_text else 0
    parameters.token_timestamps = options.word_timestamps
    parameters.print_progress = False
    return parameters


def read_segment(
    context: Any, number: int, model: runtimes.RuntimeWhisper, options: Options
) -> dict[str, Any]:
    """Return one of its segments in whisper's form.

    Its temperature is not told; the first of the options' stands for it.
    """
    tokens = [
        bindings.whisper_full_get_token_data(context, number, place)
        for place in range(bindings.whisper_full_n_tokens(context, number))
    ]
    segment = {
        "start": bindings.whisper_full_get_segment_t0(context, number) * CENTISECOND,
        "end": bindings.whisper_full_get_segment_t1(context, number) * CENTISECOND,
        "text": bindings.whisper_full_get_segment_text(context, number).decode("utf-8", "replace"),
        "tokens": [token.id for token in tokens],
        "temperature": options.temperatures[0],
    }
    if options.word_timestamps:
        timed = [
            (token.id, token.t_dtw * CENTISECOND, token.p)
            for token in tokens
            if token.id < model.tokenizer.eot
        ]
        segment["words"] = runtimes.join_words(timed, segment["start"], model.tokenizer, options)
    return segment


# Times


def read_timings(context: Any) -> dict[str, float]:
    """Return the seconds that whisper.cpp's clocks show by name, for one run of each.

    Its log has them as lines such as `encode time =  500.00 ms /     2 runs (  250.00 ms per run)`.
    """
    lines: list[str] = []
    bindings.whisper_log_set(lambda _, text: lines.append(text))
    try:
        bindings.whisper_print_timings(context)
    finally:
        bindings.whisper_log_set(None)
    pattern = r"(\w+) time\s*=\s*([\d.]+) ms(?:\s*/\s*(\d+) runs)?"
    clocks = re.findall(pattern, "".join(lines))
    return {name: float(time) / 1000 / max(int(runs or 1), 1) for name, time, runs in clocks}


def add_spans(
    state: TranscriptionState, timings: dict[str, float], start: float, windows: Sequence[float]
) -> None:
    """Add a span for the mel spectrogram, with which it starts, and one for each window's encoder.

    `windows`: when each began. All take about as long, so each gets the mean that its clock says.
    """
    if not windows:
        return
    state.spans.append(Span("mel", start, min(timings.get("mel", 0.0), windows[0] - start)))
    for number, (begun, after) in enumerate(
        zip(windows, [*windows[1:], perf_counter()], strict=True)
    ):
        state.spans.append(
            Span("encode", begun, min(timings.get("encode", 0.0), after - begun), number)
        )


# The checkpoint's file

GGML_FILE = "model.bin"
MAGIC = 0x67676D6C
FILE_TYPES = {"float16": 1, "q8_0": 2007}
FLOAT32, FLOAT16, Q8_0 = 0, 1, 8
DIMENSIONS = (
    *("n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer"),
    *("n_text_ctx", "n_text_state", "n_text_head", "n_text_layer", "n_mels"),
)


def write(checkpoint: Checkpoint, ranks: Mapping[bytes, int], dtype: str, folder: Path) -> None:
    """Write the checkpoint as a ggml file; little endian, all numbers int32.

    A header; the mel filters; the vocabulary by `ranks`, without special tokens; every tensor with
    its sizes, innermost first, its type and its name.
    """
    dims = checkpoint.dims
    filters = mel_filters("cpu", dims.n_mels).numpy()
    with (folder / GGML_FILE).open("wb") as out:
        sizes = [getattr(dims, name) for name in DIMENSIONS]
        out.write(struct.pack("<12i", MAGIC, *sizes, FILE_TYPES[dtype]))
        out.write(struct.pack("<2i", *filters.shape) + filters.astype("<f4").tobytes())
        out.write(struct.pack("<i", len(ranks)))
        for token in sorted(ranks, key=ranks.__getitem__):
            out.write(struct.pack("<i", len(token)) + token)
        for name, tensor in checkpoint.state.items():
            values = tensor.numpy()
            if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
                values = values[:, None]
            kind, content = pack(name, values, dtype)
            out.write(struct.pack("<3i", values.ndim, len(name), kind))
            out.write(struct.pack(f"<{values.ndim}i", *values.shape[::-1]))
            out.write(name.encode() + content)


def pack(name: str, values: FloatArray, dtype: str) -> tuple[int, bytes]:
    """Return a tensor's type in a file of type `dtype`, and its bytes."""
    keeps = values.ndim < 2 or name.endswith(("positional_embedding", ".bias"))
    if keeps:
        return FLOAT32, values.astype("<f4").tobytes()
    if dtype == "float16" or values.ndim > 2:
        return FLOAT16, values.astype("<f2").tobytes()
    return Q8_0, quantise(values)


def quantise(values: FloatArray) -> bytes:
    """Return q8_0: for each 32 values a float16 scale and 32 int8, halves rounded away from 0."""
    blocks = values.reshape(-1, 32)
    scales = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scales, where=scales > 0, out=np.zeros_like(scales))
    scaled = blocks * inverse
    packed = np.empty(len(blocks), [("scale", "<f2"), ("values", "i1", 32)])
    packed["scale"] = scales[:, 0]
    packed["values"] = np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))
    return packed.tobytes()
