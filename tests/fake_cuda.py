"""A CUDA device that is not there: PyTorch computes on the processor wherever it is told `cuda`.

It is late on purpose, as a GPU is: the encoder's results count as finished only once somebody has
synchronised. `FakeCuda` and `Cuda` have one face, so that the same checks run with either.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from whisper.model import AudioEncoder, Whisper

CUDA = torch.device("cuda")

LATE_SECONDS = 0.25
"""What an encoder's call still takes after it has returned."""


class ToProcessor(TorchFunctionMode):
    """Reads `cpu` wherever a function of PyTorch's is told `cuda`."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.device:
            return function(*args, **(kwargs or {}))
        kept = {name: to_processor(value) for name, value in (kwargs or {}).items()}
        return function(*(to_processor(value) for value in args), **kept)


def to_processor(value: Any) -> Any:
    """`cpu` for the name or the device `cuda`, anything else as it is."""
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value == "cuda" else value


class FakeCuda:
    """The pretended device."""

    def __init__(self) -> None:
        self.unfinished = 0.0
        self.started_unfinished = False
        self.encodes: list[float] = []
        self.full = False

    @contextmanager
    def use(self) -> Iterator[FakeCuda]:
        """Pretend, in this thread, until the end of the block."""
        encode, generator = AudioEncoder.forward, torch.Generator

        def encode_late(encoder: AudioEncoder, mel: Tensor) -> Tensor:
            if self.full:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            self.started_unfinished |= self.unfinished > 0
            features: Tensor = encode(encoder, mel)
            self.unfinished += LATE_SECONDS
            self.encodes.append(LATE_SECONDS)
            return features

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "is_initialized", lambda: True)
            patch.setattr(torch.cuda, "synchronize", self.synchronize)
            patch.setattr(torch.cuda, "empty_cache", gc.collect)
            patch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.allocated())
            patch.setattr(torch, "Generator", lambda device: generator("cpu"))
            patch.setattr(Whisper, "device", property(lambda model: CUDA))
            patch.setattr(AudioEncoder, "forward", encode_late)
            with ToProcessor():
                yield self

    def synchronize(self, device: Any = None) -> None:
        """Wait for what is unfinished."""
        time.sleep(self.unfinished)
        self.unfinished = 0.0

    def allocated(self) -> int:
        """Bytes of all tensors that live."""
        gc.collect()
        kinds = (Tensor, torch.nn.Parameter)
        tensors = [t for t in gc.get_objects() if type(t) in kinds and t.layout is torch.strided]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(storages.values())

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Let nothing more be allocated."""
        self.full = True
        try:
            yield
        finally:
            self.full = False

    @contextmanager
    def timed(self, model: Any) -> Iterator[Callable[[], float]]:
        """A function that gives the seconds the device itself spent on the encoder."""
        first = len(self.encodes)
        yield lambda: sum(self.encodes[first:])


class Cuda:
    """The device that is there."""

    started_unfinished, unfinished = False, 0.0

    @contextmanager
    def use(self) -> Iterator[Cuda]:
        """Nothing to pretend."""
        yield self

    def allocated(self) -> int:
        """Bytes that PyTorch has given out."""
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Let PyTorch have no more than it has."""
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    @contextmanager
    def timed(self, model: Any) -> Iterator[Callable[[], float]]:
        """A function that gives the seconds the device itself spent on the encoder, by events."""
        pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

        def start(*_: Any) -> None:
            pairs.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(True)))
            pairs[-1][0].record()

        def end(*_: Any) -> None:
            pairs[-1][1].record()

        # Inside the stage clock, whose own hooks are on the encoder itself.
        first = model.encoder.conv1.register_forward_pre_hook(start)
        last = model.encoder.ln_post.register_forward_hook(end)
        yield lambda: sum(before.elapsed_time(after) for before, after in pairs) / 1e3
        first.remove()
        last.remove()
