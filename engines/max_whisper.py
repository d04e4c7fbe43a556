"""The engines in MAX: `max_hybrid` has its encoder in MAX graphs, `max_full` its decoder as well.

Everything around them is whisper's own (windows, prompts, fallback, language detection, word
timestamps), except the loop over tokens at temperature 0, which is `engines.token_selection`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from whisper.decoding import DecodingOptions, DecodingTask

from engines.base import SILENT, Dtype, EngineUnavailable, FloatArray, Listener
from engines.checkpoints import Checkpoint
from engines.registry import EngineRow
from engines.token_selection import (
    FastDecodingTask,
    FastInference,
    IntArray,
    Step,
    TokenConstraints,
    TorchInference,
)
from engines.transcription import TimedWhisper, WhisperEngine, current_state

if TYPE_CHECKING:
    from engines.max_graph.decoder import Decoder
    from engines.max_graph.encoder import MaxEncoder
    from engines.max_graph.weights import EncoderWeights


class FastWhisper(TimedWhisper):
    """A whisper model with the fast token loop; a subclass says what runs its decoder."""

    def make_inference(self, prompt_length: int, sot_index: int) -> FastInference:
        """Return the decoder with a cache, for one window."""
        raise NotImplementedError

    def decoding_task(self, options: DecodingOptions) -> DecodingTask:
        return FastDecodingTask(self, options)


class EncoderModule(nn.Module):
    """A `MaxEncoder`, or a function like it, where whisper expects PyTorch's encoder."""

    def __init__(self, encoder: Callable[[FloatArray], FloatArray]) -> None:
        super().__init__()
        self.max_encoder = encoder

    def forward(self, mel: Tensor) -> Tensor:
        """Encode `(batch, n_mels, 3000)` to `(batch, n_audio_ctx, n_state)` on `mel`'s device."""
        windows = mel.float().cpu().numpy()
        features = [torch.from_numpy(self.max_encoder(window)) for window in windows]
        return torch.stack(features).to(mel.device, mel.dtype)


def load_max_encoder(
    checkpoint: Checkpoint,
    listener: Listener = SILENT,
    dtype: Dtype = "float32",
    weights: EncoderWeights | None = None,
) -> tuple[MaxEncoder, float]:
    """Return the MAX encoder of a checkpoint, and the seconds that compiling its graphs took.

    `dtype`: the type of an accelerator's products; a CPU's are always float32. `weights`: used in
    place of the checkpoint's.
    """
    from engines.max_graph import compile_cache
    from engines.max_graph.encoder import MaxEncoder
    from engines.max_graph.weights import encoder_weights

    weights = weights or encoder_weights(checkpoint.state, checkpoint.dims)
    device = compile_cache.pick_device()
    weight = compile_cache.pick_weight(checkpoint, device, dtype)
    start = perf_counter()
    models, op = compile_cache.load_graphs("encoder", checkpoint.dims, device, weight, listener)
    compiling = perf_counter() - start
    return MaxEncoder(models, weights, op, device), compiling


def pick_device(dtype: Dtype) -> str:
    """Return the label of MAX's device here; raises `EngineUnavailable` for halves on a CPU."""
    from engines.max_graph import compile_cache

    label: str = compile_cache.pick_device().label
    if dtype != "float32" and label == "cpu":
        raise EngineUnavailable("MAX computes only in float32 on a CPU")
    return label


class HybridWhisper(FastWhisper):
    """A whisper model with PyTorch's decoder under the fast token loop."""

    def make_inference(self, prompt_length: int, sot_index: int) -> TorchInference:
        return TorchInference(self, prompt_length, sot_index)


class MaxHybridEngine(WhisperEngine):
    """Encoder in MAX, on the accelerator where there is one; decoder in PyTorch."""

    def __init__(self, row: EngineRow, model: str, dtype: Dtype) -> None:
        pick_device(dtype)
        super().__init__(row, model, "cuda" if torch.cuda.is_available() else "cpu", dtype)

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        model = checkpoint.build(HybridWhisper)
        encoder, compiling = load_max_encoder(checkpoint, listener, self.dtype)
        model.encoder = EncoderModule(encoder)
        return model.to(self.device), compiling


class MaxFullEngine(WhisperEngine):
    """Encoder and decoder in MAX, on the accelerator where there is one, else on the CPU."""

    def __init__(self, row: EngineRow, model: str, dtype: Dtype) -> None:
        super().__init__(row, model, pick_device(dtype), dtype)

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        """Return a whisper model with both halves replaced; it holds no PyTorch weights."""
        encoder, encoder_seconds = load_max_encoder(checkpoint, listener, self.dtype)
        decoder, decoder_seconds = load_max_decoder(checkpoint, listener, self.dtype)
        model = checkpoint.build(MaxWhisper)
        model.encoder = EncoderModule(encoder)
        model.decoder = DecoderModule(decoder)
        return model, encoder_seconds + decoder_seconds


def load_max_decoder(
    checkpoint: Checkpoint,
    listener: Listener = SILENT,
    dtype: Dtype = "float32",
    on_cpu: bool = False,
) -> tuple[Decoder, float]:
    """Return the MAX decoder of a checkpoint, and the seconds that compiling its graphs took.

    `dtype`: the type of an accelerator's products. A CPU's are always float32, with matrices kept
    in float16 when it holds all of them exactly. `on_cpu`: on the CPU, even where there is an
    accelerator.
    """
    from max.driver import CPU

    from engines.max_graph import compile_cache
    from engines.max_graph.accelerator_decoder import AcceleratorDecoder
    from engines.max_graph.decoder import CpuDecoder
    from engines.max_graph.weights import decoder_weights

    dims, weights = checkpoint.dims, decoder_weights(checkpoint.state, checkpoint.dims)
    device = CPU() if on_cpu else compile_cache.pick_device()
    weight = compile_cache.pick_weight(checkpoint, device, dtype)
    start = perf_counter()
    models, op = compile_cache.load_graphs("decoder", dims, device, weight, listener)
    seconds = perf_counter() - start
    kind = CpuDecoder if device.label == "cpu" else AcceleratorDecoder
    return kind(models, weights, dims, op, device), seconds


class MaxWhisper(FastWhisper):
    """A whisper model whose halves hold no PyTorch parameters."""

    @property
    def device(self) -> torch.device:
        """Where whisper puts its tensors: the host, from which MAX reads them."""
        return torch.device("cpu")

    def make_inference(self, prompt_length: int, sot_index: int) -> MaxInference:
        return MaxInference(self.decoder.max_decoder, sot_index)


class CrossAttentionScores(nn.Module):
    """Returns its argument, for the hooks by which whisper reads cross-attention scores."""

    def forward(self, scores: Tensor) -> tuple[None, Tensor]:
        """Return scores `(1, heads, tokens, n_audio_ctx)` where whisper's module has them."""
        return None, scores


class DecoderModule(nn.Module):
    """A MAX decoder where whisper expects PyTorch's, without a cache.

    Whisper calls it to detect the language and to align words; its token loop uses `MaxInference`.
    Of a block whisper looks for the cross-attention, to hook it, and for a cache, unused here.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.max_decoder = decoder
        cache = nn.ModuleDict({"key": nn.Identity(), "value": nn.Identity()})
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"cross_attn": CrossAttentionScores(), "attn": cache})
            for _ in range(decoder.dims.n_text_layer)
        )

    def forward(self, tokens: Tensor, features: Tensor, kv_cache: None = None) -> Tensor:
        """Return logits `(1, tokens, n_vocab)` of `tokens` `(1, tokens)` and one window."""
        cross = self.max_decoder.compute_cross_kv(features[0].numpy())
        logits, scores = self.max_decoder.align(tokens.numpy(), cross)
        for block, layer in zip(self.blocks, torch.from_numpy(scores), strict=True):
            block.get_submodule("cross_attn")(layer[None])
        return torch.from_numpy(logits)[None]


class MaxInference(FastInference):
    """Whisper's view of the MAX decoder with its cache."""

    def __init__(self, decoder: Decoder, sot_index: int) -> None:
        self.decoder = decoder
        self.sot_index = sot_index
        self.cross: Any = None
        self.cache: Any = None

    def start(self, prompt: IntArray, features: Tensor, beams: int, **select: Any) -> Step:
        """As `FastInference.start`; the prompt runs once, whatever the number of beams."""
        self.cross = self.decoder.compute_cross_kv(features[0].numpy())
        first = self.decoder.new_cache(1)
        rows = np.array([self.sot_index, len(prompt) - 1], np.int64)
        results = self.decoder.step(prompt[None], self.cross, first, rows, **select)
        self.cache = first
        if beams > 1:
            self.cache = self.decoder.new_cache(beams)
            self.decoder.reorder_beams(self.cache, first, [0] * beams)
        return results

    def advance(self, tokens: IntArray, **select: Any) -> Step:
        if state := current_state():
            state.listener.check_stopped()
        rows = np.arange(len(tokens), dtype=np.int64)
        return self.decoder.step(tokens[:, None], self.cross, self.cache, rows, **select)

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """`(beams, tokens, n_vocab)`; of a prompt only the rows of `sot` and the end are filled."""
        beams, length = tokens.shape
        n_vocab = self.decoder.dims.n_vocab
        select = {  # every token is allowed: whisper itself selects
            "constraints": TokenConstraints(np.zeros(n_vocab, np.float32), False),
            "ranges": np.tile(
                np.array([0, 0, 0, n_vocab]), (2 if self.cache is None else beams, 1)
            ),
            "k": 1,
        }
        if self.cache is not None:
            last, _, _ = self.advance(tokens[:, -1].numpy(), **select)
            return torch.from_numpy(last)[:, None]
        rows, _, _ = self.start(tokens[0].numpy(), audio_features, beams, **select)
        logits = torch.zeros(beams, length, rows.shape[1])
        logits[:, self.sot_index] = torch.from_numpy(rows[0])
        logits[:, -1] = torch.from_numpy(rows[1])
        return logits

    def rearrange_kv_cache(self, source_indices: list[int]) -> None:
        """Make beam `i` continue beam `source_indices[i]`."""
        if source_indices != list(range(len(source_indices))):
            self.decoder.reorder_beams(self.cache, self.cache, source_indices)

    def cleanup_caching(self) -> None:
        """Drop the window's cache."""
        self.cross = self.cache = None
