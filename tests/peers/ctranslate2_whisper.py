"""CTranslate2, the library beneath faster-whisper, on the weights of our own checkpoint.

Its `WhisperSpec` is filled from OpenAI's tensors directly, so that both sides read the same
numbers. A development peer: the app never imports it; `python -m engines.bench step` does where
the package is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs.whisper_spec import WhisperSpec
from whisper.tokenizer import get_tokenizer

from engines.base import FloatArray
from engines.checkpoints import Checkpoint

MULTILINGUAL = 51865
COMPUTE_TYPES = ("float32", "int8")

Tensors = Mapping[str, FloatArray]


def writers(checkpoint: Checkpoint, threads: int) -> dict[str, Callable[[], CTranslate2Writer]]:
    """By name: how to make each one; `int8` rounds the weights of all products to 8 bits."""
    return {
        f"ctranslate2 {compute_type}": partial(CTranslate2Writer, checkpoint, threads, compute_type)
        for compute_type in COMPUTE_TYPES
    }


class CTranslate2Writer:
    """Greedy decoding by CTranslate2 on a CPU, with so many threads."""

    def __init__(self, checkpoint: Checkpoint, threads: int, compute_type: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            convert(checkpoint, Path(folder))
            self._model = ctranslate2.models.Whisper(
                folder, device="cpu", compute_type=compute_type, intra_threads=threads
            )
        self._end = tokenizer_of(checkpoint).eot

    def encode(self, mel: FloatArray) -> FloatArray:
        """`(n_mels, 3000)` to `(n_audio_ctx, n_audio_state)`, float32."""
        features = self._model.encode(ctranslate2.StorageView.from_array(mel[None]))
        return np.array(features)[0]

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
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = []
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
