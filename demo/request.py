"""Requests: one record of a comparison asked for by the page, a link, the HTTP API or MCP.

All input is untrusted: whatever is wrong with it is one sentence in a `RequestError`. `demo.rules`
has the table of what can be asked for.

A link: sample=columbia&model=base&engines=cpu,max_full&language=en&beam=5&schedule=in-turn&words=1
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from demo import uploads
from demo.rules import NO_ENGINE, RULES, Choices, RequestError, check
from demo.samples import Sample
from demo.snapshot import Settings
from engines.models import DEFAULT_MODEL, LANGUAGES, OFFICIAL_MODELS
from engines.options import OPTIONS, find_conflict, show

ENGLISH_ONLY = ".en"
"""Ending of the names of models that know no other language."""

KNOW_CANTONESE = ("turbo", "large", "large-v3-turbo", "large-v3")
"""The newest of OpenAI's checkpoints, which have a language more than the others."""

OWN_CLIP = "own"
"""Value of the page's choice of samples while the visitor's own clip is in the player."""

NO_CLIP = "There is no clip yet: choose a sample, upload a file, or record one."
CLIP_GONE = "This clip is no longer here, an hour after its last use: upload it again."


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
    def from_controls(cls, values: Mapping[str, Any], choices: Choices) -> ComparisonRequest:
        """Read what the page's controls hold, by the fields' names, and `audio`."""
        if choices.find_sample(values["sample"]) is None:
            return cls._check(values, choices, upload=values["audio"])
        return cls._check(values, choices, sample=values["sample"])

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
        sample = request.find_clip(choices)
        if sample is None:
            raise RequestError(NO_CLIP)
        if not sample.path.is_file():
            raise RequestError(CLIP_GONE)
        if not request.engines:
            raise RequestError(NO_ENGINE)
        if request.baseline and request.baseline not in request.lanes:
            raise RequestError(
                f"The baseline {show(request.baseline)} is none of the engines that are to run: "
                "choose it as well, or another baseline."
            )
        for lane in request.lanes:
            check_model_language(request.language, request.model_for(lane), request.task)
        if conflict := find_conflict(request, request.beam_size, request.word_timestamps):
            raise RequestError(conflict)
        return request

    @classmethod
    def from_query(cls, query: str, choices: Choices) -> ComparisonRequest:
        """Read a link; what it doesn't name, or names wrongly, is the page's default."""
        query = query.removeprefix("?") if len(query) <= 8000 else ""  # with a long prompt
        texts = parse_qs(query, keep_blank_values=True)
        values: dict[str, Any] = {}
        for name, rule in RULES.items():
            if rule.link:
                with suppress(RequestError, ValueError, LookupError):
                    values[name] = rule.from_link(name, texts[rule.link][-1], choices)
        request = replace(cls.default(choices), **values)
        return request if request.baseline in request.lanes else replace(request, baseline="")

    def to_query(self, choices: Choices) -> str:
        """Write a link's query: what differs from the page's defaults, without what can't travel,
        an own clip and a checkpoint's path."""
        texts, default = {}, ComparisonRequest.default(choices)
        for name, rule in RULES.items():
            value = getattr(self, name)
            if rule.link and value != getattr(default, name):
                texts[rule.link] = rule.to_link(value, choices)
        known = {link: text for link, text in texts.items() if text is not None}
        return urlencode(known, safe=",:@")

    def to_controls(self) -> dict[str, Any]:
        """Return the values of the page's controls, but for the player."""
        values = {name: getattr(self, name) for name in RULES}
        values |= {name: option.hold(values[name]) for name, option in OPTIONS.items()}
        return {**values, "engines": list(self.engines), "sample": self.sample or OWN_CLIP}

    def find_clip(self, choices: Choices) -> Sample | None:
        """Return the clip as a sample; an upload's key is its folder and name, as `nameClip` in
        `assets/page.js` has it."""
        reference = self.reference or None
        if self.sample:
            sample = choices.find_sample(self.sample)
            other = reference or self.clip_timestamps or self.task == "translate"  # than it says
            return replace(sample, reference=reference) if sample and other else sample
        if not self.upload:
            return None
        path = uploads.find_original(self.upload)
        return Sample("/".join(Path(self.upload).parts[-2:]), path.name, path, reference)


DEFAULTS = {each.name: each.default for each in fields(ComparisonRequest)}


def check_model_language(language: str, model: str, task: str = "transcribe") -> None:
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


def find_upload(clip: Any) -> str:
    """Return the path of an uploaded clip; it must lie in the uploads' folder, links followed."""
    path = clip.get("path") if isinstance(clip, dict) else None
    if not isinstance(path, str) or not path:
        raise RequestError("clip must be an uploaded file: send it with gradio_client.handle_file.")
    if not uploads.is_upload(path) or not Path(path).is_file():
        raise RequestError("clip is not a file that was uploaded here: upload it first.")
    return str(Path(path).resolve())
