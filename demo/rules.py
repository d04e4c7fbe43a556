"""What can be asked for: a row for each field of a request, and the values that this machine has.

A new option of the page is one field of `Settings` with its row in `RULES`, one of Whisper's is a
row of `engines.options`; page, link, endpoints and tools follow from these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from demo.samples import Sample
from engines.base import EngineError
from engines.clip_source import LEFT, MOST_CHANNELS, MOST_TRACKS, RIGHT
from engines.models import LANGUAGES, is_hub_repository
from engines.options import OPTIONS, Option, show
from engines.registry import EngineStatus, read_lane, row


class RequestError(EngineError):
    """A request that can't be granted; the text is one sentence."""


@dataclass(frozen=True)
class Choices:
    """Values that this machine offers. `own_checkpoints`: a model may be a file's path, which only
    the machine's own user may name."""

    samples: Sequence[Sample]
    engines: Sequence[EngineStatus]
    models: Sequence[str]
    own_checkpoints: bool = False

    @property
    def available(self) -> tuple[str, ...]:
        """Keys of the engines that this machine can run."""
        return tuple(status.key for status in self.engines if status.available)

    @property
    def standard(self) -> tuple[str, ...]:
        """Keys of the engines that run unless others are asked for: not the optional ones."""
        return tuple(each.key for each in self.engines if each.available and not each.is_optional)

    def find_sample(self, key: str) -> Sample | None:
        """Return the sample of that key."""
        return next((sample for sample in self.samples if sample.key == key), None)

    def values(self, name: str) -> Mapping[Any, str]:
        """Return the values that a field takes, with their labels."""
        return RULES[name].find_values(self)


@dataclass(frozen=True)
class Rule(Option):
    """An option's row with what page, link and endpoints need beside.

    `offer(choices)`: values that depend on the machine, after `values`. `check(name, value,
    choices)`: reads any JSON in place of `read`, or raises `RequestError`. A link names one of the
    values, where there are any; `spelled`: those that it spells in another way. `read_link(text,
    choices)` and `write_link(value, choices)` do it in place of that. `menu`: whether the page
    shows the values as a menu, where another one can be typed. `is_shown(choices)`: whether the
    page has a control for it.
    """

    offer: Callable[[Choices], Mapping[str, str]] = lambda choices: {}
    check: Callable[[str, Any, Choices], Any] | None = None
    spelled: Mapping[Any, str] = field(default_factory=dict)
    read_link: Callable[[str, Choices], Any] | None = None
    write_link: Callable[[Any, Choices], str] | None = None
    menu: bool = False
    is_shown: Callable[[Choices], bool] = lambda choices: True

    def find_values(self, choices: Choices) -> Mapping[Any, str]:
        """Return the values that this machine has, with their labels."""
        return {**self.values, **self.offer(choices)}

    def from_link(self, name: str, text: str, choices: Choices) -> Any:
        """Return the value that a link's text stands for; raise `RequestError`, `ValueError` or
        `LookupError` for none."""
        if self.read_link is not None:
            return self.read_link(text, choices)
        values = self.find_values(choices)
        return {self.spell(x): x for x in values}[text] if values else self.read(name, text)

    def to_link(self, value: Any, choices: Choices) -> str | None:
        """Return a value as a link has it; None for one that can't travel."""
        if self.write_link is not None:
            return self.write_link(value, choices) or None
        known = self.kind != "choice" or value in self.find_values(choices)
        return self.spell(value) if known else None

    def spell(self, value: Any) -> str:
        """Return one of the values as a link has it."""
        return self.spelled.get(value) or self.write(value)


def check(name: str, value: Any, choices: Choices) -> Any:
    """Return a field's value from any JSON; raise `RequestError` with one sentence."""
    rule = RULES[name]
    try:
        return rule.check(name, value, choices) if rule.check else rule.read(name, value)
    except ValueError as error:
        raise RequestError(str(error)) from None


def check_known(name: str, value: Any, choices: Choices) -> str:
    """Return one of a field's values."""
    return check_word(name, value, list(choices.values(name)))


def check_word(name: str, value: Any, known: Sequence[str]) -> str:
    """Return a word that is known; raise `RequestError` for anything else."""
    if not isinstance(value, str) or value not in known:
        raise RequestError(f"{name} can't be {show(value)}: use one of {', '.join(known)}.")
    return value


def check_lanes(name: str, value: Any, choices: Choices) -> tuple[str, ...]:
    """Return lanes that can run, in the engines' order."""
    if not isinstance(value, list | tuple):
        raise RequestError(f"{name} must be a list of keys, not {show(value)}.")
    return sort_lanes([check_lane(each, choices) for each in value], choices)


def sort_lanes(lanes: Sequence[str], choices: Choices) -> tuple[str, ...]:
    """Return each lane once, in the engines' order."""
    order = list(choices.values("engines"))
    return tuple(sorted(dict.fromkeys(lanes), key=lambda lane: order.index(read_lane(lane).engine)))


def check_baseline(name: str, value: Any, choices: Choices) -> str:
    """Return a lane that can run, "" for the usual baseline."""
    return check_lane(value, choices) if value else ""


def check_lane(value: Any, choices: Choices) -> str:
    """Return the name of a lane that can run; raise `RequestError` for anything else."""
    if not isinstance(value, str):
        raise RequestError(f"engine can't be {show(value)}: name it by its key.")
    key = value.partition("@")[0].partition(":")[0]
    check_word("engine", key, list(choices.values("engines")))
    for status in choices.engines:
        if status.key == key and not status.available:
            raise RequestError(f"{status.label} can't run here: {status.reason}.")
    try:
        lane = read_lane(value)
    except EngineError:
        raise RequestError(f"engine can't be {show(value)}: {key} has no such type.") from None
    if lane.model is not None:
        check("model", lane.model, choices)
    return value


def read_lanes(text: str, choices: Choices) -> tuple[str, ...]:
    """Return the lanes of a link that can run here; raise `RequestError` where there is none."""
    lanes = []
    for name in text.split(","):
        with suppress(RequestError):
            lanes.append(check_lane(name, choices))
    if not lanes:
        raise RequestError(NO_ENGINE)
    return sort_lanes(lanes, choices)


def write_lanes(value: str | Sequence[str], choices: Choices) -> str:
    """Return the lanes that a link can name: none of a checkpoint's path."""
    engines, models = choices.values("engines"), (None, *choices.models)
    lanes = [value] if isinstance(value, str) else value
    parsed = [(lane, read_lane(lane)) for lane in lanes if lane]
    return ",".join(name for name, x in parsed if x.engine in engines and x.model in models)


def check_model(name: str, value: Any, choices: Choices) -> str:
    """Return a known model; where one's own are taken, also a checkpoint's path or the name of a
    repository, which is looked up at Hugging Face."""
    known = choices.values(name)
    if not choices.own_checkpoints or (isinstance(value, str) and value in known):
        return check_known(name, value, choices)
    if isinstance(value, str):
        with suppress(OSError, ValueError, RuntimeError):  # no path, or nobody's home
            if value and Path(value).expanduser().exists():
                return value
        if is_hub_repository(value) and not value.endswith((".pt", ".bin", ".safetensors")):
            return value
    sentence = f"There is no model {show(value)} here: choose one of the list, or give the path of"
    raise RequestError(f"{sentence} a Whisper checkpoint.")


def check_language(name: str, value: Any, choices: Choices) -> str:
    """Return a language's code, "" for one to detect."""
    if value is None or (isinstance(value, str) and value in choices.values(name)):
        return value or ""
    raise RequestError(
        f"{name} can't be {show(value)}: use a code such as en, or nothing to detect it."
    )


def check_text(name: str, value: Any, choices: Choices) -> str:
    """Return a free text with single spaces, "" for None; raise `RequestError` for a long one."""
    if not isinstance(value, str | None):
        raise RequestError(f"{name} must be a text, not {show(value)}.")
    text = " ".join((value or "").encode(errors="replace").decode().split())
    longest = RULES[name].longest
    if len(text) > longest:
        raise RequestError(
            f"{name} has {len(text):,} characters, and {longest:,} are the most: shorten it."
        )
    return text


NO_ENGINE = "Choose at least one engine."


def list_models(choices: Choices) -> dict[str, str]:
    return {model: model for model in choices.models}


RULES: dict[str, Rule] = {
    "sample": Rule(
        "choice",
        "Clip",
        "the key of a clip that comes with the project, such as jfk",
        link="sample",
        offer=lambda choices: {sample.key: sample.title for sample in choices.samples},
        check=check_known,
    ),
    "engines": Rule(
        "choice",
        "Engines",
        "keys as in /engines, perhaps with a type or a model of its own, such as gpu:float16 or "
        "max_full@tiny.en; all that this machine has but optional ones, unless given",
        link="engines",
        offer=lambda choices: {each.key: each.label for each in choices.engines},
        check=check_lanes,
        read_link=read_lanes,
        write_link=write_lanes,
    ),
    "model": Rule(
        "choice",
        "Model",
        "one of OpenAI's names, downloaded on first use",
        link="model",
        offer=list_models,
        check=check_model,
    ),
    "language": Rule(
        "choice",
        "Language",
        'a code such as en, or "" to detect it',
        link="language",
        values={"": "Detect automatically"}
        | {code: name.capitalize() for code, name in sorted(LANGUAGES.items(), key=itemgetter(1))},
        check=check_language,
        spelled={"": "auto"},
    ),
    "beam_size": Rule(
        "number",
        "Beam size",
        "1 is greedy",
        link="beam",
        values={1: "1", 5: "5"},
        least=1,
        most=10,
        whole=True,
    ),
    "schedule": Rule(
        "choice",
        "Schedule",
        '"one at a time" for times that can be compared, "parallel" for all at once, or "both"',
        link="schedule",
        values={
            "both": "All at once, then each alone",
            "parallel": "All at once",
            "one at a time": "Each alone",
        },
        spelled={"one at a time": "in-turn"},
    ),
    "word_timestamps": Rule(
        "flag", "Word timestamps", "whether segments have words with times", link="words"
    ),
    "gpu_dtype": Rule(
        "choice",
        "GPU type",
        "what a GPU engine with a choice of types computes in",
        link="gpu",
        values={"float32": "float32", "float16": "float16"},
        is_shown=lambda choices: any(row(key).offers_dtypes for key in choices.available),
    ),
    "repeats": Rule(
        "number",
        "Repeats",
        "runs of each engine; of several the median's times are given",
        link="runs",
        values={1: "1", 3: "3", 5: "5"},
        least=1,
        most=5,
        whole=True,
    ),
    "reference": Rule(
        "text",
        "What was really said (optional)",
        "the words really spoken, for word error rates; a sample's own, unless given",
        longest=50_000,
        check=check_text,
    ),
    "track": Rule(
        "number",
        "Audio track",
        "which of a film's audio tracks, from 1; 0 is the one that players choose",
        link="track",
        values={0: "As players choose"} | {number: str(number) for number in range(1, 17)},
        most=MOST_TRACKS,
        whole=True,
    ),
    "channel": Rule(
        "number",
        "Channel",
        "one channel alone, from 1 (1 is left, 2 is right); 0 mixes all, as Whisper does",
        link="channel",
        values={0: "All mixed", LEFT: "Left", RIGHT: "Right"} | {n: str(n) for n in range(3, 17)},
        most=MOST_CHANNELS,
        whole=True,
        spelled={LEFT: "left", RIGHT: "right"},
    ),
    **{name: Rule(**vars(option)) for name, option in OPTIONS.items()},
    "other_model": Rule(
        "choice",
        "Compare with another model",
        "a second model, with which every engine runs as well",
        link="other",
        values={"": "None"},
        offer=list_models,
        check=check_model,
        menu=True,
    ),
    "baseline": Rule(
        "choice",
        "Baseline",
        "which of the engines the others are held against; cpu or else the first, unless given",
        link="baseline",
        values={"": "PyTorch CPU, if chosen"},
        offer=lambda choices: {x.key: x.label for x in choices.engines if x.available},
        check=check_baseline,
        read_link=lambda text, choices: text,
        write_link=write_lanes,
        menu=True,
    ),
}
"""By the names of `ComparisonRequest`'s fields, but for `upload`, in the order of the endpoints'
arguments: new ones come last."""
