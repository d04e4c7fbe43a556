"""One digest for a checkpoint's tensors, whatever file they came from.

The digest is SHA-256 over all tensors in the order of their names; each contributes its name, a
line feed, its shape as decimal numbers joined by commas, a line feed, and its values as
little-endian float16. OpenAI publishes float16, so its own file, the float32 copy at Hugging Face
and a CTranslate2 conversion in float16 all give the same digest.

    python -m engines.checkpoints --digest NAME_OR_PATH    prints it
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

TENSOR_DIGESTS = {
    "tiny.en": "5ec1ae3d740e303247b6166c483a35cf302da9f9c359f6eb350bd061c414564a",
    "base": "3f2911912ca12e22ffdd1c1b251b38fcfff4fba22421d08eed29ff30940e3c36",
}
"""`digest_tensors` of official checkpoints, for those whose tensors were at hand."""

READ_BYTES = 1 << 20


def digest_tensors(state: Mapping[str, Tensor]) -> str:
    """Return the hexadecimal digest of a state dictionary, as the module describes it."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        shape = ",".join(str(size) for size in tensor.shape)
        digest.update(f"{name}\n{shape}\n".encode())
        half = tensor.detach().to(torch.float16).contiguous()
        digest.update(half.numpy().astype("<f2", copy=False).data)
    return digest.hexdigest()


def digest_file(*paths: Path) -> str:
    """Return the hexadecimal SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    return digest.hexdigest()
