"""The settings as the query of a link, and back again.

    sample=talk&model=tiny&engines=cpu,max_full&language=en&beam=5&schedule=in-turn&words=1&runs=3

What a link doesn't name, or names wrongly, stays as it is on the page: a link comes from anywhere.
A clip of one's own can't travel in a link, nor can the path of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

SCHEDULES = {"parallel": "parallel", "one at a time": "in-turn"}
"""The page's words for a schedule, and a link's."""

MOST_CHARACTERS = 2000
"""Links longer than this are nobody's."""


@dataclass(frozen=True)
class Choices:
    """What each control can hold; a link can ask for nothing else."""

    samples: Sequence[str]
    engines: Sequence[str]
    models: Sequence[str]
    languages: Sequence[str]
    beams: Sequence[int]
    repeats: Sequence[int]
    dtypes: Sequence[str] = ("float32", "float16")


def write(held: Mapping[str, Any], choices: Choices) -> str:
    """The query for what the controls hold, without its question mark; `held` by control."""
    parts = {
        "sample": held["sample"] if held["sample"] in choices.samples else "",
        "model": held["model"] if held["model"] in choices.models else "",
        "engines": ",".join(held["engines"]),
        "language": held["language"] or "auto",
        "beam": held["beam"],
        "schedule": SCHEDULES.get(held["schedule"], ""),
        "words": 1 if held["words"] else 0,
        "runs": held["repeats"],
        "gpu": held["gpu_dtype"],
    }
    return urlencode({key: value for key, value in parts.items() if value != ""}, safe=",")


def read(query: str, choices: Choices) -> dict[str, Any]:
    """Values by control for all that a query names rightly; empty for a query of others."""
    if len(query) > MOST_CHARACTERS:
        return {}
    asked = {key: values[-1] for key, values in parse_qs(query.removeprefix("?")).items()}
    found = {
        "sample": pick(asked.get("sample"), choices.samples),
        "model": pick(asked.get("model"), choices.models),
        "engines": pick_engines(asked.get("engines"), choices.engines),
        "language": pick_language(asked.get("language"), choices.languages),
        "beam": pick_number(asked.get("beam"), choices.beams),
        "schedule": pick(asked.get("schedule"), {v: k for k, v in SCHEDULES.items()}),
        "words": pick(asked.get("words"), {"1": True, "0": False}),
        "repeats": pick_number(asked.get("runs"), choices.repeats),
        "gpu_dtype": pick(asked.get("gpu"), choices.dtypes),
    }
    return {key: value for key, value in found.items() if value is not None}


def pick(value: str | None, known: Sequence[str] | Mapping[str, Any]) -> Any:
    """A known value, translated where `known` is a mapping; None for any other."""
    if value is None or value not in known:
        return None
    return known[value] if isinstance(known, Mapping) else value


def pick_engines(value: str | None, known: Sequence[str]) -> list[str] | None:
    """The known ones among engines with commas between them; None where there is none."""
    asked = (value or "").split(",")
    return [key for key in known if key in asked] or None


def pick_language(value: str | None, known: Sequence[str]) -> str | None:
    """A language's code, or `auto` to find it out, which the page writes as nothing."""
    return pick("" if value == "auto" else value, known)


def pick_number(value: str | None, known: Sequence[int]) -> int | None:
    """One of a few numbers."""
    return next((number for number in known if str(number) == value), None)
