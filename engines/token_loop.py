"""The token loop of both MAX engines at temperature 0: whisper's choices at a fraction of its cost.

Whisper's own loop spends milliseconds a token on its filters (two log-softmaxes over the
vocabulary, a Python loop over what was written) and, in a beam search, on dictionaries of tensors.
Here the filters are taken apart into a mask and four numbers a row, by which whoever computes the
logits chooses the tokens as well (`engines.choice`). Above temperature 0, where a random generator
decides, whisper's own loop runs over the same decoder.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from whisper.decoding import (
    ApplyTimestampRules,
    BeamSearchDecoder,
    DecodingOptions,
    DecodingTask,
    PyTorchInference,
    SuppressBlank,
    SuppressTokens,
)
from whisper.model import Whisper

from engines.base import EngineError, FloatArray
from engines.choice import MASKED, IntArray, Rules, select_best

Step = tuple[FloatArray, IntArray, FloatArray]
"""Logits `(m, n_vocab)`, the best tokens of each row and their log-probabilities `(m, best)`."""


class LeanInference(Protocol):
    """A decoder with its cache that also chooses; besides, whisper's own `Inference`."""

    def start(
        self,
        prompt: IntArray,
        features: Tensor,
        beams: int,
        *,
        rules: Rules,
        ranges: IntArray,
        best: int,
    ) -> Step:
        """Run the prompt `(tokens,)` for all beams: results of its `sot` and of its last row."""
        ...

    def advance(self, tokens: IntArray, *, rules: Rules, ranges: IntArray, best: int) -> Step:
        """Append one token to each beam: results of all of them."""
        ...

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """As whisper's."""
        ...

    def rearrange_kv_cache(self, source_indices: list[int]) -> None:
        """Make beam `i` continue beam `source_indices[i]`."""

    def cleanup_caching(self) -> None:
        """Forget the window."""


class TorchInference(PyTorchInference):
    """Whisper's own decoder and cache, choosing on the host."""

    def __init__(self, model: Whisper, prompt_length: int, sot_index: int) -> None:
        super().__init__(model, prompt_length)
        self.sot_index = sot_index
        self._features: Tensor | None = None

    def start(self, prompt: IntArray, features: Tensor, beams: int, **select: Any) -> Step:
        """As `LeanInference.start`."""
        self._features = features
        tokens = torch.from_numpy(prompt).repeat(beams, 1).to(features.device)
        logits = self.logits(tokens, features)[0, [self.sot_index, -1]].cpu().numpy()
        return logits, *select_best(logits, **select)

    def advance(self, tokens: IntArray, **select: Any) -> Step:
        """As `LeanInference.advance`."""
        assert self._features is not None, "start comes before advance"
        last = torch.from_numpy(tokens)[:, None].to(self._features.device)
        output = self.model.decoder(last, self._features, kv_cache=self.kv_cache)
        logits = output[:, -1].cpu().numpy()
        return logits, *select_best(logits, **select)


class LeanDecodingTask(DecodingTask):
    """Whisper's decoding of one window, at temperature 0 by the lean loop."""

    def __init__(self, model: Whisper, options: DecodingOptions) -> None:
        super().__init__(model, options)
        self.inference: LeanInference = self.make_inference()
        if isinstance(self.decoder, BeamSearchDecoder):
            self.decoder.inference = self.inference

    def make_inference(self) -> LeanInference:
        """What runs the decoder."""
        raise NotImplementedError

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
                chosen = np.repeat(chosen[1:], self.n_group, 0)
                logprobs = np.repeat(logprobs[1:], self.n_group, 0)
            else:
                last = np.array([beam[-1] for beam in beams], np.int64)
                _, chosen, logprobs = self.inference.advance(last, **select)
            if chosen.max() < 0:
                raise EngineError(
                    "The decoder's output is not a number, so no token can be chosen: the "
                    "checkpoint's weights are broken."
                )
            if self.n_group == 1:
                beams = [(*beams[0], int(chosen[0, 0]))]
                sums += logprobs[0, 0]
                completed = beams[0][-1] == self.tokenizer.eot
            else:
                beams, sums, completed = self._search(beams, sums, chosen, logprobs)
            if completed or len(beams[0]) > self.n_ctx:
                break
        return torch.tensor(beams), torch.from_numpy(sums), [no_speech] * self.n_group

    def _start(self, prompt: IntArray, features: Tensor, select: dict[str, Any]) -> Step:
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
