"""MAX's encoder against float64, stage by stage, and the strict loading of its weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from whisper.audio import N_FRAMES
from whisper.model import ModelDimensions

pytest.importorskip("max.engine")

from engines import checkpoints
from engines.analysis import layers
from engines.analysis.records import FACTOR
from engines.audio import load_clip
from engines.base import SILENT, CheckpointError
from engines.checkpoints import Checkpoint
from engines.checkpoints.content import encoder_shapes
from engines.max_graph.weights import PANEL, encoder_weights, pack
from engines.max_whisper import load_max_encoder
from tests.engines.checkpoint_files import DIMENSIONS, random_state

pytestmark = pytest.mark.max

MINI = DIMENSIONS["mini"]
LARGE = {
    "medium": ModelDimensions(80, 1500, 1024, 16, 24, 51865, 448, 1024, 16, 1),
    "large, 8 layers": ModelDimensions(128, 1500, 1280, 20, 8, 51866, 448, 1280, 20, 1),
}


def random_checkpoint(dims: ModelDimensions) -> Checkpoint:
    return Checkpoint("random", dims, random_state(dims))


def noise(n_mels: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n_mels, N_FRAMES)).astype(np.float32)


def find_stages_past(expected: Checkpoint, found: Checkpoint, mel: np.ndarray) -> list[str]:
    """The stages of `found`'s MAX encoder that are past the bound around `expected` in float64."""
    opened = layers.open_max(found)
    stages = layers.compare_stages([opened], expected, mel)
    return [stage.name for stage in stages if stage.error(opened.name) > stage.bound(FACTOR)]


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_real_weights_are_within_the_bound_on_speech(model: str) -> None:
    mel = layers.cut_window(load_clip("audio_samples/jfk.flac"), 80)
    checkpoint = checkpoints.load(model)
    assert find_stages_past(checkpoint, checkpoint, mel) == []


@pytest.mark.parametrize("size", ["mini", "mini128"])
def test_random_weights_are_within_the_bound(size: str) -> None:
    checkpoint = random_checkpoint(DIMENSIONS[size])
    assert find_stages_past(checkpoint, checkpoint, noise(checkpoint.dims.n_mels)) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "base", "small", *LARGE])
def test_random_weights_of_official_sizes_are_within_the_bound(size: str) -> None:
    checkpoint = random_checkpoint(LARGE.get(size) or DIMENSIONS[size])
    assert find_stages_past(checkpoint, checkpoint, noise(checkpoint.dims.n_mels)) == []


def test_a_wrong_matrix_is_seen_from_its_layer_on() -> None:
    """One matrix, one percent too large."""
    checkpoint = checkpoints.load("tiny.en")
    key = "encoder.blocks.1.attn.out.weight"
    state = checkpoint.state | {key: checkpoint.state[key] * 1.01}
    wrong = replace(checkpoint, state=state, stored_in_half=False)
    mel = layers.cut_window(load_clip("audio_samples/jfk.flac"), 80)
    seen = find_stages_past(checkpoint, wrong, mel)
    assert seen == ["blocks.1", "blocks.2", "blocks.3", "ln_post"]


def test_the_inspected_stages_are_the_engine_s_own() -> None:
    checkpoint = checkpoints.load("tiny.en")
    mel = layers.cut_window(load_clip("audio_samples/jfk.flac"), 80)
    encoder, _ = load_max_encoder(checkpoint)
    own, seen = dict(encoder.stages(mel)), dict(layers.open_max(checkpoint).stages(mel))
    assert list(seen)[:4] == ["log-mel", "conv1", "conv2", "positions"]
    np.testing.assert_array_equal(seen["positions"], own["conv2"])
    for name in own.keys() - {"conv2"}:
        np.testing.assert_array_equal(seen[name], own[name])
    np.testing.assert_array_equal(seen["ln_post"], encoder(mel))
    with pytest.raises(ValueError, match=r"a window of log-mel is \(80, 3000\)"):
        encoder(mel[:40])


def test_an_encoder_says_what_it_rounds_to() -> None:
    real = checkpoints.load("tiny.en")
    half = layers.open_max(real, "float16")
    assert half.device != "cpu" or half.rounds_to == "", "float16 holds these weights exactly"
    assert layers.open_max(real, "float32").rounds_to == ""
    assert layers.open_max(random_checkpoint(MINI), "float16").info().rounds_to == "float16"
    if half.device == "cpu":
        with pytest.raises(layers.EngineUnavailable, match="no bfloat16 on a CPU"):
            layers.open_max(real, "bfloat16", SILENT)


# Weights.


def test_every_tensor_of_whisper_is_expected_and_no_other() -> None:
    state = random_state(MINI)
    found = {
        key.removeprefix("encoder."): tuple(tensor.shape)
        for key, tensor in state.items()
        if key.startswith("encoder.")
    }
    assert found == encoder_shapes(MINI)
    assert len(encoder_shapes(DIMENSIONS["tiny"])) == 67


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("encoder.ln_post.weight", None, "ln_post.weight is missing"),
        ("encoder.blocks.0.attn.key.bias", torch.zeros(64), "attn.key.bias is not used"),
        (
            "encoder.conv1.weight",
            torch.zeros(64, 80, 5),
            r"conv1.weight has shape \(64, 80, 5\) in place of \(64, 80, 3\)",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    key: str, value: torch.Tensor | None, words: str
) -> None:
    state = random_state(MINI)
    if value is None:
        del state[key]
    else:
        state[key] = value
    with pytest.raises(CheckpointError, match=words):
        encoder_weights(state, MINI)


@pytest.mark.parametrize("n_out", [1, PANEL - 1, PANEL, PANEL + 1, 3 * PANEL])
def test_panels_hold_the_matrix_and_zeros(n_out: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((n_out, 7)).astype(np.float32)
    unpacked = pack(matrix).transpose(0, 2, 1).reshape(-1, 7)
    np.testing.assert_array_equal(unpacked[:n_out], matrix)
    assert not unpacked[n_out:].any()
