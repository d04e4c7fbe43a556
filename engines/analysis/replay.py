"""Where two engines' tokens part, which half of the model parts them, and which one is right.

The transcripts of one clip are compared window by window up to the first token in which they
differ. That step is then decoded again, with the same audio, prompt and tokens before it, through
both encoders and both decoders in all four pairings, and by PyTorch in float64, which judges:
whichever candidate it prefers is what the checkpoint says of this audio. Both candidates' log
probabilities are over the tokens that whisper's own filters allow there.

Whisper takes a timestamp where all timestamps together are likelier than any one text token, so
between a word and a timestamp the margin is that of all of them to the word.

An engine with a loop of its own (`EngineRow.own_loop`) tells neither its windows nor what its
halves compute. Its text tokens are compared, timestamps left aside, and only the judge speaks.
After a beam search, whose choice is one of sequences, the judge compares those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from whisper.audio import HOP_LENGTH, N_FRAMES, SAMPLE_RATE
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.model import Whisper
from whisper.timing import find_alignment
from whisper.tokenizer import Tokenizer, get_tokenizer

from engines import checkpoints, registry
from engines.analysis.divergence import TIMESTAMP_SECONDS, Parting, find_parting
from engines.analysis.layers import cut_window, to_float64
from engines.analysis.records import Candidate, Cause, Divergence, Pairing
from engines.base import (
    SILENT,
    Clip,
    Engine,
    EngineError,
    FloatArray,
    Listener,
    Options,
    PartListener,
    Transcript,
)
from engines.checkpoints import Checkpoint
from engines.runtimes import RuntimeEngine
from engines.transcription import WhisperEngine
from engines.whisper_arguments import list_arguments

GREEDY = Options(temperatures=(0.0,))


def explain_clip(
    lanes: Sequence[str],
    model: str,
    clip: Clip,
    options: Options = GREEDY,
    listener: Listener = SILENT,
) -> Divergence:
    """Transcribe the clip by two engines of this process, and explain where they part."""
    found = []
    for number, name in enumerate(lanes):
        engine = registry.get(name, model)
        engine.prepare(listener)
        part = PartListener(listener, 0.35 * number, 0.35 * (number + 1), f"running {engine.label}")
        found.append(engine.transcribe(clip, options, part).without_features())
    return explain_transcripts(found, clip, options, PartListener(listener, 0.7, 1.0))


def explain_transcripts(
    found: Sequence[Transcript], clip: Clip, options: Options, listener: Listener = SILENT
) -> Divergence:
    """Explain where two transcripts part that engines like this process's made."""
    first, second = found
    if first.model != second.model:
        raise EngineError(
            f"{first.engine} ran {first.model} and {second.engine} ran {second.model}: only "
            "engines of one model can be asked why they differ."
        )
    checkpoint = checkpoints.load(first.model, listener)
    engines = [registry.get(f"{each.engine}:{each.dtype}", each.model) for each in found]
    return explain(engines, found, checkpoint, clip, options, listener)


def explain(
    engines: Sequence[Engine],
    found: Sequence[Transcript],
    checkpoint: Checkpoint,
    clip: Clip,
    options: Options = GREEDY,
    listener: Listener = SILENT,
) -> Divergence:
    """Find where two engines' transcripts of a clip part, and decode that step again.

    Raises any `EngineError`, `Stopped` among them.
    """
    listener.report("comparing", 0.0, 1.0, "looking for the first token that differs")
    judge = Judge(checkpoint, found[0].language, options)
    parting = find_parting(found, judge.tokenizer, judge.longest, judge.start_window)
    names = tuple(each.label for each in engines)
    result = Divergence(
        engines=(found[0].engine, found[1].engine),
        labels=(names[0], names[1]),
        model=checkpoint.name,
        clip=clip.name,
        beam_size=options.beam_size or 1,
        parts=parting.parts,
        window=parting.number,
        start=parting.window.start,
        position=len(parting.before),
        time=clip.source.file_time(parting.window.start),
        before=judge.spell(*parting.before),
    )
    if parting.parts != "token":
        return replace(result, candidates=judge.describe(parting.tokens, None))
    start = parting.window.start
    mel = cut_window(clip, checkpoint.dims.n_mels, start, find_end(options, start))
    listener.report("comparing", 0.1, 1.0, "asking PyTorch in float64")
    allowed = judge.list_allowed(parting)
    step = Step(
        parting.window.prompt, parting.before, parting.tokens, allowed, judge.tokenizer, options
    )
    features = judge.encode(mel)
    logits = judge.compute_logits(features, step.prompt, step.before)
    verdict = step.weigh("float64", "float64", logits[-1])
    result = replace(
        result,
        candidates=judge.describe(parting.tokens, allowed),
        time=clip.source.file_time(judge.find_time(parting, clip.seconds)),
        judge=verdict,
        judge_best=judge.list_best(logits[-1], allowed),
        sequences=judge.score_sequences(features, parting) if result.beam_size > 1 else (),
        pairings=replay(engines, mel, step, listener),
    )
    return replace(result, **attribute(result.pairings))


def find_end(options: Options, start: float) -> float:
    """Return where the part of the clip ends, in seconds, in which a window begins."""
    times = options.clip_timestamps
    parts = zip(times[::2], (*times[1::2], math.inf), strict=False)
    return next((end for begin, end in parts if begin <= start + 0.01 < end), math.inf)


# The step, once more


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
        found = tuple(finite(logprobs[token]) for token in self.candidates)
        margin = finite(weights[0] - weights[1])
        return Pairing(encoder, decoder, (found[0], found[1]), margin)


def normalise(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return log-probabilities `(n_vocab,)` in float64 over the allowed tokens."""
    kept = np.where(allowed, logits.astype(np.float64), -np.inf)
    logprobs: np.ndarray = kept - np.logaddexp.reduce(kept)
    return logprobs


def finite(value: float) -> float | None:
    """Return a number, None for one that is not finite: JSON has no infinity."""
    return float(value) if np.isfinite(value) else None


def replay(
    engines: Sequence[Engine], mel: FloatArray, step: Step, listener: Listener
) -> tuple[Pairing, ...]:
    """Decode the step in every pairing of the engines' halves; none where one hides its own."""
    if any(isinstance(each, RuntimeEngine) for each in engines):
        return ()
    pairings = []
    for number, encoder in enumerate(engines):
        listener.report("comparing", 0.3 + 0.3 * number, 1.0, f"encoding with {encoder.label}")
        [features] = encoder.encode(mel[None])  # (n_audio_ctx, n_audio_state)
        for decoder in engines:
            note = f"decoding with {decoder.label}"
            listener.report("comparing", 0.4 + 0.3 * number, 1.0, note)
            assert isinstance(decoder, WhisperEngine)
            logits = next_logits(decoder, features, step)
            pairings.append(step.weigh(encoder.key, decoder.key, logits))
    return tuple(pairings)


@torch.inference_mode()
def next_logits(engine: WhisperEngine, features: FloatArray, step: Step) -> FloatArray:
    """Return the logits `(n_vocab,)` of the step, its tokens decoded one by one as in a run."""
    model = engine.ready()
    audio = torch.from_numpy(features)[None].to(model.device)
    if engine.dtype == "float16" and audio.is_cuda:
        audio = audio.half()
    inference = make_task(model, step.prompt, step.tokenizer, step.options).inference
    tokens = torch.tensor([[*step.prompt, *step.before]], device=model.device)
    try:
        for end in range(len(step.prompt), tokens.shape[1] + 1):
            logits: Tensor = inference.logits(tokens[:, :end], audio)  # (1, new, n_vocab)
    finally:
        inference.cleanup_caching()
    last: FloatArray = logits[0, -1].float().cpu().numpy()
    return last


def make_task(
    model: Whisper, prompt: Sequence[int], tokenizer: Tokenizer, options: Options
) -> DecodingTask:
    """Return a model's loop over one window's tokens after a prompt."""
    previous = list(prompt)[1 : list(prompt).index(tokenizer.sot)]
    asked = set_options(tokenizer, options, previous)
    decoding_task = getattr(model, "decoding_task", None)  # an engine's own
    task: DecodingTask = decoding_task(asked) if decoding_task else DecodingTask(model, asked)
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


def attribute(pairings: Sequence[Pairing]) -> dict[str, Any]:
    """Return which half the choice comes from, and each half's share of the margins' difference.

    A half's share is the mean over both of the other half of how far changing it moves the margin.
    """
    margins = [each.margin for each in pairings if each.margin is not None]
    if len(margins) < 4:
        return {}
    aa, ab, ba, bb = margins  # encoder, decoder
    encoder, decoder = ((aa - ba) + (ab - bb)) / 2, ((aa - ab) + (ba - bb)) / 2
    cause: Cause = "neither"
    if aa >= 0 > bb:
        cause = "both"
        if ab >= 0 > ba:
            cause = "encoder"
        elif ba >= 0 > ab:
            cause = "decoder"
    return {"cause": cause, "encoder_moves": encoder, "decoder_moves": decoder}


# The judge


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
        asked = set_options(self.tokenizer, self._options, said)
        return tuple(DecodingTask(self._model, asked).initial_tokens)

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
