"""CTranslate2, the library beneath faster-whisper, on the weights of our own checkpoint.

Its `WhisperSpec` is filled from OpenAI's tensors directly, so that both sides read the same
numbers. A development peer: the app never imports it; `python -m engines.bench` does where the
package is installed, in `step` and, as `clips --engines cpu,ctranslate2_float32`, under the loop
that every engine runs (faster-whisper has its own port of that loop).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.specs.whisper_spec import WhisperSpec
from torch import Tensor, nn
from whisper.decoding import DecodingOptions, DecodingTask, GreedyDecoder
from whisper.tokenizer import get_tokenizer

from engines.base import (
    Clip,
    EngineError,
    FloatArray,
    Listener,
    Options,
    Transcript,
)
from engines.checkpoints import Checkpoint
from engines.decoding import ClockedWhisper
from engines.whisper_engine import WhisperEngine

MULTILINGUAL = 51865
COMPUTE_TYPES = ("float32", "int8")
PREFIX = "ctranslate2_"
KEYS = WRITERS = tuple(f"{PREFIX}{compute_type}" for compute_type in COMPUTE_TYPES)

Tensors = Mapping[str, FloatArray]


def writers(checkpoint: Checkpoint, threads: int) -> dict[str, Callable[[], CTranslate2Writer]]:
    """By name: how to make each one; `int8` rounds the weights of all products to 8 bits."""
    return {
        f"{PREFIX}{compute_type}": partial(CTranslate2Writer, checkpoint, threads, compute_type)
        for compute_type in COMPUTE_TYPES
    }


class CTranslate2Writer:
    """Greedy decoding by CTranslate2 on a CPU, with so many threads."""

    device = "cpu"

    def __init__(self, checkpoint: Checkpoint, threads: int, compute_type: str) -> None:
        self.dtype = compute_type
        self._model = load(checkpoint, threads, compute_type)
        self._end = tokenizer_of(checkpoint).eot

    def encode(self, mel: FloatArray) -> FloatArray:
        """`(n_mels, 3000)` to `(n_audio_ctx, n_audio_state)`, float32."""
        return run_encoder(self._model, mel[None])[0]

    def write(self, features: FloatArray, prompt: Sequence[int], n_tokens: int) -> int:
        """Decode after the prompt with end of text forbidden; returns the tokens written."""
        return len(self.tokens(features, prompt, n_tokens))

    def tokens(self, features: FloatArray, prompt: Sequence[int], n_tokens: int) -> list[int]:
        """The ids that `write` counts."""
        found = self._model.generate(
            ctranslate2.StorageView.from_array(np.ascontiguousarray(features[None])),
            [list(prompt)],
            beam_size=1,
            max_length=2 * n_tokens,
            suppress_blank=False,
            suppress_tokens=[self._end],
        )
        return list(found[0].sequences_ids[0])


class CTranslate2Engine(WhisperEngine):
    """Encoder, decoder and search by CTranslate2 on a CPU; the rest of the loop is whisper's."""

    label = encoder = decoder = "CTranslate2"

    def __init__(self, compute_type: str, model: str) -> None:
        super().__init__(model, "cpu", "float32")
        self.key = f"{PREFIX}{compute_type}"
        self.compute_type = compute_type

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """As every engine does; the transcript's type is the one that CTranslate2 computes in."""
        return replace(super().transcribe(clip, options, listener), dtype=self.compute_type)

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[ClockedWhisper, float]:
        """Whisper's model; its PyTorch decoder is left for language detection and word times."""
        model = checkpoint.build(CTranslate2Whisper)
        model.peer = load(checkpoint, torch.get_num_threads(), self.compute_type)
        model.encoder = EncoderModule(model.peer)
        return model, 0.0


def engine(key: str, model: str) -> CTranslate2Engine | None:
    """The engine of one of our keys, `ctranslate2_float32` or `ctranslate2_int8`."""
    return CTranslate2Engine(key.removeprefix(PREFIX), model) if key in KEYS else None


class EncoderModule(nn.Module):
    """CTranslate2's encoder where whisper expects PyTorch's."""

    def __init__(self, peer: Any) -> None:
        super().__init__()
        self.peer = peer

    def forward(self, mel: Tensor) -> Tensor:
        """`(batch, n_mels, 3000)` to `(batch, n_audio_ctx, n_audio_state)`."""
        return torch.from_numpy(run_encoder(self.peer, mel.numpy()))


class CTranslate2Whisper(ClockedWhisper):
    """A whisper model whose windows are decoded by CTranslate2."""

    peer: Any

    def task(self, options: DecodingOptions) -> DecodingTask:
        """The loop over one window, all of it in CTranslate2."""
        return CTranslate2Task(self, options)


class CTranslate2Task(DecodingTask):
    """One call in place of whisper's token loop, with the same rules for tokens."""

    def __init__(self, model: CTranslate2Whisper, options: DecodingOptions) -> None:
        super().__init__(model, options)
        if options.temperature > 0:
            raise EngineError("CTranslate2 is measured at temperature 0 only.")
        self.beams = options.beam_size or 1
        self.n_group = 1  # the search and its ranking happen inside
        self.decoder = GreedyDecoder(0.0, self.tokenizer.eot)

    def _main_loop(
        self, audio_features: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, list[float]]:
        found = self.model.peer.generate(
            ctranslate2.StorageView.from_array(audio_features.numpy()),
            tokens.tolist(),
            beam_size=self.beams,
            max_length=2 * self.sample_len,
            suppress_tokens=list(self._get_suppress_tokens()),
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        ids = found.sequences_ids[0]
        whole = torch.tensor([[*tokens[0].tolist(), *ids]])
        return whole, torch.tensor([found.scores[0] * len(ids)]), [found.no_speech_prob]


def load(checkpoint: Checkpoint, threads: int, compute_type: str) -> Any:
    """The checkpoint as a `ctranslate2.models.Whisper` on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        convert(checkpoint, Path(folder))
        return ctranslate2.models.Whisper(
            folder, device="cpu", compute_type=compute_type, intra_threads=threads
        )


def run_encoder(model: Any, mel: FloatArray) -> FloatArray:
    """`(batch, n_mels, 3000)` to `(batch, n_audio_ctx, n_audio_state)`, both float32."""
    windows = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel))
    return np.array(model.encode(windows))


def tokenizer_of(checkpoint: Checkpoint) -> Any:
    """Whisper's tokenizer for the checkpoint's vocabulary."""
    n_vocab = checkpoint.dims.n_vocab
    return get_tokenizer(n_vocab >= MULTILINGUAL, num_languages=n_vocab - MULTILINGUAL + 99)


def convert(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the checkpoint into `folder` as a CTranslate2 model in float32."""
    dims = checkpoint.dims
    tensors = {key: tensor.numpy() for key, tensor in checkpoint.state.items()}
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    fill_encoder(spec.encoder, tensors)
    fill_decoder(spec.decoder, tensors)
    spec.register_vocabulary(vocabulary(checkpoint))
    spec.config.suppress_ids = []
    tokenizer = tokenizer_of(checkpoint)
    spec.config.suppress_ids_begin = [*tokenizer.encode(" "), tokenizer.eot]
    spec.config.lang_ids = list(tokenizer.all_language_tokens) if tokenizer.language else []
    spec.config.alignment_heads = [(dims.n_text_layer - 1, 0)]
    spec.validate()
    spec.optimize()
    spec.save(str(folder))


def vocabulary(checkpoint: Checkpoint) -> list[str]:
    """Distinct strings; only the special tokens, which CTranslate2 looks up, need their names."""
    names = [f"token {number}" for number in range(checkpoint.dims.n_vocab)]
    for name, number in tokenizer_of(checkpoint).special_tokens.items():
        if number < len(names):
            names[number] = name
    return names


def fill_encoder(spec: Any, tensors: Tensors) -> None:
    """Convolutions, positions, blocks and the last layer norm."""
    for name in ("conv1", "conv2"):
        layer = getattr(spec, name)
        layer.weight = tensors[f"encoder.{name}.weight"]
        layer.bias = tensors[f"encoder.{name}.bias"]
    spec.position_encodings.encodings = tensors["encoder.positional_embedding"]
    for number, layer in enumerate(spec.layer):
        fill_block(layer, tensors, f"encoder.blocks.{number}")
    fill_norm(spec.layer_norm, tensors, "encoder.ln_post")


def fill_decoder(spec: Any, tensors: Tensors) -> None:
    """Embeddings, which are the projection too, positions, blocks and the last layer norm."""
    spec.embeddings.weight = tensors["decoder.token_embedding.weight"]
    spec.projection.weight = tensors["decoder.token_embedding.weight"]
    spec.position_encodings.encodings = tensors["decoder.positional_embedding"]
    for number, layer in enumerate(spec.layer):
        prefix = f"decoder.blocks.{number}"
        fill_block(layer, tensors, prefix)
        fill_norm(layer.attention.layer_norm, tensors, f"{prefix}.cross_attn_ln")
        names = (["query"], ["key", "value"], ["out"])
        fill_attention(layer.attention, tensors, f"{prefix}.cross_attn", names)
    fill_norm(spec.layer_norm, tensors, "decoder.ln")


def fill_block(spec: Any, tensors: Tensors, prefix: str) -> None:
    """Self-attention and the two products of the feed-forward half."""
    fill_norm(spec.self_attention.layer_norm, tensors, f"{prefix}.attn_ln")
    names = (["query", "key", "value"], ["out"])
    fill_attention(spec.self_attention, tensors, f"{prefix}.attn", names)
    fill_norm(spec.ffn.layer_norm, tensors, f"{prefix}.mlp_ln")
    for layer, name in ((spec.ffn.linear_0, "mlp.0"), (spec.ffn.linear_1, "mlp.2")):
        layer.weight = tensors[f"{prefix}.{name}.weight"]
        layer.bias = tensors[f"{prefix}.{name}.bias"]


def fill_norm(spec: Any, tensors: Tensors, name: str) -> None:
    """A layer norm."""
    spec.gamma = tensors[f"{name}.weight"]
    spec.beta = tensors[f"{name}.bias"]


def fill_attention(
    spec: Any, tensors: Tensors, prefix: str, stacked: Sequence[Sequence[str]]
) -> None:
    """Each of the spec's products is a stack of Whisper's; its key has no bias, so zeros."""
    for layer, names in zip(spec.linear, stacked, strict=True):
        weights = [tensors[f"{prefix}.{name}.weight"] for name in names]
        no_bias = np.zeros(len(weights[0]), np.float32)
        biases = [tensors.get(f"{prefix}.{name}.bias", no_bias) for name in names]
        layer.weight = np.concatenate(weights)
        layer.bias = np.concatenate(biases)
