"""The encoders, timed and compared."""

from __future__ import annotations

import numpy as np
import pytest

from engines import random_checkpoints as sizes
from engines.base import EngineError, FloatArray
from engines.measure import encoder
from tests.bench.stand_ins import FakeClock, silent


def test_encoders_are_timed_and_compared() -> None:
    clock = FakeClock()

    def encode(seconds: float, scale: float, mel: FloatArray) -> FloatArray:
        clock.now += seconds
        return mel * np.float32(scale)

    encoders = {
        "torch": lambda mel: encode(3.0, 1.0, mel),
        "max": lambda mel: encode(2.0, 1.5, mel),
    }
    mel = np.ones((2, 3), np.float32)
    torch, ours = encoder.results("tiny.en", encoder.compare(encoders, mel, 2, silent, clock))
    assert torch.seconds == {"encode": (3.0, 3.0)}
    assert ours.seconds == {"encode": (2.0, 2.0)}
    assert ours.figures == {"times_faster": 1.5, "relative_error": 0.5}
    assert "relative_error" not in torch.figures


@pytest.mark.parametrize(("torch_value", "max_value"), [(1.0, np.nan), (np.inf, 1.0)])
def test_features_that_are_not_finite_are_a_failure_and_the_rest_goes_on(
    torch_value: float, max_value: float
) -> None:
    encoders = {
        "torch": lambda mel: mel * np.float32(torch_value),
        "max": lambda mel: mel * np.float32(max_value),
    }
    mel = np.ones((2, 3), np.float32)
    found = encoder.results("tiny.en", encoder.compare(encoders, mel, 1, silent))
    errors = [each.error for each in found]
    assert errors == [
        None if value == 1.0 else encoder.NOT_FINITE for value in (torch_value, max_value)
    ]
    assert all("relative_error" not in each.figures for each in found)


@pytest.mark.max
def test_encoder_for_real() -> None:
    torch, ours = encoder.measure(["tiny.en"], 1, silent)
    assert (torch.contender, ours.contender) == ("torch", "max")
    assert ours.error is None
    assert float(ours.figures["relative_error"] or 1) < 1e-5  # the encoder's own tests say why


def test_sizes_are_whisper_s_and_their_weights_fit_float16() -> None:
    assert sizes.names() == ("tiny.en", "tiny", "base", "small")
    tiny = sizes.checkpoint("tiny")
    assert len(tiny.state) == 167
    assert all(bool((t == t.half().float()).all()) for t in tiny.state.values())
    with pytest.raises(EngineError, match="no size 'huge'"):
        sizes.checkpoint("huge")
