"""The baseline, openai-whisper on PyTorch: `cpu`, and `gpu` on CUDA. One class, two devices."""

from __future__ import annotations

import torch

from engines.base import Dtype, Listener
from engines.checkpoints import Checkpoint
from engines.registry import EngineRow
from engines.transcription import TimedWhisper, WhisperEngine


class TorchEngine(WhisperEngine):
    """openai-whisper as it is."""

    def __init__(self, row: EngineRow, model: str, dtype: Dtype) -> None:
        super().__init__(row, model, "cuda" if row.uses_gpu else "cpu", dtype)

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        """Return the checkpoint's model on the device; nothing is compiled.

        PyTorch's convolutions round float32 to TF32 on CUDA unless told otherwise.
        """
        if self.dtype == "float32":
            torch.backends.cudnn.allow_tf32 = False
        return checkpoint.build(TimedWhisper).to(self.device), 0.0
