"""Checkpoints to measure and to test with: official dimensions with random weights."""

from __future__ import annotations

import torch
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from engines.base import EngineError
from engines.checkpoints import Checkpoint

VOCABULARY = 51864
"""Tokens of the English-only checkpoints; the multilingual ones have one more, or two."""

DIMENSIONS = {
    "tiny": ModelDimensions(80, 1500, 384, 6, 4, VOCABULARY, 448, 384, 6, 4),
    "base": ModelDimensions(80, 1500, 512, 8, 6, VOCABULARY, 448, 512, 8, 6),
    "small": ModelDimensions(80, 1500, 768, 12, 12, VOCABULARY, 448, 768, 12, 12),
}
"""Dimensions of OpenAI's checkpoints (those of `whisper.load_model`, 20250625)."""


def names() -> tuple[str, ...]:
    """The sizes there are, smallest first."""
    return tuple(DIMENSIONS)


def checkpoint(size: str) -> Checkpoint:
    """A checkpoint of that size with random weights; nothing is downloaded.

    How long a product takes does not depend on the numbers in it. The random weights are rounded
    to float16, as those in OpenAI's files are, since an engine may keep such weights in half the
    bytes. Raises `EngineError` for an unknown size.
    """
    if size not in DIMENSIONS:
        raise EngineError(f"There is no size {size!r}: pick {', '.join(names())}.")
    state = random_state(DIMENSIONS[size])
    stored = {key: tensor.half().float() for key, tensor in state.items()}
    return Checkpoint(f"{size}, random weights", DIMENSIONS[size], stored)


def random_state(dims: ModelDimensions, seed: int = 0) -> dict[str, Tensor]:
    """The state dictionary of a Whisper with PyTorch's default initialisation, float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Whisper(dims)
        torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)
    return model.state_dict()
