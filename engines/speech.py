"""Where speech is, by Silero's model, so that silence is skipped before whisper hears it.

The stretches become whisper's own `clip_timestamps`, the same in every engine. The package
`silero_vad` is imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from whisper.audio import CHUNK_LENGTH, N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim

from engines.base import SAMPLE_RATE, Clip, EngineError, FloatArray, Listener, Options
from engines.clip_clock import HOP_LENGTH

SHORTEST_SILENCE_MS = 2000
"""A shorter silence is left in, as a pause between sentences: each stretch costs a window."""
PAD_MS = 400
"""Kept before and after speech, as in faster-whisper."""

NOTHING = (0.0, 0.0)
"""An empty part: whisper decodes nothing."""


def keep_to_speech(
    clip: Clip, options: Options, listener: Listener
) -> tuple[Options, FloatArray | None]:
    """Return options by which only speech is decoded, and the first window's worth of it, where
    they ask for that; else the same options."""
    if not options.vad:
        return options, None
    parts = list_speech(clip, options.clip_timestamps, listener)
    return replace(options, clip_timestamps=parts), join_speech(clip, parts, CHUNK_LENGTH)


def compute_first_window(samples: FloatArray, n_mels: int) -> torch.Tensor:
    """Return the log-mel window `(n_mels, 3000)` that samples `(n,)` begin with."""
    return pad_or_trim(log_mel_spectrogram(samples, n_mels, padding=N_SAMPLES), N_FRAMES)


def list_speech(clip: Clip, parts: Sequence[float], listener: Listener) -> tuple[float, ...]:
    """Return from, to, … in seconds of the samples, for each stretch of speech within `parts`,
    which are of the same kind; of the whole clip where there are none."""
    end = len(clip.samples) // HOP_LENGTH * HOP_LENGTH / SAMPLE_RATE
    edges = [*(parts or (0.0,)), end][: len(parts or (0.0,)) // 2 * 2 + 2]
    stretches: list[float] = []
    for first, last in zip(edges[::2], edges[1::2], strict=False):
        begin = round(first * SAMPLE_RATE)
        samples = clip.samples[begin : round(last * SAMPLE_RATE)]
        for start, stop in find_speech(samples, listener):
            stretches += (first + start / SAMPLE_RATE, min(first + stop / SAMPLE_RATE, last))
    return tuple(stretches) or NOTHING


def find_speech(samples: FloatArray, listener: Listener) -> list[tuple[int, int]]:
    """Return first and last sample of each stretch of speech in samples `(n,)`."""
    package, model = load_model()
    with torch.inference_mode():
        stretches = package.get_speech_timestamps(
            torch.from_numpy(np.ascontiguousarray(samples)),
            model,
            sampling_rate=SAMPLE_RATE,
            min_silence_duration_ms=SHORTEST_SILENCE_MS,
            speech_pad_ms=PAD_MS,
            progress_tracking_callback=lambda _: listener.check_stopped(),
        )
    return [(each["start"], each["end"]) for each in stretches]


@cache
def load_model() -> tuple[Any, Any]:
    """Return the package and its model; raise `EngineError` where it isn't installed.

    Its import sets PyTorch to one thread, which engines would then be timed with.
    """
    threads = torch.get_num_threads()
    try:
        import silero_vad

        return silero_vad, silero_vad.load_silero_vad()
    except ImportError as error:
        raise EngineError(
            "To find speech first, the package silero-vad is needed: pip install -r "
            "requirements.txt brings it."
        ) from error
    finally:
        torch.set_num_threads(threads)


def join_speech(clip: Clip, parts: Sequence[float], seconds: float) -> FloatArray:
    """Return the first seconds of what is spoken, without the silence between."""
    pairs = zip(parts[::2], parts[1::2], strict=True)
    pieces = [clip.samples[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in pairs]
    return np.concatenate(pieces)[: round(seconds * SAMPLE_RATE)]
