"""Whisper's text decoder as MAX graphs: what every device has in common.

- `cross`: encoder features to every layer's cross-attention keys and values, once per window.
- `step`: new tokens through all layers, over caches written in place; returns the logits and, on
  the CPU, the top k tokens of selected rows.
- `draft`, on the CPU: a step of one token over rounded weights, whose result is a guess.
- `align`: logits of all rows, the cross-attention scores from which word timestamps are made, and
  the residual stream after every part of a layer, which the layer inspection reads.

`cpu_decoder` and `accelerator_decoder` have each device's graphs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from max.driver import CPU, Buffer, Device
from max.engine import Model
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.max_graph.operations import Operations, place, put
from engines.max_graph.weights import DecoderWeights
from engines.token_selection import IntArray, Step, TokenConstraints, select_top_k

CrossKV: TypeAlias = tuple[Buffer, Buffer]
"""A window's cross-attention keys and values, as a device's `cross` graph lays them out."""


@dataclass
class Cache:
    """Self-attention keys and values of some beams, laid out by `Decoder.new_cache`.

    `length`: the positions they hold. `common`: the first of them that all beams have in common.
    On the CPU several caches may share their arrays: `places` are those of this one's beams, and
    `window` is the place of its audio in the cross-attention's keys and values. `draft`: these as
    `CpuDecoder.draft` reads them.
    """

    keys: Any
    values: Any
    length: int = 0
    common: int = 0
    places: tuple[int, ...] = ()
    window: int = 0
    draft: CrossKV | None = None


class Trace(NamedTuple):
    """What every layer computed of some tokens of one window.

    `states`: the residual stream `(1 + 3 * layers, tokens, n_state)`, the embedding first, then
    after self-attention, cross-attention and MLP of each layer. `own`: self-attention's keys and
    values, each `(layers, tokens, n_state)`. `cross`: cross-attention's, `(layers, n_audio_ctx,
    n_state)`. `hidden`: after the last norm, `(tokens, n_state)`. `logits`: `(tokens, n_vocab)`.
    """

    states: FloatArray
    own: tuple[FloatArray, FloatArray]
    cross: tuple[FloatArray, FloatArray]
    hidden: FloatArray
    logits: FloatArray


class Decoder(ABC):
    """A decoder's compiled graphs with one checkpoint's weights on one device."""

    def __init__(
        self,
        models: dict[str, Model],
        weights: DecoderWeights,
        dims: ModelDimensions,
        op: Operations,
        device: Device,
    ) -> None:
        self.dims = dims
        self._models = models
        self._op = op
        self._device = device
        self._cross = place(weights.cross, op, device)
        self._weights = self._place(weights)

    def compute_cross_kv(self, features: FloatArray) -> CrossKV:
        """Return cross-attention keys and values of features `(n_audio_ctx, n_audio_state)`."""
        keys, values = self._models["cross"].execute(put(features, self._device), *self._cross)
        return keys, values

    @abstractmethod
    def new_cache(self, batch: int) -> Cache:
        """Return an empty cache for `batch` beams and `n_text_ctx` positions."""

    def end_window(self) -> None:  # noqa: B027
        """Take note that no step of this window follows: that matters to `decoder_batch` alone."""

    @abstractmethod
    def reorder_beams(self, cache: Cache, source: Cache, beams: list[int]) -> None:
        """Make beam `i` of `cache` a copy of beam `beams[i]` of `source`, which may be `cache`."""

    def step(
        self,
        tokens: IntArray,
        cross: CrossKV,
        cache: Cache,
        rows: IntArray,
        constraints: TokenConstraints,
        ranges: IntArray,
        k: int,
    ) -> Step:
        """Append `tokens` `(batch, new)` to the cache and decode the selected rows.

        `rows`: `(m,)`, beam * new + position. Returns logits `(m, n_vocab)` and, under
        `constraints` and `ranges` `(m, 4)`, the top k tokens of each row with their
        log-probabilities, both `(m, k)`; a token is -1 where fewer are allowed.
        """
        selection = self._selection(constraints, ranges, k)
        logits, *top = self._run("step", tokens, cross, cache, rows, *selection)
        return logits, *(top or select_top_k(logits, constraints, ranges, k))

    def align(self, tokens: IntArray, cross: CrossKV) -> tuple[FloatArray, FloatArray]:
        """Return logits and scaled cross-attention scores before the softmax.

        `tokens`: `(1, new)`, from the first position on. Logits are `(new, n_vocab)`, scores
        `(layers, heads, new, n_audio_ctx)`.
        """
        rows = np.arange(tokens.size, dtype=np.int64)
        logits, scores, *_ = self._run("align", tokens, cross, self.new_cache(1), rows)
        return logits, scores

    def trace(self, tokens: IntArray, features: FloatArray) -> Trace:
        """Return what every layer computes of `tokens` `(1, new)` from the first position on.

        `features`: `(n_audio_ctx, n_audio_state)`. Caches and logits are those of `step`, which an
        engine runs; the residual stream is that of `align`, the same kernel with more outputs.
        """
        cross, cache = self.compute_cross_kv(features), self.new_cache(1)
        rows = np.arange(tokens.size, dtype=np.int64)
        _, _, states, hidden = self._run("align", tokens, cross, self.new_cache(1), rows)
        n_vocab = self.dims.n_vocab
        every = TokenConstraints(np.zeros(n_vocab, np.float32), False)
        ranges = np.tile(np.array([0, 0, 0, n_vocab]), (rows.size, 1))
        logits, *_ = self.step(tokens, cross, cache, rows, every, ranges, 1)
        own = self._unpack(cache.keys, cache.values, cache.length)
        other = self._unpack(*cross, self.dims.n_audio_ctx)
        return Trace(states, own, other, hidden, logits)

    def _run(
        self,
        graph: str,
        tokens: IntArray,
        cross: CrossKV,
        cache: Cache,
        rows: IntArray,
        *selection: Buffer,
    ) -> list[np.ndarray]:
        """Run `step` or `align`; raises `ValueError` for tokens that the cache can't take.

        The kernels read embeddings and write caches unchecked.
        """
        self.check(tokens, cache)
        inputs = self._inputs(tokens, cross, cache, rows)
        results = self._models[graph].execute(*inputs, *selection)
        cache.length += tokens.shape[1]
        return [result.to(CPU()).to_numpy() for result in results]

    def check(self, tokens: IntArray, cache: Cache) -> None:
        """Raise `ValueError` for tokens that the cache can't take: kernels write unchecked."""
        new, dims = tokens.shape[1], self.dims
        if cache.length + new > dims.n_text_ctx:
            raise ValueError(f"no position is left of {dims.n_text_ctx} for {new} tokens")
        if tokens.min() < 0 or tokens.max() >= dims.n_vocab:
            raise ValueError(f"tokens are 0 to {dims.n_vocab - 1}")

    @abstractmethod
    def _unpack(self, keys: Any, values: Any, length: int) -> tuple[FloatArray, FloatArray]:
        """Return the keys and values of one beam's cache, or of the audio, as `Trace` has them."""

    @abstractmethod
    def _place(self, weights: DecoderWeights) -> list[Buffer]:
        """Return the weights that `step` and `align` take, in their order."""

    @abstractmethod
    def _inputs(
        self, tokens: IntArray, cross: CrossKV, cache: Cache, rows: IntArray
    ) -> list[Buffer]:
        """Return the inputs that `step` and `align` share, in their order."""

    def _selection(self, constraints: TokenConstraints, ranges: IntArray, k: int) -> list[Buffer]:
        """Return the inputs by which `step` selects tokens; none where the host does."""
        return []
