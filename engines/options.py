"""Whisper's options of decoding: one table, a row an option.

Page, link, HTTP API, MCP tools, command line and engines follow from the fields of
`WhisperOptions`. Names and defaults are those of `whisper.transcribe` (20250625), but for
`temperatures`, its `temperature`, and `vad`, which whisper lacks. Nothing here imports whisper.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal

Kind = Literal["choice", "flag", "text", "number", "numbers"]

SPECIAL = re.compile(r"<\|[^|]*\|>")
"""Spelling of a special token, which whisper's tokenizer refuses in a text."""


@dataclass(frozen=True)
class Option:
    """What is known of one option beside its name and its default.

    `help`: one line for people and programs. `group`: heading on the page. `link`: the parameter's
    name in a link. `values`: of a choice, or those that a page shows, with a label each. `least`
    and `most`: of each number. `whole`: whether numbers have no fraction. `longest`: characters of
    a text, numbers of a list. `optional`: whether None is a value as well.
    """

    kind: Kind
    label: str
    help: str
    group: str = ""
    link: str = ""
    default: Any = None
    values: Mapping[Any, str] = field(default_factory=dict)
    least: float = 0.0
    most: float = 0.0
    whole: bool = False
    longest: int = 0
    optional: bool = False

    def read(self, name: str, value: Any) -> Any:
        """Return the value that any JSON, or a text of a box, a link or a command line, stands for;
        raise `ValueError` with one sentence."""
        if self.kind == "choice":
            if isinstance(value, str) and value in self.values:
                return value
            known = " or ".join(self.values)
            raise ValueError(f"{name} can't be {show(value)}: use {known}.")
        if self.kind == "text":
            return self._read_text(name, value)
        if isinstance(value, str):
            value = self._split(value)
        if self.kind == "flag":
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, not {show(value)}.")
            return value
        if self.optional and value is None:
            return None
        if self.kind == "numbers":
            return self._read_list(name, value)
        if not self._is_number(value):
            number = "a whole number" if self.whole else "a number"
            nothing = ", or nothing" if self.optional else ""
            number += f"{self._limits()}{nothing}"
            raise ValueError(f"{name} must be {number}, not {show(value)}.")
        return int(value) if self.whole else float(value)

    def write(self, value: Any) -> str:
        """Return a value as a link or a box has it; `read` gives it back."""
        if isinstance(value, bool):
            return str(int(value))
        if isinstance(value, tuple):
            return ",".join(map(self.write, value))
        if isinstance(value, float):
            return repr(value).removesuffix(".0")
        return "" if value is None else str(value)

    def hold(self, value: Any) -> Any:
        """Return a value as the page's control has it."""
        if isinstance(value, tuple):
            return ", ".join(map(self.write, value))
        return value if isinstance(value, bool) else self.write(value)

    def describe(self, value: Any) -> str:
        """Return a value for people."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        return self.values.get(value) or self.hold(value) or ("off" if self.optional else "nothing")

    def _limits(self) -> str:
        return f" from {self.least:g} to {self.most:g}"

    def _is_number(self, value: Any) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and self.least <= value <= self.most
            and not (self.whole and value % 1)
        )

    def _split(self, text: str) -> Any:
        """Return what a text stands for: a flag, nothing, a number or a list of some."""
        text = text.strip()
        if self.kind == "flag":
            return {"1": True, "true": True, "0": False, "false": False}.get(text.lower(), text)
        if self.kind == "number":
            return None if text.lower() in ("", "none", "off") else to_number(text)
        return [to_number(part.strip()) for part in text.split(",")] if text else []

    def _read_text(self, name: str, value: Any) -> str:
        if not isinstance(value, str | None):
            raise ValueError(f"{name} must be a text, not {show(value)}.")
        text = (value or "").encode(errors="replace").decode().replace("\0", "")
        if len(text) > self.longest:
            most = f"{self.longest:,} are the most"
            raise ValueError(f"{name} has {len(text):,} characters, and {most}: shorten it.")
        if token := SPECIAL.search(text):
            raise ValueError(f"{name} can't hold {show(token[0])}, a special token: leave it out.")
        return text

    def _read_list(self, name: str, value: Any) -> tuple[float, ...]:
        numbers = list(value) if isinstance(value, list | tuple) else [value]
        wrong = next((each for each in numbers if not self._is_number(each)), None)
        if wrong is not None or None in numbers:
            kind = "whole numbers" if self.whole else "numbers"
            sentence = f"{name} must be {kind}{self._limits()}, with commas between"
            raise ValueError(f"{sentence}, and {show(wrong)} isn't.")
        if len(numbers) > self.longest:
            raise ValueError(f"{name} has {len(numbers)} numbers, and {self.longest} are the most.")
        return tuple(int(each) if self.whole else float(each) for each in numbers)


def to_number(text: str) -> Any:
    """Return the number that a text spells, or the text."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def show(value: Any) -> str:
    """Return a wrong value on one line, not too long."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def option(default: Any, kind: Kind, label: str, **rest: Any) -> Any:
    """Return a field of `WhisperOptions`, the row of one option."""
    row = Option(kind, label, default=default, **rest)
    return field(default=default, metadata={"option": row})


TASK, SEARCH = "Task and prompt", "Search"
FALLBACK, WORDS, SILENCE = "Fallback and silence", "Word timestamps", "Speech"


@dataclass(frozen=True, kw_only=True)
class WhisperOptions:
    """Every option of whisper's decoding, but for language, beam size and word timestamps."""

    task: str = option(
        "transcribe",
        "choice",
        "Task",
        help="translate writes English whatever is spoken; not for .en models and turbo",
        group=TASK,
        link="task",
        values={"transcribe": "Transcribe", "translate": "Translate to English"},
    )
    initial_prompt: str = option(
        "",
        "text",
        "Prompt",
        help="names or a style to expect: taken for the text before the first window",
        group=TASK,
        link="prompt",
        longest=2000,
    )
    carry_initial_prompt: bool = option(
        False,
        "flag",
        "Prompt for every window",
        help="the prompt comes before every window of 30 s, not only the first",
        group=TASK,
        link="carry",
    )
    clip_timestamps: tuple[float, ...] = option(
        (),
        "numbers",
        "Only a part",
        help="from, to in seconds of the file, more parts after these; empty is all of it",
        group=TASK,
        link="part",
        most=86_400.0,
        longest=200,
    )
    suppress_tokens: tuple[int, ...] = option(
        (-1,),
        "numbers",
        "Tokens never written",
        help="numbers of tokens; -1 stands for signs that are not spoken, empty for none",
        group=TASK,
        link="suppress",
        least=-1.0,
        most=51_865.0,
        whole=True,
        longest=500,
    )
    temperatures: tuple[float, ...] = option(
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        "numbers",
        "Temperatures",
        help="tried in turn while a window fails a test below; 0 takes the likeliest tokens",
        group=SEARCH,
        link="temperature",
        most=1.0,
        longest=24,
    )
    best_of: int | None = option(
        None,
        "number",
        "Best of",
        help="samples above temperature 0, of which the likeliest is taken; empty is one",
        group=SEARCH,
        link="best_of",
        least=1.0,
        most=10.0,
        whole=True,
        optional=True,
    )
    patience: float | None = option(
        None,
        "number",
        "Patience",
        help="a beam search ends after beam size × patience finished texts; empty is 1",
        group=SEARCH,
        link="patience",
        least=0.1,
        most=10.0,
        optional=True,
    )
    condition_on_previous_text: bool = option(
        True,
        "flag",
        "Previous text as prompt",
        help="each window is told the text before it; without, it repeats itself less",
        group=SEARCH,
        link="previous",
    )
    compression_ratio_threshold: float | None = option(
        2.4,
        "number",
        "Most compression",
        help="a text that gzip shrinks more is repetitive and tried again; empty never",
        group=FALLBACK,
        link="compression",
        most=100.0,
        optional=True,
    )
    logprob_threshold: float | None = option(
        -1.0,
        "number",
        "Least log-probability",
        help="a text whose tokens are less likely on average is tried again; empty never",
        group=FALLBACK,
        link="logprob",
        least=-100.0,
        optional=True,
    )
    no_speech_threshold: float | None = option(
        0.6,
        "number",
        "No speech above",
        help="a window likelier to be silent, and unlikely as a text, is left out; empty never",
        group=FALLBACK,
        link="no_speech",
        most=1.0,
        optional=True,
    )
    hallucination_silence_threshold: float | None = option(
        None,
        "number",
        "Skip silence beside odd words, s",
        help="a longer silence around words that seem made up is skipped; needs word timestamps",
        group=WORDS,
        link="hallucination",
        most=600.0,
        optional=True,
    )
    prepend_punctuations: str = option(
        "\"'“¿([{-",
        "text",
        "Signs joined to the next word",
        help="of words with timestamps",
        group=WORDS,
        link="prepend",
        longest=100,
    )
    append_punctuations: str = option(
        "\"'.。,，!！?？:：”)]}、",
        "text",
        "Signs joined to the word before",
        help="of words with timestamps",
        group=WORDS,
        link="append",
        longest=100,
    )

    vad: bool = option(
        False,
        "flag",
        "Find speech first",
        help="longer silence is skipped and the language is taken from speech; by Silero’s model",
        group=SILENCE,
        link="vad",
    )

    def values(self) -> dict[str, Any]:
        """Return the value of every option by name."""
        return {name: getattr(self, name) for name in OPTIONS}

    def changed(self) -> dict[str, Any]:
        """Return the options whose value is not whisper's default."""
        return {name: v for name, v in self.values().items() if v != OPTIONS[name].default}


OPTIONS: dict[str, Option] = {each.name: each.metadata["option"] for each in fields(WhisperOptions)}
"""The rows by the options' names."""


def find_conflict(
    options: WhisperOptions, beam_size: int | None, word_timestamps: bool
) -> str | None:
    """Return why the options can't be followed together, one sentence, or None."""
    beams, times = beam_size or 1, options.clip_timestamps
    if options.patience is not None and (beams < 2 or round(beams * options.patience) < 1):
        least = max(2, math.ceil(0.51 / options.patience))
        return (
            f"patience {options.patience:g} needs a beam search: choose a beam size of {least} or "
            "more, or leave it out."
        )
    if options.hallucination_silence_threshold is not None and not word_timestamps:
        return "hallucination_silence_threshold needs word timestamps: switch them on."
    if not options.temperatures:
        return "temperatures must have one number at least, such as 0."
    if any(after <= before for before, after in pairwise(times)):
        return "clip_timestamps must rise: from, to, and then the next part's."
    return None
