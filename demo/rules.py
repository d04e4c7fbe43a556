"""What can be asked for: a row for each field of a request, and the values that this machine has.

A new option of the page is one field of `Settings` with its row in `RULES`, one of Whisper's is a
row of `engines.options`; page, link, endpoints and tools follow from these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from demo.samples import Sample
from engines.clip_source import LEFT, MOST_CHANNELS, MOST_TRACKS, RIGHT
from engines.models import LANGUAGES
from engines.options import OPTIONS, Option
from engines.registry import EngineStatus


@dataclass(frozen=True)
class Rule:
    """Name and values of one field.

    `help`: for programs. `link`: the parameter's name in a link. `values`: those that the page's
    control shows and a link can name, with a label each; `Choices.values` has those that depend on
    the machine. `most`: of a number, any from `least` on being taken from programs. `longest`:
    of a free text, in characters; it has no `link`. `spelled`: values whose spelling in a link
    isn't `str`'s; one that is "" is left out. `menu`: whether the page shows the values as a menu,
    where another one can be typed.
    """

    label: str
    help: str
    link: str
    values: Mapping[Any, str] = field(default_factory=dict)
    least: int = 1
    most: int = 0
    longest: int = 0
    spelled: Mapping[Any, str] = field(default_factory=dict)
    menu: bool = False

    def spell(self, value: Any) -> str:
        """Return a value as a link has it."""
        return self.spelled.get(value, str(value))


RULES: dict[str, Rule | Option] = {
    "sample": Rule("Clip", "the key of a clip that comes with the project, such as jfk", "sample"),
    "engines": Rule(
        "Engines",
        "keys as in /engines, perhaps with a type or a model of its own, such as gpu:float16 or "
        "max_full@tiny.en; all that this machine has but optional ones, unless given",
        "engines",
    ),
    "model": Rule("Model", "one of OpenAI's names, downloaded on first use", "model"),
    "language": Rule(
        "Language",
        'a code such as en, or "" to detect it',
        "language",
        {"": "Detect automatically"}
        | {code: name.capitalize() for code, name in sorted(LANGUAGES.items(), key=itemgetter(1))},
        spelled={"": "auto"},
    ),
    "beam_size": Rule("Beam size", "1 is greedy", "beam", {1: "1", 5: "5"}, most=10),
    "schedule": Rule(
        "Schedule",
        '"one at a time" for times that can be compared, "parallel" for all at once, or "both"',
        "schedule",
        {
            "both": "All at once, then each alone",
            "parallel": "All at once",
            "one at a time": "Each alone",
        },
        spelled={"one at a time": "in-turn"},
    ),
    "word_timestamps": Rule(
        "Word timestamps",
        "whether segments have words with times",
        "words",
        {False: "", True: ""},
        spelled={False: "0", True: "1"},
    ),
    "gpu_dtype": Rule(
        "GPU type",
        "what a GPU engine with a choice of types computes in",
        "gpu",
        {"float32": "float32", "float16": "float16"},
    ),
    "repeats": Rule(
        "Repeats",
        "runs of each engine; of several the median's times are given",
        "runs",
        {1: "1", 3: "3", 5: "5"},
        most=5,
    ),
    "reference": Rule(
        "What was really said (optional)",
        "the words really spoken, for word error rates; a sample's own, unless given",
        "",
        longest=50_000,
    ),
    "track": Rule(
        "Audio track",
        "which of a film's audio tracks, from 1; 0 is the one that players choose",
        "track",
        {0: "As players choose"} | {number: str(number) for number in range(1, 17)},
        spelled={0: ""},
        least=0,
        most=MOST_TRACKS,
    ),
    "channel": Rule(
        "Channel",
        "one channel alone, from 1 (1 is left, 2 is right); 0 mixes all, as Whisper does",
        "channel",
        {0: "All mixed", LEFT: "Left", RIGHT: "Right"} | {n: str(n) for n in range(3, 17)},
        spelled={0: "", LEFT: "left", RIGHT: "right"},
        least=0,
        most=MOST_CHANNELS,
    ),
    **OPTIONS,
    "other_model": Rule(
        "Compare with another model",
        "a second model, with which every engine runs as well",
        "other",
        {"": "None"},
        menu=True,
    ),
    "baseline": Rule(
        "Baseline",
        "which of the engines the others are held against; cpu or else the first, unless given",
        "baseline",
        {"": "PyTorch CPU, if chosen"},
        menu=True,
    ),
}
"""By the names of `ComparisonRequest`'s fields, but for `upload`, in the order of the endpoints'
arguments: new ones come last."""


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
        if name == "sample":
            return {sample.key: sample.title for sample in self.samples}
        if name == "engines":
            return {status.key: status.label for status in self.engines}
        if name in ("model", "other_model"):
            return {**RULES[name].values, **{model: model for model in self.models}}
        if name == "baseline":
            here = {each.key: each.label for each in self.engines if each.available}
            return {**RULES[name].values, **here}
        return RULES[name].values
