"""Each fault changes what it says, shows first where it is, and leaves the engines alone."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.audio import mel_filters

from engines import checkpoints
from engines.analysis import fault_catalogue as catalogue
from engines.analysis import faults
from engines.analysis.fault_catalogue import FAULTS, Fault, get_fault
from engines.analysis.faults import FaultyEngine, run_fault
from engines.analysis.layers import cut_window
from engines.audio import load_clip
from engines.base import (
    SAMPLE_RATE,
    Clip,
    EngineError,
    FloatArray,
    Listener,
    Options,
    Stages,
    Stopped,
)
from tests.engines.checkpoint_files import DIMENSIONS, random_state

CLIP = "audio_samples/jfk.flac"


def stage_outputs() -> Stages:
    for at, name in enumerate(("log-mel", "conv1", "blocks.0", "ln_post")):
        yield name, np.full((2, 3), at + 1, np.float32)


def test_every_fault_has_a_name_and_one_sentence() -> None:
    assert len({fault.key for fault in FAULTS}) == len(FAULTS) == 9
    for fault in FAULTS:
        assert get_fault(fault.key) is fault
        assert fault.story.endswith((".", "”"))
        assert len(fault.story) < 200
    with pytest.raises(EngineError, match="no fault 'rust'"):
        get_fault("rust")


def test_leaving_out_ln_post_gives_the_last_block_s_output() -> None:
    outputs = dict(catalogue.leave_out_ln_post(stage_outputs()))
    assert outputs["ln_post"].tolist() == outputs["blocks.0"].tolist() == [[3.0] * 3] * 2


def test_scaling_touches_the_output_alone() -> None:
    outputs = dict(catalogue.scale_output(stage_outputs()))
    assert outputs["ln_post"][0, 0] == pytest.approx(4 * 0.276)
    assert outputs["blocks.0"][0, 0] == 3


def power_spectrum(samples: FloatArray) -> torch.Tensor:
    """Power on the mel scale, as both librosa and whisper have it before they take logarithms."""
    spectrum = torch.stft(
        torch.from_numpy(np.pad(samples, (0, 480_000))),
        400,
        160,
        window=torch.hann_window(400),
        return_complex=True,
    )
    return mel_filters("cpu", 80) @ spectrum[..., :-1].abs() ** 2


def test_decibels_are_librosa_s() -> None:
    clip = load_clip(CLIP)
    power = power_spectrum(clip.samples).double().numpy()
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    frames = decibels.shape[1] - 3000
    found = catalogue.to_decibels(cut_window(clip, 80))
    # Measured: 1.1e-5 dB, float32 rounding of values near 100.
    np.testing.assert_allclose(found[:, :frames], decibels[:, :frames], atol=1e-3)
    assert not found[:, frames:].any()
    assert not catalogue.to_decibels(np.zeros((80, 3000), np.float32)).any()


@pytest.mark.max
def test_weights_change_where_they_should() -> None:
    from engines.max_graph.weights import encoder_weights

    dims = replace(DIMENSIONS["mini"], n_audio_layer=3)
    state = random_state(dims)
    right = encoder_weights(state, dims)
    misread = catalogue.misread_convolutions(right)
    kernel = state["encoder.conv1.weight"].numpy()
    np.testing.assert_array_equal(misread.convolutions[0], kernel.reshape(len(kernel), -1))
    assert misread.positions is right.positions
    assert misread.blocks == right.blocks
    assert not catalogue.zero_positions(right).positions.any()
    skipped = catalogue.skip_block(right)
    assert skipped.blocks[0] is right.blocks[0]
    assert skipped.blocks[2] is right.blocks[2]
    pairs = zip(skipped.blocks[1], right.blocks[1], strict=True)
    changed = [at for at, (ours, theirs) in enumerate(pairs) if ours is not theirs]
    assert changed == [4, 5, 10, 11]
    assert not any(skipped.blocks[1][at].any() for at in changed)


def test_rounding_is_to_the_nearest() -> None:
    matrix = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    matrix[3] = 0
    eight = catalogue.round_to_int8(matrix)
    step = np.abs(matrix).max(axis=1, keepdims=True) / 127
    assert (np.abs(eight - matrix) <= step / 2 + 1e-7).all()
    assert all(len(np.unique(row)) <= 255 for row in eight)
    assert np.any(eight != matrix)
    brain = catalogue.round_to_bfloat16(matrix)
    assert (np.abs(brain - matrix) <= np.abs(matrix) / 256).all()
    assert not (brain.view(np.uint32) & 0xFFFF).any()


def test_no_engine_knows_of_faults() -> None:
    """Only the analysis itself, its commands and its worker import them."""
    for path in Path("engines").rglob("*.py"):
        if path.parent.name in ("analysis", "commands") or path.name == "worker.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            names.append(str(getattr(node, "module", "")))
            assert not any("faults" in name.split(".") for name in names), path


EXPECTED = {
    "ln_post": "ln_post",
    "conv_layout": "conv1",
    "power_to_db": "log-mel",
    "scaled": "ln_post",
    "first_window": None,
    "positions": "positions",
    "block": "the middle block",
    "int8": "conv1",
    "bfloat16": "conv1",
}
"""Where each was put in, and so where measuring has to find it."""


QUICK = ("conv_layout", "scaled")
"""One fault of the weights and one of the stages; the others run with the slow tests."""


@pytest.mark.max
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=[] if fault.key in QUICK else pytest.mark.slow, id=fault.key)
        for fault in FAULTS
    ],
)
def test_a_fault_shows_first_where_it_was_put_in(fault: Fault) -> None:
    result = run_fault(fault.key, "tiny.en", load_clip(CLIP))
    middle = f"blocks.{checkpoints.load('tiny.en').dims.n_audio_layer // 2}"
    expected = middle if fault.key == "block" else EXPECTED[fault.key]
    assert result.first_stage == expected
    assert result.layers.first_past(result.right_encoder.name) is None
    assert result.error is None
    assert result.faulty is not None
    assert result.right.engine == "max_hybrid"
    assert result.faulty.engine != result.right.engine
    same = np.array_equal(result.faulty.features, result.right.features)
    assert same == fault.first_window_only
    assert json.loads(json.dumps(faults.as_json(result), allow_nan=False))["fault"] == fault.key


@pytest.mark.max
def test_without_a_fault_the_faulty_engine_is_the_engine() -> None:
    """So whatever a fault shows is the fault's."""
    none = Fault("none", "nothing", "Nothing is wrong.")
    result = faults.run(none, "tiny.en", load_clip(CLIP), "en")
    assert result.faulty is not None
    assert result.faulty.tokens == result.right.tokens
    np.testing.assert_array_equal(result.faulty.features, result.right.features)
    assert result.first_stage is None


@pytest.mark.max
def test_only_the_first_window_is_decoded() -> None:
    samples = load_clip("audio_samples/columbia.flac").samples[: 65 * SAMPLE_RATE]
    options = Options(language="en", temperatures=(0.0,))
    transcript = FaultyEngine(get_fault("first_window"), "tiny.en").transcribe(
        Clip(samples), options
    )
    assert len(transcript.features) == 1
    assert transcript.segments
    assert transcript.segments[-1].end <= 30


@pytest.mark.max
def test_what_breaks_is_reported_and_the_layers_are_still_compared() -> None:
    def break_at_the_end(stages: Stages) -> Stages:
        for name, output in stages:
            yield name, output[:, :3] if name == "ln_post" else output

    broken = Fault("cut", "Cut", "The output is cut short.", stages=break_at_the_end)
    result = faults.run(broken, "tiny.en", load_clip(CLIP), "en")
    assert result.faulty is None
    assert result.error
    assert result.first_stage == "ln_post"


@pytest.mark.max
def test_a_run_can_be_stopped() -> None:
    checkpoints.load("tiny.en")

    class Stopper(Listener):
        asked = 0

        def stopped(self) -> bool:
            self.asked += 1
            return self.asked > 6

    with pytest.raises(Stopped):
        run_fault("scaled", "tiny.en", load_clip(CLIP), listener=Stopper())
