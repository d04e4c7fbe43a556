"""How far the words are apart, in figures: every lane against the baseline and the reference."""

from __future__ import annotations

from html import escape

from demo import diffs
from demo.snapshot import Comparison, Lane

COLUMNS = (
    "Engine",
    "Against",
    "Substituted",
    "Inserted",
    "Deleted",
    "WER",
    "CER",
    "WER normalised",
    "CER normalised",
)
CAPTION = (
    "Words and characters, as written and after the normaliser of the Whisper paper. WER and CER "
    "are errors per word and per character of what a lane is held against; against the baseline "
    "they measure disagreement, not error."
)


def render_scores(comparison: Comparison) -> str:
    """A row for each lane against the baseline, then against the reference where there is one."""
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    rows = "".join(render_rows(lane, comparison) for lane in comparison.lanes)
    return (
        f'<p class="verdict">{escape(describe(comparison))}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Word and character errors">'
        f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="caption">{CAPTION}</p>'
    )


def describe(comparison: Comparison) -> str:
    """What the table comes to, in a sentence."""
    baseline = comparison.baseline
    if not comparison.finished or not comparison.done:
        return "The figures appear when the last lane is done."
    others = [lane for lane in comparison.done if baseline and lane.key != baseline.key]
    if baseline is None or baseline.transcript is None or not others:
        return "There is no second transcript to compare with the baseline’s."
    different = [lane.label for lane in others if text_of(lane) != text_of(baseline)]
    if not different:
        return f"No differences: every lane wrote what {baseline.label} wrote, to the letter."
    return f"Not as {baseline.label} wrote it: {', '.join(different)}."


def text_of(lane: Lane) -> str:
    """A lane's words with single spaces."""
    return " ".join(diffs.split_words(lane.transcript.text)) if lane.transcript else ""


def render_rows(lane: Lane, comparison: Comparison) -> str:
    """One lane's rows; dashes where nothing is known yet, so that nothing moves."""
    rows = []
    baseline = comparison.baseline
    if baseline is not None and lane.key != baseline.key:
        expected = baseline.transcript.text if baseline.transcript else None
        rows.append(render_row(lane, baseline.label, expected, comparison))
    if comparison.reference is not None:
        rows.append(render_row(lane, "Reference", comparison.reference, comparison))
    return "".join(rows)


def render_row(lane: Lane, against: str, expected: str | None, comparison: Comparison) -> str:
    """One lane held against some words."""
    cells = ["–"] * (len(COLUMNS) - 2)
    if comparison.finished and lane.transcript is not None and expected is not None:
        score = diffs.score(expected, lane.transcript.text, lane.transcript.language)
        changes = [str(score.raw.count(change)) for change in ("replace", "insert", "delete")]
        rates = (
            score.raw.word_error_rate,
            score.raw_characters,
            score.normalised.word_error_rate,
            score.normalised_characters,
        )
        cells = [*changes, *("–" if rate is None else f"{rate:.1%}" for rate in rates)]
    body = "".join(f"<td>{cell}</td>" for cell in (escape(against), *cells))
    return f'<tr><th scope="row">{escape(lane.label)}</th>{body}</tr>'
