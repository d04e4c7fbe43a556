"""MAX's encoder against float64, stage by stage, and the strict loading of all weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from whisper.audio import N_FRAMES
from whisper.model import ModelDimensions

pytest.importorskip("max.engine")

from max.driver import CPU

from engines import checkpoints
from engines.analysis import layers
from engines.audio import load_clip
from engines.base import CheckpointError
from engines.checkpoints import Checkpoint
from engines.max_graph.compile_cache import pick_weight
from engines.max_graph.weights import decoder_weights, encoder_weights
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


@pytest.fixture(scope="module")
def jfk() -> np.ndarray:
    """The log-mel of a clip."""
    return layers.cut_window(load_clip("audio_samples/jfk.flac"), 80)


def find_stages_past(expected: Checkpoint, found: Checkpoint, mel: np.ndarray) -> list[str]:
    """The stages of `found`'s MAX encoder that are past the bound around `expected` in float64."""
    opened = layers.open_max(found)
    result = layers.compare_encoders([opened], expected, mel, "noise")
    return [s.name for s in result.stages if s.errors[opened.name] > result.bound(s)]


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_real_weights_are_within_the_bound_on_speech(model: str, jfk: np.ndarray) -> None:
    checkpoint = checkpoints.load(model)
    assert find_stages_past(checkpoint, checkpoint, jfk) == []


@pytest.mark.parametrize(
    "size",
    [
        "mini",
        "mini128",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("small", *LARGE)),
    ],
)
def test_random_weights_are_within_the_bound(size: str) -> None:
    checkpoint = random_checkpoint(LARGE.get(size) or DIMENSIONS[size])
    shape = (checkpoint.dims.n_mels, N_FRAMES)
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert find_stages_past(checkpoint, checkpoint, noise) == []


def test_a_wrong_matrix_is_seen_from_its_layer_on(jfk: np.ndarray) -> None:
    """One matrix, one percent too large."""
    checkpoint = checkpoints.load("tiny.en")
    key = "encoder.blocks.1.attn.out.weight"
    state = checkpoint.state | {key: checkpoint.state[key] * 1.01}
    wrong = replace(checkpoint, state=state, stored_in_half=False)
    seen = find_stages_past(checkpoint, wrong, jfk)
    assert seen == ["blocks.1", "blocks.2", "blocks.3", "ln_post"]


def test_the_inspected_stages_are_the_engine_s_own(jfk: np.ndarray) -> None:
    checkpoint = checkpoints.load("tiny.en")
    encoder, _ = load_max_encoder(checkpoint)
    own, seen = dict(encoder.stages(jfk)), dict(layers.open_max(checkpoint).stages(jfk))
    assert list(seen)[:4] == ["log-mel", "conv1", "conv2", "positions"]
    np.testing.assert_array_equal(seen["positions"], own["conv2"])
    for name in own.keys() - {"conv2"}:
        np.testing.assert_array_equal(seen[name], own[name])
    np.testing.assert_array_equal(seen["ln_post"], encoder(jfk))
    with pytest.raises(ValueError, match=r"a window of log-mel is \(80, 3000\)"):
        encoder(jfk[:40])


def test_an_encoder_says_what_it_rounds_to() -> None:
    real = checkpoints.load("tiny.en")
    half = layers.open_max(real, "float16")
    assert half.device != "cpu" or half.rounds_to == "", "float16 holds these weights exactly"
    assert layers.open_max(real, "float32").rounds_to == ""
    assert layers.open_max(random_checkpoint(MINI), "float16").rounds_to == "float16"
    if half.device == "cpu":
        with pytest.raises(layers.EngineUnavailable, match="no bfloat16 on a CPU"):
            layers.open_max(real, "bfloat16")


# Weights.


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
        ("decoder.blocks.0.cross_attn.key.weight", None, r"cross_attn\.key\.weight is missing"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    key: str, value: torch.Tensor | None, words: str
) -> None:
    state = {name: tensor for name, tensor in random_state(MINI).items() if name != key}
    if value is not None:
        state[key] = value
    gather = encoder_weights if key.startswith("encoder") else decoder_weights
    with pytest.raises(CheckpointError, match=words):
        gather(state, MINI)


def test_weights_are_never_rounded() -> None:
    def kept(state: dict[str, torch.Tensor]) -> str:
        return str(pick_weight(Checkpoint("random", MINI, state), CPU(), "float32").name)

    state = random_state(MINI)
    assert kept(state) == "float32"
    state = {key: tensor.half().float() for key, tensor in state.items()}
    assert kept(state) == "float16"
    state["decoder.blocks.0.mlp.0.weight"][0, 0] = 1 / 3
    assert kept(state) == "float32", "all but one"
