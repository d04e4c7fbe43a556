"""Options as arguments of `whisper.transcribe`, and checks of what a checkpoint can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from whisper.model import Whisper
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, get_tokenizer

from engines.base import EngineError, Options
from engines.options import find_conflict

WIDEST_BEAM = 50
"""Whisper allows 51 tokens at a window's first position, so a wider beam can't be filled."""


def list_arguments(options: Options) -> dict[str, Any]:
    """Return Whisper's options as arguments of `whisper.transcribe`."""
    other = ("temperatures", "vad")
    same = {name: value for name, value in options.values().items() if name not in other}
    return {
        **same,
        "temperature": options.temperatures,
        "initial_prompt": options.initial_prompt.strip() or None,
        "clip_timestamps": list(options.clip_timestamps),
        "suppress_tokens": ",".join(map(str, options.suppress_tokens)),
    }


def check_options(name: str, model: Whisper, options: Options) -> None:
    """Raise `EngineError` for options that the checkpoint `name` can't serve."""
    beams = options.beam_size
    if beams is not None and not 1 <= beams <= WIDEST_BEAM:
        raise EngineError(f"The beam size may be 1 to {WIDEST_BEAM}, not {beams}.")
    if conflict := find_conflict(options, beams, options.word_timestamps):
        raise EngineError(conflict)
    check_tokens(name, model, options.suppress_tokens, beams or 1)
    if options.task == "translate" and not model.is_multilingual:
        raise EngineError(f"{name} knows English only: to translate, pick a multilingual model.")
    if options.language is None:
        return
    code = TO_LANGUAGE_CODE.get(options.language.lower(), options.language.lower())
    if code not in list(LANGUAGES)[: model.num_languages]:
        raise EngineError(
            f"{name} knows no language {options.language!r}: give a code such as en or "
            "de, or leave the language on automatic."
        )
    if code != "en" and not model.is_multilingual:
        raise EngineError(
            f"{name} knows English only: leave the language on automatic, "
            "or pick a multilingual model."
        )


def check_tokens(name: str, model: Whisper, tokens: Sequence[int], beams: int) -> None:
    """Raise `EngineError` for tokens that don't exist, or without which no window can begin."""
    if max(tokens, default=0) >= model.dims.n_vocab:
        last = model.dims.n_vocab - 1
        raise EngineError(f"suppress_tokens has {max(tokens)}, and {name}'s tokens end at {last}.")
    begin = get_tokenizer(model.is_multilingual, num_languages=model.num_languages).timestamp_begin
    first = set(range(begin, begin + WIDEST_BEAM + 1))
    if len(first.difference(tokens)) <= beams:
        raise EngineError("suppress_tokens leaves too few times for a window to begin with.")
