"""The MAX encoder beside PyTorch's, on the same 30 s window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim
from whisper.model import Whisper

from engines import random_checkpoints as sizes
from engines.audio import load_clip
from engines.base import EngineUnavailable, FloatArray
from engines.checkpoints import Checkpoint
from engines.max_hybrid import load_max_encoder, why_no_max
from engines.measure import tables
from engines.measure.record import Figure, Result, with_ratios
from engines.measure.turns import Clock, Say, Turns, prefixed, ready, take_turns, timed

BENCHMARK = "encoder"
BASELINE = "torch"
WARM_UPS = 1
CLIP = Path(__file__).parents[2] / "audio_samples" / "half_minute.flac"

NOT_FINITE = "Its features are not finite: some are infinite or not a number."

Encode = Callable[[FloatArray], FloatArray]
"""`(n_mels, 3000)` to `(n_audio_ctx, n_audio_state)`, float32 on the host at both ends."""


@dataclass(frozen=True)
class Contender:
    """An encoder that is ready, and where it computes."""

    encode: Encode
    device: str

    def __call__(self, mel: FloatArray) -> FloatArray:
        """As `Encode`."""
        return self.encode(mel)


@dataclass(frozen=True)
class Encoded:
    """One run: wall seconds, and the features `(n_audio_ctx, n_audio_state)`."""

    seconds: float
    features: FloatArray


def settings(names: Sequence[str], repeats: int) -> dict[str, Any]:
    """What is equal on both sides."""
    return {
        "sizes": list(names),
        "repeats": repeats,
        "warm_ups": WARM_UPS,
        "window_seconds": 30,
        "dtype": "float32",
        "clip": CLIP.stem,
        "baseline": BASELINE,
    }


def measure(
    names: Sequence[str], repeats: int, say: Say, clock: Clock = perf_counter
) -> Iterator[Result]:
    """Two results for each size; ends with `KeyboardInterrupt` if it was interrupted."""
    for size in names:
        tell = prefixed(say, size)
        tell("loading")
        checkpoint = sizes.checkpoint(size)
        encoders = {
            "torch": ready(partial(torch_encoder, checkpoint)),
            "max": ready(partial(max_encoder, checkpoint, tell)),
        }
        turns = compare(encoders, window(checkpoint.dims.n_mels), repeats, tell, clock)
        devices = {n: each.device for n, each in encoders.items() if isinstance(each, Contender)}
        yield from results(size, turns, devices)
        if turns.interrupted:
            raise KeyboardInterrupt


def torch_encoder(checkpoint: Checkpoint) -> Contender:
    """Whisper's own, on CUDA where there is one, since MAX takes the accelerator too."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = checkpoint.build(Whisper).encoder.to(device)

    def encode(mel: FloatArray) -> FloatArray:
        with torch.inference_mode():
            return encoder(torch.from_numpy(mel)[None].to(device))[0].cpu().numpy()

    return Contender(encode, device)


def max_encoder(checkpoint: Checkpoint, say: Say) -> Contender:
    """Ours; raises `EngineUnavailable` without the package `max`."""
    if reason := why_no_max():
        raise EngineUnavailable(reason)
    from engines.max_graph import session

    return Contender(load_max_encoder(checkpoint, say)[0], session.pick_device().label)


def compare(
    encoders: Mapping[str, Encode],
    mel: FloatArray,
    repeats: int,
    say: Say = lambda text: None,
    clock: Clock = perf_counter,
) -> Turns[Encoded]:
    """The encoders in turn on one window `(n_mels, 3000)`."""

    def run(encode: Encode) -> Encoded:
        return Encoded(*timed(lambda: encode(mel), clock))

    runs = {name: partial(run, encode) for name, encode in encoders.items()}
    return take_turns(runs, repeats, WARM_UPS, say)


def results(
    size: str, turns: Turns[Encoded], devices: Mapping[str, str] = MappingProxyType({})
) -> list[Result]:
    """Seconds and the relative error ‖found − expected‖ / ‖expected‖ to PyTorch's features.

    An encoder whose features are not finite has failed. `devices`: by name, where each computes.
    """
    wrong = {
        name: NOT_FINITE
        for name, outcomes in turns.outcomes.items()
        if outcomes and not np.isfinite(outcomes[-1].features).all()
    }
    errors = {**wrong, **turns.errors}
    expected = [] if BASELINE in wrong else turns.outcomes.get(BASELINE, [])
    found: list[Result] = []
    for name, outcomes in turns.outcomes.items():
        figures: dict[str, Figure] = {"device": devices[name]} if name in devices else {}
        if outcomes and expected and name != BASELINE and name not in wrong:
            figures["relative_error"] = relative_error(outcomes[-1].features, expected[-1].features)
        samples = tuple(outcome.seconds for outcome in outcomes)
        found.append(
            Result(
                BENCHMARK,
                {"size": size},
                name,
                {"encode": samples} if samples else {},
                figures,
                errors.get(name),
            )
        )
    return with_ratios(found, "encode", BASELINE)


def relative_error(found: FloatArray, expected: FloatArray) -> float:
    """‖found − expected‖ / ‖expected‖."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def window(n_mels: int) -> FloatArray:
    """The first 30 s of a sample, `(n_mels, 3000)`, as `whisper.transcribe` computes it."""
    mel = log_mel_spectrogram(load_clip(CLIP).samples, n_mels, padding=480_000)
    return np.ascontiguousarray(pad_or_trim(mel, N_FRAMES).numpy())


COLUMNS = (
    tables.of_case("size"),
    tables.contender("encoder"),
    tables.figure("device", "device"),
    tables.milliseconds("encode", "median ms"),
    tables.spread("encode", "ms"),
    tables.runs("encode"),
    tables.times_faster(BASELINE),
    tables.figure("relative_error", "relative error", ".1e"),
)
