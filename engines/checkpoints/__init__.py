"""Whisper checkpoints by official name, path, or Hugging Face repository, as OpenAI's tensors."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import torch
import whisper
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from engines.base import SILENT, CheckpointError, Listener
from engines.checkpoints import sources
from engines.checkpoints.content import AlignmentHeads
from engines.checkpoints.digests import TENSOR_DIGESTS, digest_tensors
from engines.checkpoints.formats import read_content
from engines.models import DEFAULT_MODEL, OFFICIAL_MODELS, QUICK_MODEL, names

__all__ = ["DEFAULT_MODEL", "QUICK_MODEL", "Checkpoint", "fetch", "load", "names", "read"]

AnyWhisper = TypeVar("AnyWhisper", bound=Whisper)

_loaded: WeakValueDictionary[str, Checkpoint] = WeakValueDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint's dimensions and tensors, float32 on the CPU, shared by all who hold it.

    `heads`: the alignment heads of the file, None for whisper's default (all heads of the upper
    half of the decoder). `stored_in_half`: whether the file has its matrices in float16.
    """

    name: str
    dims: ModelDimensions
    state: dict[str, Tensor] = field(repr=False)
    heads: AlignmentHeads | None = None
    stored_in_half: bool = False

    @cached_property
    def fits_float16(self) -> bool:
        """Whether float16 holds every matrix exactly."""
        return self.stored_in_half or all(
            bool((tensor == tensor.half().float()).all()) for tensor in matrices(self.state)
        )

    def build(self, kind: type[AnyWhisper]) -> AnyWhisper:
        """Return a model of class `kind` on the CPU whose parameters are this checkpoint's."""
        model = kind(self.dims)
        model.load_state_dict(self.state, assign=True)
        if self.heads is not None:
            mask = torch.zeros(self.dims.n_text_layer, self.dims.n_text_head, dtype=torch.bool)
            mask[tuple(zip(*self.heads, strict=True))] = True
            model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
        return model.eval().requires_grad_(False)


def load(name: str, listener: Listener = SILENT) -> Checkpoint:
    """Read a checkpoint once for all engines that hold it at the same time.

    `name`: one of `names()`, the path of a file or folder, or a repository at Hugging Face. Raises
    `CheckpointError`, and `Stopped` when the listener asks for it.
    """
    with _lock:
        checkpoint = _loaded.get(name)
        if checkpoint is None:
            checkpoint = _loaded[name] = _load(name, listener)
        return checkpoint


def fetch(name: str, listener: Listener = SILENT) -> Path:
    """Return the file or folder of a checkpoint, brought to this machine if need be."""
    if name in OFFICIAL_MODELS:
        return sources.find(name) or sources.fetch(name, listener)
    path = Path(name).expanduser()
    if path.exists():
        return path
    if sources.is_hub_repository(name):
        return sources.fetch_repository(name, listener)
    raise CheckpointError(
        f"There is no model called {name!r}: pick {', '.join(names())}, give the path of a Whisper "
        "checkpoint, or a repository at Hugging Face such as openai/whisper-base."
    )


def _load(name: str, listener: Listener) -> Checkpoint:
    path = fetch(name, listener)
    listener.report("loading")
    checkpoint = read(path, name)
    if name not in OFFICIAL_MODELS:
        return checkpoint
    expected = TENSOR_DIGESTS.get(name)
    if expected is not None and digest_tensors(checkpoint.state) != expected:
        raise CheckpointError(
            f"{path} doesn't hold the tensors of OpenAI's {name}: move it away, and it is fetched "
            "again."
        )
    return checkpoint


def read(path: Path, name: str) -> Checkpoint:
    """Read and check a file or folder, executing nothing in it; raises `CheckpointError`.

    An official name has whisper's alignment heads where the file has none.
    """
    content = read_content(path)
    half = all(tensor.dtype == torch.float16 for tensor in matrices(content.state))
    widened = {key: tensor.float() for key, tensor in content.state.items()}
    heads = official_heads(name, content.dims) or content.heads
    return Checkpoint(name, content.dims, widened, heads, half)


def official_heads(name: str, dims: ModelDimensions) -> AlignmentHeads | None:
    """Return whisper's alignment heads of an official name, as pairs of layer and head."""
    if name not in whisper._ALIGNMENT_HEADS:
        return None
    model = Whisper.__new__(Whisper)
    torch.nn.Module.__init__(model)
    model.dims = dims
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
    return tuple((int(layer), int(head)) for layer, head in model.alignment_heads.indices().T)


def matrices(state: dict[str, Tensor]) -> list[Tensor]:
    """Return the tensors of two axes or more that products are made with: all but the positions."""
    return [
        tensor
        for key, tensor in state.items()
        if tensor.ndim >= 2 and not key.endswith("positional_embedding")
    ]
