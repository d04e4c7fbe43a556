"""The MAX decoder and the fast token loop against whisper's: logits, caches, beams, tokens."""

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
from torch import nn
from whisper.decoding import DecodingOptions, DecodingResult, DecodingTask
from whisper.model import ModelDimensions, TextDecoder, Whisper, disable_sdpa
from whisper.tokenizer import get_tokenizer

from engines.analysis.layers import relative_error
from engines.base import CheckpointError, EngineError
from engines.checkpoints import Checkpoint
from engines.checkpoints.content import decoder_shapes, encoder_shapes
from engines.hardware import give_back
from engines.max_graph.decoder import Decoder
from engines.max_graph.weights import decoder_weights, matrix_dtype
from engines.max_whisper import (
    DecoderModule,
    HybridWhisper,
    MaxWhisper,
    load_max_decoder,
)
from engines.token_selection import FastDecodingTask
from engines.transcription import TimedWhisper
from tests.engines.checkpoint_files import DIMENSIONS, random_state

pytestmark = pytest.mark.max

RELATIVE_ERROR = 3e-6
"""Bound on a row of logits against float64: float32 rounds by 6e-8, and a row is the sum of some
hundred products of sums of some hundred. Measured: 1e-7 to 7e-7."""

MINI = DIMENSIONS["mini"]
NARROW = ModelDimensions(80, 1500, 192, 3, 2, 51864, 448, 192, 3, 2)
"""Fast, and deep enough that layers, heads and panels are all told apart."""

ODD = {  # no multiple of a vector's or a panel's width but for the heads' 64
    "one head": ModelDimensions(80, 37, 64, 1, 1, 1009, 45, 64, 1, 1),
    "two layers": ModelDimensions(80, 101, 128, 2, 1, 517, 67, 128, 2, 2),
    "three heads": ModelDimensions(80, 33, 192, 3, 1, 131, 31, 192, 3, 3),
}


def checkpoint(dims: ModelDimensions, half: bool = True) -> Checkpoint:
    """Random weights, exactly representable in float16 as OpenAI's are unless `half` is false.

    Scaled embeddings give logits of the size that trained models have.
    """
    state = random_state(dims)
    state["decoder.token_embedding.weight"] *= 0.1
    if half:
        state = {key: t.half().float() if t.ndim >= 2 else t for key, t in state.items()}
    return Checkpoint("random", dims, state)


def make_features(dims: ModelDimensions, seed: int = 0) -> np.ndarray:
    shape = (dims.n_audio_ctx, dims.n_audio_state)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_tokens(dims: ModelDimensions, *shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, dims.n_vocab, shape)


@cache
def exact_decoder(sizes: tuple[int, ...], half: bool = True) -> TextDecoder:
    """Whisper's decoder in float64, its layer norms included."""
    decoder = checkpoint(ModelDimensions(*sizes), half).build(Whisper).decoder.double()
    for module in decoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.__class__ = nn.LayerNorm
    return decoder


def exact_logits(
    dims: ModelDimensions, tokens: np.ndarray, features: np.ndarray, half: bool = True
) -> np.ndarray:
    """Logits `(batch, tokens, n_vocab)` in float64."""
    decoder = exact_decoder(tuple(vars(dims).values()), half)
    with torch.inference_mode():
        audio = torch.from_numpy(features).double()[None].expand(len(tokens), -1, -1)
        x = decoder.token_embedding(torch.from_numpy(tokens))
        x = x + decoder.positional_embedding[: tokens.shape[1]]
        for block in decoder.blocks:
            x = block(x, audio, mask=decoder.mask)
        logits = decoder.ln(x) @ decoder.token_embedding.weight.T
    assert logits.dtype == torch.float64
    exact: np.ndarray = logits.numpy()
    return exact


@pytest.fixture(scope="module")
def narrow() -> Decoder:
    """Where the engine would run it: on the accelerator, if there is one."""
    return load_max_decoder(checkpoint(NARROW))[0]


@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("half", [True, False], ids=["float16 weights", "float32 weights"])
def test_every_batch_agrees_with_float64(size: str, half: bool) -> None:
    dims, prompt = ODD[size], 13
    random = checkpoint(dims, half)
    assert matrix_dtype(random) == (DType.float16 if half else DType.float32)
    decoder, _ = load_max_decoder(random, on_cpu=True)
    features = make_features(dims)
    cross = decoder.compute_cross_kv(features)
    for batch in range(1, 9):
        tokens = random_tokens(dims, batch, dims.n_text_ctx)
        exact = exact_logits(dims, tokens, features, half)
        kept, rows = decoder.new_cache(batch), np.arange(batch * prompt)
        logits, _, _ = decoder.step(tokens[:, :prompt], cross, kept, rows)
        expected = exact[:, :prompt].reshape(len(rows), -1)
        assert relative_error(logits, expected) < RELATIVE_ERROR
        for place in range(prompt, dims.n_text_ctx):
            new = tokens[:, place : place + 1]
            logits, top, _ = decoder.step(new, cross, kept, np.arange(batch))
            assert relative_error(logits, exact[:, place]) < RELATIVE_ERROR
            assert (top[:, 0] == logits.argmax(-1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "base", "small"])
def test_official_sizes_agree_with_float64(size: str) -> None:
    dims = DIMENSIONS[size]
    decoder, _ = load_max_decoder(checkpoint(dims))
    features, tokens = make_features(dims), random_tokens(dims, 1, 20)
    logits, _, _ = decoder.step(
        tokens, decoder.compute_cross_kv(features), decoder.new_cache(1), np.arange(20)
    )
    assert relative_error(logits, exact_logits(dims, tokens, features)[0]) < RELATIVE_ERROR


def test_a_window_holds_448_positions_and_tokens_of_its_vocabulary(narrow: Decoder) -> None:
    features, tokens = make_features(NARROW), random_tokens(NARROW, 1, 448)
    cross, kept = narrow.compute_cross_kv(features), narrow.new_cache(1)
    narrow.step(tokens[:, :447], cross, kept, np.array([0]))
    last, _, _ = narrow.step(tokens[:, 447:], cross, kept, np.array([0]))
    assert kept.length == 448
    expected = exact_logits(NARROW, tokens, features)[0, -1]
    assert relative_error(last[0], expected) < RELATIVE_ERROR
    with pytest.raises(ValueError, match="no position is left of 448 for 1 tokens"):
        narrow.step(tokens[:, :1], cross, kept, np.array([0]))
    for token in (-1, 51864):
        with pytest.raises(ValueError, match="tokens are 0 to 51863"):
            narrow.step(np.array([[token]]), cross, narrow.new_cache(1), np.array([0]))


@pytest.mark.parametrize("beams", [2, 8])
def test_beams_continue_what_they_are_told_to(narrow: Decoder, beams: int) -> None:
    features, tokens = make_features(NARROW), random_tokens(NARROW, beams, 40)
    cross, kept = narrow.compute_cross_kv(features), narrow.new_cache(beams)
    narrow.step(tokens[:, :35], cross, kept, np.array([0]))
    order = [beams - 1, *([0] * (beams - 1))]
    kept.reorder_beams(kept, order)
    logits, _, _ = narrow.step(tokens[:, 35:36], cross, kept, np.arange(beams))
    continued = np.concatenate([tokens[order, :35], tokens[:, 35:36]], axis=1)
    expected = exact_logits(NARROW, continued, features)[:, -1]
    assert relative_error(logits, expected) < RELATIVE_ERROR


def test_alignment_scores_agree(narrow: Decoder) -> None:
    features, tokens = make_features(NARROW), random_tokens(NARROW, 1, 9)
    found: dict[str, list[torch.Tensor]] = {}
    plain = checkpoint(NARROW).build(Whisper).decoder
    for name, module in (("torch", plain), ("max", DecoderModule(narrow))):
        scores = found[name] = []

        def keep(_: object, inputs: object, outputs: Any, into: list = scores) -> None:
            into.append(outputs[-1][0])

        for block in module.blocks:
            block.get_submodule("cross_attn").register_forward_hook(keep)
        with torch.inference_mode(), disable_sdpa():
            module(torch.from_numpy(tokens), torch.from_numpy(features)[None])
    for expected, scored in zip(found["torch"], found["max"], strict=True):
        assert relative_error(scored.numpy(), expected.numpy()) < 1e-5, "both are in float32"


# The fast loop against whisper's own over PyTorch.

OPTIONS: dict[str, dict[str, Any]] = {
    "timestamps": {"sample_len": 224},
    "without timestamps": {"without_timestamps": True},
    "beam": {"beam_size": 5},
    "beam with patience": {"beam_size": 3, "patience": 2.0},
    "beam with length penalty": {"beam_size": 2, "length_penalty": 0.6},
    "prompt": {"prompt": "A prompt from the window before."},
    "nothing suppressed": {"suppress_tokens": "", "suppress_blank": False},
    "any initial timestamp": {"max_initial_timestamp": None},
    "short": {"sample_len": 3},
    "sampling": {"temperature": 0.6, "prompt": "The window before."},
    "sampling, best of 3": {"temperature": 0.6, "best_of": 3},
}
"""Up to 60 tokens, but for one window that is filled."""

KINDS = ["max_hybrid", "max_full"]


def with_vocabulary(vocabulary: int) -> ModelDimensions:
    """Dimensions with the vocabulary, and the mels, of another checkpoint."""
    return replace(NARROW, n_vocab=vocabulary, n_mels=128 if vocabulary == 51866 else 80)


@cache
def fast_model(kind: str, vocabulary: int) -> TimedWhisper:
    """The model as a MAX engine has it, for features that were encoded before."""
    random = checkpoint(with_vocabulary(vocabulary))
    if kind == "max_hybrid":
        return random.build(HybridWhisper)
    fast = random.build(MaxWhisper)
    fast.decoder = DecoderModule(load_max_decoder(random)[0])
    return fast


def make_options(prompt: str | tuple[int, ...] | None = None, **options: Any) -> DecodingOptions:
    text = list(prompt) if isinstance(prompt, tuple) else prompt
    return DecodingOptions(fp16=False, prompt=text, **options)


@cache
def whisper_model(vocabulary: int) -> Whisper:
    return checkpoint(with_vocabulary(vocabulary)).build(Whisper)


@cache
def whisper_s_result(vocabulary: int, seed: int, **options: Any) -> DecodingResult:
    """What whisper's own loop over PyTorch writes."""
    dims = with_vocabulary(vocabulary)
    features, model = torch.from_numpy(make_features(dims, seed))[None], whisper_model(vocabulary)
    torch.manual_seed(0)
    return DecodingTask(model, make_options(**options)).run(features)[0]


def assert_agree(kind: str, seed: int, vocabulary: int = 51864, **options: Any) -> None:
    """Tokens agree with whisper's, and so does what fallback decides by."""
    expected = whisper_s_result(vocabulary, seed, **options)
    features = torch.from_numpy(make_features(with_vocabulary(vocabulary), seed))[None]
    model = fast_model(kind, vocabulary)
    torch.manual_seed(0)
    task = model.decoding_task(make_options(**options))
    assert isinstance(task, FastDecodingTask)
    found = task.run(features)[0]
    assert found.language == expected.language
    assert found.tokens == expected.tokens
    assert found.avg_logprob == pytest.approx(expected.avg_logprob, rel=1e-4)
    assert found.no_speech_prob == pytest.approx(expected.no_speech_prob, rel=1e-3)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_loop_agrees_with_whisper_s(kind: str, options: str) -> None:
    assert_agree(kind, 1, language="en", **{"sample_len": 60, **OPTIONS[options]})


@pytest.mark.parametrize(("vocabulary", "beam_size"), [(51865, None), (51866, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_multilingual_windows_agree(kind: str, vocabulary: int, beam_size: int | None) -> None:
    """The language detected, three tokens at the start, and a window that fills all 448 positions
    after the longest prompt."""
    eot = get_tokenizer(True, num_languages=vocabulary - 51766).eot
    prompt = tuple((7 * i) % 50_000 for i in range(223))
    assert_agree(
        kind, 5, vocabulary, prompt=prompt, beam_size=beam_size, suppress_tokens=f"-1,{eot}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "base", "small"])
def test_greedy_tokens_of_official_sizes_agree_over_a_full_window(size: str) -> None:
    random = checkpoint(DIMENSIONS[size])
    fast = random.build(MaxWhisper)
    fast.decoder = DecoderModule(load_max_decoder(random)[0])
    features = torch.from_numpy(make_features(DIMENSIONS[size], 3))[None]
    options = DecodingOptions(language="en", fp16=False, suppress_tokens=f"-1,{50256}")
    expected = DecodingTask(random.build(Whisper), options).run(features)[0].tokens
    assert len(expected) == 224
    assert FastDecodingTask(fast, options).run(features)[0].tokens == expected


@pytest.mark.parametrize("kind", KINDS)
def test_logits_that_are_no_numbers_are_refused_in_a_sentence(kind: str) -> None:
    features = torch.full((1, 1500, 192), torch.nan)
    task = fast_model(kind, 51864).decoding_task(DecodingOptions(language="en", fp16=False))
    with pytest.raises(EngineError, match="is not a number"):
        task.run(features)


# Weights and memory.


def test_decoder_tensors_are_counted_and_a_missing_one_is_named() -> None:
    tiny = DIMENSIONS["tiny"]
    assert len(decoder_shapes(tiny)) == 100
    assert len(decoder_shapes(tiny)) + len(encoder_shapes(tiny)) == 167
    state = random_state(MINI)
    del state["decoder.blocks.0.cross_attn.key.weight"]
    with pytest.raises(CheckpointError, match=r"cross_attn\.key\.weight is missing"):
        decoder_weights(state, MINI)


def test_weights_are_never_rounded() -> None:
    state = random_state(MINI)
    assert matrix_dtype(Checkpoint("float32", MINI, state)) == DType.float32
    state = {key: tensor.half().float() for key, tensor in state.items()}
    assert matrix_dtype(Checkpoint("float16", MINI, state)) == DType.float16
    state["decoder.blocks.0.mlp.0.weight"][0, 0] = 1 / 3
    assert matrix_dtype(Checkpoint("all but one", MINI, state)) == DType.float32


STATM = Path("/proc/self/statm")


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="only Linux tells what is resident now")
@pytest.mark.parametrize("beam_size", [None, 3])
def test_memory_is_flat_over_100_windows(beam_size: int | None) -> None:
    """Resident now, not at the peak, after whole windows through the token loop."""
    model = fast_model("max_full", 51864)
    options = DecodingOptions(language="en", fp16=False, beam_size=beam_size, sample_len=12)

    def resident() -> int:
        give_back()
        return int(STATM.read_text().split()[1]) * resource.getpagesize()

    before = 0
    for seed in range(120):
        if seed == 20:
            before = resident()
        model.decoding_task(options).run(torch.from_numpy(make_features(NARROW, seed))[None])
    grown = resident() - before
    # Keys and values of one window of this size are 4.6 MB: leaking them would be 460 MB.
    assert grown < 50_000_000, f"{grown / 1e6:.0f} MB more after 100 windows"
