"""`max_full`: encoder and decoder in MAX, with a token loop that costs little beside them.

Everything around the loop is whisper's own: windows, prompts, fallback, language detection, word
timestamps. The loop itself takes whisper's filters apart into a mask and four numbers a row, so
that the graph that computes the logits can choose the tokens as well (`kernels/select.mojo`). Above
temperature 0, where a random generator decides, whisper's own loop runs over the same graphs.
"""

from __future__ import annotations

from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from whisper.decoding import (
    ApplyTimestampRules,
    BeamSearchDecoder,
    DecodingOptions,
    DecodingTask,
    Inference,
    SuppressBlank,
    SuppressTokens,
)

from engines import decoding
from engines.base import Dtype, EngineUnavailable, PrepareProgress
from engines.checkpoints import Checkpoint
from engines.decoding import ClockedWhisper
from engines.max_hybrid import EncoderModule, load_max_encoder, why_no_max, why_not_in
from engines.whisper_engine import WhisperEngine

if TYPE_CHECKING:
    from engines.max_graph.decoder import Decoder, IntArray, Rules


class MaxFullEngine(WhisperEngine):
    """Encoder and decoder in MAX, on the accelerator where there is one, else on the CPU."""

    key = "max_full"
    label = "MAX full"
    encoder = "MAX graph"
    decoder = "MAX graph"

    def build(
        self, checkpoint: Checkpoint, progress: PrepareProgress
    ) -> tuple[ClockedWhisper, float]:
        """A whisper model with both halves replaced; it holds no PyTorch weights."""
        encoder, encoder_seconds = load_max_encoder(checkpoint, progress, self.dtype)
        decoder, decoder_seconds = load_max_decoder(checkpoint, progress, self.dtype)
        model = checkpoint.build(MaxWhisper)
        model.encoder = EncoderModule(encoder)
        model.decoder = DecoderModule(decoder)
        return model, encoder_seconds + decoder_seconds


def load_max_decoder(
    checkpoint: Checkpoint,
    progress: PrepareProgress = lambda stage: None,
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
    models, op = session.load_decoder(dims, device, weight, progress)
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

    def start(self, prompt: IntArray, features: Tensor, beams: int, **select: Any) -> Any:
        """Run the prompt `(tokens,)` once for all beams; results of its `sot` and last rows."""
        self.audio = self.decoder.listen(features[0].numpy())
        first = self.decoder.new_cache(1)
        picked = np.array([self.sot_index, len(prompt) - 1], np.int64)
        results = self.decoder.step(prompt[None], self.audio, first, picked, **select)
        self.cache = first
        if beams > 1:
            self.cache = self.decoder.new_cache(beams)
            self.cache.take(first, [0] * beams)
        return results

    def advance(self, tokens: IntArray, **select: Any) -> Any:
        """Append one token to each beam; results of all of them."""
        assert self.audio is not None and self.cache is not None
        decoding.check_stop()
        rows = np.arange(len(tokens), dtype=np.int64)
        return self.decoder.step(tokens[:, None], self.audio, self.cache, rows, **select)

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """`(beams, tokens, n_vocab)`; of a prompt only the `sot` and last rows are filled."""
        if self.cache is not None:
            logits, _, _ = self.advance(tokens[:, -1].numpy())
            return torch.from_numpy(logits)[:, None]
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


class MaxDecodingTask(DecodingTask):
    """Whisper's decoding of one window; at temperature 0 the graph chooses the tokens."""

    def __init__(self, model: MaxWhisper, options: DecodingOptions) -> None:
        super().__init__(model, options)
        decoder: Decoder = model.decoder.max_decoder
        self.inference: MaxInference = MaxInference(decoder, self.sot_index)
        if isinstance(self.decoder, BeamSearchDecoder):
            self.decoder.inference = self.inference

    def _main_loop(
        self, audio_features: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, list[float]]:
        if self.options.temperature > 0:
            result: tuple[Tensor, Tensor, list[float]] = super()._main_loop(audio_features, tokens)
            return result
        try:
            return self._choose(audio_features, tokens[0].numpy())
        finally:
            self.inference.cleanup_caching()

    def _choose(self, features: Tensor, prompt: IntArray) -> tuple[Tensor, Tensor, list[float]]:
        """The loop at temperature 0; beams are tuples of tokens, the prompt included."""
        beams = [tuple(prompt.tolist())] * self.n_group
        sums = np.zeros(self.n_group, np.float32)
        no_speech = float("nan")
        for i in range(self.sample_len):
            select = self._select(beams, best=1 if self.n_group == 1 else self.n_group + 1)
            if i == 0:
                logits, chosen, logprobs = self._start(prompt, features, select)
                no_speech = _probability(logits[0], self.tokenizer.no_speech)
                chosen, logprobs = (np.repeat(a[1:], self.n_group, 0) for a in (chosen, logprobs))
            else:
                last = np.array([beam[-1] for beam in beams], np.int64)
                _, chosen, logprobs = self.inference.advance(last, **select)
            if self.n_group == 1:
                beams = [(*beams[0], int(chosen[0, 0]))]
                sums += logprobs[0, 0]
                completed = beams[0][-1] == self.tokenizer.eot
            else:
                beams, sums, completed = self._search(beams, sums, chosen, logprobs)
            if completed or len(beams[0]) > self.n_ctx:
                break
        return torch.tensor(beams), torch.from_numpy(sums), [no_speech] * self.n_group

    def _start(self, prompt: IntArray, features: Tensor, select: dict[str, Any]) -> Any:
        ranges = np.repeat(select["ranges"][:1], 2, 0)
        return self.inference.start(prompt, features, self.n_group, **{**select, "ranges": ranges})

    def _search(
        self,
        beams: list[tuple[int, ...]],
        sums: np.ndarray,
        chosen: IntArray,
        logprobs: np.ndarray,
    ) -> tuple[list[tuple[int, ...]], np.ndarray, bool]:
        """`BeamSearchDecoder.update` of one audio, given each beam's best tokens."""
        scores, sources = {}, {}
        for beam, (prefix, before) in enumerate(zip(beams, sums, strict=True)):
            for token, logprob in zip(chosen[beam].tolist(), logprobs[beam], strict=True):
                if token >= 0:
                    scores[(*prefix, token)] = float(before + logprob)
                    sources[(*prefix, token)] = beam
        ranked = sorted(scores, key=scores.__getitem__, reverse=True)
        going: list[tuple[int, ...]] = []
        ended: list[tuple[int, ...]] = []
        for sequence in ranked:
            (ended if sequence[-1] == self.tokenizer.eot else going).append(sequence)
            if len(going) == self.n_group:
                break
        self.inference.rearrange_kv_cache([sources[sequence] for sequence in going])
        if self.decoder.finished_sequences is None:
            self.decoder.finished_sequences = [{}]
        finished = self.decoder.finished_sequences[0]
        room = max(self.decoder.max_candidates - len(finished), 0)
        finished |= {sequence: scores[sequence] for sequence in ended[:room]}
        kept = np.array([scores[sequence] for sequence in going], np.float32)
        return going, kept, len(finished) >= self.decoder.max_candidates

    def _select(self, beams: list[tuple[int, ...]], best: int) -> dict[str, Any]:
        at_start = len(beams[0]) == self.sample_begin
        ranges = [self._ranges(beam[self.sample_begin :]) for beam in beams]
        return {
            "rules": self._first_rules if at_start else self._rules,
            "ranges": np.array(ranges, np.int64),
            "best": best,
        }

    @cached_property
    def _timestamp_rules(self) -> ApplyTimestampRules | None:
        rules = [f for f in self.logit_filters if isinstance(f, ApplyTimestampRules)]
        return rules[0] if rules else None

    @cached_property
    def _rules(self) -> Rules:
        """What is suppressed at every position."""
        return self._make_rules(at_start=False)

    @cached_property
    def _first_rules(self) -> Rules:
        """The same, and no blank, for the first position."""
        return self._make_rules(at_start=True)

    def _make_rules(self, at_start: bool) -> Rules:
        from engines.max_graph.decoder import MASKED, Rules

        mask = np.zeros(self.model.dims.n_vocab, np.float32)
        for each in self.logit_filters:
            if isinstance(each, SuppressTokens):
                mask[each.suppress_tokens] = MASKED
            elif isinstance(each, SuppressBlank) and at_start:
                mask[[*self.tokenizer.encode(" "), self.tokenizer.eot]] = MASKED
        if self._timestamp_rules is not None:
            mask[self.tokenizer.no_timestamps] = MASKED
        return Rules(mask, self._timestamp_rules is not None)

    def _ranges(self, sampled: tuple[int, ...]) -> tuple[int, int, int, int]:
        """`ApplyTimestampRules` as numbers: where timestamps begin, the first text token allowed,
        the first timestamp allowed and one past the last."""
        begin, end = self.tokenizer.timestamp_begin, self.model.dims.n_vocab
        if self._timestamp_rules is None:
            return begin, 0, begin, end
        if not sampled:
            latest = self._timestamp_rules.max_initial_timestamp_index
            return begin, begin, begin, end if latest is None else min(end, begin + latest + 1)
        last_is_time = sampled[-1] >= begin
        closed = len(sampled) < 2 or sampled[-2] >= begin
        newest = next((token for token in reversed(sampled) if token >= begin), None)
        first = begin
        if newest is not None:
            first = newest if last_is_time and not closed else newest + 1
        if last_is_time and closed:
            return begin, 0, end, end
        return begin, self.tokenizer.eot if last_is_time else 0, first, end


def _probability(logits: np.ndarray, token: int | None) -> float:
    """Softmax of `logits` at `token`; nan where the vocabulary has no such token."""
    if token is None:
        return float("nan")
    return float(torch.from_numpy(logits).softmax(dim=-1)[token])
