"""The MAX encoder against whisper's, stage by stage."""

import numpy as np
import pytest
from whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim
from whisper.model import Whisper

from engines import checkpoints
from engines.audio import load_clip
from engines.checkpoints import Checkpoint
from engines.max_graph.check import TOLERANCE, relative_error, torch_stages
from engines.max_hybrid import load_max_encoder
from tests.engines.checkpoint_files import DIMENSIONS, random_state

pytestmark = pytest.mark.max

RELATIVE_ERROR = TOLERANCE
"""Bound on ‖MAX − PyTorch‖ / ‖PyTorch‖ at every stage, in float32: 1e-5.

Measured on an AVX-512 processor: 4.6e-7 at nano's dimensions, 5.8e-7 at tiny's, 6.9e-7 at base's,
9.5e-7 at small's: what reordering float32 sums gives. A wrong operation shows as 1e-2 or more; the
bound leaves room for processors that sum in another order.
"""

NOISE = np.random.default_rng(0).standard_normal((80, N_FRAMES)).astype(np.float32)


def speech() -> np.ndarray:
    """The first window of a sample, `(80, 3000)`, as `whisper.transcribe` computes it."""
    samples = load_clip("audio_samples/librivox-sense.flac").samples
    return pad_or_trim(log_mel_spectrogram(samples, padding=480_000), N_FRAMES).numpy()


def stage_errors(expected: Checkpoint, found: Checkpoint, mel: np.ndarray) -> dict[str, float]:
    """Relative error of `found`'s MAX encoder to `expected`'s PyTorch encoder, by stage."""
    reference = dict(torch_stages(expected.build(Whisper).encoder, mel))
    encoder, _ = load_max_encoder(found)
    stages = dict(encoder.stages(mel))
    assert list(stages) == list(reference)
    np.testing.assert_array_equal(encoder(mel), stages["ln_post"])
    return {name: relative_error(stages[name], reference[name]) for name in stages}


def assert_stages_agree(checkpoint: Checkpoint, mel: np.ndarray) -> None:
    for name, error in stage_errors(checkpoint, checkpoint, mel).items():
        assert error < RELATIVE_ERROR, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("size", ["tiny", "base", "small"])
def test_random_weights_agree_at_every_stage(size: str) -> None:
    dims = DIMENSIONS[size]
    assert_stages_agree(Checkpoint(size, dims, random_state(dims)), NOISE)


def test_large_models_have_128_mels() -> None:
    dims = DIMENSIONS["mini128"]
    mel = np.random.default_rng(1).standard_normal((128, N_FRAMES)).astype(np.float32)
    assert_stages_agree(Checkpoint("mini128", dims, random_state(dims)), mel)


def test_nano_agrees_at_every_stage_on_speech() -> None:
    assert_stages_agree(checkpoints.load("tiny.en"), speech())


def test_a_fault_would_be_seen_where_it_is() -> None:
    """The bound is far below what a real mistake does: here one matrix, one percent too large."""
    checkpoint = checkpoints.load("tiny.en")
    key = "encoder.blocks.1.attn.out.weight"
    state = checkpoint.state | {key: checkpoint.state[key] * 1.01}
    errors = stage_errors(checkpoint, Checkpoint("wrong", checkpoint.dims, state), speech())
    seen = [name for name, error in errors.items() if error >= RELATIVE_ERROR]
    assert seen == ["blocks.1", "blocks.2", "blocks.3", "ln_post"]
