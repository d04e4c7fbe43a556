"""Requests: one record of a comparison asked for by the page, a link, the HTTP API or MCP.

All input is untrusted: whatever is wrong with it is one sentence in a `RequestError`. `demo.rules`
has the table of what can be asked for.

A link: sample=columbia&model=base&engines=cpu,max_full&language=en&beam=5&schedule=in-turn&words=1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from demo import uploads
from demo.rules import RULES, Choices
from demo.samples import Sample
from demo.snapshot import Settings
from engines.base import EngineError
from engines.models import DEFAULT_MODEL, LANGUAGES, OFFICIAL_MODELS, is_hub_repository
from engines.options import OPTIONS, Option, find_conflict, show
from engines.registry import read_lane

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
        if request.baseline and request.baseline not in request.lanes:
            raise RequestError(
                f"The baseline {show(request.baseline)} is none of the engines that are to run: "
                "choose it as well, or another baseline."
            )
        for lane in request.lanes:
            check_language(request.language, request.model_for(lane), request.task)
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
            text = texts.get(rule.link, [""])[-1]
            if name == "engines":
                lanes = read_lanes(text.split(","), choices)
                named |= {name: lanes} if lanes else {}
                continue
            found = [value for value in choices.values(name) if rule.spell(value) == text]
            if found:
                named[name] = found[0]
        made = replace(cls.default(choices), **named)
        asked = texts.get("baseline", [""])[-1]
        return replace(made, baseline=asked if asked in made.lanes else "")

    def to_query(self, choices: Choices) -> str:
        """Write a link's query: what differs from the page's defaults, without what can't travel,
        an own clip and a checkpoint's path."""
        parts, default = {}, ComparisonRequest.default(choices)
        for name, rule in RULES.items():
            value, known = getattr(self, name), choices.values(name)
            if isinstance(rule, Option) or value == getattr(default, name):
                continue
            if isinstance(value, tuple):
                parts[rule.link] = ",".join(each for each in value if can_travel(each, choices))
            elif name == "baseline":
                parts[rule.link] = value if value and can_travel(value, choices) else ""
            elif value in known or rule.most:
                parts[rule.link] = rule.spell(value)
        parts = {key: text for key, text in parts.items() if text}
        for name, value in self.changed().items():
            parts[OPTIONS[name].link] = OPTIONS[name].write(value)
        return urlencode(parts, safe=",:@")

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
        asked = dict.fromkeys(check_lane(each, choices) for each in value)
        return tuple(sorted(asked, key=lambda each: known.index(read_lane(each).engine)))
    if name == "baseline":
        return check_lane(value, choices) if value else ""
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
    if name in ("model", "other_model") and choices.own_checkpoints and value not in known:
        return check_own_checkpoint(value)
    return check_word(name, value, known)


def check_lane(value: Any, choices: Choices) -> str:
    """Return the name of a lane that can run; raise `RequestError` for anything else."""
    if not isinstance(value, str):
        raise RequestError(f"engine can't be {show(value)}: name it by its key.")
    key = value.partition("@")[0].partition(":")[0]
    check_word("engine", key, list(choices.values("engines")))
    for absent in choices.engines:
        if absent.key == key and not absent.available:
            raise RequestError(f"{absent.label} can't run here: {absent.reason}.")
    try:
        lane = read_lane(value)
    except EngineError:
        raise RequestError(f"engine can't be {show(value)}: {key} has no such type.") from None
    if lane.model is not None:
        check("model", lane.model, choices)
    return value


def read_lanes(names: Sequence[str], choices: Choices) -> tuple[str, ...]:
    """Return the lanes of a link that can run here, in the engines' order."""
    found = []
    for name in names:
        with suppress(RequestError):
            found.append(check_lane(name, choices))
    order = list(choices.values("engines"))
    return tuple(sorted(dict.fromkeys(found), key=lambda each: order.index(read_lane(each).engine)))


def can_travel(lane: str, choices: Choices) -> bool:
    """Return whether a link can name a lane: not one of a checkpoint's path."""
    named = read_lane(lane)
    return named.engine in choices.values("engines") and named.model in (None, *choices.models)


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
