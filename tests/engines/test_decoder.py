"""The MAX decoder against whisper's: logits, caches, beams, the choice of tokens."""

import resource
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("max.engine")

from max.dtype import DType
from whisper.decoding import DecodingOptions, DecodingResult, DecodingTask
from whisper.model import ModelDimensions, Whisper, disable_sdpa
from whisper.tokenizer import get_tokenizer

from engines.base import CheckpointError, EngineError
from engines.checkpoints import Checkpoint
from engines.checkpoints.content import decoder_shapes, encoder_shapes
from engines.decoding import ClockedWhisper
from engines.max_full import DecoderModule, MaxDecodingTask, MaxWhisper, load_max_decoder
from engines.max_graph.check import relative_error
from engines.max_graph.decoder import Decoder
from engines.max_graph.weights import decoder_weights, matrix_dtype
from engines.max_hybrid import HybridWhisper
from engines.memory import give_back
from engines.token_loop import LeanDecodingTask
from tests.engines.checkpoint_files import DIMENSIONS, random_state

pytestmark = pytest.mark.max

RELATIVE_ERROR = 1e-5
"""Bound on ‖MAX − PyTorch‖ / ‖PyTorch‖ of a row of logits. Measured: 4e-7 to 6e-7."""

NANO_SIZE = ModelDimensions(80, 1500, 192, 3, 4, 51864, 448, 192, 3, 2)
SIZES = {name: DIMENSIONS[name] for name in ("tiny", "base", "small")} | {"tiny.en": NANO_SIZE}


def checkpoint(dims: ModelDimensions, half: bool = True) -> Checkpoint:
    """Random weights, exactly representable in float16 as OpenAI's are unless `half` is false.

    Scaled embeddings give logits of the size that trained models have.
    """
    state = random_state(dims)
    state["decoder.token_embedding.weight"] *= 0.1
    if half:
        state = {key: t.half().float() if t.ndim >= 2 else t for key, t in state.items()}
    return Checkpoint("random", dims, state)


def features(dims: ModelDimensions, seed: int = 0) -> np.ndarray:
    shape = (dims.n_audio_ctx, dims.n_audio_state)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 50_000, shape)


def torch_logits(model: Whisper, tokens: np.ndarray, heard: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        audio = torch.from_numpy(heard)[None].expand(len(tokens), -1, -1)
        logits: np.ndarray = model.decoder(torch.from_numpy(tokens), audio).numpy()
    return logits


@pytest.fixture(scope="module")
def tiny() -> tuple[Whisper, Decoder]:
    """Where the engine would run it: on the accelerator, if there is one."""
    random = checkpoint(DIMENSIONS["tiny"])
    decoder, _ = load_max_decoder(random)
    return random.build(Whisper), decoder


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("half", [True, False], ids=["float16 weights", "float32 weights"])
def test_logits_agree(size: str, half: bool) -> None:
    if size == "small" and not half:
        pytest.skip("small in float32 adds minutes and no other code")
    dims = SIZES[size]
    random = checkpoint(dims, half)
    assert matrix_dtype(random) == (DType.float16 if half else DType.float32)
    decoder, _ = load_max_decoder(random)
    heard, tokens = features(dims), random_tokens(1, 20)
    expected = torch_logits(random.build(Whisper), tokens, heard)[0]
    audio, cache = decoder.listen(heard), decoder.new_cache(1)
    rows = np.arange(16)
    prompt, _, _ = decoder.step(tokens[:, :16], audio, cache, rows)
    assert relative_error(prompt, expected[:16]) < RELATIVE_ERROR
    for i in range(16, 20):
        logits, chosen, _ = decoder.step(tokens[:, i : i + 1], audio, cache, np.array([0]))
        assert relative_error(logits[0], expected[i]) < RELATIVE_ERROR
        assert chosen[0, 0] == expected[i].argmax()


def test_a_step_after_a_prompt_equals_a_longer_prompt(tiny: tuple[Whisper, Decoder]) -> None:
    _, decoder = tiny
    audio, tokens = decoder.listen(features(decoder.dims)), random_tokens(1, 50)
    for n in (1, 31, 32, 33, 49):
        stepped, whole = decoder.new_cache(1), decoder.new_cache(1)
        decoder.step(tokens[:, :n], audio, stepped, np.array([0]))
        after, _, _ = decoder.step(tokens[:, n : n + 1], audio, stepped, np.array([0]))
        direct, _, _ = decoder.step(tokens[:, : n + 1], audio, whole, np.array([n]))
        assert relative_error(after, direct) < RELATIVE_ERROR
        assert stepped.length == whole.length == n + 1


def test_448_positions_fit(tiny: tuple[Whisper, Decoder]) -> None:
    model, decoder = tiny
    heard, tokens = features(decoder.dims), random_tokens(1, 448)
    cache = decoder.new_cache(1)
    audio = decoder.listen(heard)
    decoder.step(tokens[:, :447], audio, cache, np.array([0]))
    last, _, _ = decoder.step(tokens[:, 447:], audio, cache, np.array([0]))
    expected = torch_logits(model, tokens, heard)[0, -1]
    assert relative_error(last[0], expected) < RELATIVE_ERROR
    with pytest.raises(ValueError, match="no position is left of 448 for 1 tokens"):
        decoder.step(tokens[:, :1], audio, cache, np.array([0]))


@pytest.mark.parametrize("token", [-1, 51864])
def test_a_token_that_does_not_exist_is_refused(tiny: tuple[Whisper, Decoder], token: int) -> None:
    _, decoder = tiny
    audio, cache = decoder.listen(features(decoder.dims)), decoder.new_cache(1)
    with pytest.raises(ValueError, match="tokens are 0 to 51863"):
        decoder.step(np.array([[token]]), audio, cache, np.array([0]))


@pytest.mark.parametrize("beams", [2, 5, 8])
def test_beams_continue_what_they_are_told_to(tiny: tuple[Whisper, Decoder], beams: int) -> None:
    model, decoder = tiny
    heard, tokens = features(decoder.dims), random_tokens(beams, 40)
    audio, cache = decoder.listen(heard), decoder.new_cache(beams)
    decoder.step(tokens[:, :35], audio, cache, np.array([0]))
    order = [beams - 1, *([0] * (beams - 1))]
    cache.take(cache, order)
    rows = np.arange(beams)
    logits, _, _ = decoder.step(tokens[:, 35:36], audio, cache, rows)
    continued = np.concatenate([tokens[order, :35], tokens[:, 35:36]], axis=1)
    expected = torch_logits(model, continued, heard)[:, -1]
    assert relative_error(logits, expected) < RELATIVE_ERROR


def test_alignment_scores_agree(tiny: tuple[Whisper, Decoder]) -> None:
    model, decoder = tiny
    heard, tokens = features(decoder.dims), random_tokens(1, 9)
    found: dict[str, list[torch.Tensor]] = {}
    for name, module in (("torch", model.decoder), ("max", DecoderModule(decoder))):
        scores = found[name] = []

        def keep(_: object, inputs: object, outputs: Any, into: list = scores) -> None:
            into.append(outputs[-1][0])

        layers = [block.get_submodule("cross_attn") for block in module.blocks]
        hooks = [layer.register_forward_hook(keep) for layer in layers]
        with torch.inference_mode(), disable_sdpa():
            module(torch.from_numpy(tokens), torch.from_numpy(heard)[None])
        for hook in hooks:
            hook.remove()
    for expected, scored in zip(found["torch"], found["max"], strict=True):
        assert relative_error(scored.numpy(), expected.numpy()) < RELATIVE_ERROR


def greedy_window(model: Whisper, task: type[DecodingTask], heard: np.ndarray) -> list[int]:
    """Tokens of a whole window of up to 224, without an end of text."""
    options = DecodingOptions(language="en", fp16=False, suppress_tokens=f"-1,{50256}")
    result = task(model, options).run(torch.from_numpy(heard)[None])[0]
    return list(result.tokens)


@pytest.mark.parametrize("size", SIZES)
def test_greedy_tokens_agree_over_full_windows(size: str) -> None:
    dims = SIZES[size]
    random = checkpoint(dims)
    fast = random.build(MaxWhisper)
    fast.decoder = DecoderModule(load_max_decoder(random)[0])
    heard = features(dims, 3)
    expected = greedy_window(random.build(Whisper), DecodingTask, heard)
    assert len(expected) == 224
    assert greedy_window(fast, MaxDecodingTask, heard) == expected


OPTIONS: dict[str, dict[str, Any]] = {
    "timestamps": {},
    "without timestamps": {"without_timestamps": True},
    "beam": {"beam_size": 5},
    "beam with patience": {"beam_size": 3, "patience": 2.0, "sample_len": 60},
    "beam with length penalty": {"beam_size": 2, "length_penalty": 0.6, "sample_len": 60},
    "prompt": {"prompt": "A prompt from the window before."},
    "nothing suppressed": {"suppress_tokens": "", "suppress_blank": False},
    "any initial timestamp": {"max_initial_timestamp": None},
    "short": {"sample_len": 3},
}
KINDS = ["max_hybrid", "max_full"]


@cache
def oracle(vocabulary: int) -> Whisper:
    """A small model that runs whisper's own loop over PyTorch."""
    return checkpoint(small_size(vocabulary)).build(Whisper)


@cache
def lean(kind: str, vocabulary: int) -> ClockedWhisper:
    """The same model as a MAX engine has it, for features that were encoded before."""
    random = checkpoint(small_size(vocabulary))
    if kind == "max_hybrid":
        return random.build(HybridWhisper)
    fast = random.build(MaxWhisper)
    fast.decoder = DecoderModule(load_max_decoder(random)[0])
    return fast


def small_size(vocabulary: int) -> ModelDimensions:
    """`nano`'s dimensions with the vocabulary, and the mels, of another checkpoint."""
    return replace(NANO_SIZE, n_vocab=vocabulary, n_mels=128 if vocabulary == 51866 else 80)


def asked(prompt: str | tuple[int, ...] | None = None, **options: Any) -> DecodingOptions:
    text = list(prompt) if isinstance(prompt, tuple) else prompt
    return DecodingOptions(fp16=False, prompt=text, **options)


@cache
def wanted(vocabulary: int, seed: int, **options: Any) -> DecodingResult:
    """What whisper's own loop over PyTorch writes."""
    heard = torch.from_numpy(features(small_size(vocabulary), seed))[None]
    torch.manual_seed(0)
    return DecodingTask(oracle(vocabulary), asked(**options)).run(heard)[0]


def assert_agree(kind: str, seed: int, vocabulary: int = 51864, **options: Any) -> None:
    """With the oracle: tokens, and what fallback decides by."""
    expected = wanted(vocabulary, seed, **options)
    torch.manual_seed(0)
    task = lean(kind, vocabulary).task(asked(**options))
    assert isinstance(task, LeanDecodingTask)
    found = task.run(torch.from_numpy(features(small_size(vocabulary), seed))[None])[0]
    assert found.language == expected.language
    assert found.tokens == expected.tokens
    assert found.avg_logprob == pytest.approx(expected.avg_logprob, rel=1e-4)
    assert found.no_speech_prob == pytest.approx(expected.no_speech_prob, rel=1e-3)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_lean_loop_agrees_with_whispers(kind: str, options: str) -> None:
    assert_agree(kind, 1, language="en", **OPTIONS[options])


@pytest.mark.parametrize("best_of", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_sampling_agrees_with_whispers(kind: str, best_of: int | None) -> None:
    """Above temperature 0, from the same random numbers."""
    sampled: dict[str, Any] = {
        "temperature": 0.6,
        "best_of": best_of,
        "prompt": "The window before.",
    }
    assert_agree(kind, 4, language="en", **sampled)


FULL_PROMPT = tuple((7 * i) % 50_000 for i in range(223))


@pytest.mark.parametrize(("vocabulary", "beam_size"), [(51865, None), (51866, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_multilingual_windows_agree(kind: str, vocabulary: int, beam_size: int | None) -> None:
    """The language detected, three tokens at the start, and a window that fills all 448 positions
    after the longest prompt."""
    eot = get_tokenizer(True, num_languages=vocabulary - 51766).eot
    suppressed = f"-1,{eot}"
    assert_agree(
        kind, 5, vocabulary, prompt=FULL_PROMPT, beam_size=beam_size, suppress_tokens=suppressed
    )


@pytest.mark.parametrize("kind", KINDS)
def test_logits_that_are_no_numbers_are_refused_in_a_sentence(kind: str) -> None:
    heard = torch.full((1, 1500, 192), torch.nan)
    task = lean(kind, 51864).task(DecodingOptions(language="en", fp16=False))
    with pytest.raises(EngineError, match="is not a number"):
        task.run(heard)


def test_tiny_has_100_decoder_tensors_and_167_in_all() -> None:
    tiny = DIMENSIONS["tiny"]
    assert len(decoder_shapes(tiny)) == 100
    assert len(decoder_shapes(tiny)) + len(encoder_shapes(tiny)) == 167


def test_a_decoder_tensor_that_does_not_fit_is_named() -> None:
    mini = DIMENSIONS["mini"]
    state = random_state(mini)
    del state["decoder.blocks.0.cross_attn.key.weight"]
    with pytest.raises(CheckpointError, match=r"cross_attn\.key\.weight is missing"):
        decoder_weights(state, mini)


def test_weights_are_never_rounded() -> None:
    mini = DIMENSIONS["mini"]
    state = random_state(mini)
    assert matrix_dtype(Checkpoint("float32", mini, state)) == DType.float32
    state = {key: tensor.half().float() for key, tensor in state.items()}
    assert matrix_dtype(Checkpoint("float16", mini, state)) == DType.float16
    state["decoder.blocks.0.mlp.0.weight"][0, 0] = 1 / 3
    assert matrix_dtype(Checkpoint("all but one", mini, state)) == DType.float32


STATM = Path("/proc/self/statm")


@pytest.mark.skipif(not STATM.exists(), reason="only Linux tells what is resident now")
@pytest.mark.parametrize("beam_size", [None, 3])
def test_memory_is_flat_over_100_windows(beam_size: int | None) -> None:
    """Resident now, not at the peak, after whole windows through the token loop."""
    model = lean("max_full", 51864)
    options = DecodingOptions(language="en", fp16=False, beam_size=beam_size, sample_len=12)

    def window(seed: int) -> None:
        model.task(options).run(torch.from_numpy(features(NANO_SIZE, seed))[None])

    def resident() -> int:
        give_back()
        return int(STATM.read_text().split()[1]) * resource.getpagesize()

    for seed in range(20):
        window(seed)
    before = resident()
    for seed in range(100):
        window(seed)
    grown = resident() - before
    # Keys and values of one window of this size are 4.6 MB: leaking them would be 460 MB.
    assert grown < 50_000_000, f"{grown / 1e6:.0f} MB more after 100 windows"
