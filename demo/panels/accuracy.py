"""Word and character errors of every engine, and the changed words themselves."""

from __future__ import annotations

from dataclasses import replace

from demo.panels.headline import score_lane
from demo.panels.templating import render_template
from demo.snapshot import Comparison, Lane
from engines.metrics import Alignment, Edit, compare, join_names, name_count, normalise

CONTEXT_WORDS = 4
"""Words shown on each side of a change."""


def render(comparison: Comparison) -> str:
    """Render rates against the reference and the baseline, and the changes beneath them.

    Engines that wrote the same text share a row: equal figures are not worth reading twice.
    """
    if not comparison.finished or not comparison.done:
        sentence = "The figures appear when the last engine is done."
        return render_template("nothing.html", sentence=sentence)
    baseline, reference = comparison.baseline, comparison.reference
    alike: dict[str, list[Lane]] = {}
    for lane in comparison.done:
        alike.setdefault(lane.text, []).append(lane)
    rows, changes = [], []
    for lanes in alike.values():
        lane, names = lanes[0], join_names([each.label for each in lanes])
        if reference is not None:
            rows.append([names, "Reference", *_list_figures(lane, reference)])
            changes.append(
                (names, "Against the reference", *_compare_to_reference(lane, reference))
            )
        if baseline is not None and baseline.transcript and baseline not in lanes:
            rows.append([names, baseline.label, *_list_figures(lane, baseline.text)])
            changes.append((names, f"Against {baseline.label}", *_compare(baseline, lane)))
    return render_template(
        "accuracy.html",
        verdict=_judge(comparison),
        rows=rows,
        changes=changes,
        reference=reference,
        missing=[lane for lane in comparison.lanes if lane.transcript is None],
    )


def _judge(comparison: Comparison) -> str:
    baseline, done = comparison.baseline, comparison.done
    if baseline is None or baseline.transcript is None or len(done) == 1:
        return "There is no second transcript to compare with the baseline’s."
    different = [lane.label for lane in done if lane.text != baseline.text]
    if different:
        return f"Not as {baseline.label} wrote it: {join_names(different)}."
    tokens = {lane.transcript.tokens for lane in done if lane.transcript}
    end = "and its tokens are equal too." if len(tokens) == 1 else "though from other tokens."
    return f"Every engine wrote what {baseline.label} wrote, to the letter, {end}"


def _list_figures(lane: Lane, expected: str) -> list[str]:
    score = score_lane(lane, expected)
    rates = (
        score.normalised_word_error_rate,
        score.normalised_character_error_rate,
        score.word_error_rate,
        score.character_error_rate,
    )
    return [
        *("–" if rate is None else f"{rate:.1%}" for rate in rates),
        *(str(count) for count in (score.substituted, score.inserted, score.deleted)),
    ]


def _compare(baseline: Lane, lane: Lane) -> tuple[str, list[Edit]]:
    """Say how many words differ from the baseline's, and list the changes."""
    assert baseline.transcript is not None and lane.transcript is not None
    alignment = compare(baseline.text, lane.text)
    equal = lane.transcript.tokens == baseline.transcript.tokens
    tokens = f"Its tokens {'are equal too' if equal else 'differ'}."
    return f"{describe_differences(alignment)} {tokens}", list_changes(alignment)


def _compare_to_reference(lane: Lane, reference: str) -> tuple[str, list[Edit]]:
    """Give the word error rate after normalisation, and list the changes."""
    assert lane.transcript is not None
    language = lane.transcript.language
    aligned = compare(normalise(reference, language), normalise(lane.text, language))
    if aligned.word_error_rate is not None:
        rate, errors = aligned.word_error_rate, name_count(aligned.errors, "error")
        sentence = (
            f"Word error rate {rate:.1%} normalised: {errors} in {name_count(aligned.words)}."
        )
    elif aligned.errors:
        sentence = f"Nothing was said, but {name_count(aligned.errors)} written."
    else:
        sentence = "Nothing was said, and nothing was written."
    return sentence, list_changes(aligned)


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
