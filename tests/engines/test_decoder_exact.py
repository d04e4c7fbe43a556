"""The MAX decoder, all layers and the vocabulary's products, against the same in float64.

Sizes are odd on purpose: no multiple of a vector's or a panel's width but for the heads' 64.
"""

import numpy as np
import pytest
import torch

pytest.importorskip("max.engine")

from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention
from whisper.model import ModelDimensions

from engines.checkpoints import Checkpoint
from engines.max_full import load_max_decoder
from engines.max_graph.check import relative_error
from tests.engines.checkpoint_files import random_state

pytestmark = pytest.mark.max

RELATIVE_ERROR = 3e-6
"""Bound on a row of logits: float32 rounds by 6e-8, and a row is the sum of some hundred
products of sums of some hundred. Measured: 1e-7 to 4e-7."""

ODD = {
    "one head": ModelDimensions(80, 37, 64, 1, 1, 1009, 45, 64, 1, 1),
    "two layers": ModelDimensions(80, 101, 128, 2, 1, 517, 67, 128, 2, 2),
    "three heads": ModelDimensions(80, 33, 192, 3, 1, 131, 31, 192, 3, 3),
}


def _linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def _norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def _attention(w: dict[str, Tensor], name: str, x: Tensor, seen: Tensor, causal: bool) -> Tensor:
    """Attention of rows `(batch, T, width)` over `seen` `(batch, S, width)`, heads of 64."""
    q, k, v = (
        _linear(w, f"{name}.{part}", source).unflatten(-1, (-1, 64)).transpose(1, 2)
        for part, source in (("query", x), ("key", seen), ("value", seen))
    )
    mixed = scaled_dot_product_attention(q, k, v, is_causal=causal)
    return _linear(w, f"{name}.out", mixed.transpose(1, 2).flatten(2))


def exact_logits(w: dict[str, Tensor], layers: int, tokens: np.ndarray, heard: Tensor) -> Tensor:
    """Logits `(batch, T, n_vocab)` as whisper's `TextDecoder` defines them, all in float64."""
    embedding, heard = w["decoder.token_embedding.weight"], heard.expand(len(tokens), -1, -1)
    x = embedding[torch.from_numpy(tokens)]
    x = x + w["decoder.positional_embedding"][: tokens.shape[1]]
    for layer in range(layers):
        name = f"decoder.blocks.{layer}"
        normed = _norm(w, f"{name}.attn_ln", x)
        x = x + _attention(w, f"{name}.attn", normed, normed, causal=True)
        normed = _norm(w, f"{name}.cross_attn_ln", x)
        x = x + _attention(w, f"{name}.cross_attn", normed, heard, causal=False)
        inner = _linear(w, f"{name}.mlp.0", _norm(w, f"{name}.mlp_ln", x))
        x = x + _linear(w, f"{name}.mlp.2", gelu(inner))
    return _norm(w, "decoder.ln", x) @ embedding.T


def odd_checkpoint(dims: ModelDimensions, half: bool) -> Checkpoint:
    state = random_state(dims)
    if half:
        state = {key: t.half().float() if t.ndim >= 2 else t for key, t in state.items()}
    return Checkpoint("odd", dims, state)


@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("half", [True, False], ids=["float16 weights", "float32 weights"])
def test_every_batch_agrees_with_float64(size: str, half: bool) -> None:
    dims, generator = ODD[size], np.random.default_rng(7)
    checkpoint = odd_checkpoint(dims, half)
    weights = {name: tensor.double() for name, tensor in checkpoint.state.items()}
    decoder, _ = load_max_decoder(checkpoint, on_cpu=True)
    heard = generator.standard_normal((dims.n_audio_ctx, dims.n_audio_state)).astype(np.float32)
    audio, prompt = decoder.listen(heard), 13
    for batch in range(1, 9):
        tokens = generator.integers(0, dims.n_vocab, (batch, dims.n_text_ctx))
        sure = torch.from_numpy(heard).double()
        exact = exact_logits(weights, dims.n_text_layer, tokens, sure).numpy()
        cache, rows = decoder.new_cache(batch), np.arange(batch * prompt)
        logits, _, _ = decoder.step(tokens[:, :prompt], audio, cache, rows)
        assert relative_error(logits, exact[:, :prompt].reshape(len(rows), -1)) < RELATIVE_ERROR
        for place in range(prompt, dims.n_text_ctx):
            new = tokens[:, place : place + 1]
            logits, _, _ = decoder.step(new, audio, cache, np.arange(batch))
            assert relative_error(logits, exact[:, place]) < RELATIVE_ERROR
