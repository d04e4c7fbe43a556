"""Where two engines' tokens part, which half of the model parts them, and which one is right.

The transcripts of one clip are compared window by window up to the first token in which they
differ. That step is then decoded again, with the same audio, prompt and tokens before it, through
both encoders and both decoders in all four pairings, and by PyTorch in float64, which judges:
whichever candidate it prefers is what the checkpoint says of this audio. Both candidates' log
probabilities are over the tokens that whisper's own filters allow there.

An engine with a loop of its own (`EngineRow.own_loop`) tells neither its windows nor what its
halves compute. Its text tokens are compared, timestamps left aside, and only the judge speaks.
After a beam search, whose choice is one of sequences, the judge compares those.

Engines of two models have no half in common to exchange: each model judges the step by itself, in
float64, where both write in one vocabulary. Where they don't, the first word that differs is all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, zip_longest
from typing import Any

import torch
from torch import Tensor
from whisper.model import Whisper

from engines import checkpoints, registry
from engines.analysis.divergence import Parting, find_parting
from engines.analysis.divergence_records import Candidate, Cause, Divergence, Pairing
from engines.analysis.judge import Judge, Step, find_end, make_task
from engines.analysis.layers import cut_window
from engines.base import (
    SILENT,
    Clip,
    Engine,
    FloatArray,
    Listener,
    Options,
    Transcript,
)
from engines.checkpoints import Checkpoint
from engines.runtimes import RuntimeEngine
from engines.transcription import WhisperEngine

GREEDY = Options(temperatures=(0.0,))


def explain_clip(
    lanes: Sequence[str], model: str, clip: Clip, options: Options = GREEDY
) -> Divergence:
    """Transcribe the clip by two engines of this process, and explain where they part."""
    engines = [registry.get(name, model) for name in lanes]
    transcripts = [each.transcribe(clip, options).without_features() for each in engines]
    return explain_transcripts(transcripts, clip, options)


def explain_transcripts(
    transcripts: Sequence[Transcript], clip: Clip, options: Options, listener: Listener = SILENT
) -> Divergence:
    """Explain where two transcripts part that engines like this process's made."""
    first, second = transcripts
    if first.model != second.model:
        return explain_models(transcripts, clip, options, listener)
    checkpoint = checkpoints.load(first.model, listener)
    engines = [registry.get(f"{each.engine}:{each.dtype}", each.model) for each in transcripts]
    return explain(engines, transcripts, checkpoint, clip, options, listener)


def explain(
    engines: Sequence[Engine],
    transcripts: Sequence[Transcript],
    checkpoint: Checkpoint,
    clip: Clip,
    options: Options = GREEDY,
    listener: Listener = SILENT,
) -> Divergence:
    """Find where two engines' transcripts of a clip part, and decode that step again.

    Raises any `EngineError`, `Stopped` among them.
    """
    listener.report("comparing", 0.0, 1.0, "looking for the first token that differs")
    judge = Judge(checkpoint, transcripts[0].language, options)
    parting = find_parting(transcripts, judge.tokenizer, judge.longest, judge.start_window)
    result = Divergence(
        engines=(transcripts[0].engine, transcripts[1].engine),
        labels=name_apart([each.label for each in engines], [each.dtype for each in transcripts]),
        model=checkpoint.name,
        clip=clip.name,
        beam_size=options.beam_size or 1,
        **locate(parting, judge, clip),
    )
    if parting.parts != "token":
        return result
    start = parting.window.start
    mel = cut_window(clip, checkpoint.dims.n_mels, start, find_end(options, start))
    listener.report("comparing", 0.1, 1.0, "asking PyTorch in float64")
    step = judge.make_step(parting)
    features = judge.encode(mel)
    logits = judge.compute_logits(features, step.prompt, step.before)
    result = replace(
        result,
        candidates=judge.describe(parting.tokens, step.allowed),
        time=clip.source.file_time(judge.find_time(parting, clip.seconds)),
        judge=step.weigh("float64", "float64", logits[-1]),
        judge_best=judge.list_best(logits[-1], step.allowed),
        sequences=judge.score_sequences(features, parting) if result.beam_size > 1 else (),
        pairings=replay(engines, mel, step, listener),
    )
    return replace(result, **attribute(result.pairings))


def locate(parting: Parting, judge: Judge, clip: Clip) -> dict[str, Any]:
    """Return where two engines part, as fields of a `Divergence`."""
    return {
        "parts": parting.parts,
        "window": parting.number,
        "start": parting.window.start,
        "position": len(parting.before),
        "time": clip.source.file_time(parting.window.start),
        "before": judge.spell(*parting.before),
        "candidates": judge.describe(parting.tokens, None),
    }


def name_apart(labels: Sequence[str], traits: Sequence[str]) -> tuple[str, str]:
    """Return the names of two engines; where they are one, each with its type or its model."""
    if labels[0] == labels[1]:
        labels = [f"{label}, {trait}" for label, trait in zip(labels, traits, strict=True)]
    return labels[0], labels[1]


# Engines of two models


def explain_models(
    transcripts: Sequence[Transcript], clip: Clip, options: Options, listener: Listener
) -> Divergence:
    """Explain where transcripts of two models part, by what each model prefers in float64."""
    models = [each.model for each in transcripts]
    labels = [registry.row(registry.read_lane(each.engine).engine).label for each in transcripts]
    loaded = [checkpoints.load(model, listener) for model in models]
    result = Divergence(
        engines=(transcripts[0].engine, transcripts[1].engine),
        labels=(f"{labels[0]} with {models[0]}", f"{labels[1]} with {models[1]}"),
        model=" and ".join(models),
        clip=clip.name,
        beam_size=options.beam_size or 1,
        models=(models[0], models[1]),
    )
    vocabularies = {(each.dims.n_vocab, each.build(Whisper).is_multilingual) for each in loaded}
    if len(vocabularies) > 1:
        return replace(result, **find_word(transcripts, clip))
    listener.report("comparing", 0.1, 1.0, "looking for the first token that differs")
    judge = Judge(loaded[0], transcripts[0].language, options)
    parting = find_parting(transcripts, judge.tokenizer, judge.longest, judge.start_window)
    result = replace(result, **locate(parting, judge, clip))
    if parting.parts != "token":
        return result
    start, step = parting.window.start, judge.make_step(parting)
    judges = []
    for number, checkpoint in enumerate(loaded):
        listener.report("comparing", 0.2 + 0.4 * number, 1.0, f"asking {models[number]}")
        if number:  # one model at a time: float64 takes eight bytes a weight
            judge = Judge(checkpoint, transcripts[0].language, options)
        mel = cut_window(clip, checkpoint.dims.n_mels, start, find_end(options, start))
        logits = judge.compute_logits(judge.encode(mel), step.prompt, step.before)
        judges.append(step.weigh(models[number], models[number], logits[-1]))
    return replace(
        result,
        candidates=judge.describe(parting.tokens, step.allowed),
        time=clip.source.file_time(judge.find_time(parting, clip.seconds)),
        judges=tuple(judges),
    )


def find_word(transcripts: Sequence[Transcript], clip: Clip) -> dict[str, Any]:
    """Return the first word in which two transcripts differ, as fields of a `Divergence`."""
    texts = [each.text.split() for each in transcripts]
    pairs = enumerate(zip_longest(*texts, fillvalue=""))
    at = next((at for at, pair in pairs if pair[0] != pair[1]), None)
    if at is None:
        return {"parts": "nowhere"}
    heard = (*(segment for segment in transcripts[0].segments if segment.text.strip()),)
    ends = accumulate(len(segment.text.split()) for segment in heard)
    holder = next((each for each, end in zip(heard, ends, strict=True) if at < end), None)
    words = [text[at] if at < len(text) else "" for text in texts]
    return {
        "parts": "word",
        "position": at,
        "time": clip.source.file_time(holder.start if holder else transcripts[0].audio_seconds),
        "before": " ".join(texts[0][:at]) + " ",
        "candidates": tuple(Candidate(None, word) for word in words),
    }


# The step, once more


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
