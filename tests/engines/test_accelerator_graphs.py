"""The accelerators' graphs and kernels, run on the CPU, against PyTorch.

What the threads of a GPU's blocks do is done here one after another.
"""

from functools import partial

import numpy as np
import pytest
import torch
from whisper.model import ModelDimensions, Whisper

pytest.importorskip("max.engine")

from max.driver import CPU
from max.graph import DeviceRef

from engines.analysis import decoder_layers
from engines.analysis.layers import relative_error
from engines.analysis.records import DecoderInput
from engines.max_graph import accelerator_decoder, encoder
from engines.max_graph.accelerator_decoder import AcceleratorDecoder
from engines.max_graph.compile_cache import compile_module, session
from engines.max_graph.operations import AcceleratorOperations
from engines.max_graph.weights import decoder_weights, encoder_weights
from tests.engines.test_decoder import step

pytestmark = [pytest.mark.max, pytest.mark.slow]  # each compiles for minutes

DIMS = ModelDimensions(
    n_mels=80, n_audio_ctx=64, n_audio_state=128, n_audio_head=2, n_audio_layer=2,
    n_vocab=300, n_text_ctx=32, n_text_state=128, n_text_head=2, n_text_layer=2,
)  # fmt: skip
OPERATIONS = AcceleratorOperations(device=DeviceRef.CPU())
RELATIVE_ERROR = 3e-6
"""Of features and logits. Measured: below 5e-7."""


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    """Random weights, with logits of the usual size."""
    torch.manual_seed(0)
    model = Whisper(DIMS).eval().requires_grad_(False)
    model.decoder.token_embedding.weight.mul_(0.05)
    model.decoder.positional_embedding.normal_(0, 0.02)
    return model


def test_the_encoder_computes_what_pytorch_computes(whisper: Whisper) -> None:
    build = partial(encoder.build, op=OPERATIONS, s=encoder.Sizes.of(DIMS))
    graphs = session("cpu").init_all(compile_module(build, "cpu"))
    weights = encoder_weights(whisper.state_dict(), DIMS)
    found = encoder.MaxEncoder(graphs, weights, OPERATIONS, CPU())
    mel = np.random.default_rng(0).standard_normal((80, 128)).astype(np.float32)
    expected = whisper.encoder(torch.from_numpy(mel)[None])[0].numpy()
    assert relative_error(found(mel), expected) < RELATIVE_ERROR


def test_the_decoder_computes_what_pytorch_computes(whisper: Whisper) -> None:
    """A prompt, tokens one by one in three beams, beams in another order, and all at once."""
    build = partial(accelerator_decoder.build, op=OPERATIONS, dims=DIMS)
    graphs = session("cpu").init_all(compile_module(build, "cpu"))
    weights = decoder_weights(whisper.state_dict(), DIMS)
    decoder = AcceleratorDecoder(graphs, weights, DIMS, OPERATIONS, CPU())
    random = np.random.default_rng(1)
    features = random.standard_normal((DIMS.n_audio_ctx, DIMS.n_audio_state)).astype(np.float32)
    tokens = random.integers(0, DIMS.n_vocab, (3, DIMS.n_text_ctx))  # (beams, positions)
    heard = torch.from_numpy(features)[None].expand(3, -1, -1)
    expected = whisper.decoder(torch.from_numpy(tokens), heard).numpy()
    audio, beams = decoder.compute_cross_kv(features), decoder.new_cache(3)
    logits, _, _ = step(decoder, tokens[:, :5], audio, beams, [4, 9, 14])
    assert relative_error(logits, expected[:, 4]) < RELATIVE_ERROR
    for place in range(5, DIMS.n_text_ctx - 1):
        logits, chosen, _ = step(decoder, tokens[:, [place]], audio, beams, k=4)
        assert relative_error(logits, expected[:, place]) < RELATIVE_ERROR
        assert (chosen[:, 0] == expected[:, place].argmax(-1)).all()
    order = [2, 2, 0]
    decoder.reorder_beams(beams, beams, order)
    logits, _, _ = step(decoder, tokens[order, -1:], audio, beams)
    assert relative_error(logits, expected[order, -1]) < RELATIVE_ERROR
    logits, _ = decoder.align(tokens[:1], audio)
    assert relative_error(logits, expected[0]) < RELATIVE_ERROR
    given = DecoderInput(features, tuple(tokens[0].tolist()))
    stages = dict(decoder_layers.torch_stages(whisper.decoder, given, torch.float32))
    found = dict(decoder_layers.list_stages(decoder.trace(tokens[:1], features)))
    assert list(found) == list(stages)
    assert max(relative_error(found[name], stages[name]) for name in stages) < RELATIVE_ERROR
