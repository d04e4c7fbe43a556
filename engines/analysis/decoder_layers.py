"""Compare decoders after every stage of one window's tokens.

Every decoder reads the same: the features of PyTorch's encoder in float32, and the tokens that
PyTorch writes for the window at temperature 0, without the text before it. All tokens go in at
once: row `i` of a stage is what a decoder computes at token `i`.

Stages in order of depth: `embedding` (of tokens and their positions), then of each block `n`
`blocks.n.self_keys` and `.self_values` (its cache), `.self_attention`, `.cross_keys` and
`.cross_values` (the audio's cache), `.cross_attention` and `.mlp`, and last `ln` and `logits`. Keys
and values are those of all heads side by side; the three others of a block are the residual stream
after that part. Cross-attention's caches are `(n_audio_ctx, n_state)`, all else `(tokens, n_state)`
but the logits, `(tokens, n_vocab)`.

Reference and bound are those of `engines.analysis.layers`. Measured on `jfk`, MAX against PyTorch,
the worst stage of each: 2.5 on tiny.en (`blocks.0.cross_attention`), 5.5 on base (`blocks.2.mlp`,
in one outlier unit of a token of the prompt).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from whisper.audio import HOP_LENGTH, N_FRAMES, SAMPLE_RATE
from whisper.decoding import DecodingOptions, decode
from whisper.model import TextDecoder, Whisper
from whisper.timing import find_alignment
from whisper.tokenizer import Tokenizer, get_tokenizer

from engines.analysis.divergence import TIMESTAMP_SECONDS
from engines.analysis.layers import (
    Rows,
    compare_stages,
    cut_window,
    describe_max,
    open_halves,
    open_torch,
    to_float64,
)
from engines.analysis.records import DecoderInput, Half, Inspection, LayerComparison
from engines.base import SILENT, Clip, FloatArray, Listener, Stages
from engines.checkpoints import Checkpoint

if TYPE_CHECKING:
    from engines.max_graph.decoder import Trace


@torch.inference_mode()
def torch_stages(decoder: TextDecoder, given: DecoderInput, dtype: torch.dtype) -> Stages:
    """Yield every stage of `whisper.model.TextDecoder.forward` (20250625).

    Outputs are float32 on the host, float64 where `dtype` is.
    """
    kept = torch.float64 if dtype == torch.float64 else torch.float32

    def on_host(x: torch.Tensor) -> np.ndarray:
        host: np.ndarray = x[0].to(kept).cpu().numpy()
        return host

    device = decoder.positional_embedding.device
    tokens = torch.tensor([given.tokens], device=device)
    audio = torch.from_numpy(given.features)[None].to(device, dtype)  # (1, n_audio_ctx, n_state)
    x = decoder.token_embedding(tokens) + decoder.positional_embedding[: len(given.tokens)]
    x = x.to(dtype)  # (1, tokens, n_state)
    yield "embedding", on_host(x)
    for layer, block in enumerate(decoder.blocks):
        normed = block.attn_ln(x)
        yield f"blocks.{layer}.self_keys", on_host(block.attn.key(normed))
        yield f"blocks.{layer}.self_values", on_host(block.attn.value(normed))
        x = x + block.attn(normed, mask=decoder.mask)[0]
        yield f"blocks.{layer}.self_attention", on_host(x)
        yield f"blocks.{layer}.cross_keys", on_host(block.cross_attn.key(audio))
        yield f"blocks.{layer}.cross_values", on_host(block.cross_attn.value(audio))
        x = x + block.cross_attn(block.cross_attn_ln(x), audio)[0]
        yield f"blocks.{layer}.cross_attention", on_host(x)
        x = x + block.mlp(block.mlp_ln(x))
        yield f"blocks.{layer}.mlp", on_host(x)
    x = decoder.ln(x)
    yield "ln", on_host(x)
    yield "logits", on_host(x @ decoder.token_embedding.weight.to(dtype).T)


open_torch_cpu = partial(open_torch, device="cpu", half="decoder", stages=torch_stages)
open_torch_gpu = partial(open_torch, device="cuda", half="decoder", stages=torch_stages)


def open_max(
    checkpoint: Checkpoint,
    dtype: str | None = None,
    listener: Listener = SILENT,
    change: Callable[[Checkpoint], Checkpoint] = lambda checkpoint: checkpoint,
) -> Half:
    """Open MAX's decoder where the engines run it; `dtype` of its weights, else the engines' own.

    `change` is applied to the checkpoint first. Raises `EngineUnavailable` for a type that the
    graphs lack there.
    """
    from max.dtype import DType

    from engines.max_whisper import load_max_decoder

    half = describe_max("decoder", checkpoint, dtype)
    decoder, _ = load_max_decoder(change(checkpoint), listener, weight=DType[half.name])

    def stages(given: DecoderInput) -> Stages:
        return list_stages(decoder.trace(np.array([given.tokens], np.int64), given.features))

    return replace(half, stages=stages)


def list_stages(trace: Trace) -> Stages:
    """Yield every stage of what MAX's decoder computed."""
    yield "embedding", trace.states[0]
    for layer in range(len(trace.own[0])):
        attention, cross, mlp = trace.states[1 + 3 * layer : 4 + 3 * layer]
        yield f"blocks.{layer}.self_keys", trace.own[0][layer]
        yield f"blocks.{layer}.self_values", trace.own[1][layer]
        yield f"blocks.{layer}.self_attention", attention
        yield f"blocks.{layer}.cross_keys", trace.cross[0][layer]
        yield f"blocks.{layer}.cross_values", trace.cross[1][layer]
        yield f"blocks.{layer}.cross_attention", cross
        yield f"blocks.{layer}.mlp", mlp
    yield "ln", trace.hidden
    yield "logits", trace.logits


def compare_decoders(inspection: Inspection, clip: Clip, listener: Listener) -> LayerComparison:
    """Open decoders and compare them, as `records.compare_halves` does."""
    checkpoint, opened = open_halves(inspection, listener)
    start = inspection.start
    listener.report("comparing", 0.0, 1.0, "writing the window's text")
    mel = cut_window(clip, checkpoint.dims.n_mels, start)
    plain = checkpoint.build(Whisper)
    decoder_input, tokens = write_window(plain, mel, inspection.language, clip.seconds - start)
    rows = Rows(start, tokens)
    return compare_open(opened, checkpoint, decoder_input, rows, clip.name, listener)


def compare_open(
    opened: Sequence[Half],
    checkpoint: Checkpoint,
    given: DecoderInput,
    rows: Rows,
    clip: str,
    listener: Listener = SILENT,
) -> LayerComparison:
    """Run open decoders in step, as `layers.compare_stages` does."""
    exact = to_float64(checkpoint.build(Whisper)).decoder
    references = (
        torch_stages(exact, given, torch.float64),
        torch_stages(checkpoint.build(Whisper).decoder, given, torch.float32),
    )
    text = "".join(text for text, _ in rows.tokens)
    about = LayerComparison(checkpoint.name, clip, rows.start, tuple(opened), (), "decoder", text)
    total = 3 + 7 * checkpoint.dims.n_text_layer
    return compare_stages(about, given, references, rows, total, listener)


def write_window(
    model: Whisper, mel: FloatArray, language: str | None, seconds: float
) -> tuple[DecoderInput, tuple[tuple[str, float | None], ...]]:
    """Return a window's features and tokens, and each token's text and time from its start.

    `seconds`: how much of the window is sound.
    """
    language = language if model.is_multilingual else "en"
    options = DecodingOptions(language=language, temperature=0.0, fp16=False)
    decoded = decode(model, torch.from_numpy(mel), options)
    tokenizer = get_tokenizer(
        model.is_multilingual, num_languages=model.num_languages, language=decoded.language
    )
    tokens = (*tokenizer.sot_sequence, *decoded.tokens)
    times = find_times(model, mel, tokenizer, decoded.tokens, seconds)
    texts = [tokenizer.decode_with_timestamps([token]) for token in tokens]
    none = [None] * len(tokenizer.sot_sequence)
    features: FloatArray = decoded.audio_features.float().cpu().numpy()
    return DecoderInput(features, tokens), tuple(zip(texts, [*none, *times], strict=True))


def find_times(
    model: Whisper, mel: FloatArray, tokenizer: Tokenizer, tokens: Sequence[int], seconds: float
) -> list[float | None]:
    """Return when each token is said: a word's by whisper's alignment, a timestamp's its own."""
    begin = tokenizer.timestamp_begin
    text = [token for token in tokens if token < tokenizer.eot]
    frames = min(round(seconds * SAMPLE_RATE / HOP_LENGTH), N_FRAMES)
    words = []
    if text and frames >= 2:
        words = find_alignment(model, tokenizer, text, torch.from_numpy(mel), frames)
    said = iter([float(word.start) for word in words for _ in word.tokens])
    return [
        (token - begin) * TIMESTAMP_SECONDS if token >= begin else next(said, None)
        for token in tokens
    ]
