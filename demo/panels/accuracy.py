"""Word and character errors of every engine, and differences between two texts."""

from __future__ import annotations

from dataclasses import replace

from demo.panels.headline import read_text
from demo.panels.templating import render_template
from demo.snapshot import Comparison, Lane
from engines.metrics import Alignment, Edit, score

CONTEXT_WORDS = 4
"""Words shown on each side of a change."""


def render(comparison: Comparison) -> str:
    """Render a row for each engine against the baseline, then against the reference if known."""
    if not comparison.finished or not comparison.done:
        sentence = "The figures appear when the last engine is done."
        return render_template("nothing.html", sentence=sentence)
    baseline, rows = comparison.baseline, []
    for lane in comparison.lanes:
        if baseline is not None and lane.key != baseline.key:
            expected = baseline.transcript.text if baseline.transcript else None
            rows.append([lane.label, baseline.label, *_list_figures(lane, expected)])
        if comparison.reference is not None:
            rows.append([lane.label, "Reference", *_list_figures(lane, comparison.reference)])
    return render_template("accuracy.html", verdict=_judge(comparison), rows=rows)


def _judge(comparison: Comparison) -> str:
    baseline, done = comparison.baseline, comparison.done
    if baseline is None or baseline.transcript is None or len(done) == 1:
        return "There is no second transcript to compare with the baseline’s."
    words = read_text(baseline).split()
    different = [lane.label for lane in done if read_text(lane).split() != words]
    if not different:
        return f"No differences: every engine wrote what {baseline.label} wrote, to the letter."
    return f"Not as {baseline.label} wrote it: {', '.join(different)}."


def _list_figures(lane: Lane, expected: str | None) -> list[str]:
    if lane.transcript is None or expected is None:
        return ["–"] * 7
    found = score(expected, lane.transcript.text, lane.transcript.language)
    rates = (
        found.word_error_rate,
        found.character_error_rate,
        found.normalised_word_error_rate,
        found.normalised_character_error_rate,
    )
    return [
        *(str(count) for count in (found.substituted, found.inserted, found.deleted)),
        *("–" if rate is None else f"{rate:.1%}" for rate in rates),
    ]


def describe_differences(alignment: Alignment) -> str:
    """Say how many words differ, and how."""
    total, errors = alignment.words, alignment.errors
    if not errors:
        same = {0: "both are empty", 1: "the one word is the same"}
        return f"No differences: {same.get(total, f'all {total} words are the same')}."
    counts = {
        "substituted": alignment.substituted,
        "inserted": alignment.inserted,
        "deleted": alignment.deleted,
    }
    parts = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{errors} {'word differs' if errors == 1 else 'words differ'} ({parts}) of {total}."


def list_changes(alignment: Alignment | None) -> list[Edit]:
    """List the edits, equal words but for a few around a change cut to an ellipsis; nothing where
    nothing changed."""
    if alignment is None or not alignment.errors:
        return []
    edits, last = list(alignment.edits), len(alignment.edits) - 1
    for at, edit in enumerate(edits):
        before, after = CONTEXT_WORDS * (at > 0), CONTEXT_WORDS * (at < last)
        words = edit.found
        if edit.change == "equal" and len(words) > before + after + 1:
            cut = (*words[:before], "…", *words[len(words) - after :])
            edits[at] = replace(edit, found=cut)
    return edits
