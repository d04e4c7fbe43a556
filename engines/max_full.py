"""`max_full`: encoder and decoder in MAX; what computes the logits chooses the tokens as well.

Everything around them is whisper's own (windows, prompts, fallback, language detection, word
timestamps), but for the loop over tokens at temperature 0, which is `engines.token_loop`.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from whisper.decoding import DecodingOptions, DecodingTask, Inference

from engines import decoding
from engines.base import SILENT, Dtype, EngineUnavailable, Listener
from engines.checkpoints import Checkpoint
from engines.decoding import ClockedWhisper
from engines.max_hybrid import EncoderModule, load_max_encoder, why_no_max, why_not_in
from engines.token_loop import LeanDecodingTask, Step
from engines.whisper_engine import WhisperEngine

if TYPE_CHECKING:
    from engines.choice import IntArray
    from engines.max_graph.decoder import Decoder


class MaxFullEngine(WhisperEngine):
    """Encoder and decoder in MAX, on the accelerator where there is one, else on the CPU."""

    key = "max_full"
    label = "MAX full"
    encoder = "MAX graph"
    decoder = "MAX graph"

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[ClockedWhisper, float]:
        """A whisper model with both halves replaced; it holds no PyTorch weights."""
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
    """The MAX decoder for a checkpoint, and the seconds that compiling its graphs took.

    `dtype`: what an accelerator's products compute in. A CPU's are float32 always, with matrices
    kept in float16 when all of them are exactly representable in it. `on_cpu`: on the processor,
    even where there is an accelerator.
    """
    from max.driver import CPU

    from engines.max_graph import session
    from engines.max_graph.accelerator_decoder import AcceleratorDecoder
    from engines.max_graph.decoder import MaxDecoder
    from engines.max_graph.operations import CpuOperations
    from engines.max_graph.weights import decoder_weights, stack

    dims, weights = checkpoint.dims, decoder_weights(checkpoint.state, checkpoint.dims)
    device = CPU() if on_cpu else session.pick_device()
    weight = session.pick_weight(checkpoint, device, dtype)
    start = perf_counter()
    models, op = session.load_decoder(dims, device, weight, listener)
    seconds = perf_counter() - start
    if isinstance(op, CpuOperations):
        return MaxDecoder(models, stack(weights, weight), dims), seconds
    return AcceleratorDecoder(models, weights, dims, op, device), seconds


def make_max_full(model: str, dtype: Dtype) -> MaxFullEngine:
    """The `max_full` engine; raises `EngineUnavailable` without the package `max`."""
    if reason := why_no_max():
        raise EngineUnavailable(reason)
    if reason := why_not_in(dtype):
        raise EngineUnavailable(f"max_full {reason}")
    from engines.max_graph import session

    return MaxFullEngine(model, session.pick_device().label, dtype)


class MaxWhisper(ClockedWhisper):
    """A whisper model whose halves hold no PyTorch parameters."""

    @property
    def device(self) -> torch.device:
        """Where whisper should put its tensors: the host, from which MAX reads them."""
        return torch.device("cpu")

    def task(self, options: DecodingOptions) -> DecodingTask:
        """The loop over one window."""
        return MaxDecodingTask(self, options)


class CrossAttentionScores(nn.Module):
    """Hands its argument on, for the hooks by which whisper reads cross-attention scores."""

    def forward(self, scores: Tensor) -> tuple[None, Tensor]:
        """Scores `(1, heads, tokens, n_audio_ctx)` where whisper's module has them."""
        return None, scores


class _Block(nn.Module):
    """What whisper looks for in a layer: cross-attention to hook, and a cache it won't use."""

    def __init__(self) -> None:
        super().__init__()
        self.cross_attn = CrossAttentionScores()
        self.attn = nn.Module()
        self.attn.key = self.attn.value = nn.Identity()


class DecoderModule(nn.Module):
    """A `MaxDecoder` where whisper expects PyTorch's decoder, without a cache.

    Whisper calls it so to detect the language and to align words; its token loop goes through
    `MaxDecodingTask`.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.max_decoder = decoder
        self.blocks = nn.ModuleList(_Block() for _ in range(decoder.dims.n_text_layer))

    def forward(self, tokens: Tensor, features: Tensor, kv_cache: None = None) -> Tensor:
        """Logits `(1, tokens, n_vocab)` for `tokens` `(1, tokens)` and one window's features."""
        audio = self.max_decoder.listen(features[0].numpy())
        logits, scores = self.max_decoder.align(tokens.numpy(), audio)
        for block, layer in zip(self.blocks, torch.from_numpy(scores), strict=True):
            block.get_submodule("cross_attn")(layer[None])
        return torch.from_numpy(logits)[None]


class MaxInference(Inference):
    """Whisper's view of the decoder with its cache: all beams, logits of the rows it reads."""

    def __init__(self, decoder: Decoder, sot_index: int) -> None:
        self.decoder = decoder
        self.sot_index = sot_index
        self.audio: Any = None
        self.cache: Any = None

    def start(self, prompt: IntArray, features: Tensor, beams: int, **select: Any) -> Step:
        """As `LeanInference.start`; the prompt runs once, whatever the number of beams."""
        self.audio = self.decoder.listen(features[0].numpy())
        first = self.decoder.new_cache(1)
        picked = np.array([self.sot_index, len(prompt) - 1], np.int64)
        results = self.decoder.step(prompt[None], self.audio, first, picked, **select)
        self.cache = first
        if beams > 1:
            self.cache = self.decoder.new_cache(beams)
            self.cache.take(first, [0] * beams)
        return results

    def advance(self, tokens: IntArray, **select: Any) -> Step:
        """As `LeanInference.advance`."""
        assert self.audio is not None and self.cache is not None
        decoding.check_stop()
        rows = np.arange(len(tokens), dtype=np.int64)
        return self.decoder.step(tokens[:, None], self.audio, self.cache, rows, **select)

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """`(beams, tokens, n_vocab)`; of a prompt only the `sot` and last rows are filled."""
        if self.cache is not None:
            last, _, _ = self.advance(tokens[:, -1].numpy())
            return torch.from_numpy(last)[:, None]
        beams, length = tokens.shape
        rows, _, _ = self.start(tokens[0].numpy(), audio_features, beams)
        logits = torch.zeros(beams, length, rows.shape[1])
        logits[:, self.sot_index] = torch.from_numpy(rows[0])
        logits[:, -1] = torch.from_numpy(rows[1])
        return logits

    def rearrange_kv_cache(self, source_indices: list[int]) -> None:
        """Make beam `i` continue beam `source_indices[i]`."""
        assert self.cache is not None
        if source_indices != list(range(len(source_indices))):
            self.cache.take(self.cache, source_indices)

    def cleanup_caching(self) -> None:
        """Forget the window."""
        self.audio = self.cache = None


class MaxDecodingTask(LeanDecodingTask):
    """The loop over one window, with MAX's decoder."""

    def make_inference(self) -> MaxInference:
        """MAX's decoder."""
        return MaxInference(self.model.decoder.max_decoder, self.sot_index)
