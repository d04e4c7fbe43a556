"""Equal tokens and word times on clips cut from the samples at random: lengths, levels, noise.

20 of them in `make test`; `MANY_CLIPS=200 make test-max` for 200. Greedy and with 5 beams, and both
with the text of the window before as a prompt and without it, wherever there is a window before.
"""

import os
from functools import cache

import numpy as np
import pytest

from engines import registry
from engines.audio import load_clip
from engines.base import SAMPLE_RATE, Clip, EngineUnavailable, Options, Transcript
from tests.engines.test_equal_tokens import OTHERS, assert_equal

CLIPS = int(os.environ.get("MANY_CLIPS", "20"))
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


def options(beam_size: int | None, prompted: bool) -> Options:
    return Options(
        temperatures=(0.0,),
        beam_size=beam_size,
        word_timestamps=True,
        condition_on_previous_text=prompted,
    )


@cache
def baseline(seed: int, beam_size: int | None, prompted: bool) -> Transcript:
    return registry.get(registry.BASELINE).transcribe(clip(seed), options(beam_size, prompted))


@pytest.mark.parametrize("first", range(0, CLIPS, TOGETHER))
@pytest.mark.parametrize("beam_size", [None, 5], ids=["greedy", "beam 5"])
@pytest.mark.parametrize("key", OTHERS)
def test_tokens_equal_the_baseline(key: str, beam_size: int | None, first: int) -> None:
    try:
        engine = registry.get(key)
    except EngineUnavailable as error:
        pytest.skip(str(error))
    later_windows = 0
    for seed in range(first, first + TOGETHER):
        for prompted in (True, False):
            expected = baseline(seed, beam_size, prompted)
            found = engine.transcribe(clip(seed), options(beam_size, prompted))
            assert_equal(found, expected)
            if len(expected.window_starts) == 1:
                break  # the first window has no prompt either way
            later_windows += 1
    assert later_windows >= 4, "too few clips tell the two apart"
