"""Weight loading is strict: a missing, unused or wrongly shaped tensor is named."""

import numpy as np
import pytest
import torch

pytest.importorskip("max")

from engines.base import CheckpointError
from engines.checkpoints.content import encoder_shapes
from engines.max_graph.weights import PANEL, encoder_weights, pack
from tests.engines.checkpoint_files import DIMENSIONS, random_state

MINI = DIMENSIONS["mini"]


def test_tiny_has_67_encoder_tensors() -> None:
    assert len(encoder_shapes(DIMENSIONS["tiny"])) == 67


def test_every_tensor_of_whisper_is_expected_and_no_other() -> None:
    state = random_state(MINI)
    found = {
        key.removeprefix("encoder."): tuple(tensor.shape)
        for key, tensor in state.items()
        if key.startswith("encoder.")
    }
    assert found == encoder_shapes(MINI)


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
    panels = pack(matrix)
    unpacked = panels.transpose(0, 2, 1).reshape(-1, 7)
    np.testing.assert_array_equal(unpacked[:n_out], matrix)
    assert not unpacked[n_out:].any()
