"""The headline: a comparison in one sentence, true and short.

A ratio is printed only where engines ran one at a time, and only where the times are apart: by
5 % after one run each, by more than their spread after several.
"""

from __future__ import annotations

from dataclasses import dataclass

from demo.panels.templating import render_template
from demo.snapshot import Comparison, Lane
from engines.metrics import compare, name_count


@dataclass(frozen=True)
class Headline:
    """A sentence, a quieter note on how to read it, and whether it is a warning."""

    sentence: str
    note: str = ""
    alert: bool = False


def render(comparison: Comparison) -> str:
    """Render the headline of a comparison."""
    return render_headline(summarise(comparison))


def render_headline(headline: Headline) -> str:
    """Render a headline, which screen readers speak when it changes."""
    return render_template("headline.html", headline=headline)


def summarise(comparison: Comparison) -> Headline:
    """Put a comparison in a sentence, which changes only when an engine changes its state."""
    lanes = comparison.lanes
    if comparison.refusal is not None:
        return Headline(comparison.refusal, alert=True)
    if all(lane.state == "idle" for lane in lanes):
        return Headline("Press Compare: the same clip goes through every chosen engine.")
    if not comparison.finished:
        return Headline("; ".join(f"{lane.label} {_coarse_state(lane)}" for lane in lanes) + ".")
    if any(lane.state == "stopped" for lane in lanes):
        kept = sum(lane.state == "done" for lane in lanes)
        return Headline(f"Stopped. {kept} of {name_count(len(lanes), 'engine')} had finished.")
    failed = [lane.label for lane in lanes if lane.state == "failed"]
    if len(failed) == len(lanes):
        return Headline("Nothing was transcribed: every engine failed; each says why.", alert=True)
    if failed:
        done = _join_names([lane.label for lane in comparison.done])
        return Headline(f"{_join_names(failed)} failed; {done} finished.", alert=True)
    return Headline(_write_sentence(comparison), _write_note(comparison))


def _coarse_state(lane: Lane) -> str:
    if lane.state in ("mel", "encoding", "decoding"):
        return "running"
    return "between runs" if lane.state == "waiting" and lane.repeats else lane.state


def _write_sentence(comparison: Comparison) -> str:
    name = comparison.clip_name or "the clip"
    clip = f"“{name}” ({comparison.audio_seconds:.0f} s) with {comparison.settings.model}"
    ranked = sorted(comparison.done, key=_read_total)
    first, seconds = ranked[0], _read_total(ranked[0])
    taken = f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds:.3f} s"
    if len(ranked) == 1:
        return (
            f"{first.label} wrote {name_count(len(read_text(first).split()))} in {taken}: {clip}."
        )
    if comparison.shared:
        lead = f"{first.label} took the least time, {taken},"
    else:
        lead = _describe_lead(ranked, comparison.baseline or first)
    return f"{lead} on {clip}; {_describe_words(comparison)}."


def _describe_lead(ranked: list[Lane], baseline: Lane) -> str:
    """Name the fastest engine, or those that are too close to it to tell apart."""
    first = ranked[0]
    close = [lane for lane in ranked if lane is first or not _is_clearly_faster(first, lane)]
    if len(close) == 1:
        other = ranked[1] if first.key == baseline.key else baseline
        title = ", the baseline," if first.key == baseline.key else ""
        return f"{first.label}{title} was fastest, {_compare_times(first, other)},"
    names = _join_names([lane.label for lane in close])
    if len(close) == len(ranked):
        return f"{names} were not clearly apart"
    if all(_is_clearly_faster(lane, baseline) for lane in close):
        each, least = "both" if len(close) == 2 else "all", _compare_times(close[-1], baseline)
        return f"{names}, not clearly apart, were {each} at least {least},"
    return f"{names}, not clearly apart, were fastest"


def _compare_times(lane: Lane, other: Lane) -> str:
    return f"{format_ratio(_read_total(other) / _read_total(lane))} as fast as {other.label}"


def _is_clearly_faster(first: Lane, other: Lane) -> bool:
    """Tell whether two engines' times are apart by more than chance gives."""
    ours = [repeat.seconds.total for repeat in first.repeats]
    theirs = [repeat.seconds.total for repeat in other.repeats]
    ratio = _read_total(other) / _read_total(first) if _read_total(first) else 1.0
    apart = len(ours) < 2 or len(theirs) < 2 or max(ours) < min(theirs)
    return apart and ratio >= 1.05


def _describe_words(comparison: Comparison) -> str:
    assert comparison.baseline is not None
    expected = read_text(comparison.baseline)
    different: list[str] = []
    for lane in comparison.done:
        errors = compare(expected, read_text(lane)).errors
        if errors:
            verb = "" if different else " differs from the baseline"
            different.append(f"{lane.label}{verb} by {name_count(errors)}")
    if different:
        return ", ".join(different)
    count = len(expected.split())
    return f"every engine wrote the same {name_count(count)}" if count else "no engine found speech"


def _write_note(comparison: Comparison) -> str:
    if comparison.shared:
        return "The engines shared the processor: for speed-ups run them one at a time."
    if len(comparison.lanes) < 2:
        return ""
    if comparison.settings.repeats > 1:
        return f"One at a time, medians of {comparison.settings.repeats} runs each."
    return "One at a time, one run each: more repeats give a median and a spread."


def _read_total(lane: Lane) -> float:
    return lane.transcript.seconds.total if lane.transcript else float("inf")


def _join_names(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def read_text(lane: Lane) -> str:
    """Return what a finished engine wrote."""
    return lane.transcript.text if lane.transcript else ""


def format_ratio(ratio: float) -> str:
    """Return how many times as fast, as 2.00×."""
    return f"{ratio:.2f}×"
