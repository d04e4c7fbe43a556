"""Equal tokens on clips cut from the samples at random: other lengths, levels and noise.

40 of them in `make test`; `MANY_CLIPS=200 make test-max` for 200, a quarter of an hour.
"""

import os
from functools import cache

import numpy as np
import pytest

from engines import registry
from engines.audio import load_clip
from engines.base import SAMPLE_RATE, Clip, EngineUnavailable, Options, Transcript
from tests.engines.test_equal_tokens import OTHERS

CLIPS = int(os.environ.get("MANY_CLIPS", "40"))
TOGETHER = 20
"""Clips in one test: enough to be quick, few enough to find the one that fails."""


@cache
def speech() -> np.ndarray:
    """The talk and the half minute, one after the other."""
    parts = [load_clip(f"audio_samples/{name}.flac").samples for name in ("talk", "half_minute")]
    return np.concatenate(parts)


@cache
def clip(seed: int) -> Clip:
    """1 to 8 s of speech, two of twenty 31 to 45 s, at -20 to 6 dB, from clean to 10 dB noise."""
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(31, 45) if seed % 20 < 2 else rng.uniform(1, 8)
    length = int(seconds * SAMPLE_RATE)
    start = rng.integers(len(speech()) - length)
    samples = speech()[start : start + length]
    noise = rng.standard_normal(length) * samples.std() * 10 ** (-rng.uniform(10, 60) / 20)
    loud = (samples + noise) * 10 ** (rng.uniform(-20, 6) / 20)
    return Clip(np.clip(loud, -1, 1).astype(np.float32), f"clip {seed}")


def options(seed: int, beam_size: int | None) -> Options:
    return Options(
        temperatures=(0.0,),
        beam_size=beam_size,
        word_timestamps=True,
        condition_on_previous_text=seed % 2 == 0,
    )


@cache
def baseline(seed: int, beam_size: int | None) -> Transcript:
    return registry.get(registry.BASELINE).transcribe(clip(seed), options(seed, beam_size))


@pytest.mark.parametrize("first", range(0, CLIPS, TOGETHER))
@pytest.mark.parametrize("beam_size", [None, 5], ids=["greedy", "beam 5"])
@pytest.mark.parametrize("key", OTHERS)
def test_tokens_equal_the_baseline(key: str, beam_size: int | None, first: int) -> None:
    try:
        engine = registry.get(key)
    except EngineUnavailable as error:
        pytest.skip(str(error))
    for seed in range(first, first + TOGETHER):
        found = engine.transcribe(clip(seed), options(seed, beam_size))
        expected = baseline(seed, beam_size)
        assert found.tokens == expected.tokens, f"clip {seed}"
