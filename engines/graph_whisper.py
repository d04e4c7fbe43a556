"""Whisper models with an encoder or decoder outside PyTorch: graphs of MAX or OpenVINO.

Everything around the graphs is whisper's own (windows, prompts, fallback, language detection, word
timestamps), except the loop over tokens at temperature 0, which is `engines.token_selection`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.token_selection import (
    FastDecodingTask,
    FastInference,
    IntArray,
    Step,
    TokenConstraints,
)
from engines.transcription import TimedWhisper, current_state

Result = TypeVar("Result")


class FastWhisper(TimedWhisper):
    """A whisper model with the fast token loop; a subclass says what runs its decoder."""

    def make_inference(self, prompt_length: int, sot_index: int) -> FastInference:
        """Return the decoder with a cache, for one window."""
        raise NotImplementedError

    def decoding_task(self, options: DecodingOptions) -> DecodingTask:
        return FastDecodingTask(self, options)


def compute_once(compute: Callable[[FloatArray], Result], array: FloatArray) -> Result:
    """Return `compute(array)`, or what it was when this thread's transcription last asked for it.

    Whisper encodes a window anew to align its words, at each temperature that it tries, and after
    detecting the language of a clip's first 30 seconds.
    """
    state = current_state()
    if state is None:
        return compute(array)
    kept = state.computed.pop(compute, None)
    state.recalled = kept is not None and np.array_equal(kept[0], array)
    if kept is None or not state.recalled:
        del kept  # before the next takes as much memory
        kept = array.copy(), compute(array)
    state.computed[compute] = kept
    result: Result = kept[1]
    return result


class EncoderModule(nn.Module):
    """A function that encodes one window, where whisper expects PyTorch's encoder."""

    def __init__(self, encode: Callable[[FloatArray], FloatArray]) -> None:
        """`encode`: `(n_mels, 3000)` to `(n_audio_ctx, n_state)`."""
        super().__init__()
        self.encode = encode

    def forward(self, mel: Tensor) -> Tensor:
        """Encode `(batch, n_mels, 3000)` to `(batch, n_audio_ctx, n_state)` on `mel`'s device."""
        windows = mel.float().cpu().numpy()
        features = [torch.from_numpy(compute_once(self.encode, window)) for window in windows]
        return torch.stack(features).to(mel.device, mel.dtype)


class GraphDecoder(Protocol):
    """A decoder's compiled graphs; `cross` and `cache` are the runtime's own.

    `engines.max_graph.decoder.Decoder` says what each method takes and returns.
    """

    dims: ModelDimensions

    def compute_cross_kv(self, features: FloatArray) -> Any:
        """Return cross-attention keys and values of features `(n_audio_ctx, n_audio_state)`."""

    def new_cache(self, batch: int) -> Any:
        """Return an empty cache for `batch` beams."""

    def reorder_beams(self, cache: Any, source: Any, beams: list[int]) -> None:
        """Make beam `i` of `cache` a copy of beam `beams[i]` of `source`."""

    def step(self, *arguments: Any, **select: Any) -> Step:
        """Append tokens `(batch, new)` to the cache and decode the selected rows."""

    def align(self, tokens: IntArray, cross: Any) -> tuple[FloatArray, FloatArray]:
        """Return logits of tokens `(1, new)` and their cross-attention scores."""

    def end_window(self) -> None:
        """Take note that no step of this window follows."""


@runtime_checkable
class DraftingDecoder(GraphDecoder, Protocol):
    """A decoder that can also guess up to `drafts` tokens, for a step to confirm all at once."""

    drafts: int

    def draft(self, *arguments: Any, **select: Any) -> tuple[int, float]:
        """Append one token to the cache of one beam; guess the next, and its log-probability."""


class GraphWhisper(FastWhisper):
    """A whisper model whose halves hold no PyTorch parameters."""

    @property
    def device(self) -> torch.device:
        """Where whisper puts its tensors: the host, from which graphs read them."""
        return torch.device("cpu")

    def copy_with(self, encoder: nn.Module, decoder: nn.Module) -> GraphWhisper:
        """Return a model of the same checkpoint over these halves, with hooks of its own."""
        model = copy.copy(self)
        model._modules = {"encoder": encoder, "decoder": decoder}
        model.install_hooks()
        return model

    def make_inference(self, prompt_length: int, sot_index: int) -> GraphInference:
        return GraphInference(self.decoder.graphs, sot_index)


class CrossAttentionScores(nn.Module):
    """Returns its argument, for the hooks by which whisper reads cross-attention scores."""

    def forward(self, scores: Tensor) -> tuple[None, Tensor]:
        """Return scores `(1, heads, tokens, n_audio_ctx)` where whisper's module has them."""
        return None, scores


class DecoderModule(nn.Module):
    """A `GraphDecoder` where whisper expects PyTorch's decoder, without a cache.

    Whisper calls it to detect the language and to align words; in the loop over tokens
    `GraphInference` stands in its place.
    Of a block whisper looks for the cross-attention, to hook it, and for a cache, unused here.
    """

    def __init__(self, graphs: GraphDecoder) -> None:
        super().__init__()
        self.graphs = graphs
        cache = nn.ModuleDict({"key": nn.Identity(), "value": nn.Identity()})
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"cross_attn": CrossAttentionScores(), "attn": cache})
            for _ in range(graphs.dims.n_text_layer)
        )

    def forward(self, tokens: Tensor, features: Tensor, kv_cache: None = None) -> Tensor:
        """Return logits `(1, tokens, n_vocab)` of `tokens` `(1, tokens)` and one window."""
        cross = compute_once(self.graphs.compute_cross_kv, features[0].numpy())
        logits, scores = self.graphs.align(tokens.numpy(), cross)
        for block, layer in zip(self.blocks, torch.from_numpy(scores), strict=True):
            block.get_submodule("cross_attn")(layer[None])
        return torch.from_numpy(logits)[None]


class GraphInference(FastInference):
    """A `GraphDecoder` and its cache, as whisper's loop over tokens uses a decoder."""

    def __init__(self, decoder: GraphDecoder, sot_index: int) -> None:
        self.decoder = decoder
        self._drafter = decoder if isinstance(decoder, DraftingDecoder) else None
        self.sot_index = sot_index
        self.cross: Any = None
        self.cache: Any = None
        self.rows = np.zeros(0, np.int64)
        """The place of each beam in the cache: those that go on keep theirs."""

    def start(self, prompt: IntArray, features: Tensor, beams: int, **select: Any) -> Step:
        """As `FastInference.start`; the prompt runs once, whatever the number of beams."""
        self.cross = compute_once(self.decoder.compute_cross_kv, features[0].numpy())
        first = self.decoder.new_cache(1)
        rows = np.array([self.sot_index, len(prompt) - 1], np.int64)
        results = self.decoder.step(prompt[None], self.cross, first, rows, **select)
        self.cache = first
        self.rows = np.arange(beams)
        if beams > 1:
            self.cache = self.decoder.new_cache(beams)
            self.decoder.reorder_beams(self.cache, first, [0] * beams)
        return results

    def advance(self, tokens: IntArray, **select: Any) -> Step:
        if state := current_state():
            state.listener.check_stopped()
        placed = np.empty_like(tokens)
        placed[self.rows] = tokens
        new = tokens.shape[1]
        rows = (self.rows[:, None] * new + np.arange(new)).ravel()
        return self.decoder.step(placed, self.cross, self.cache, rows, **select)

    @property
    def drafts(self) -> int:
        if self._drafter is None:
            return 0
        return min(self._drafter.drafts, self.decoder.dims.n_text_ctx - self.cache.length - 1)

    def draft(self, token: int, **select: Any) -> tuple[int, float]:
        assert self._drafter is not None
        return self._drafter.draft(token, self.cross, self.cache, **select)

    def rewind(self, count: int) -> None:
        self.cache.length -= count

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """`(beams, tokens, n_vocab)`; of a prompt only the rows of `sot` and the end are filled."""
        beams, length = tokens.shape
        n_vocab = self.decoder.dims.n_vocab
        select = {  # every token is allowed: whisper itself selects
            "constraints": TokenConstraints(np.zeros(n_vocab, np.float32), False),
            "ranges": np.tile(
                np.array([0, 0, 0, n_vocab]), (2 if self.cache is None else beams, 1)
            ),
            "k": 1,
        }
        if self.cache is not None:
            last, _, _ = self.advance(tokens[:, -1:].numpy(), **select)
            return torch.from_numpy(last)[:, None]
        rows, _, _ = self.start(tokens[0].numpy(), audio_features, beams, **select)
        logits = torch.zeros(beams, length, rows.shape[1])
        logits[:, self.sot_index] = torch.from_numpy(rows[0])
        logits[:, -1] = torch.from_numpy(rows[1])
        return logits

    def rearrange_kv_cache(self, source_indices: list[int]) -> None:
        """Make beam `i` continue beam `source_indices[i]`."""
        sources = self.rows[source_indices].tolist()
        contents = list(range(len(sources)))  # which place each place is a copy of
        free = [place for place in contents if place not in sources]
        places: list[int] = []
        for source in sources:
            place = free.pop() if source in places else source
            contents[place] = source
            places.append(place)
        self.rows = np.array(places)
        if contents != list(range(len(sources))):
            self.decoder.reorder_beams(self.cache, self.cache, contents)

    def cleanup_caching(self) -> None:
        """Drop the window's cache."""
        self.cross = self.cache = None
        self.decoder.end_window()
