"""Requests: one record of a comparison asked for by the page, a link, the HTTP API or MCP.

A new option of the page is one field of `Settings` with its row in `RULES`, one of Whisper's is a
row of `engines.options`; page, link, endpoints and tools follow from these. All input is untrusted:
whatever is wrong with it is one sentence in a `RequestError`.

A link: sample=columbia&model=base&engines=cpu,max_full&language=en&beam=5&schedule=in-turn&words=1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from demo import uploads
from demo.samples import Sample
from demo.snapshot import Settings
from engines.base import EngineError
from engines.clip_source import LEFT, MOST_CHANNELS, MOST_TRACKS, RIGHT
from engines.languages import LANGUAGES
from engines.options import OPTIONS, Option, find_conflict, show
from engines.registry import DEFAULT_MODEL, OFFICIAL_MODELS, EngineStatus, is_hub_repository

ENGLISH_ONLY = ".en"
"""Ending of the names of models that know no other language."""

KNOW_CANTONESE = ("turbo", "large", "large-v3-turbo", "large-v3")
"""The newest of OpenAI's checkpoints, which have a language more than the others."""

OWN_CLIP = "own"
"""Value of the page's choice of samples while the visitor's own clip is in the player."""

NO_CLIP = "There is no clip yet: choose a sample, upload a file, or record one."
CLIP_GONE = "This clip is no longer here, an hour after its last use: upload it again."
NO_ENGINE = "Choose at least one engine."


class RequestError(EngineError):
    """A request that can't be granted; the text is one sentence."""


@dataclass(frozen=True)
class Rule:
    """Name and values of one field.

    `help`: for programs. `link`: the parameter's name in a link. `values`: those that the page's
    control shows and a link can name, with a label each; `Choices.values` has those that depend on
    the machine. `most`: of a number, any from `least` on being taken from programs. `longest`:
    of a free text, in characters; it has no `link`. `spelled`: values whose spelling in a link
    isn't `str`'s; one that is "" is left out.
    """

    label: str
    help: str
    link: str
    values: Mapping[Any, str] = field(default_factory=dict)
    least: int = 1
    most: int = 0
    longest: int = 0
    spelled: Mapping[Any, str] = field(default_factory=dict)

    def spell(self, value: Any) -> str:
        """Return a value as a link has it."""
        return self.spelled.get(value, str(value))


RULES: dict[str, Rule | Option] = {
    "sample": Rule("Clip", "the key of a clip that comes with the project, such as jfk", "sample"),
    "engines": Rule(
        "Engines",
        "keys as in /engines; all that this machine has but optional ones, unless given",
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
        if name == "model":
            return {model: model for model in self.models}
        return RULES[name].values


@dataclass(frozen=True)
class ComparisonRequest(Settings):
    """One clip, the engines to run it through, and how.

    `upload`: the path of the visitor's own clip, where no sample is named. `reference`: the words
    really spoken, in place of a sample's own. Make it by one of the `from_` methods, which check
    everything.
    """

    sample: str = ""
    upload: str | None = None
    reference: str = ""

    @classmethod
    def default(cls, choices: Choices) -> ComparisonRequest:
        """Make the request that the page shows at first."""
        sample = choices.samples[0].key if choices.samples else ""
        known = not choices.models or DEFAULT_MODEL in choices.models
        model = DEFAULT_MODEL if known else choices.models[0]
        return cls(sample=sample, engines=choices.standard, model=model)

    @classmethod
    def from_controls(cls, held: Mapping[str, Any], choices: Choices) -> ComparisonRequest:
        """Read what the page's controls hold, by the fields' names, and `audio`."""
        if choices.find_sample(held["sample"]) is None:
            return cls._check(held, choices, upload=held["audio"])
        return cls._check(held, choices, sample=held["sample"])

    @classmethod
    def from_json(
        cls, sent: Mapping[str, Any], choices: Choices, received: str = ""
    ) -> ComparisonRequest:
        """Read what a program sent: any JSON, the clip as Gradio's record of an uploaded file, or
        `received`, the path of one that came in another way."""
        clip, sample = sent.get("clip"), sent.get("sample")
        own = clip is not None or bool(received)
        if own and sample:
            raise RequestError("Give either a clip or a sample, not both.")
        if sent.get("engines") in (None, []):
            sent = {**sent, "engines": choices.standard}
        if own:
            return cls._check(sent, choices, upload=received or find_upload(clip))
        return cls._check(sent, choices, sample=check("sample", sample, choices))

    @classmethod
    def _check(cls, sent: Mapping[str, Any], choices: Choices, **clip: Any) -> ComparisonRequest:
        """Make a request; raise `RequestError` for the first thing that can't be granted."""
        names = [name for name in RULES if name in sent and name != "sample"]
        request = cls(**clip, **{name: check(name, sent[name], choices) for name in names})
        found = request.find_clip(choices)
        if found is None:
            raise RequestError(NO_CLIP)
        if not found.path.is_file():
            raise RequestError(CLIP_GONE)
        if not request.engines:
            raise RequestError(NO_ENGINE)
        check_language(request.language, request.model, request.task)
        if conflict := find_conflict(request, request.beam_size, request.word_timestamps):
            raise RequestError(conflict)
        return request

    @classmethod
    def from_query(cls, query: str, choices: Choices) -> ComparisonRequest:
        """Read a link; what it doesn't name, or names wrongly, is the page's default."""
        query = query.removeprefix("?") if len(query) <= 8000 else ""  # with a long prompt
        texts = parse_qs(query, keep_blank_values=True)
        named: dict[str, Any] = {}
        for name, rule in RULES.items():  # one without a link has no values
            if isinstance(rule, Option):
                with suppress(ValueError, LookupError):
                    named[name] = rule.read(name, texts[rule.link][-1])
                continue
            asked = texts.get(rule.link, [""])[-1].split(",")
            known = choices.available if name == "engines" else choices.values(name)
            found = [value for value in known if rule.spell(value) in asked]
            if found:
                named[name] = tuple(found) if name == "engines" else found[0]
        return replace(cls.default(choices), **named)

    def to_query(self, choices: Choices) -> str:
        """Write a link's query, without what can't travel: an own clip, a checkpoint's path."""
        parts = {}
        for name, rule in RULES.items():
            if isinstance(rule, Option):
                continue
            value, known = getattr(self, name), choices.values(name)
            if isinstance(value, tuple):
                parts[rule.link] = ",".join(each for each in value if each in known)
            elif value in known or rule.most:
                parts[rule.link] = rule.spell(value)
        parts = {key: text for key, text in parts.items() if text}
        for name, value in self.changed().items():
            parts[OPTIONS[name].link] = OPTIONS[name].write(value)
        return urlencode(parts, safe=",")

    def to_controls(self) -> dict[str, Any]:
        """Return the values of the page's controls, but for the player."""
        held = {name: getattr(self, name) for name in RULES}
        held |= {name: row.hold(held[name]) for name, row in OPTIONS.items()}
        return {**held, "engines": list(self.engines), "sample": self.sample or OWN_CLIP}

    def find_clip(self, choices: Choices) -> Sample | None:
        """Return the clip as a sample; an upload's key is its folder and name, as `nameClip` in
        `assets/page.js` has it."""
        given = self.reference or None
        if self.sample:
            found = choices.find_sample(self.sample)
            other = given or self.clip_timestamps or self.task == "translate"  # than it says
            return replace(found, reference=given) if found and other else found
        if not self.upload:
            return None
        path = uploads.find_original(self.upload)
        return Sample("/".join(Path(self.upload).parts[-2:]), path.name, path, given)


DEFAULTS = {each.name: each.default for each in fields(ComparisonRequest)}


def check(name: str, value: Any, choices: Choices) -> Any:
    """Return a field's value from any JSON; raise `RequestError` with one sentence."""
    known, rule, default = list(choices.values(name)), RULES[name], DEFAULTS[name]
    if isinstance(rule, Option):
        try:
            return rule.read(name, value)
        except ValueError as error:
            raise RequestError(str(error)) from None
    if rule.longest:
        return check_text(name, value, rule.longest)
    if name == "engines":
        if not isinstance(value, list | tuple):
            raise RequestError(f"engines must be a list of keys, not {show(value)}.")
        asked = [check_word("engine", each, known) for each in value]
        for absent in choices.engines:
            if absent.key in asked and not absent.available:
                raise RequestError(f"{absent.label} can't run here: {absent.reason}.")
        return tuple(each for each in known if each in asked)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise RequestError(f"{name} must be true or false, not {show(value)}.")
        return value
    if rule.most:  # JSON may write 5 as 5.0
        least, most = rule.least, rule.most
        if isinstance(value, bool) or value not in range(least, most + 1):
            raise RequestError(
                f"{name} must be a whole number from {least} to {most}, and {show(value)} isn't."
            )
        return int(value)
    if name == "language":
        if value is None or (isinstance(value, str) and value in known):
            return value or ""
        raise RequestError(
            f"language can't be {show(value)}: use a code such as en, or nothing to detect it."
        )
    if name == "model" and choices.own_checkpoints and value not in known:
        return check_own_checkpoint(value)
    return check_word(name, value, known)


def check_own_checkpoint(value: Any) -> str:
    """Return a checkpoint's path, or a repository's name, which is looked up at Hugging Face."""
    if isinstance(value, str) and value:
        with suppress(OSError, ValueError, RuntimeError):  # no path, or nobody's home
            if Path(value).expanduser().exists():
                return value
        if is_hub_repository(value) and not value.endswith((".pt", ".bin", ".safetensors")):
            return value
    sentence = f"There is no model {show(value)} here: choose one of the list, or give the path of"
    raise RequestError(f"{sentence} a Whisper checkpoint.")


def check_language(language: str, model: str, task: str = "transcribe") -> None:
    """Raise `RequestError` for a language that the checkpoint doesn't know, or can't translate."""
    name, title = Path(model).name, LANGUAGES.get(language, language).capitalize()
    english_only = ENGLISH_ONLY in (name[-3:], Path(model).stem[-3:])
    if task == "translate" and english_only:
        raise RequestError(
            f"{name} knows only English: to translate, choose a multilingual model such as "
            f"{DEFAULT_MODEL}."
        )
    if language not in ("", "en") and english_only:
        raise RequestError(
            f"{name} knows only English, not {title}: choose a multilingual model such as "
            f"{DEFAULT_MODEL}."
        )
    if language == "yue" and model in OFFICIAL_MODELS and model not in KNOW_CANTONESE:
        raise RequestError(f"{name} doesn't know {title}: choose {' or '.join(KNOW_CANTONESE)}.")


def check_word(name: str, value: Any, known: Sequence[str]) -> str:
    """Return a word that is known; raise `RequestError` for anything else."""
    if not isinstance(value, str) or value not in known:
        raise RequestError(f"{name} can't be {show(value)}: use one of {', '.join(known)}.")
    return value


def check_text(name: str, value: Any, longest: int) -> str:
    """Return a free text with single spaces, "" for None; raise `RequestError` for a long one."""
    if not isinstance(value, str | None):
        raise RequestError(f"{name} must be a text, not {show(value)}.")
    text = " ".join((value or "").encode(errors="replace").decode().split())
    if len(text) > longest:
        raise RequestError(
            f"{name} has {len(text):,} characters, and {longest:,} are the most: shorten it."
        )
    return text


def find_upload(clip: Any) -> str:
    """Return the path of an uploaded clip; it must lie in the uploads' folder, links followed."""
    path = clip.get("path") if isinstance(clip, dict) else None
    if not isinstance(path, str) or not path:
        raise RequestError("clip must be an uploaded file: send it with gradio_client.handle_file.")
    if not uploads.is_upload(path) or not Path(path).is_file():
        raise RequestError("clip is not a file that was uploaded here: upload it first.")
    return str(Path(path).resolve())
