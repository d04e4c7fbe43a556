"""Checkpoints with random weights, at Whisper's official dimensions or smaller."""

from pathlib import Path

import torch
from whisper.model import ModelDimensions, Whisper

VOCABULARY = 51864

DIMENSIONS = {
    "tiny": ModelDimensions(80, 1500, 384, 6, 4, VOCABULARY, 448, 384, 6, 4),
    "base": ModelDimensions(80, 1500, 512, 8, 6, VOCABULARY, 448, 512, 8, 6),
    "small": ModelDimensions(80, 1500, 768, 12, 12, VOCABULARY, 448, 768, 12, 12),
    "mini": ModelDimensions(80, 1500, 64, 1, 1, VOCABULARY, 448, 64, 1, 1),
    "mini128": ModelDimensions(128, 1500, 64, 1, 2, 51866, 448, 64, 1, 1),
}


def random_state(dims: ModelDimensions, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dictionary of a Whisper with PyTorch's default initialisation."""
    torch.manual_seed(seed)
    model = Whisper(dims)
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)
    return model.state_dict()


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
