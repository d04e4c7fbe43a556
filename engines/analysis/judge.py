"""One step of decoding by PyTorch in float64, under whisper's own rules: the judge of a divergence.

Whisper takes a timestamp where all timestamps together are likelier than any one text token, so
between a word and a timestamp the margin is that of all of them to the word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from whisper.audio import HOP_LENGTH, N_FRAMES, SAMPLE_RATE
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.model import Whisper
from whisper.timing import find_alignment
from whisper.tokenizer import Tokenizer, get_tokenizer

from engines.analysis.divergence import TIMESTAMP_SECONDS, Parting
from engines.analysis.divergence_records import Candidate, Pairing
from engines.analysis.layers import to_float64
from engines.analysis.records import finite
from engines.base import EngineError, FloatArray, Options
from engines.checkpoints import Checkpoint
from engines.whisper_arguments import list_arguments


@dataclass(frozen=True)
class Step:
    """One step of decoding: `candidates` for the token after `prompt` and `before`.

    `allowed`: `(n_vocab,)`, which tokens whisper's filters leave there under `options`.
    """

    prompt: tuple[int, ...]
    before: tuple[int, ...]
    candidates: tuple[int, ...]
    allowed: np.ndarray
    tokenizer: Tokenizer
    options: Options

    def weigh(self, encoder: str, decoder: str, logits: np.ndarray) -> Pairing:
        """Return the candidates' log-probabilities and the first one's margin over the second.

        `logits`: `(n_vocab,)`.
        """
        logprobs = normalise(logits, self.allowed)
        begin = self.tokenizer.timestamp_begin
        mixed = len({token >= begin for token in self.candidates}) == 2
        weights = [
            np.logaddexp.reduce(logprobs[begin:]) if mixed and token >= begin else logprobs[token]
            for token in self.candidates
        ]
        told = tuple(finite(logprobs[token]) for token in self.candidates)
        margin = finite(weights[0] - weights[1])
        return Pairing(encoder, decoder, (told[0], told[1]), margin)


def normalise(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return log-probabilities `(n_vocab,)` in float64 over the allowed tokens."""
    kept = np.where(allowed, logits.astype(np.float64), -np.inf)
    logprobs: np.ndarray = kept - np.logaddexp.reduce(kept)
    return logprobs


def make_task(
    model: Whisper, prompt: Sequence[int], tokenizer: Tokenizer, options: Options
) -> DecodingTask:
    """Return a model's loop over one window's tokens after a prompt."""
    previous = list(prompt)[1 : list(prompt).index(tokenizer.sot)]
    kind = getattr(model, "decoding_task", None) or partial(DecodingTask, model)  # an engine's own
    task: DecodingTask = kind(set_options(tokenizer, options, previous))
    if tuple(task.initial_tokens) != tuple(prompt):
        raise EngineError("A window's prompt isn't whisper's, so it can't be replayed.")
    return task


def set_options(tokenizer: Tokenizer, options: Options, previous: Sequence[int]) -> DecodingOptions:
    """Return whisper's options for a window at temperature 0 after `previous` tokens."""
    return DecodingOptions(
        language=tokenizer.language,
        task=options.task,
        suppress_tokens=list_arguments(options)["suppress_tokens"],
        prompt=list(previous) or None,
        fp16=False,
    )


def find_end(options: Options, start: float) -> float:
    """Return where the part of the clip ends, in seconds, in which a window begins."""
    times = options.clip_timestamps
    parts = zip(times[::2], (*times[1::2], math.inf), strict=False)
    return next((end for begin, end in parts if begin <= start + 0.01 < end), math.inf)


class EncodedWhisper(Whisper):
    """A Whisper that is called with a window that it has encoded: `features`."""

    features: Tensor

    def forward(self, mel: Tensor, tokens: Tensor) -> Tensor:
        """Return logits `(1, tokens, n_vocab)`; `mel` is not looked at."""
        logits: Tensor = self.decoder(tokens, self.features)
        return logits


class Judge:
    """PyTorch in float64, with whisper's own rules."""

    def __init__(self, checkpoint: Checkpoint, language: str, options: Options) -> None:
        self._model = to_float64(checkpoint.build(EncodedWhisper))
        self.longest = checkpoint.dims.n_text_ctx // 2
        self.tokenizer: Tokenizer = get_tokenizer(
            self._model.is_multilingual,
            num_languages=self._model.num_languages,
            language=language,
            task=options.task,
        )
        self._options = options

    def start_window(self, said: Sequence[int]) -> tuple[int, ...]:
        """Return the prompt of a window after the tokens that were said before it."""
        decoding_options = set_options(self.tokenizer, self._options, said)
        return tuple(DecodingTask(self._model, decoding_options).initial_tokens)

    @torch.inference_mode()
    def encode(self, mel: FloatArray) -> Tensor:
        """Encode a window `(n_mels, 3000)` to float64 `(1, n_audio_ctx, n_audio_state)`."""
        self._model.features = self._model.encoder(torch.from_numpy(mel).double()[None])
        return self._model.features

    @torch.inference_mode()
    def compute_logits(
        self, features: Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> np.ndarray:
        """Return float64 logits `(1 + tokens, n_vocab)`: after the prompt, and after each token."""
        kept: list[Tensor] = []
        decoder = self._model.decoder
        hook = decoder.ln.register_forward_hook(lambda _, __, output: kept.append(output))
        try:
            decoder(torch.tensor([[*prompt, *tokens]]), features)
        finally:
            hook.remove()
        last = kept[0][0, len(prompt) - 1 :]  # whisper itself rounds the logits to float32
        logits: np.ndarray = (last @ decoder.token_embedding.weight.T).numpy()
        return logits

    def make_step(self, parting: Parting) -> Step:
        """Return the step at which engines part."""
        allowed = self.list_allowed(parting)
        prompt, before, tokens = parting.window.prompt, parting.before, parting.tokens
        return Step(prompt, before, tokens, allowed, self.tokenizer, self._options)

    def list_allowed(self, parting: Parting) -> np.ndarray:
        """Return which tokens whisper's filters allow, `(n_vocab,)`.

        The filters see a text token that is likelier than all timestamps, so that the last of their
        rules, by which timestamps may rule out text, leaves both.
        """
        task = make_task(self._model, parting.window.prompt, self.tokenizer, self._options)
        logits = torch.zeros(1, self._model.dims.n_vocab)
        logits[:, : self.tokenizer.timestamp_begin] = 100
        return self._filter(task, logits, parting.before)

    def _filter(self, task: DecodingTask, logits: Tensor, before: Sequence[int]) -> np.ndarray:
        tokens = torch.tensor([[*task.initial_tokens, *before]])
        for each in task.logit_filters:
            each.apply(logits, tokens)
        allowed: np.ndarray = torch.isfinite(logits[0]).numpy()
        return allowed

    def score_sequences(self, features: Tensor, parting: Parting) -> tuple[float, ...]:
        """Return each window's mean log-probability of a token, by which beams are ranked."""
        task = make_task(self._model, parting.window.prompt, self.tokenizer, self._options)
        scores = []
        for tokens in parting.whole:
            tokens = tokens[: self.longest]
            logits = self.compute_logits(features, parting.window.prompt, tokens[:-1])
            total = 0.0
            for at, token in enumerate(tokens):
                filtered = torch.from_numpy(logits[at : at + 1].copy())
                allowed = self._filter(task, filtered, tokens[:at])
                total += normalise(logits[at], allowed)[token]
            scores.append(total / max(len(tokens) - (tokens[-1] == self.tokenizer.eot), 1))
        return tuple(scores)

    def find_time(self, parting: Parting, seconds: float) -> float:
        """Return when the candidates are said in a clip of so many seconds, by whisper's
        alignment of the words to the window that was encoded last."""
        begin, start = self.tokenizer.timestamp_begin, parting.window.start
        times = [token for token in (*parting.before, *parting.tokens) if token >= begin]
        rough = start + (times[-1] - begin) * TIMESTAMP_SECONDS if times else start
        said = [token for token in parting.tokens if token < self.tokenizer.eot][:1]
        text = [token for token in parting.before if token < self.tokenizer.eot] + said
        frames = min(round((seconds - start) * SAMPLE_RATE / HOP_LENGTH), N_FRAMES)
        if not said or frames < 2:
            return rough
        with torch.inference_mode():
            no_mel = torch.zeros(0)
            words = find_alignment(self._model, self.tokenizer, text, no_mel, frames)
        return start + float(words[-1].start) if words else rough

    def spell(self, *tokens: int) -> str:
        """Return the text of tokens, timestamps and special tokens as whisper spells them."""
        text: str = self.tokenizer.decode_with_timestamps(list(tokens))
        return text

    def describe(self, tokens: Sequence[int], allowed: np.ndarray | None) -> tuple[Candidate, ...]:
        """Return candidates with their text; `allowed`: as `list_allowed` has it."""
        return tuple(
            Candidate(token, self.spell(token), allowed is None or bool(allowed[token]))
            for token in tokens
        )

    def list_best(self, logits: np.ndarray, allowed: np.ndarray) -> tuple[tuple[str, float], ...]:
        """Return the five likeliest tokens as text, with their log-probabilities."""
        logprobs = normalise(logits, allowed)
        best = np.argsort(-logprobs, kind="stable")[:5]
        return tuple((self.spell(token), float(logprobs[token])) for token in best.tolist())
