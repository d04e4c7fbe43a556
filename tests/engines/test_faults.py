"""Each fault changes what it says, and shows first where it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from whisper.audio import mel_filters

from engines import checkpoints, registry
from engines.analysis import faults
from engines.analysis.faults import FAULTS, Fault, get_fault, run_fault
from engines.analysis.layers import cut_window
from engines.audio import load_clip
from engines.base import SAMPLE_RATE, Clip, Listener, Options, Stages, Stopped
from engines.checkpoints import Checkpoint
from tests.engines.checkpoint_files import DIMENSIONS, random_state

CLIP = load_clip("audio_samples/jfk.flac")


@pytest.fixture
def mini(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A checkpoint with random weights and three layers, which writes 16 tokens at most."""
    dims = replace(DIMENSIONS["mini"], n_audio_layer=3, n_text_ctx=32)
    found = Checkpoint("mini", dims, random_state(dims))
    monkeypatch.setattr(checkpoints, "load", lambda *_: found)
    yield "mini"
    registry.release("mini")


def test_faults_of_the_stages_touch_the_output_alone() -> None:
    names = ("log-mel", "conv1", "blocks.0", "ln_post")
    stages = [(name, np.full((2, 3), at + 1, np.float32)) for at, name in enumerate(names)]
    for change, expected in ((faults.leave_out_ln_post, 3.0), (faults.scale_output, 4 * 0.276)):
        outputs = dict(change(iter(stages)))
        assert outputs["ln_post"][0, 0] == pytest.approx(expected)
        assert outputs["blocks.0"][0, 0] == 3


def test_decibels_are_librosa_s() -> None:
    """Both begin with the power on the mel scale."""
    spectrum = torch.stft(
        torch.from_numpy(np.pad(CLIP.samples, (0, 480_000))),
        400,
        160,
        window=torch.hann_window(400),
        return_complex=True,
    )
    power = (mel_filters("cpu", 80) @ spectrum[..., :-1].abs() ** 2).double().numpy()
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    frames = decibels.shape[1] - 3000
    found = faults.to_decibels(cut_window(CLIP, 80))
    # Measured: 1.1e-5 dB, float32 rounding of values near 100.
    np.testing.assert_allclose(found[:, :frames], decibels[:, :frames], atol=1e-3)
    assert not found[:, frames:].any()
    assert not faults.to_decibels(np.zeros((80, 3000), np.float32)).any()


def test_rounding_to_int8_is_to_the_nearest() -> None:
    matrix = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    matrix[3] = 0
    eight = faults.round_to_int8(matrix)
    step = np.abs(matrix).max(axis=1, keepdims=True) / 127
    assert (np.abs(eight - matrix) <= step / 2 + 1e-7).all() and np.any(eight != matrix)
    assert all(len(np.unique(row)) <= 255 for row in eight)


EXPECTED = {
    "ln_post": "ln_post",
    "conv_layout": "conv1",
    "power_to_db": "log-mel",
    "scaled": "ln_post",
    "first_window": None,
    "positions": "positions",
    "block": "blocks.1",
    "int8": "conv1",
    "bfloat16": "conv1",
}
"""Where each was put in, and so where measuring has to find it; the middle of three blocks."""


@pytest.mark.max
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.key)
def test_a_fault_shows_first_where_it_was_put_in(fault: Fault, mini: str) -> None:
    result = run_fault(fault, mini, Clip(CLIP.samples[:SAMPLE_RATE]), "en")
    assert result.first_stage == EXPECTED[fault.key]
    assert result.layers.first_past(result.right_encoder.name) is None
    assert result.error is None and result.faulty is not None
    named = (result.right.engine, result.faulty.engine)
    assert named == ("max_hybrid", f"max_hybrid with {fault.key}")
    if fault.first_window_only:  # in a clip of one window nothing is left out
        assert result.faulty.tokens == result.right.tokens
    mel = cut_window(CLIP, 80)[None]
    right = registry.get("max_hybrid", mini)
    features = faults.make_engine(fault, mini).encode(mel)
    assert np.array_equal(features, right.encode(mel)) == fault.first_window_only


def test_the_first_window_ends_where_whisper_s_does() -> None:
    clip = Clip(load_clip("audio_samples/columbia.flac").samples[: 35 * SAMPLE_RATE])
    options = Options(language="en", temperatures=(0.0,))
    whole = registry.get("cpu", "tiny.en").transcribe(clip, options)
    first = faults.keep_first_window(whole)
    assert first.segments and first.segments[-1].end <= whole.window_starts[1] <= 30
    assert whole.text.startswith(first.text) and len(first.tokens) < len(whole.tokens)
    assert faults.keep_first_window(replace(whole, window_starts=(0.0,))).text == whole.text


@pytest.mark.max
def test_what_breaks_is_reported_and_the_layers_are_still_compared(mini: str) -> None:
    def break_at_the_end(stages: Stages) -> Stages:
        for name, output in stages:
            yield name, output[:, :3] if name == "ln_post" else output

    broken = Fault("cut", "Cut", "The output is cut short.", stages=break_at_the_end)
    result = run_fault(broken, mini, CLIP, "en")
    assert result.faulty is None and result.error
    assert result.first_stage == "ln_post"


@pytest.mark.max
def test_a_run_can_be_stopped(mini: str) -> None:
    class Stopper(Listener):
        asked = 0

        def stopped(self) -> bool:
            self.asked += 1
            return self.asked > 6

    with pytest.raises(Stopped):
        run_fault(get_fault("scaled"), mini, CLIP, listener=Stopper())
