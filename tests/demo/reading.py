"""Comparisons to draw, and a reader of the HTML that is drawn, for the tests of the panels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

from demo.panels.templating import join_parts
from demo.snapshot import Comparison, Repeat, Schedule, Settings, new_comparison
from engines.base import PrepareSeconds, StageSeconds
from tests import fakes

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&</style>--><b>"
VOID = {"br", "img", "input", "link", "meta"}


@dataclass
class Element:
    """One element of a page that was read."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        """Yield this element and all beneath it."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def all(self, tag: str = "", kind: str = "", **attributes: str) -> list[Element]:
        """List the elements beneath with a tag, a class and attributes."""
        return [
            each
            for each in self.walk()
            if tag in ("", each.tag)
            and (not kind or kind in each.attributes.get("class", "").split())
            and all(each.attributes.get(name) == value for name, value in attributes.items())
        ]

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return " ".join(" ".join(parts).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(panel: str | list[Any]) -> Element:
    """Read what a panel renders; every element has to be closed."""
    reader = _Reader()
    reader.feed(join_parts(panel))
    (page,) = reader.open
    return page


def list_figures(page: Element) -> list[dict[str, Any]]:
    """List the Plotly figures of a page's charts."""
    return [json.loads(each.attributes["data-figure"]) for each in page.all("figure", "plot")]


def compare(
    words: str = fakes.WORDS,
    schedule: Schedule = "parallel",
    reference: str | None = None,
    language: str | None = "en",
    windows: int = 1,
    noise: float = 0.0,
) -> Comparison:
    """CPU in two seconds, and MAX hybrid in one, which wrote `words` and whose features differ by
    `noise`, over a clip of six seconds."""
    keys, language = ("cpu", "max_hybrid"), language or ""
    settings = Settings(keys, "tiny.en", language=language, schedule=schedule)
    blank, lanes = new_comparison(settings, fakes.STATUSES), []
    for lane, said, level, factor in zip(
        blank.lanes, (fakes.WORDS, words), (0.0, noise), (1.0, 0.5), strict=True
    ):
        engine = fakes.FakeEngine(lane.key, words=said, noise=level, windows=windows)
        written = engine.transcribe(fakes.make_clip())
        seconds = StageSeconds(0.0, mel=0.1 * factor, encode=0.4 * factor, decode=1.5 * factor)
        done = replace(
            lane,
            state="done",
            device="cpu",
            segments=written.segments,
            prepare=PrepareSeconds(load=0.2, compile=1.5),
            repeats=(Repeat(seconds, written.spans),),
            transcript=replace(written, seconds=seconds),
        )
        lanes.append(done)
    return replace(blank, lanes=tuple(lanes), audio_seconds=6.0, reference=reference)


def change_last(comparison: Comparison, **traits: Any) -> Comparison:
    """The comparison with its last lane changed."""
    *others, last = comparison.lanes
    return replace(comparison, lanes=(*others, replace(last, **traits)))


def keep_running(comparison: Comparison) -> Comparison:
    """The comparison before its last engine is done."""
    return change_last(comparison, state="decoding", transcript=None)


def fail_second(comparison: Comparison, reason: str = "no room on device") -> Comparison:
    """The comparison whose second engine failed."""
    return change_last(comparison, state="failed", reason=reason, transcript=None, repeats=())
