"""What choosing tokens costs beside the decoder: `python -m engines.measure.loop`.

Whisper's own loop and the one of the MAX engines (`engines.token_loop`), on the processor, over
logits that are there at once, through whole windows of 224 tokens in turn: milliseconds a token.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.model import ModelDimensions, Whisper

from engines.choice import IntArray, select_best
from engines.measure.turns import timed
from engines.random_checkpoints import DIMENSIONS
from engines.token_loop import LeanDecodingTask, Step

REPEATS = 5
BEAMS = 5
SMALLEST = replace(DIMENSIONS["tiny"], n_audio_layer=1, n_text_layer=1)
"""The layers are not run: only the vocabulary and the number of positions count here."""


class ReadyLogits:
    """Stands for a decoder: random logits `(rows, n_vocab)`, the same at every step."""

    def __init__(self, dims: ModelDimensions, rows: int, end_of_text: int) -> None:
        self._row = 3 * torch.randn(rows, dims.n_vocab, generator=torch.Generator().manual_seed(0))
        self._row[:, end_of_text] = -1e4
        self._started = False

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """As whisper's: a copy, since filters write into it."""
        length = 1 if self._started else tokens.shape[1]
        self._started = True
        return self._row[:, None].repeat(1, length, 1)

    def start(self, prompt: IntArray, features: Tensor, beams: int, **select: Any) -> Step:
        """As `LeanInference.start`."""
        rows = self._row[:1].repeat(2, 1).numpy()
        return rows, *select_best(rows, **select)

    def advance(self, tokens: IntArray, **select: Any) -> Step:
        """As `LeanInference.advance`."""
        rows = self._row[: len(tokens)].numpy()
        return rows, *select_best(rows, **select)

    def rearrange_kv_cache(self, source_indices: list[int]) -> None:
        """Nothing to arrange."""

    def cleanup_caching(self) -> None:
        """Forget the window."""
        self._started = False


class WhispersLoop(DecodingTask):
    """Whisper's loop over ready logits."""

    def __init__(self, model: Whisper, options: DecodingOptions) -> None:
        super().__init__(model, options)
        self.inference = ReadyLogits(model.dims, self.n_group, self.tokenizer.eot)
        if options.beam_size:
            self.decoder.inference = self.inference


class LeanLoop(LeanDecodingTask):
    """The lean loop over the same logits."""

    def make_inference(self) -> ReadyLogits:
        """Ready logits."""
        return ReadyLogits(self.model.dims, self.n_group, self.tokenizer.eot)


def main() -> None:
    """Print the figures."""
    model, kinds = Whisper(SMALLEST), (WhispersLoop, LeanLoop)
    features = torch.zeros(1, SMALLEST.n_audio_ctx, SMALLEST.n_audio_state)
    print(f"a vocabulary of {SMALLEST.n_vocab}, medians of {REPEATS} windows in turn")
    for name, beams in (("greedy", None), (f"beam {BEAMS}", BEAMS)):
        options = DecodingOptions(language="en", fp16=False, beam_size=beams)
        took: dict[type, list[float]] = {kind: [] for kind in kinds}
        for lap in range(REPEATS + 1):
            for kind in kinds:
                task = kind(model, options)
                seconds, results = timed(partial(task.run, features))
                assert len(results[0].tokens) <= task.sample_len
                if lap:
                    took[kind].append(1000 * seconds / task.sample_len)
        theirs, ours = (float(np.round(median(took[kind]), 2)) for kind in kinds)
        print(f"{name:8} whisper's {theirs:6.2f} ms a token, ours {ours:5.2f} ms")


if __name__ == "__main__":
    main()
