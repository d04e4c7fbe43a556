"""Token selection at temperature 0: greedy and beam search, and their NumPy reference.

Whisper's own loop spends milliseconds per token on its filters (two log-softmaxes over the
vocabulary, a Python loop over what was sampled) and, in a beam search, on dictionaries of tensors.
Here the filters are reduced to one additive mask and four indices per row, so whatever computes the
logits can also pick the tokens: `select_top_k` on the host, `max_graph/kernels/select.mojo` in
MAX's graphs. A decoder that can guess tokens cheaply has a greedy step confirm several at once,
which changes none of them: what counts is what the step itself chooses after each. Above
temperature 0, where a random generator decides, whisper's own loop runs over the same decoder. Both
MAX engines use it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from whisper.decoding import (
    ApplyTimestampRules,
    BeamSearchDecoder,
    DecodingOptions,
    DecodingTask,
    Inference,
    PyTorchInference,
    SuppressBlank,
    SuppressTokens,
)
from whisper.model import Whisper

from engines.base import EngineError, FloatArray
from engines.whisper_hooks import TokenListener

IntArray: TypeAlias = npt.NDArray[np.int64]
Step: TypeAlias = tuple[FloatArray, IntArray, FloatArray]
"""Logits `(m, n_vocab)`, the top k tokens of each row and their log-probabilities `(m, k)`."""
Beam: TypeAlias = tuple[int, ...]
"""The tokens of one beam, the prompt included."""

MASKED = np.float32(-1e30)
"""Added to a logit that must not be chosen: far below every other, and finite."""

DOUBTFUL = -1.2
"""The log-probability below which a guess is the last of its draft: three in ten."""

BLOCK = 64
"""Width of the blocks whose maxima bound the search for the top k; a matter of speed alone."""


# The NumPy reference of kernels/select.mojo


@dataclass(frozen=True)
class TokenConstraints:
    """The tokens that a step may choose.

    `mask`: float32 `(n_vocab,)`, 0 or `MASKED`. `timestamps_dominate`: whether timestamps that are
    together likelier than any text token rule out text, as in
    `whisper.decoding.ApplyTimestampRules`.
    """

    mask: FloatArray
    timestamps_dominate: bool

    @cached_property
    def digest(self) -> bytes:
        """Return what is the same for equal constraints."""
        return hashlib.sha256(self.mask.tobytes() + bytes([self.timestamps_dominate])).digest()


def select_top_k(
    logits: FloatArray, constraints: TokenConstraints, ranges: IntArray, k: int
) -> tuple[IntArray, FloatArray]:
    """Return the top k tokens of each row with log-probabilities, best first, both `(m, k)`.

    `logits`: `(m, n_vocab)`. `ranges`: `(m, 4)`: where timestamps begin, the first text token
    allowed, the first timestamp allowed and one past the last. The log-softmax is over the allowed
    tokens. Ties go to the lower token; a token is -1 where fewer than k are allowed.
    """
    mask = constraints.mask
    top = np.full((len(logits), k), -1, np.int64)
    logprobs = np.full((len(logits), k), MASKED, np.float32)
    for row, (begin, text, first, last) in enumerate(ranges):
        words = logits[row, text:begin] + mask[text:begin]
        times = logits[row, first:last] + mask[first:last]
        only_times = bool(
            constraints.timestamps_dominate
            and times.size
            and _log_sum_exp(times) > words.max(initial=-np.inf)
        )
        allowed = times if only_times else np.concatenate([words, times])
        places = _largest(allowed, k)
        skipped = 0 if only_times else len(words)
        tokens = np.where(places < skipped, text + places, first + places - skipped)
        top[row, : len(places)] = tokens
        logprobs[row, : len(places)] = allowed[places] - _log_sum_exp(allowed)
    return top, logprobs


def _largest(values: FloatArray, count: int) -> IntArray:
    """Indices of the `count` largest finite values, largest first, ties in order."""
    if count == 1:
        order = np.array([values.argmax()])
        return order[np.isfinite(values[order])]
    maxima = np.sort(values[: len(values) // BLOCK * BLOCK].reshape(-1, BLOCK).max(1))
    least = maxima[-count] if count <= len(maxima) else -np.inf  # `count` values are no smaller
    candidates = np.flatnonzero((values >= least) & np.isfinite(values))
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]


def _log_sum_exp(values: FloatArray) -> np.float32:
    top = values.max()
    return np.float32(top + np.log(np.exp(values - top).sum()))


class FastInference(Inference):
    """A decoder with its cache that also selects tokens.

    `select`: `constraints`, `ranges` and `k` as `select_top_k` has them.
    """

    def start(self, prompt: IntArray, features: Tensor, beams: int, **select: Any) -> Step:
        """Run the prompt `(tokens,)` for all beams; two rows: after `sot`, and after the last."""
        raise NotImplementedError

    def advance(self, tokens: IntArray, **select: Any) -> Step:
        """Append tokens `(beams, new)`; a row per token."""
        raise NotImplementedError

    @property
    def drafts(self) -> int:
        """The most tokens that may be drafted now; 0 without a `draft`."""
        return 0

    def draft(self, token: int, **select: Any) -> tuple[int, float]:
        """Append a token to the one beam; guess the next, and its log-probability."""
        raise NotImplementedError

    def rewind(self, count: int) -> None:
        """Forget the last `count` tokens that were appended."""
        raise NotImplementedError


class TorchInference(FastInference, PyTorchInference):
    """Whisper's own decoder and cache, selecting on the host."""

    def __init__(self, model: Whisper, prompt_length: int, sot_index: int) -> None:
        super().__init__(model, prompt_length)
        self.sot_index = sot_index
        self._features: Any = None

    def start(self, prompt: IntArray, features: Tensor, beams: int, **select: Any) -> Step:
        self._features = features
        tokens = torch.from_numpy(prompt).repeat(beams, 1).to(features.device)
        logits = self.logits(tokens, features)[0, [self.sot_index, -1]].cpu().numpy()
        return logits, *select_top_k(logits, **select)

    def advance(self, tokens: IntArray, **select: Any) -> Step:
        last = torch.from_numpy(tokens).to(self._features.device)  # (beams, 1)
        output = self.model.decoder(last, self._features, kv_cache=self.kv_cache)
        logits = output[:, -1].cpu().numpy()  # (beams, n_vocab)
        return logits, *select_top_k(logits, **select)


class FastDecodingTask(DecodingTask):
    """Whisper's decoding of one window, with the fast loop at temperature 0.

    `model.make_inference(prompt_length, sot_index)` returns what runs its decoder.
    """

    def __init__(self, model: Whisper, options: DecodingOptions) -> None:
        super().__init__(model, options)
        self.drafted = 0  # tokens that a draft had guessed
        self.inference: FastInference = model.make_inference(
            len(self.initial_tokens), self.sot_index
        )
        if isinstance(self.decoder, BeamSearchDecoder):
            self.decoder.inference = self.inference

    def _main_loop(
        self, audio_features: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, list[float]]:
        if self.options.temperature > 0:
            result: tuple[Tensor, Tensor, list[float]] = super()._main_loop(audio_features, tokens)
            return result
        try:
            return self._search(audio_features, tokens[0].numpy())
        finally:
            self.inference.cleanup_caching()

    def _search(self, features: Tensor, prompt: IntArray) -> tuple[Tensor, Tensor, list[float]]:
        """Greedy search with one beam, else beam search: tokens, sums of log-probabilities and
        the probability of no speech, for each beam."""
        n = self.n_group
        beams: list[Beam] = [tuple(prompt.tolist())] * n
        select = self._select([beams[0]] * 2, 1 if n == 1 else n + 1)
        # Two rows: after `sot`, and after the prompt, where all beams are alike.
        logits, top, logprobs = self.inference.start(prompt, features, n, **select)
        top, logprobs = np.repeat(top[1:], n, 0), np.repeat(logprobs[1:], n, 0)  # (beams, k)
        no_speech = float("nan")
        if (token := self.tokenizer.no_speech) is not None:
            no_speech = float(torch.from_numpy(logits[0]).softmax(dim=-1)[token])
        sums = np.zeros(n, np.float32)
        for _ in range(self.sample_len):
            if not len(top):
                top, logprobs = self._advance(beams)
            if top.max() < 0:
                raise EngineError(
                    "The decoder's output is not a number, so no token can be chosen: the "
                    "checkpoint's weights are broken."
                )
            if n == 1:
                beams = [(*beams[0], int(top[0, 0]))]
                sums += logprobs[0, 0]
                completed = beams[0][-1] == self.tokenizer.eot
                top, logprobs = top[1:], logprobs[1:]  # what was drafted and confirmed
            else:
                beams, sums, completed = self._update_beams(beams, sums, top, logprobs)
                top, logprobs = top[:0], logprobs[:0]
            if completed or len(beams[0]) > self.n_ctx:
                break
            for listener in self._token_listeners:
                listener.hear(beams[0])
        return torch.tensor(beams), torch.from_numpy(sums), [no_speech] * n

    def _select(self, beams: list[Beam], k: int) -> dict[str, Any]:
        """The arguments that select a token after each of `beams`, of equal constraints."""
        ranges = [self._ranges(beam[self.sample_begin :]) for beam in beams]
        constraints = self._constraints[len(beams[0]) == self.sample_begin]
        return {"constraints": constraints, "ranges": np.array(ranges, np.int64), "k": k}

    def _advance(self, beams: list[Beam]) -> tuple[IntArray, FloatArray]:
        """Return the top k tokens after each beam with their log-probabilities, `(beams, k)`.

        Of one beam, after as many tokens more as were drafted and are those that a step of all
        of them, which reads the weights once, chooses: `(1 + confirmed, 1)`.
        """
        if len(beams) > 1:
            last = np.array([beam[-1:] for beam in beams], np.int64)
            return self.inference.advance(last, **self._select(beams, len(beams) + 1))[1:]
        beam = beams[0]
        drafted = self._draft(beam)
        prefixes = [beam + drafted[:count] for count in range(len(drafted) + 1)]
        tokens = np.array([prefixes[-1][len(beam) - 1 :]], np.int64)
        _, top, logprobs = self.inference.advance(tokens, **self._select(prefixes, 1))
        confirmed = 0
        while confirmed < len(drafted) and top[confirmed, 0] == drafted[confirmed]:
            confirmed += 1
        if confirmed < len(drafted):
            self.inference.rewind(len(drafted) - confirmed)
        self.drafted += confirmed
        return top[: confirmed + 1], logprobs[: confirmed + 1]

    def _draft(self, beam: Beam) -> Beam:
        """Guess tokens after `beam`, up to a doubtful one or the end, and forget them again."""
        drafted: Beam = ()
        appended = 0
        for _ in range(self.inference.drafts):
            before = beam + drafted
            token, logprob = self.inference.draft(before[-1], **self._select([before], 1))
            appended += 1
            if token < 0 or token == self.tokenizer.eot:
                break
            drafted += (token,)
            if logprob < DOUBTFUL:
                break
        if appended:
            self.inference.rewind(appended)
        return drafted

    def _update_beams(
        self, beams: list[Beam], sums: np.ndarray, top: IntArray, logprobs: np.ndarray
    ) -> tuple[list[Beam], np.ndarray, bool]:
        """Extend the beams by their top tokens, as `BeamSearchDecoder.update` does for one audio.

        Returns the beams that go on, their sums, and whether enough have ended.
        """
        scores: dict[Beam, float] = {}
        sources: dict[Beam, int] = {}
        for beam, (prefix, before) in enumerate(zip(beams, sums, strict=True)):
            for token, logprob in zip(top[beam].tolist(), logprobs[beam], strict=True):
                if token >= 0:
                    scores[(*prefix, token)] = float(before + logprob)
                    sources[(*prefix, token)] = beam
        ongoing: list[Beam] = []
        ended: list[Beam] = []
        for sequence in sorted(scores, key=scores.__getitem__, reverse=True):
            (ended if sequence[-1] == self.tokenizer.eot else ongoing).append(sequence)
            if len(ongoing) == self.n_group:
                break
        self.inference.rearrange_kv_cache([sources[sequence] for sequence in ongoing])
        if self.decoder.finished_sequences is None:
            self.decoder.finished_sequences = [{}]
        finished = self.decoder.finished_sequences[0]
        room = max(self.decoder.max_candidates - len(finished), 0)
        finished |= {sequence: scores[sequence] for sequence in ended[:room]}
        kept = np.array([scores[sequence] for sequence in ongoing], np.float32)
        return ongoing, kept, len(finished) >= self.decoder.max_candidates

    @cached_property
    def _token_listeners(self) -> list[TokenListener]:
        return [each for each in self.logit_filters if isinstance(each, TokenListener)]

    # Whisper's filters as constraints and ranges

    @cached_property
    def _timestamp_rules(self) -> ApplyTimestampRules | None:
        rules = (f for f in self.logit_filters if isinstance(f, ApplyTimestampRules))
        return next(rules, None)

    @cached_property
    def _constraints(self) -> tuple[TokenConstraints, TokenConstraints]:
        """The constraints of every position but the first, and of the first, where a blank is
        suppressed."""
        mask = np.zeros(self.model.dims.n_vocab, np.float32)
        blank: list[int] = []
        for each in self.logit_filters:
            if isinstance(each, SuppressTokens):
                mask[each.suppress_tokens] = MASKED
            elif isinstance(each, SuppressBlank):
                blank = [*self.tokenizer.encode(" "), self.tokenizer.eot]
        dominate = self._timestamp_rules is not None
        if dominate:
            mask[self.tokenizer.no_timestamps] = MASKED
        first = mask.copy()
        first[blank] = MASKED
        return TokenConstraints(mask, dominate), TokenConstraints(first, dominate)

    def _ranges(self, sampled: Beam) -> tuple[int, int, int, int]:
        """`ApplyTimestampRules` as the four numbers of `select_top_k`."""
        begin, end = self.tokenizer.timestamp_begin, self.model.dims.n_vocab
        if self._timestamp_rules is None:
            return begin, 0, begin, end
        if not sampled:  # a timestamp comes first
            latest = self._timestamp_rules.max_initial_timestamp_index
            return begin, begin, begin, end if latest is None else min(end, begin + latest + 1)
        last_is_time = sampled[-1] >= begin
        closed = len(sampled) < 2 or sampled[-2] >= begin
        if last_is_time and closed:  # a pair is complete: text comes next
            return begin, 0, end, end
        newest = next((token for token in reversed(sampled) if token >= begin), None)
        first = begin
        if newest is not None:  # timestamps do not decrease, and a segment has some length
            first = newest if last_is_time else newest + 1
        return begin, self.tokenizer.eot if last_is_time else 0, first, end
