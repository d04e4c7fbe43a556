"""How sure the models were: figures of each engine, and the words of the lowest probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from markupsafe import Markup

from demo.panels.lanes import BOUNDS
from demo.panels.templating import format_clock, render_template
from demo.snapshot import Comparison, Lane
from engines.metrics import align

MOST_WORDS = 20


@dataclass
class Place:
    """A word of the clip, and how probable each engine that wrote it there took it to be."""

    text: str
    start: float
    probabilities: dict[str, float] = field(default_factory=dict)


def render(comparison: Comparison, document: bool = False) -> str:
    """Render a table of engines and one of words. `document`: to read instead of to click."""
    lanes = [lane for lane in comparison.done if list_words(lane)]
    if not comparison.finished or not lanes:
        finished = comparison.finished and bool(comparison.done)
        return render_template("confidence.html", finished=finished, words=[], document=document)
    places = sorted(find_places(lanes), key=lambda place: min(place.probabilities.values()))
    shown = places[:MOST_WORDS]
    return render_template(
        "confidence.html",
        finished=True,
        document=document,
        columns=["Engine", "Words", "Mean", *(f"Under {bound:.0%}" for bound in BOUNDS)],
        engines=[_list_figures(lane) for lane in lanes],
        names=["Word", "At", *(lane.label for lane in lanes)],
        words=[_list_cells(place, lanes, document) for place in shown],
        more=len(places) > len(shown),
    )


render_document = partial(render, document=True)


def list_words(lane: Lane) -> list[Place]:
    """List an engine's words with their times; none where it was not asked for times."""
    words = [word for segment in lane.segments for word in segment.words or ()]
    return [
        Place(part, word.start, {lane.key: word.probability})
        for word in words
        for part in word.text.split()
    ]


def find_places(lanes: Sequence[Lane]) -> list[Place]:
    """Find which words of different engines are the same, by aligning them with the first's."""
    first, *others = map(list_words, lanes)
    places, expected = list(first), [place.text for place in first]
    for words in others:
        theirs, ours = iter(words), iter(first)
        for edit in align(expected, [word.text for word in words]).edits:
            same = list(islice(ours, len(edit.expected)))
            for number, word in enumerate(islice(theirs, len(edit.found))):
                if edit.change == "equal":
                    same[number].probabilities.update(word.probabilities)
                else:
                    places.append(word)
    return places


def _list_figures(lane: Lane) -> list[str]:
    probabilities = [word.probabilities[lane.key] for word in list_words(lane)]
    below = [f"{sum(each < bound for each in probabilities)}" for bound in BOUNDS]
    mean = sum(probabilities) / len(probabilities)
    return [lane.label, f"{len(probabilities)}", f"{mean:.1%}", *below]


def _list_cells(place: Place, lanes: Sequence[Lane], document: bool) -> list[str]:
    at = format_clock(place.start)
    button = Markup(
        '<button type="button" class="from" data-t="{:.2f}" aria-label="{}">{}</button>'
    )
    heard = at if document else button.format(place.start, f"Play from {at}", at)
    told = [place.probabilities.get(lane.key) for lane in lanes]
    return [place.text, heard, *("–" if each is None else f"{each:.0%}" for each in told)]
