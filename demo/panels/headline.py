"""The headline: a comparison in one sentence, true and short.

A ratio is printed only where engines ran one at a time, and only where the times are apart: by
5 % after one run each, by more than their spread after several.
"""

from __future__ import annotations

from dataclasses import dataclass

from demo.panels.templating import count_noun, join_names
from demo.panels.templating import render as render_template
from demo.snapshot import Comparison, Lane
from engines.metrics import compare, name_count, split_words

CLEARLY_FASTER = 1.05
"""The ratio from which one run each is called a difference."""


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
    if not lanes or all(lane.state == "idle" for lane in lanes):
        return Headline("Press Compare: the same clip goes through every chosen engine.")
    if not comparison.finished:
        return Headline("; ".join(f"{lane.label} {coarse_state(lane)}" for lane in lanes) + ".")
    if any(lane.state == "stopped" for lane in lanes):
        kept = sum(lane.state == "done" for lane in lanes)
        return Headline(f"Stopped. {kept} of {count_noun(len(lanes), 'engine')} had finished.")
    failed = [lane.label for lane in lanes if lane.state == "failed"]
    if len(failed) == len(lanes):
        return Headline("Nothing was transcribed: every engine failed; each says why.", alert=True)
    if failed:
        done = join_names([lane.label for lane in comparison.done])
        return Headline(f"{join_names(failed)} failed; {done} finished.", alert=True)
    return Headline(write_sentence(comparison), write_note(comparison))


def coarse_state(lane: Lane) -> str:
    """Return a state without figures that change five times a second."""
    if lane.state in ("mel", "encoding", "decoding"):
        return "running"
    return "between runs" if lane.state == "waiting" and lane.repeats else lane.state


def write_sentence(comparison: Comparison) -> str:
    """Say which engine was fastest, by how much, on what, and how many words differ."""
    name = comparison.clip_name or "the clip"
    clip = f"“{name}” ({comparison.audio_seconds:.0f} s) with {comparison.settings.model}"
    first, *others = sorted(comparison.done, key=read_total)
    taken = format_seconds(read_total(first))
    if not others:
        assert first.transcript is not None
        words = name_count(len(split_words(first.transcript.text)))
        return f"{first.label} wrote {words} in {taken}: {clip}."
    if comparison.shared:
        lead = f"{first.label} took the least time, {taken},"
    else:
        lead = describe_lead([first, *others], comparison.baseline or first)
    return f"{lead} on {clip}; {describe_words(comparison)}."


def describe_lead(ranked: list[Lane], baseline: Lane) -> str:
    """Name the fastest engine, or those that are too close to it to tell apart."""
    first = ranked[0]
    close = [lane for lane in ranked if lane is first or not is_clearly_faster(first, lane)]
    if len(close) == 1:
        other = ranked[1] if first.key == baseline.key else baseline
        title = ", the baseline," if first.key == baseline.key else ""
        return f"{first.label}{title} was fastest, {compare_times(first, other)},"
    names = join_names([lane.label for lane in close])
    if len(close) == len(ranked):
        return f"{names} were not clearly apart"
    if all(is_clearly_faster(lane, baseline) for lane in close):
        each, least = "both" if len(close) == 2 else "all", compare_times(close[-1], baseline)
        return f"{names}, not clearly apart, were {each} at least {least},"
    return f"{names}, not clearly apart, were fastest"


def compare_times(lane: Lane, other: Lane) -> str:
    """Say how many times as fast an engine was as another."""
    return f"{format_ratio(read_total(other) / read_total(lane))} as fast as {other.label}"


def is_clearly_faster(first: Lane, other: Lane) -> bool:
    """Tell whether two engines' times are apart by more than chance gives."""
    ours = [repeat.seconds.total for repeat in first.repeats]
    theirs = [repeat.seconds.total for repeat in other.repeats]
    ratio = read_total(other) / read_total(first) if read_total(first) else 1.0
    apart = len(ours) < 2 or len(theirs) < 2 or max(ours) < min(theirs)
    return apart and ratio >= CLEARLY_FASTER


def describe_words(comparison: Comparison) -> str:
    """Say how many words differ from the baseline's."""
    baseline = comparison.baseline
    if baseline is None or baseline.transcript is None:
        return "there is no baseline"
    expected = baseline.transcript.text
    counts = {
        lane.label: compare(expected, lane.transcript.text).errors
        for lane in comparison.done
        if lane.transcript is not None
    }
    different = [(label, name_count(count)) for label, count in counts.items() if count]
    if different:
        verb = " differs from the baseline"
        named = [f"{label}{'' if at else verb} by {n}" for at, (label, n) in enumerate(different)]
        return ", ".join(named)
    if not split_words(expected):
        return "no engine found speech"
    return f"every engine wrote the same {name_count(len(split_words(expected)))}"


def write_note(comparison: Comparison) -> str:
    """Say how the times may be read."""
    if comparison.shared:
        return "The engines shared the processor: for speed-ups run them one at a time."
    if len(comparison.lanes) < 2:
        return ""
    if comparison.settings.repeats > 1:
        return f"One at a time, medians of {comparison.settings.repeats} runs each."
    return "One at a time, one run each: more repeats give a median and a spread."


def read_total(lane: Lane) -> float:
    """Return the seconds of a finished engine's median run."""
    return lane.transcript.seconds.total if lane.transcript else float("inf")


def format_seconds(seconds: float) -> str:
    """Return seconds to two places, or three below a tenth."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds:.3f} s"


def format_ratio(ratio: float) -> str:
    """Return how many times as fast, as 2.00×."""
    return f"{ratio:.2f}×"
