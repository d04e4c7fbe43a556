"""The accelerators' graphs without an accelerator: they compile for it, and compute on the CPU.

Minutes each, so these run only in `make test-cross`. What they do on the GPU itself is for
`make test` on a machine that has one: the contract, and the equality of tokens.
"""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from whisper.model import ModelDimensions, Whisper, disable_sdpa

pytest.importorskip("max.engine")

from max.driver import CPU
from max.graph import DeviceRef

from engines.max_graph import accelerator_decoder, encoder
from engines.max_graph.accelerator_decoder import AcceleratorDecoder
from engines.max_graph.compile_cache import compile_module, session
from engines.max_graph.operations import AcceleratorOperations
from engines.max_graph.weights import decoder_weights, encoder_weights
from tests.engines.test_decoder import step

pytestmark = [pytest.mark.max, pytest.mark.cross]

COMPILE = """
import sys
from max import driver
driver.set_virtual_device_api("cuda")
driver.set_virtual_device_target_arch(sys.argv[1])
driver.set_virtual_device_count(1)
from max.dtype import DType
from engines.max_graph import accelerator_decoder, encoder
from engines.max_graph.compile_cache import compile_module
from engines.max_graph.operations import AcceleratorOperations
from tests.engines.checkpoint_files import DIMENSIONS
op, dims = AcceleratorOperations(DType[sys.argv[3]]), DIMENSIONS["tiny"]
if sys.argv[2] == "encoder":
    compile_module(lambda module: encoder.build(module, op, encoder.Sizes.of(dims)), "gpu")
else:
    compile_module(lambda module: accelerator_decoder.build(module, op, dims), "gpu")
print("compiled")
"""


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        ("sm_75", "float32"),
        ("sm_86", "float32"),
        ("sm_90a", "float32"),
        ("sm_120a", "float32"),
        ("sm_86", "float16"),
        ("sm_90a", "bfloat16"),
    ],
)
def test_graphs_compile_without_the_gpu(architecture: str, dtype: str, half: str) -> None:
    command = [sys.executable, "-c", COMPILE, architecture, half, dtype]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert run.stdout == "compiled\n", run.stderr[-2000:]


SMALL = ModelDimensions(
    n_mels=80, n_audio_ctx=64, n_audio_state=128, n_audio_head=2, n_audio_layer=2,
    n_vocab=300, n_text_ctx=32, n_text_state=128, n_text_head=2, n_text_layer=2,
)  # fmt: skip
BOUND = 1e-5
"""Of a logit; logits reach 2.3 here, and 1.2e-6 was the largest difference seen."""


@pytest.fixture(scope="module")
def small_whisper() -> Whisper:
    """Random weights, with logits of the usual size."""
    torch.manual_seed(0)
    model = Whisper(SMALL).eval().requires_grad_(False)
    model.decoder.token_embedding.weight.mul_(0.05)
    model.decoder.positional_embedding.normal_(0, 0.02)
    return model


def read_scores(model: Whisper, tokens: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Cross-attention scores `(layers, heads, tokens, n_audio_ctx)`, as whisper reads them."""
    found: list[np.ndarray] = []
    for block in model.decoder.blocks:
        block.get_submodule("cross_attn").register_forward_hook(
            lambda *call: found.append(call[-1][-1][0].numpy())
        )
    with torch.inference_mode(), disable_sdpa():
        model.decoder(torch.from_numpy(tokens), torch.from_numpy(features)[None])
    return np.stack(found)


OPERATIONS = AcceleratorOperations(device=DeviceRef.CPU())
"""The accelerator's operations, on the CPU."""


def test_the_encoder_graphs_compute_what_pytorch_computes(small_whisper: Whisper) -> None:
    build = partial(encoder.build, op=OPERATIONS, s=encoder.Sizes.of(SMALL))
    graphs = session("cpu").init_all(compile_module(build, "cpu"))
    weights = encoder_weights(small_whisper.state_dict(), SMALL)
    found = encoder.MaxEncoder(graphs, weights, OPERATIONS, CPU())
    mel = np.random.default_rng(0).standard_normal((80, 128)).astype(np.float32)
    expected = small_whisper.encoder(torch.from_numpy(mel)[None])[0].numpy()
    error = np.linalg.norm(found(mel) - expected) / np.linalg.norm(expected)
    assert error < 1e-5, "2.8e-7 was measured"


def test_the_decoder_graphs_compute_what_pytorch_computes(small_whisper: Whisper) -> None:
    build = partial(accelerator_decoder.build, op=OPERATIONS, dims=SMALL)
    graphs = session("cpu").init_all(compile_module(build, "cpu"))
    weights = decoder_weights(small_whisper.state_dict(), SMALL)
    decoder = AcceleratorDecoder(graphs, weights, SMALL, OPERATIONS, CPU())
    random = np.random.default_rng(1)
    features = random.standard_normal((SMALL.n_audio_ctx, SMALL.n_audio_state)).astype(np.float32)
    tokens = random.integers(0, SMALL.n_vocab, (3, SMALL.n_text_ctx))
    expected = small_whisper.decoder(
        torch.from_numpy(tokens), torch.from_numpy(features)[None].expand(3, -1, -1)
    ).numpy()
    audio = decoder.compute_cross_kv(features)

    one = decoder.new_cache(1)
    logits, _, _ = step(decoder, tokens[:1, :5], audio, one, [0, 4])
    assert np.abs(logits - expected[0, [0, 4]]).max() < BOUND
    beams = decoder.new_cache(3)
    step(decoder, tokens[:, :5], audio, beams, [4, 9, 14])
    for place in range(5, SMALL.n_text_ctx - 1):
        logits, chosen, _ = step(decoder, tokens[:, [place]], audio, beams, k=4)
        assert np.abs(logits - expected[:, place]).max() < BOUND
        assert (chosen[:, 0] == expected[:, place].argmax(-1)).all()
    decoder.reorder_beams(beams, beams, [2, 2, 0])
    logits, _, _ = step(decoder, tokens[[2, 2, 0], -1:], audio, beams)
    assert np.abs(logits - expected[[2, 2, 0], -1]).max() < BOUND
    logits, scores = decoder.align(tokens[:1], audio)
    assert np.abs(logits - expected[0]).max() < BOUND
    np.testing.assert_allclose(scores, read_scores(small_whisper, tokens[:1], features), atol=BOUND)
