"""Whisper checkpoints: OpenAI's by name (downloaded on first use), or a file's path."""

from __future__ import annotations

import os
import threading
import urllib.error
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
import whisper
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from engines.base import SILENT, CheckpointError, Listener
from engines.locks import file_lock
from engines.mishaps import ran_out_of_memory, tell
from engines.tensors import all_shapes, difference

DEFAULT_MODEL = "base"
"""The multilingual checkpoint that the page and every command start with."""

QUICK_MODEL = "tiny.en"
"""The quick choice for English."""

HEAD_WIDTH = 64
"""Every Whisper checkpoint has heads of this width."""

MAX_FILE_BYTES = 8 * 2**30
"""No official checkpoint is larger than 3.1 GB (float16 large)."""

AnyWhisper = TypeVar("AnyWhisper", bound=Whisper)

_loaded: WeakValueDictionary[str, Checkpoint] = WeakValueDictionary()
_lock = threading.Lock()
_listener: ContextVar[tuple[str, Listener]] = ContextVar("listener", default=("", SILENT))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint's dimensions and tensors, float32 on the CPU, shared by all who hold it.

    `alignment_heads`: whisper's packed table for an official name, else None. `stored_in_half`:
    whether the file has its matrices in float16.
    """

    name: str
    dims: ModelDimensions
    state: dict[str, Tensor] = field(repr=False)
    alignment_heads: bytes | None = None
    stored_in_half: bool = False

    @cached_property
    def fits_float16(self) -> bool:
        """Whether float16 holds every matrix exactly."""
        return self.stored_in_half or all(
            bool((tensor == tensor.half().float()).all()) for tensor in matrices(self.state)
        )

    def build(self, kind: type[AnyWhisper]) -> AnyWhisper:
        """A model of class `kind` on the CPU whose parameters are this checkpoint's tensors."""
        model = kind(self.dims)
        model.load_state_dict(self.state, assign=True)
        if self.alignment_heads is not None:
            model.set_alignment_heads(self.alignment_heads)
        return model.eval().requires_grad_(False)


def names() -> tuple[str, ...]:
    """The model names that can be asked for; a path works as well."""
    return tuple(whisper.available_models())


def load(name: str, listener: Listener = SILENT) -> Checkpoint:
    """Read a checkpoint once for all engines that hold it at the same time.

    `name`: one of `names()` or a path. Raises `CheckpointError`.
    """
    with _lock:
        checkpoint = _loaded.get(name)
        if checkpoint is None:
            checkpoint = _loaded[name] = _load(name, listener)
        return checkpoint


def fetch(name: str, listener: Listener = SILENT) -> None:
    """Bring an official checkpoint onto this machine; raises `CheckpointError`."""
    if name in whisper.available_models():
        _download(name, listener)


def _load(name: str, listener: Listener) -> Checkpoint:
    if name in whisper.available_models():
        path = _download(name, listener)
        listener.report("loading")
        return read(path, name, whisper._ALIGNMENT_HEADS[name])
    path = Path(name).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"There is no model called {name!r}: pick {', '.join(names())}, "
            "or give the path of a Whisper checkpoint file."
        )
    return read(path, name)


def read(path: Path, name: str, alignment_heads: bytes | None = None) -> Checkpoint:
    """Read and check a checkpoint file without executing anything in it.

    Raises `CheckpointError` when it is no Whisper checkpoint, or one with missing, unknown or
    wrongly shaped tensors, or with values that are not numbers.
    """
    content = _read_content(path)
    dims = _check_dims(path, content)
    state = content["model_state_dict"]
    _check_tensors(path, state, dims)
    half = all(tensor.dtype == torch.float16 for tensor in matrices(state))
    widened = {key: tensor.float() for key, tensor in state.items()}
    return Checkpoint(name, dims, widened, alignment_heads, half)


def matrices(state: dict[str, Tensor]) -> list[Tensor]:
    """The tensors of two axes or more that products are made with: all but the positions."""
    return [
        tensor
        for key, tensor in state.items()
        if tensor.ndim >= 2 and not key.endswith("positional_embedding")
    ]


def _read_content(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointError(f"{path.name} is larger than any Whisper checkpoint.")
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise CheckpointError(
            f"{path.name} can't be read ({error.strerror}): put the file back, or pick another "
            "model."
        ) from error
    except Exception as error:  # arbitrary bytes can make the unpickler raise anything
        if ran_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{path.name} is not a Whisper checkpoint: it can't be read as a file of weights "
            f"({type(error).__name__}). Use a file in OpenAI's .pt format."
        ) from error


def _check_dims(path: Path, content: Any) -> ModelDimensions:
    try:
        if not isinstance(content, dict):
            raise TypeError(f"{type(content).__name__} in place of a dictionary")
        dims = ModelDimensions(**content["dims"])
        tensors = content["model_state_dict"].values()
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path.name} is not a Whisper checkpoint: it needs 'dims' and 'model_state_dict', "
            "as in OpenAI's files."
        ) from error
    sound = (
        all(isinstance(size, int) and size > 0 for size in vars(dims).values())
        and all(isinstance(tensor, Tensor) for tensor in tensors)
        and dims.n_mels in (80, 128)
        and dims.n_audio_ctx == 1500
        and dims.n_audio_state == dims.n_text_state == dims.n_audio_head * HEAD_WIDTH
        and dims.n_audio_head == dims.n_text_head
        and max(dims.n_audio_layer, dims.n_text_layer) <= 64
    )
    if not sound:
        raise CheckpointError(f"{path.name} has dimensions that no Whisper has: {dims}.")
    return dims


def _check_tensors(path: Path, state: dict[str, Tensor], dims: ModelDimensions) -> None:
    expected = all_shapes(dims)
    found = {key: tuple(t.shape) for key, t in state.items()}
    problems = difference(expected, found)
    if problems:
        raise CheckpointError(f"{path.name} doesn't fit its dimensions: {problems}.")
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path.name} has values in {key} that are not numbers (NaN or infinite): use "
                "another copy of the file."
            )


def download_folder() -> Path:
    """Where official checkpoints are kept: the folder the `whisper` command uses."""
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(cache) / "whisper"


def _download(name: str, listener: Listener) -> Path:
    """The file of an official checkpoint, which one engine brings and the others wait for."""
    url, folder = whisper._MODELS[name], download_folder()
    listener.report("downloading", note=f"downloading {name}")
    whisper.tqdm = _ReportingBar
    token = _listener.set((name, listener))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        waiting = f"waiting for {name}"
        with file_lock(
            folder / f"{name}.lock", lambda: listener.report("downloading", note=waiting)
        ):
            return Path(whisper._download(url, str(folder), in_memory=False))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise CheckpointError(
            f"{name} could not be downloaded ({reason}): check the connection, or give "
            "the path of a checkpoint file."
        ) from error
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{name} could not be downloaded: {tell(error)}.") from error
    finally:
        _listener.reset(token)


class _ReportingBar(whisper.tqdm):
    """A bar that also tells whoever downloads in this thread the megabytes, once a megabyte."""

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        name, listener = _listener.get()
        if int(self.n) // 2**20 != int(self.n - (n or 0)) // 2**20:
            done, total = self.n, self.total or 0
            note = f"downloading {name}, {done / 1e6:.0f} of {total / 1e6:.0f} MB"
            listener.report("downloading", done, total, note)
        return shown
