"""What was asked for, as one record for the page, links, the HTTP API, MCP and the command line.

A new option is one field here and, where the engines read it, one of the same name in `Options`.
A field's `Rule` says which values it takes, how a link spells them and what a person reads of it;
page, link, endpoints and tools follow from it. All input is untrusted: whatever is wrong with it is
one sentence in a `RequestError`.

A link: sample=columbia&model=base&engines=cpu,max_full&language=en&beam=5&schedule=in-turn&words=1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from demo import uploads
from demo.samples import Sample
from demo.snapshot import Schedule, Settings, Status
from engines.base import Dtype, EngineError, Options
from engines.languages import LANGUAGES

DEFAULT_MODEL = "base"
"""`checkpoints.DEFAULT_MODEL`, which can't be imported without PyTorch; a test compares them."""

OWN_CLIP = "own"
"""What the page's choice of samples holds while the visitor's own clip is in the player."""

NO_CLIP = "There is no clip yet: choose a sample, upload a file, or record one."
CLIP_GONE = "This clip is no longer here, an hour after its last use: upload it again."
NO_ENGINE = "Choose at least one engine."

LONGEST_LINK = 2000
LONGEST_SHOWN = 60
"""Characters of a wrong value that a sentence repeats."""


class RequestError(EngineError):
    """What was asked for can't be done; the text is one sentence."""


@dataclass(frozen=True)
class Choices:
    """What can be asked of this machine. `own_checkpoints`: whether a model may be a file's path,
    which only the machine's own user may name."""

    samples: Sequence[Sample]
    engines: Sequence[Status]
    models: Sequence[str]
    own_checkpoints: bool = False
    is_multilingual: Callable[[str], bool] = lambda name: not name.endswith(".en")

    @property
    def available(self) -> tuple[str, ...]:
        """Keys of the engines that this machine can run."""
        return tuple(status.key for status in self.engines if status.available)

    def find_sample(self, key: str) -> Sample | None:
        """The sample of that key."""
        return next((sample for sample in self.samples if sample.key == key), None)


@dataclass(frozen=True)
class Rule:
    """How one field is read and shown.

    `values`: those a link can name and the page's control shows, with a label each. `most`: of a
    number, any from 1 on being taken from programs. `link`: the parameter's name there, or "" for
    a field that can't travel in a link. `spelled`: values whose spelling in a link isn't `str`'s.
    """

    label: str
    help: str
    link: str = ""
    values: Callable[[Choices], Mapping[Any, str]] = lambda choices: {}
    most: int = 0
    spelled: Mapping[Any, str] = field(default_factory=dict)

    def spell(self, value: Any) -> str:
        """A value as a link has it."""
        return self.spelled.get(value, str(value))

    def read_link(self, text: str, many: bool, choices: Choices) -> Any:
        """The value of a link's parameter, or None where it names none of ours."""
        by_text = {self.spell(value): value for value in self.values(choices)}
        if many:
            asked = set(text.split(","))
            return tuple(value for name, value in by_text.items() if name in asked) or None
        return by_text.get(text)


def rule(*arguments: Any, **named: Any) -> dict[str, Rule]:
    """A field's metadata: its rule."""
    return {"rule": Rule(*arguments, **named)}


def list_languages(choices: Choices) -> dict[str, str]:
    """Names by code for the page's choice; "" detects the language."""
    names = sorted((name.capitalize(), code) for code, name in LANGUAGES.items())
    return {"": "Detect automatically", **{code: name for name, code in names}}


@dataclass(frozen=True)
class ComparisonRequest:
    """One clip, the engines to run it through, and how; the same for every engine.

    `upload`: the path of the visitor's own clip, where no sample is named. `language`: a code, or
    "" to detect it. Make it by one of the `from_` methods, which check everything.
    """

    sample: str = field(
        default="",
        metadata=rule(
            "Clip",
            "the key of a clip that comes with the project, such as jfk",
            "sample",
            lambda choices: {sample.key: sample.title for sample in choices.samples},
        ),
    )
    upload: str | None = None
    engines: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            "Engines",
            "keys as in /engines; all that this machine has, unless given",
            "engines",
            lambda choices: {status.key: status.label for status in choices.engines},
        ),
    )
    model: str = field(
        default=DEFAULT_MODEL,
        metadata=rule(
            "Model",
            "one of OpenAI's names, downloaded on first use",
            "model",
            lambda choices: {name: name for name in choices.models},
        ),
    )
    language: str = field(
        default="",
        metadata=rule(
            "Language",
            'a code such as en, or "" to detect it',
            "language",
            list_languages,
            spelled={"": "auto"},
        ),
    )
    beam_size: int = field(
        default=1,
        metadata=rule(
            "Beam size", "1 is greedy", "beam", lambda choices: {1: "1", 5: "5"}, most=10
        ),
    )
    schedule: Schedule = field(
        default="parallel",
        metadata=rule(
            "Schedule",
            '"one at a time" for times that can be compared, or "parallel"',
            "schedule",
            lambda choices: {"parallel": "All at once", "one at a time": "One at a time, fair"},
            spelled={"one at a time": "in-turn"},
        ),
    )
    word_timestamps: bool = field(
        default=False,
        metadata=rule(
            "Word timestamps",
            "whether segments have words with times",
            "words",
            lambda choices: {False: "", True: ""},
            spelled={False: "0", True: "1"},
        ),
    )
    gpu_dtype: Dtype = field(
        default="float32",
        metadata=rule(
            "GPU type",
            "what a GPU engine with a choice of types computes in",
            "gpu",
            lambda choices: {"float32": "float32", "float16": "float16"},
        ),
    )
    repeats: int = field(
        default=1,
        metadata=rule(
            "Repeats",
            "runs of each engine; of several the median's times are given",
            "runs",
            lambda choices: {1: "1", 3: "3", 5: "5"},
            most=5,
        ),
    )

    @classmethod
    def default(cls, choices: Choices) -> ComparisonRequest:
        """What the page shows at first."""
        first = choices.samples[0].key if choices.samples else ""
        model = next(iter(choices.models), DEFAULT_MODEL)
        if DEFAULT_MODEL in choices.models:
            model = DEFAULT_MODEL
        return cls(sample=first, engines=choices.available, model=model)

    @classmethod
    def from_controls(cls, held: Mapping[str, Any], choices: Choices) -> ComparisonRequest:
        """What the page's controls hold, by the fields' names, and `audio`."""
        named = {name: held[name] for name in RULES if name in held and name != "sample"}
        asked = replace(cls(), **_check_all(named, choices))
        if choices.find_sample(held["sample"]) is not None:
            return replace(asked, sample=held["sample"]).validated(choices)
        return replace(asked, upload=held["audio"]).validated(choices)

    @classmethod
    def from_json(
        cls, sent: Mapping[str, Any], choices: Choices, received: str = ""
    ) -> ComparisonRequest:
        """What a program sent: any JSON, the clip as Gradio's record of an uploaded file, or
        `received`, the path of one that came in another way."""
        clip, sample = sent.get("clip"), sent.get("sample")
        own = clip is not None or bool(received)
        if own and sample:
            raise RequestError("Give either a clip or a sample, not both.")
        named = {name: value for name, value in sent.items() if name in RULES and name != "sample"}
        asked = replace(cls(), **_check_all(named, choices))
        if not asked.engines:
            asked = replace(asked, engines=choices.available)
        if own:
            return replace(asked, upload=received or find_upload(clip)).validated(choices)
        return replace(asked, sample=check("sample", sample, choices)).validated(choices)

    @classmethod
    def from_query(cls, query: str, choices: Choices) -> ComparisonRequest:
        """What a link names, and the page's defaults for what it doesn't, or names wrongly."""
        asked: dict[str, str] = {}
        if len(query) <= LONGEST_LINK:
            asked = {key: texts[-1] for key, texts in parse_qs(query.removeprefix("?")).items()}
        found = {
            name: rule.read_link(asked[rule.link], name == "engines", choices)
            for name, rule in RULES.items()
            if rule.link in asked
        }
        named = {name: value for name, value in found.items() if value is not None}
        return replace(cls.default(choices), **named)

    def to_query(self, choices: Choices) -> str:
        """The link's query, without what can't travel: an own clip, a checkpoint's path."""
        parts = {}
        for name, rule in RULES.items():
            value, known = getattr(self, name), rule.values(choices)
            if isinstance(value, tuple):
                parts[rule.link] = ",".join(rule.spell(each) for each in value if each in known)
            elif value in known or rule.most:
                parts[rule.link] = rule.spell(value)
        return urlencode({key: text for key, text in parts.items() if text}, safe=",")

    def to_controls(self) -> dict[str, Any]:
        """What the page's controls hold for this request, but for the player."""
        held = {name: getattr(self, name) for name in RULES}
        return {**held, "engines": list(self.engines), "sample": self.sample or OWN_CLIP}

    def validated(self, choices: Choices) -> ComparisonRequest:
        """The same request; raises `RequestError` for the first thing that can't be granted."""
        clip = self.find_clip(choices)
        if clip is None:
            raise RequestError(NO_CLIP)
        if not clip.path.is_file():
            raise RequestError(CLIP_GONE)
        if not self.engines:
            raise RequestError(NO_ENGINE)
        check_language_of_model(self.language, self.model, choices)
        return self

    def find_clip(self, choices: Choices) -> Sample | None:
        """The clip as a sample; an upload's key is its folder and name, as `nameClip` in
        `assets/page.js` has it."""
        if self.sample:
            return choices.find_sample(self.sample)
        if not self.upload:
            return None
        path = Path(self.upload)
        return Sample("/".join(path.parts[-2:]), path.name, path, None)

    @property
    def settings(self) -> Settings:
        """What the engines are told."""
        named = {
            each.name: getattr(self, each.name) for each in fields(Options) if each.name in RULES
        }
        return Settings(
            engines=self.engines,
            model=self.model,
            options=Options(**named | {"language": self.language or None}),
            schedule=self.schedule,
            gpu_dtype=self.gpu_dtype,
            repeats=self.repeats,
        )

    @property
    def kind(self) -> tuple[Any, ...]:
        """What tells how long it takes, from the most general on."""
        return ("comparison", self.model, self.sample or OWN_CLIP, self.settings)


RULES: dict[str, Rule] = {
    each.name: each.metadata["rule"] for each in fields(ComparisonRequest) if each.metadata
}
DEFAULTS = {each.name: each.default for each in fields(ComparisonRequest)}


def check_language_of_model(language: str, model: str, choices: Choices) -> None:
    """Raise `RequestError` for a language that the checkpoint doesn't know."""
    if language not in ("", "en") and not choices.is_multilingual(model):
        name = LANGUAGES[language].capitalize()
        raise RequestError(
            f"{model} knows only English, not {name}: choose a multilingual model such as "
            f"{DEFAULT_MODEL}."
        )


def check(name: str, value: Any, choices: Choices) -> Any:
    """A field's value from any JSON; raises `RequestError` with one sentence."""
    rule, default = RULES[name], DEFAULTS[name]
    known = rule.values(choices)
    if isinstance(default, tuple):
        return check_several(name, value, list(known))
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise RequestError(f"{name} must be true or false, not {show(value)}.")
        return value
    if isinstance(default, int):
        return check_number(name, value, rule.most)
    if name == "language":
        if value is None or (isinstance(value, str) and value in known):
            return value or ""
        raise RequestError(
            f"language can't be {show(value)}: use a code such as en, or nothing to detect it."
        )
    if name == "model" and choices.own_checkpoints and isinstance(value, str) and value:
        return value
    return check_choice(name, value, list(known))


def _check_all(named: Mapping[str, Any], choices: Choices) -> dict[str, Any]:
    return {name: check(name, value, choices) for name, value in named.items()}


def check_several(name: str, value: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Some of a few words, in the order of `known`; nothing is none of them."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise RequestError(f"{name} must be a list of keys, not {show(value)}.")
    asked = {check_choice(name.removesuffix("s"), each, known) for each in value}
    return tuple(each for each in known if each in asked)


def check_choice(name: str, value: Any, known: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in known:
        raise RequestError(f"{name} can't be {show(value)}: use one of {', '.join(known)}.")
    return value


def check_number(name: str, value: Any, most: int) -> int:
    """A whole number from 1 to `most`; JSON may write 5 as 5.0."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole or not 1 <= value <= most:
        raise RequestError(
            f"{name} must be a whole number from 1 to {most}, and {show(value)} isn't."
        )
    return int(value)


def find_upload(clip: Any) -> str:
    """The path of an uploaded clip, which must lie in the folder for uploads, links followed."""
    path = clip.get("path") if isinstance(clip, dict) else None
    if not isinstance(path, str) or not path:
        raise RequestError("clip must be an uploaded file: send it with gradio_client.handle_file.")
    try:
        real = Path(path).resolve(strict=True)
        known = real.is_file() and uploads.is_upload(path)
    except (OSError, ValueError, RuntimeError):  # a NUL byte, a loop of links, no such file
        known = False
    if not known:
        raise RequestError("clip is not a file that was uploaded here: upload it first.")
    return str(real)


def show(value: Any) -> str:
    """A wrong value on one line, not too long."""
    try:
        text = repr(value)[: 4 * LONGEST_SHOWN]
    except RecursionError:  # a list in a list in a list, a thousand times
        text = f"such a {type(value).__name__}"
    line = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 1] + "…"
