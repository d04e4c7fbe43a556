"""The fault lab's panel: what a fault does to the text and to every stage of the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Protocol

from demo.diffs import compare, describe, mark_changes
from demo.layers import render_blank as blank_layers
from demo.layers import render_layers, say

if TYPE_CHECKING:
    from engines.faults.lab import Finding

WINDOW_SECONDS = 30.0

PLACEHOLDER = (
    '<div class="finding finding--empty"><p>Choose a fault and run it: the text that comes out '
    "appears here beside the right one, and the stage where the fault first shows.</p></div>"
)


class Story(Protocol):
    """What the panel needs of a fault: `engines.faults.catalogue.Fault`."""

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def story(self) -> str: ...


def list_choices(faults: Sequence[Story]) -> list[tuple[str, str]]:
    """Titles and keys for the radio buttons."""
    return [(fault.title, fault.key) for fault in faults]


def render_story(faults: Sequence[Story], key: str) -> str:
    """The chosen fault's sentence."""
    story = next((fault.story for fault in faults if fault.key == key), "")
    return f'<p class="story">{escape(story)}</p>'


def render_finding(finding: Finding) -> str:
    """Where the fault first shows, both texts, their difference, and the stages."""
    chosen = finding.first_stage or ""
    return (
        f'<div class="finding">{render_first(finding)}{render_texts(finding)}'
        f"{render_layers(finding.examination, 'fault', chosen)}</div>"
    )


LABELS = ("PyTorch CPU, float32", "MAX", "MAX with the fault")
"""The specimens of a finding."""


def render_blank(stages: int, model: str, clip: str) -> str:
    """Room for a finding, as tall and with nothing to be seen in it."""
    sections = "<section></section><section></section><section class='wide'></section>"
    return (
        '<div class="finding finding--blank"><p class="first"></p>'
        f'<div class="texts">{sections}</div>{blank_layers(LABELS, stages, model, clip)}</div>'
    )


def render_first(finding: Finding) -> str:
    """One sentence: the stage where it first shows, as the microscope measured it."""
    first = finding.first_stage
    if first is None:
        return (
            '<p class="first">It shows <strong>nowhere in the encoder</strong>: every stage of the '
            "first window is as it should be.</p>"
        )
    stage = next(stage for stage in finding.examination.stages if stage.name == first)
    faulty, sound = (say(stage.error(each.name)) for each in (finding.specimen, finding.sound))
    return (
        f'<p class="first">It first shows at <strong>{escape(first)}</strong>: relative error '
        f"{faulty}, where the sound encoder has {sound}.</p>"
    )


def render_texts(finding: Finding) -> str:
    """The right text and the faulty one side by side, and beneath them what differs."""
    right = finding.right.text.strip()
    return (
        '<div class="texts">'
        f"<section><h3>Without the fault</h3>{render_text(right)}</section>"
        f"<section><h3>With it</h3>{render_faulty(finding)}</section>"
        f"<section class='wide'><h3>What differs</h3>{render_change(finding)}</section></div>"
    )


def render_text(text: str) -> str:
    """A text, or the words that there is none."""
    if not text:
        return '<p class="none">No words came out.</p>'
    return f'<p class="said" tabindex="0">{escape(text)}</p>'


def render_faulty(finding: Finding) -> str:
    """The faulty text, or how the run broke."""
    if finding.faulty is None:
        return f'<p class="reason">The run broke: {escape(finding.error or "no reason given")}</p>'
    return render_text(finding.faulty.text.strip())


def render_change(finding: Finding) -> str:
    """Words that differ, counted and marked."""
    if finding.faulty is None:
        return '<p class="none">There is no text to compare.</p>'
    alignment = compare(finding.right.text, finding.faulty.text)
    if not alignment.errors:
        return f"<p>{escape(explain_same(finding))}</p>"
    return (
        f'<p>{describe(alignment)}</p><p class="changes" tabindex="0">{mark_changes(alignment)}</p>'
    )


def explain_same(finding: Finding) -> str:
    """Why a fault may leave the text alone."""
    same = "The text is the same, word for word."
    if finding.fault.first_window_only and finding.audio_seconds <= WINDOW_SECONDS:
        return f"{same} This clip ends within its first window: choose a longer one."
    if finding.first_stage is None:
        return same
    return f"{same} The decoder got other features and still chose the same words."


def summarise(finding: Finding) -> str:
    """The finding in one sentence, for the line above the panel."""
    if finding.faulty is None:
        return f"{finding.fault.title}: the run broke."
    errors = compare(finding.right.text, finding.faulty.text).errors
    words = "the same words" if not errors else f"{errors} word{'s'[: errors > 1]} changed"
    shows = f"first shows at {finding.first_stage}" if finding.first_stage else "no stage shows it"
    return f"{finding.fault.title}: {shows}, {words}."
