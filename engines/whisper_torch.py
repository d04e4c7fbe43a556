"""The baseline, openai-whisper on PyTorch: `cpu`, and `gpu` on CUDA. One class, two devices."""

from __future__ import annotations

import torch

from engines.base import Dtype, EngineUnavailable, Listener
from engines.checkpoints import Checkpoint
from engines.hardware import why_no_cuda
from engines.transcription import TimedWhisper, WhisperEngine


class TorchEngine(WhisperEngine):
    """openai-whisper as it is; float16 only on CUDA, as in whisper itself."""

    encoder = "PyTorch"
    decoder = "PyTorch"

    def __init__(self, key: str, label: str, model: str, device: str, dtype: Dtype) -> None:
        super().__init__(model, device, dtype)
        self.key = key
        self.label = label

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        """Return the checkpoint's model on the device; nothing is compiled.

        PyTorch's convolutions round float32 to TF32 on CUDA unless told otherwise.
        """
        if self.dtype == "float32":
            torch.backends.cudnn.allow_tf32 = False
        return checkpoint.build(TimedWhisper).to(self.device), 0.0


def make_cpu(model: str, dtype: Dtype) -> TorchEngine:
    """Return the `cpu` engine."""
    if dtype != "float32":
        raise EngineUnavailable("whisper runs in float32 only on a CPU")
    return TorchEngine("cpu", "PyTorch CPU", model, "cpu", dtype)


def make_gpu(model: str, dtype: Dtype) -> TorchEngine:
    """Return the `gpu` engine; raises `EngineUnavailable` without CUDA."""
    if reason := why_no_cuda():
        raise EngineUnavailable(reason)
    if dtype == "bfloat16":
        raise EngineUnavailable("whisper in PyTorch knows float32 and float16 only")
    return TorchEngine("gpu", "PyTorch GPU", model, "cuda", dtype)
