"""Checkpoints with random weights, at Whisper's official dimensions or smaller."""

from pathlib import Path

import torch
from whisper.model import ModelDimensions

from engines import sizes
from engines.sizes import VOCABULARY, random_state

__all__ = ["DIMENSIONS", "random_state", "write_checkpoint"]

DIMENSIONS = {
    **sizes.DIMENSIONS,
    "mini": ModelDimensions(80, 1500, 64, 1, 1, VOCABULARY, 448, 64, 1, 1),
    "mini128": ModelDimensions(128, 1500, 64, 1, 2, 51866, 448, 64, 1, 1),
}


def write_checkpoint(path: Path, dims: ModelDimensions, **replaced: torch.Tensor | None) -> Path:
    """A random checkpoint file in OpenAI's format; `replaced` tensors go in, None leaves one out.

    Keys of `replaced` have `__` in place of dots.
    """
    state = random_state(dims)
    for key, tensor in replaced.items():
        name = key.replace("__", ".")
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    torch.save({"dims": vars(dims), "model_state_dict": state}, path)
    return path
