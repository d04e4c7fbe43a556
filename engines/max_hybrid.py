"""`max_hybrid`: the encoder as MAX graphs, the decoder in PyTorch under a leaner token loop."""

from __future__ import annotations

from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from whisper.decoding import DecodingOptions, DecodingTask

from engines.base import SILENT, Dtype, EngineUnavailable, Listener
from engines.checkpoints import Checkpoint
from engines.decoding import ClockedWhisper
from engines.token_loop import LeanDecodingTask, TorchInference
from engines.whisper_engine import WhisperEngine

if TYPE_CHECKING:
    from engines.max_graph.encoder import MaxEncoder


def why_no_max() -> str | None:
    """Why MAX can't run here, or None when it can."""
    if find_spec("max") is None or find_spec("max.engine") is None:
        return "the package max is not installed; it is made for Linux and macOS"
    return None


class EncoderModule(nn.Module):
    """A `MaxEncoder` where whisper expects PyTorch's encoder."""

    def __init__(self, encoder: MaxEncoder) -> None:
        super().__init__()
        self.max_encoder = encoder

    def forward(self, mel: Tensor) -> Tensor:
        """`(batch, n_mels, 3000)` to `(batch, n_audio_ctx, n_audio_state)`, on `mel`'s device."""
        windows = mel.float().cpu().numpy()
        features = [torch.from_numpy(self.max_encoder(window)) for window in windows]
        return torch.stack(features).to(mel.device, mel.dtype)


class HybridWhisper(ClockedWhisper):
    """A whisper model whose decoder is PyTorch's."""

    def task(self, options: DecodingOptions) -> DecodingTask:
        """The loop over one window."""
        return HybridDecodingTask(self, options)


class HybridDecodingTask(LeanDecodingTask):
    """The loop over one window, with PyTorch's decoder."""

    def make_inference(self) -> TorchInference:
        """PyTorch's decoder."""
        return TorchInference(self.model, len(self.initial_tokens), self.sot_index)


class MaxHybridEngine(WhisperEngine):
    """Encoder in MAX on the accelerator where there is one, decoder in PyTorch."""

    key = "max_hybrid"
    label = "MAX hybrid"
    encoder = "MAX graph"
    decoder = "PyTorch"

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[ClockedWhisper, float]:
        """The checkpoint's model with the MAX encoder in place of PyTorch's."""
        model = checkpoint.build(HybridWhisper)
        encoder, compiling = load_max_encoder(checkpoint, listener, self.dtype)
        model.encoder = EncoderModule(encoder)
        return model.to(self.device), compiling


def load_max_encoder(
    checkpoint: Checkpoint,
    listener: Listener = SILENT,
    dtype: Dtype = "float32",
) -> tuple[MaxEncoder, float]:
    """The MAX encoder for a checkpoint, and the seconds that compiling its graphs took.

    `dtype`: what an accelerator's products compute in; a CPU's are float32 always.
    """
    from engines.max_graph import session
    from engines.max_graph.encoder import MaxEncoder
    from engines.max_graph.weights import encoder_weights

    weights = encoder_weights(checkpoint.state, checkpoint.dims)
    device = session.pick_device()
    weight = session.pick_weight(checkpoint, device, dtype)
    start = perf_counter()
    models, op = session.load_encoder(checkpoint.dims, device, weight, listener)
    compiling = perf_counter() - start
    return MaxEncoder(models, weights, op, device), compiling


def make_max_hybrid(model: str, dtype: Dtype) -> MaxHybridEngine:
    """The `max_hybrid` engine; raises `EngineUnavailable` without the package `max`."""
    if reason := why_no_max():
        raise EngineUnavailable(reason)
    if reason := why_not_in(dtype):
        raise EngineUnavailable(f"max_hybrid {reason}")
    if dtype == "bfloat16":
        raise EngineUnavailable("max_hybrid has no bfloat16: whisper's decoder in PyTorch has none")
    return MaxHybridEngine(model, "cuda" if torch.cuda.is_available() else "cpu", dtype)


def why_not_in(dtype: Dtype) -> str | None:
    """Why MAX can't compute in `dtype` here, or None when it can."""
    from engines.max_graph import session

    if dtype == "float32" or session.pick_device().label != "cpu":
        return None
    return "runs in float32 only on a CPU"
