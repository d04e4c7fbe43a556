"""Word and character errors of every engine against the baseline and the reference."""

from __future__ import annotations

from demo.panels.templating import format_percent
from demo.panels.templating import render as render_template
from demo.snapshot import Comparison, Lane
from engines.metrics import score, split_words

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
    "Word error rate (WER) and character error rate (CER) are errors per word and per character, "
    "as written and after the normaliser of the Whisper paper; against the baseline they measure "
    "disagreement, not error."
)


def render(comparison: Comparison) -> str:
    """Render a row for each engine against the baseline, then against the reference if known."""
    if not comparison.finished or not comparison.done:
        sentence = "The figures appear when the last engine is done."
        return render_template("nothing.html", sentence=sentence)
    rows = [row for lane in comparison.lanes for row in list_rows(lane, comparison)]
    return render_template(
        "scores.html",
        verdict=describe(comparison),
        columns=COLUMNS,
        rows=rows,
        caption=CAPTION,
    )


def describe(comparison: Comparison) -> str:
    """Say in a sentence what the table comes to."""
    baseline = comparison.baseline
    others = [lane for lane in comparison.done if baseline and lane.key != baseline.key]
    if baseline is None or baseline.transcript is None or not others:
        return "There is no second transcript to compare with the baseline’s."
    different = [lane.label for lane in others if read_words(lane) != read_words(baseline)]
    if not different:
        return f"No differences: every engine wrote what {baseline.label} wrote, to the letter."
    return f"Not as {baseline.label} wrote it: {', '.join(different)}."


def read_words(lane: Lane) -> list[str]:
    """Return what an engine wrote, word by word."""
    return split_words(lane.transcript.text) if lane.transcript else []


def list_rows(lane: Lane, comparison: Comparison) -> list[list[str]]:
    """Return the cells of one engine's rows."""
    rows = []
    baseline = comparison.baseline
    if baseline is not None and lane.key != baseline.key:
        expected = baseline.transcript.text if baseline.transcript else None
        rows.append([lane.label, baseline.label, *list_figures(lane, expected)])
    if comparison.reference is not None:
        rows.append([lane.label, "Reference", *list_figures(lane, comparison.reference)])
    return rows


def list_figures(lane: Lane, expected: str | None) -> list[str]:
    """Return the counts and rates of one engine against expected words."""
    if lane.transcript is None or expected is None:
        return ["–"] * (len(COLUMNS) - 2)
    found = score(expected, lane.transcript.text, lane.transcript.language)
    rates = (
        found.raw.word_error_rate,
        found.raw_characters,
        found.normalised.word_error_rate,
        found.normalised_characters,
    )
    return [
        *(str(found.raw.count(change)) for change in ("replace", "insert", "delete")),
        *("–" if rate is None else format_percent(rate) for rate in rates),
    ]
