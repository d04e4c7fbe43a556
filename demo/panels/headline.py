"""The verdict: a comparison in one sentence, and a note that says how it was found.

A ratio is given only of times that no other engine on the same device disturbed, and only where
they differ by 5 % and, after several runs, by more than their spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from demo.limits import format_left
from demo.panels.templating import render_template
from demo.snapshot import Comparison, Lane
from engines.metrics import Score, compare, join_names, name_count, score, split_words

INVITATION = (
    "The same speech through every way of running OpenAI’s Whisper here. Press Compare for the "
    "words, the times and the differences."
)


@dataclass(frozen=True)
class Headline:
    """A sentence, a quieter note on how to read it, and whether it is a warning.

    `ratio`: the part of the sentence that is shown large. `left`: how long it may still take.
    """

    sentence: str
    note: str = ""
    alert: bool = False
    ratio: str = ""
    left: str = ""


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
        return Headline(INVITATION)
    if not comparison.finished:
        return Headline(_say_what_runs(comparison), left=format_left(comparison.left))
    if any(lane.state == "stopped" for lane in lanes):
        kept = sum(lane.state == "done" for lane in lanes)
        return Headline(f"Stopped. {kept} of {name_count(len(lanes), 'engine')} had finished.")
    failed = [lane.label for lane in lanes if lane.state == "failed"]
    if len(failed) == len(lanes):
        reason = find_common_reason(comparison) or "every engine failed; each says why."
        return Headline(f"Nothing was transcribed: {reason}", alert=True)
    sentence, ratio = _write_verdict(comparison)
    note = " ".join([*comparison.source.sentences(), _write_note(comparison)])
    if failed:
        found = f"{sentence} {note}" if len(comparison.done) > 1 else note
        done = join_names([lane.label for lane in comparison.done])
        return Headline(f"{join_names(failed)} failed; {done} finished.", found, alert=True)
    return Headline(sentence, note, alert=bool(comparison.source.broke_off), ratio=ratio)


def find_common_reason(comparison: Comparison) -> str | None:
    """Return why every engine failed, where all failed for the same reason: it is said once."""
    reasons = {lane.reason if lane.state == "failed" else None for lane in comparison.lanes}
    return reasons.pop() if len(reasons) == 1 else None


def _say_what_runs(comparison: Comparison) -> str:
    """Name what each engine is doing, those that do the same together."""
    doing = {
        "transcribing": ("mel", "encoding", "decoding"),
        "loading the model": ("loading",),
        "compiling the graph": ("compiling",),
    }
    parts = []
    for what, states in doing.items():
        names = [lane.label for lane in comparison.lanes if lane.state in states]
        if len(names) == len(comparison.lanes) > 2:  # their names would not fit on the stage
            parts.append(f"All {len(names)} engines are {what}")
        elif names:
            parts.append(f"{join_names(names)} {'are' if len(names) > 1 else 'is'} {what}")
    alone = comparison.settings.schedule != "parallel" and not comparison.racing
    start = "Timed alone: " if alone and len(comparison.lanes) > 1 else ""
    return f"{start}{', '.join(parts)}." if parts else f"{start or 'About to start'}…"


def _write_verdict(comparison: Comparison) -> tuple[str, str]:
    """Return the sentence about the times, and the ratio in it if it has one."""
    ranked = sorted(comparison.done, key=attrgetter("total_seconds"))
    first = ranked[0]
    taken = format_seconds(first.total_seconds)
    if len(ranked) == 1:
        return f"{first.label} wrote {name_count(len(split_words(first.text)))} in {taken}.", ""
    if comparison.shared:
        return f"{first.label} finished first, in {taken}.", ""
    return _describe_lead(ranked, comparison.baseline or first)


def _describe_lead(ranked: list[Lane], baseline: Lane) -> tuple[str, str]:
    """Name the fastest engine, or those that are too close to it to tell apart."""
    first = ranked[0]
    close = [lane for lane in ranked if lane is first or not is_clearly_faster(first, lane)]
    if len(close) == 1:
        other = ranked[1] if first.key == baseline.key else baseline
        title = ", the baseline," if first.key == baseline.key else ""
        ratio = _compare_times(first, other)
        return f"{first.label}{title} was {ratio} as fast as {other.label}.", ratio
    names = join_names([lane.label for lane in close])
    if len(close) == len(ranked):
        return f"{names} were not clearly apart.", ""
    if all(is_clearly_faster(lane, baseline) for lane in close):
        ratio = _compare_times(close[-1], baseline)
        return f"{names} were at least {ratio} as fast as {baseline.label}.", ratio
    return f"{names}, not clearly apart, were fastest.", ""


def _compare_times(lane: Lane, other: Lane) -> str:
    return format_ratio(other.total_seconds / lane.total_seconds)


def is_clearly_faster(first: Lane, other: Lane) -> bool:
    """Tell whether two engines' times are apart by more than chance gives."""
    ours = [repeat.seconds.total for repeat in first.repeats]
    theirs = [repeat.seconds.total for repeat in other.repeats]
    ratio = other.total_seconds / first.total_seconds if first.total_seconds else 1.0
    apart = len(ours) < 2 or len(theirs) < 2 or max(ours) < min(theirs)
    return apart and ratio >= 1.05


def _write_note(comparison: Comparison) -> str:
    """List what stands behind the verdict: words, errors, model and clip, and how it was timed."""
    name = f"“{comparison.clip_name}”" if comparison.clip_name else "the clip"
    length = f"{comparison.audio_seconds:.0f} s"
    parts = [
        _describe_words(comparison),
        _describe_errors(comparison),
        comparison.settings.models,
        name if comparison.clip_name.endswith(f", {length}") else f"{name} ({length})",
        _describe_timing(comparison),
    ]
    note = " · ".join(part for part in parts if part)
    return f"{note[:1].upper()}{note[1:]}."


def _describe_words(comparison: Comparison) -> str:
    if len(comparison.done) < 2 or comparison.baseline not in comparison.done:
        return ""
    assert comparison.baseline is not None
    expected = comparison.baseline.text
    different: list[str] = []
    for lane in comparison.done:
        errors = compare(expected, lane.text).errors
        if errors:
            by = f"differs from {comparison.baseline.label} by {name_count(errors)}"
            different.append(f"{lane.label} {f'by {name_count(errors)}' if different else by}")
    if different:
        return ", ".join(different)
    count = len(split_words(expected))
    return f"every engine wrote the same {name_count(count)}" if count else "no engine found speech"


def _describe_errors(comparison: Comparison) -> str:
    """Give the word error rate after normalisation, or the lowest and the highest of several."""
    if not comparison.reference:
        return ""
    rates = set()
    for lane in comparison.done:
        rates.add(score_lane(lane, comparison.reference).normalised_word_error_rate or 0.0)
    said = f"word error rate {min(rates):.1%}"
    return said if f"{min(rates):.1%}" == f"{max(rates):.1%}" else f"{said} to {max(rates):.1%}"


def _describe_timing(comparison: Comparison) -> str:
    """Say how the times were measured, and so what they are worth."""
    if len(comparison.lanes) < 2:
        return ""
    if comparison.shared:
        return "engines ran at once, so times aren’t comparable"
    repeats = max(len(lane.repeats) for lane in comparison.done)
    if repeats > 1:
        return f"each alone, median of {repeats} runs"
    if repeats == 0 or comparison.settings.schedule == "parallel":
        return "at once, each on a device of its own, one run"
    return "each alone, a single run: repeats would give a spread"


def score_lane(lane: Lane, expected: str) -> Score:
    """Count the errors of a finished engine against the expected words."""
    assert lane.transcript is not None
    return score(expected, lane.text, lane.transcript.language)


def format_seconds(seconds: float) -> str:
    """Return seconds with three figures where they are few."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds:.3f} s"


def format_ratio(ratio: float) -> str:
    """Return how many times as fast, as 1.9×; finer near 1, where a tenth would say too much."""
    return f"{ratio:.2f}×" if ratio < 1.2 else f"{ratio:.1f}×"
