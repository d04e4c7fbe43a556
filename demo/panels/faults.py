"""What a fault in the encoder does to the text and to every stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from demo.panels import layers
from demo.panels.differences import describe, list_pieces
from demo.panels.templating import render as render_template
from engines.metrics import WINDOW_SECONDS, compare, name_count

if TYPE_CHECKING:
    from engines.analysis.records import FaultResult

PLACEHOLDER = (
    '<p class="caption">Choose a fault and run it: the text that comes out appears here beside the '
    "right one, and the stage where the fault first shows.</p>"
)


class FaultInfo(Protocol):
    """What the panel needs of a fault."""

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def story(self) -> str: ...


def list_choices(faults: Sequence[FaultInfo]) -> list[tuple[str, str]]:
    """Return titles and keys for the radio buttons."""
    return [(fault.title, fault.key) for fault in faults]


def render_story(faults: Sequence[FaultInfo], key: str) -> str:
    """Render the chosen fault's description."""
    story = next((fault.story for fault in faults if fault.key == key), "")
    return render_template("story.html", story=story)


def render(result: FaultResult) -> str:
    """Render where the fault first shows, both texts, their difference, and the stages."""
    alignment = compare(result.right.text, result.faulty.text) if result.faulty else None
    found = result.layers
    stage = next((stage for stage in found.stages if stage.name == result.first_stage), None)
    errors = (
        [stage.error(each.name) for each in (result.faulty_encoder, result.right_encoder)]
        if stage
        else []
    )
    return render_template(
        "faults.html",
        first=result.first_stage,
        errors=[layers.say(error) for error in errors],
        right=result.right.text.strip(),
        faulty=result.faulty.text.strip() if result.faulty else None,
        error=result.error or "no reason given",
        difference=explain(result),
        pieces=list_pieces(alignment),
        layers=layers.render(found, "fault", result.first_stage or ""),
    )


def explain(result: FaultResult) -> str:
    """Say how many words differ, or why a fault may leave the text alone."""
    if result.faulty is None:
        return "There is no text to compare."
    alignment = compare(result.right.text, result.faulty.text)
    if alignment.errors:
        return describe(alignment)
    same = "The text is the same, word for word."
    if result.fault.first_window_only and result.audio_seconds <= WINDOW_SECONDS:
        return f"{same} This clip ends within its first window: choose a longer one."
    if result.first_stage is None:
        return same
    return f"{same} The decoder got other features and still chose the same words."


def summarise(result: FaultResult) -> str:
    """Say in one sentence what came of it, for the line above the panel."""
    title = result.fault.title
    if result.faulty is None:
        return f"{title}: the run broke."
    errors = compare(result.right.text, result.faulty.text).errors
    words = f"{name_count(errors)} changed" if errors else "the same words"
    shows = f"first shows at {result.first_stage}" if result.first_stage else "no stage shows it"
    return f"{title}: {shows}, {words}."
