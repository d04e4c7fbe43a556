"""The MAX decoder and the fast token loop against whisper's: logits, caches, beams, tokens."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("max.engine")

from torch import nn
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.model import ModelDimensions, TextDecoder, Whisper
from whisper.tokenizer import get_tokenizer

from engines.analysis import decoder_layers
from engines.analysis.layers import Rows, relative_error
from engines.analysis.records import DecoderInput
from engines.base import EngineError
from engines.checkpoints import Checkpoint
from engines.graph_whisper import DecoderModule, GraphWhisper
from engines.max_graph.cpu_decoder import CpuDecoder, pack_draft
from engines.max_graph.decoder import Decoder
from engines.max_whisper import HybridWhisper, load_max_decoder
from engines.token_selection import FastDecodingTask, Step, TokenConstraints, select_top_k
from engines.transcription import TimedWhisper
from tests.engines.checkpoint_files import random_state

pytestmark = pytest.mark.max

RELATIVE_ERROR = 3e-6
"""Bound on a row of logits against float64: float32 rounds by 6e-8, and a row is the sum of some
hundred products of sums of some hundred. Measured: 1e-7 to 7e-7."""

SIZES = {
    # Fast, and deep enough that layers, heads and panels are all told apart.
    "narrow": ModelDimensions(80, 1500, 192, 3, 2, 51864, 448, 192, 3, 2),
    "100 languages": ModelDimensions(128, 1500, 192, 3, 2, 51866, 448, 192, 3, 2),
    # No multiple of a vector's or a panel's width but for the heads' 64.
    "one head": ModelDimensions(80, 37, 64, 1, 1, 1009, 45, 64, 1, 1),
    "two layers": ModelDimensions(80, 101, 128, 2, 1, 517, 67, 128, 2, 2),
    "three heads": ModelDimensions(80, 33, 192, 3, 1, 131, 31, 192, 3, 3),
}
NARROW = SIZES["narrow"]


@cache
def checkpoint(size: str = "narrow", half: bool = True) -> Checkpoint:
    """Random weights, exactly representable in float16 as OpenAI's are unless `half` is false.

    Scaled embeddings give logits of the size that trained models have.
    """
    state = random_state(SIZES[size])
    state["decoder.token_embedding.weight"] *= 0.1
    if half:
        state = {key: t.half().float() if t.ndim >= 2 else t for key, t in state.items()}
    return Checkpoint(size, SIZES[size], state)


def make_features(dims: ModelDimensions, seed: int = 0) -> np.ndarray:
    shape = (dims.n_audio_ctx, dims.n_audio_state)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_tokens(dims: ModelDimensions, *shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, dims.n_vocab, shape)


@cache
def exact_decoder(size: str, half: bool) -> TextDecoder:
    """Whisper's decoder in float64, its layer norms included."""
    decoder = checkpoint(size, half).build(Whisper).decoder.double()
    for module in decoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.__class__ = nn.LayerNorm
    return decoder


def exact_logits(
    tokens: np.ndarray, features: np.ndarray, size: str = "narrow", half: bool = True
) -> np.ndarray:
    """Logits `(batch, tokens, n_vocab)`, computed in float64 and rounded at the end."""
    audio = torch.from_numpy(features).double()[None].expand(len(tokens), -1, -1)
    with torch.inference_mode():
        return exact_decoder(size, half)(torch.from_numpy(tokens), audio).numpy()


def step(
    decoder: Decoder, tokens: np.ndarray, cross: Any, cache: Any, rows: Any = None, k: int = 1
) -> Step:
    """Decode the given rows, or all, with every token allowed."""
    rows = np.arange(tokens.size) if rows is None else np.array(rows)
    n_vocab = decoder.dims.n_vocab
    constraints = TokenConstraints(np.zeros(n_vocab, np.float32), False)
    ranges = np.tile(np.array([0, 0, 0, n_vocab]), (len(rows), 1))
    return decoder.step(tokens, cross, cache, rows, constraints, ranges, k)


@pytest.mark.parametrize("size", ["one head", "two layers", "three heads"])
@pytest.mark.parametrize(
    "half",
    [
        pytest.param(True, id="float16 weights"),
        pytest.param(False, id="float32 weights", marks=pytest.mark.slow),  # compiles for a minute
    ],
)
def test_every_batch_agrees_with_float64(size: str, half: bool) -> None:
    dims, prompt = SIZES[size], 13
    decoder, _ = load_max_decoder(checkpoint(size, half), on_cpu=True)
    features = make_features(dims)
    cross = decoder.compute_cross_kv(features)
    for batch in range(1, 9):
        tokens = random_tokens(dims, batch, dims.n_text_ctx)
        exact = exact_logits(tokens, features, size, half)
        kept = decoder.new_cache(batch)
        logits, _, _ = step(decoder, tokens[:, :prompt], cross, kept)
        expected = exact[:, :prompt].reshape(batch * prompt, -1)
        assert relative_error(logits, expected) < RELATIVE_ERROR
        for place in range(prompt, dims.n_text_ctx):
            logits, top, _ = step(decoder, tokens[:, place : place + 1], cross, kept)
            assert relative_error(logits, exact[:, place]) < RELATIVE_ERROR
            assert (top[:, 0] == logits.argmax(-1)).all()


@pytest.mark.parametrize("name", ["", "attn.value", "cross_attn.key", "mlp.2"])
def test_the_inspection_finds_a_fault_of_one_percent_where_it_is(name: str) -> None:
    """In the second of two layers; without a fault every stage is within the bound."""
    stage = {"attn.value": "self_values", "cross_attn.key": "cross_keys", "mlp.2": "mlp"}.get(name)

    def change(sound: Checkpoint) -> Checkpoint:
        key = f"decoder.blocks.1.{name}.weight"
        return replace(sound, state={**sound.state, key: 1.01 * sound.state[key]})

    opened = decoder_layers.open_max(checkpoint(), "float16", change=change if name else same)
    given = DecoderInput(make_features(NARROW), tuple(range(400, 440)))
    found = decoder_layers.compare_open([opened], checkpoint(), given, Rows(), "noise")
    assert found.first_past(opened.name) == (f"blocks.1.{stage}" if stage else None)


def same(sound: Checkpoint) -> Checkpoint:
    return sound


def test_positions_and_tokens_that_the_kernels_lack_are_refused() -> None:
    decoder, _ = load_max_decoder(checkpoint())
    cross, kept = decoder.compute_cross_kv(make_features(NARROW)), decoder.new_cache(1)
    step(decoder, random_tokens(NARROW, 1, 448), cross, kept, [0])
    with pytest.raises(ValueError, match="no position is left of 448 for 1 tokens"):
        step(decoder, np.array([[0]]), cross, kept)
    for token in (-1, 51864):
        with pytest.raises(ValueError, match="tokens are 0 to 51863"):
            step(decoder, np.array([[token]]), cross, decoder.new_cache(1))


@pytest.mark.parametrize("size", ["two layers", "one head", "three heads"])
def test_a_draft_is_a_step_of_rounded_weights(size: str) -> None:
    """The audio's keys and values are their biases, which a draft's bytes can hold."""
    found = checkpoint(size)
    state = dict(found.state)
    for key, tensor in found.state.items():
        if "cross_attn.key.weight" in key or "cross_attn.value.weight" in key:
            state[key] = torch.zeros_like(tensor)
        elif "cross_attn.value.bias" in key:
            state[key] = tensor.to(torch.float8_e5m2).float()
    rounded = {
        key: unpack(pack_draft(tensor.numpy(), 8), 8)[: len(tensor)]
        if "blocks" in key and tensor.ndim == 2
        else tensor
        for key, tensor in state.items()
        if key.startswith("decoder")
    }
    decoder, _ = load_max_decoder(replace(found, state=state), on_cpu=True)
    expected, _ = load_max_decoder(replace(found, state=state | rounded), on_cpu=True)
    assert isinstance(decoder, CpuDecoder)
    features, n_vocab = make_features(found.dims), found.dims.n_vocab
    tokens = random_tokens(found.dims, found.dims.n_text_ctx)
    trace = expected.trace(tokens[None], features)
    embedding = state["decoder.token_embedding.weight"].numpy()
    logits = torch.from_numpy(trace.hidden) @ unpack(pack_draft(embedding, 4), 4)[:n_vocab].T
    exact = torch.from_numpy(trace.logits).gather(1, best := logits.topk(16).indices)
    logprobs = logits.scatter(1, best, exact).log_softmax(1)
    cross, cache = decoder.compute_cross_kv(features), decoder.new_cache(1)
    every = TokenConstraints(np.zeros(n_vocab, np.float32), False), np.array([[0, 0, 0, n_vocab]])
    for token, row in zip(tokens.tolist(), logprobs, strict=True):
        guess, logprob = decoder.draft(token, cross, cache, *every, 1)
        assert guess == row.argmax()
        assert logprob == pytest.approx(row.max().item(), abs=1e-5)
    assert cache.length == len(tokens)


def unpack(packed: np.ndarray, bits: int) -> torch.Tensor:
    """Return what `pack_draft` packed as a matrix `(n_out, depth)`, its padding included."""
    scales = np.ascontiguousarray(packed[:, -4:]).view(np.float32).reshape(len(packed), 1, -1)
    body = packed[:, :-4]  # (panels, depth * bits / 8, PANEL)
    if bits == 8:
        values = body.view(np.int8).astype(np.float32)
    else:
        halves = np.stack([body & 15, body >> 4], 2)
        values = halves.reshape(len(body), -1, body.shape[2]).astype(np.float32) - 8
    matrix = (values * scales).transpose(0, 2, 1)
    return torch.from_numpy(matrix.reshape(-1, matrix.shape[-1]))


# The fast loop against whisper's own over PyTorch.

OPTIONS: dict[str, dict[str, Any]] = {
    "timestamps": {"prompt": "A prompt from the window before."},
    "without timestamps": {"without_timestamps": True, "sample_len": 3},
    "beam": {"beam_size": 5},
    "beam with penalties": {"beam_size": 3, "patience": 2.0, "length_penalty": 0.6},
    "all allowed": {"suppress_tokens": "", "suppress_blank": False, "max_initial_timestamp": None},
    "sampling": {"temperature": 0.6, "best_of": 3, "prompt": "The window before."},
}
"""Up to 60 tokens; `test_a_multilingual_window_agrees` fills a window."""

KINDS = ["max_hybrid", "max_full"]


@cache
def fast_model(kind: str, size: str = "narrow") -> TimedWhisper:
    """The model as a MAX engine has it, for features that were encoded before."""
    if kind == "max_hybrid":
        return checkpoint(size).build(HybridWhisper)
    fast = checkpoint(size).build(GraphWhisper)
    fast.decoder = DecoderModule(load_max_decoder(checkpoint(size))[0])
    return fast


def assert_agree(options: DecodingOptions, seed: int, size: str = "narrow") -> None:
    """Both engines' tokens agree with whisper's, and so does what fallback decides by."""
    features = torch.from_numpy(make_features(SIZES[size], seed))[None]
    task = DecodingTask(checkpoint(size).build(Whisper), options)
    torch.manual_seed(0)
    expected = task.run(features)[0]
    for kind in KINDS:
        task = fast_model(kind, size).decoding_task(options)
        torch.manual_seed(0)
        assert isinstance(task, FastDecodingTask)
        found = task.run(features)[0]
        assert (found.language, found.tokens) == (expected.language, expected.tokens), kind
        assert found.avg_logprob == pytest.approx(expected.avg_logprob, rel=1e-4)
        assert found.no_speech_prob == pytest.approx(expected.no_speech_prob, rel=1e-3)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_fast_loop_agrees_with_whisper_s(options: str) -> None:
    given = {"language": "en", "fp16": False, "sample_len": 60} | OPTIONS[options]
    assert_agree(DecodingOptions(**given), 1)


@pytest.mark.parametrize("right", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("timestamps", [True, False], ids=["timestamps", "text alone"])
def test_no_guess_changes_a_token(
    right: float, timestamps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right guesses save steps; wrong ones, the end and none at all cost nothing but time."""
    given = {"language": "en", "fp16": False, "without_timestamps": not timestamps}
    options = DecodingOptions(**given, sample_len=60)
    features = torch.from_numpy(make_features(NARROW, 1))[None]
    whisper_task = DecodingTask(checkpoint().build(Whisper), options)
    expected = whisper_task.run(features)[0]
    task = fast_model("max_full").decoding_task(options)
    assert isinstance(task, FastDecodingTask)
    decoder, rng = fast_model("max_full").decoder.graphs, np.random.default_rng(7)
    begin, steps = len(task.initial_tokens), []
    draft, step = decoder.draft, decoder.step

    def guess(token: int, cross: Any, cache: Any, *_: Any, **select: Any) -> tuple[int, float]:
        draft(token, cross, cache, **select)  # writes to the cache
        after = cache.length - begin
        if after < 60 and rng.random() < right:
            return expected.tokens[after], -0.1
        return int(rng.choice([-1, task.tokenizer.eot, rng.integers(50_000)])), -0.1

    def count(tokens: np.ndarray, *given: Any, **select: Any) -> Step:
        steps.append(tokens.shape[1])
        return step(tokens, *given, **select)

    monkeypatch.setattr(decoder, "draft", guess)
    monkeypatch.setattr(decoder, "step", count)
    found = task.run(features)[0]
    assert found.tokens == expected.tokens
    assert found.avg_logprob == pytest.approx(expected.avg_logprob, rel=1e-4)
    assert len(expected.tokens) == 60  # the prompt's step chooses the first
    assert len(steps) - 1 + task.drafted >= 59
    if right == 1:
        assert steps == [begin, *[12] * 5] and task.drafted == 55
    if right == 0:
        assert task.drafted == 0 and len(steps) == 60


@pytest.mark.slow
def test_a_multilingual_window_agrees() -> None:
    """The language detected, three tokens at the start, and a window that fills all 448 positions
    after the longest prompt."""
    eot = get_tokenizer(True, num_languages=100).eot
    prompt, suppressed = [(7 * i) % 50_000 for i in range(223)], f"-1,{eot}"
    options = DecodingOptions(fp16=False, prompt=prompt, suppress_tokens=suppressed)
    assert_agree(options, 5, "100 languages")


@pytest.mark.parametrize("on_host", [False, True], ids=["kernel", "host"])
def test_of_equals_the_lower_token_is_chosen_and_past_the_allowed_none(on_host: bool) -> None:
    """With embeddings of zeros every logit is 0."""
    found = checkpoint("two layers")
    state = found.state | {"decoder.token_embedding.weight": torch.zeros(517, 128)}
    decoder, _ = load_max_decoder(replace(found, state=state), on_cpu=True)
    cross = decoder.compute_cross_kv(make_features(found.dims))
    for ranges, expected in (
        ([0, 0, 0, 517], [0, 1, 2, 3]),
        ([80, 80, 81, 517], [81, 82, 83, 84]),
        ([80, 80, 515, 517], [515, 516, -1, -1]),
    ):
        constraints = TokenConstraints(np.zeros(517, np.float32), False)
        rows, allowed = np.array([0]), np.array([ranges])
        if on_host:
            logits = np.zeros((1, 517), np.float32)
            chosen, logprobs = select_top_k(logits, constraints, allowed, 4)
        else:
            kept = decoder.new_cache(1)
            asked = np.array([[1]]), cross, kept, rows, constraints, allowed, 4
            _, chosen, logprobs = decoder.step(*asked)
        assert chosen[0].tolist() == expected
        absent = np.array(expected) < 0
        assert (logprobs[0][absent] < -1e29).all() and (logprobs[0][~absent] > -7).all()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_that_are_no_numbers_are_refused_in_a_sentence(kind: str) -> None:
    features = torch.full((1, 1500, 192), torch.nan)
    task = fast_model(kind).decoding_task(DecodingOptions(language="en", fp16=False))
    with pytest.raises(EngineError, match="is not a number"):
        task.run(features)
