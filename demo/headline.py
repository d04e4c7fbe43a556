"""The one sentence above the lanes: true, short, and large enough for the back row.

A ratio is printed only where engines ran one at a time, and only where the times are apart: by
5 % after one run each, by more than their spread after several.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from demo import diffs
from demo.lanes import format_ratio
from demo.snapshot import Comparison, Lane

CLEARLY_FASTER = 1.05
"""The ratio from which one run each is called a difference."""


@dataclass(frozen=True)
class Headline:
    """A sentence, a quieter note on how to read it, and whether it is a warning."""

    sentence: str
    note: str = ""
    alert: bool = False


def render_headline(headline: Headline) -> str:
    """The headline as HTML, spoken by screen readers when it changes."""
    kind, role = (" alert", "alert") if headline.alert else ("", "status")
    sign = '<span aria-hidden="true">⚠ </span>' if headline.alert else ""
    return (
        f'<div class="headline{kind}" role="{role}"><p class="summary">{sign}'
        f'{escape(headline.sentence)}</p><p class="note">{escape(headline.note)}</p></div>'
    )


def summarise(comparison: Comparison) -> Headline:
    """The whole comparison in a sentence; it changes only when a lane changes its state."""
    lanes = comparison.lanes
    if comparison.refusal is not None:
        return Headline(comparison.refusal, alert=True)
    if not lanes or all(lane.state == "idle" for lane in lanes):
        return Headline("Press Compare: the same clip goes through every chosen engine.")
    if not comparison.finished:
        running = [f"{lane.label} {coarse_state(lane)}" for lane in lanes]
        return Headline("; ".join(running) + ".")
    if any(lane.state == "stopped" for lane in lanes):
        kept = sum(lane.state == "done" for lane in lanes)
        return Headline(f"Stopped. {kept} of {len(lanes)} lanes had finished.")
    failed = [lane.label for lane in lanes if lane.state == "failed"]
    if failed:
        return summarise_failures(comparison, failed)
    return Headline(write_sentence(comparison), write_note(comparison))


def summarise_failures(comparison: Comparison, failed: list[str]) -> Headline:
    """Which lanes failed; the lanes themselves say why."""
    if len(failed) == len(comparison.lanes):
        return Headline("Nothing was transcribed: every lane failed and says why.")
    noun = "a lane" if len(failed) == 1 else "lanes"
    return Headline(f"Finished, except for {noun} that failed: {', '.join(failed)}.")


def coarse_state(lane: Lane) -> str:
    """A lane's state without figures that change five times a second."""
    if lane.state in ("mel", "encoding", "decoding"):
        return "running"
    return "between runs" if lane.state == "waiting" and lane.laps else lane.state


def write_sentence(comparison: Comparison) -> str:
    """Which engine was fastest, by how much, on what, and how many words differ."""
    place = describe_clip(comparison)
    if len(comparison.done) == 1:
        lane = comparison.done[0]
        words = count_words(lane)
        return f"{lane.label} wrote {words} in {format_seconds(read_total(lane))}: {place}."
    ranked = sorted(comparison.done, key=read_total)
    words = describe_words(comparison)
    if comparison.shared:
        taken = format_seconds(read_total(ranked[0]))
        return f"{ranked[0].label} took the least time, {taken}, on {place}; {words}."
    return f"{describe_lead(ranked, comparison)} on {place}; {words}."


def describe_lead(ranked: list[Lane], comparison: Comparison) -> str:
    """The fastest engine, or those that are too close to it, against the baseline or, where that is
    the fastest, against the next."""
    first, baseline = ranked[0], comparison.baseline
    assert baseline is not None
    close = [lane for lane in ranked if lane is first or not is_clearly_faster(first, lane)]
    if len(close) > 1:
        return describe_close(close, len(close) == len(ranked), baseline)
    other = ranked[1] if first.key == baseline.key else baseline
    title = ", the baseline," if first.key == baseline.key else ""
    return f"{first.label}{title} was fastest, {compare_times(first, other)},"


def describe_close(close: list[Lane], is_all: bool, baseline: Lane) -> str:
    """Several lanes too close to the fastest of them, the first, to tell apart."""
    first, names = close[0], join_names([lane.label for lane in close])
    if is_all:
        return f"{names} were not clearly apart"
    if baseline.key in [lane.key for lane in close]:
        return f"{names}, not clearly apart, were fastest"
    if all(is_clearly_faster(lane, baseline) for lane in close):
        each = "both" if len(close) == 2 else "all"
        least = compare_times(close[-1], baseline)
        return f"{names}, not clearly apart, were {each} at least {least},"
    rest = join_names([lane.label for lane in close[1:]])
    return f"{first.label}, not clearly apart from {rest}, was {compare_times(first, baseline)},"


def compare_times(lane: Lane, other: Lane) -> str:
    """How many times as fast a lane was as another."""
    return f"{format_ratio(read_total(other) / read_total(lane))} as fast as {other.label}"


def join_names(names: list[str]) -> str:
    """Names with commas and an “and”."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def is_clearly_faster(first: Lane, other: Lane) -> bool:
    """Whether two lanes' times are apart by more than what chance gives."""
    ours = [lap.seconds.total for lap in first.laps]
    theirs = [lap.seconds.total for lap in other.laps]
    ratio = read_total(other) / read_total(first) if read_total(first) else 1.0
    apart = len(ours) < 2 or len(theirs) < 2 or max(ours) < min(theirs)
    return apart and ratio >= CLEARLY_FASTER


def describe_clip(comparison: Comparison) -> str:
    """What was transcribed: the clip, its length and the model."""
    name = comparison.clip_name or "the clip"
    return f"“{name}” ({comparison.audio_seconds:.0f} s) with {comparison.settings.model}"


def describe_words(comparison: Comparison) -> str:
    """How many words differ from the baseline's."""
    baseline = comparison.baseline
    assert baseline is not None and baseline.transcript is not None
    counts = {lane.label: count_differences(lane, baseline) for lane in comparison.done}
    different = {label: count for label, count in counts.items() if count}
    if not different:
        if not diffs.split_words(baseline.transcript.text):
            return "no lane found speech"
        return f"every lane wrote the same {count_words(baseline)}"
    (label, count), *rest = different.items()
    first = f"{label} differs from the baseline by {diffs.name_count(count)}"
    return ", ".join([first, *(f"{label} by {diffs.name_count(count)}" for label, count in rest)])


def count_differences(lane: Lane, baseline: Lane) -> int:
    """Words of a lane that differ from the baseline's, as written."""
    assert lane.transcript is not None and baseline.transcript is not None
    return diffs.compare(baseline.transcript.text, lane.transcript.text).errors


def write_note(comparison: Comparison) -> str:
    """How the times may be read."""
    if comparison.shared:
        return "The lanes shared the processor: for speed-ups run them one at a time."
    if len(comparison.lanes) < 2:
        return ""
    repeats = comparison.settings.repeats
    if repeats > 1:
        return f"One at a time, medians of {repeats} runs each."
    return "One at a time, one run each: more runs give a median and a spread."


def read_total(lane: Lane) -> float:
    """Seconds of a finished lane's median run."""
    return lane.transcript.seconds.total if lane.transcript else float("inf")


def format_seconds(seconds: float) -> str:
    """Seconds to two figures after the point, or three below a tenth."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds:.3f} s"


def count_words(lane: Lane) -> str:
    """How many words a lane wrote, in good English."""
    return diffs.name_count(len(diffs.split_words(lane.transcript.text if lane.transcript else "")))
