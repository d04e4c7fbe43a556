"""The engines side by side: what each does, wrote and took, in parts of which changed ones travel.

A lane has the same rows from the first moment on, with dashes where nothing is known yet, so that
nothing moves while it fills. Word times are the engine's own where it was asked for them; else they
are spread over the segment by the words' lengths, and the page says that they are estimates.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import accumulate
from typing import Any

from demo.panels.accuracy import describe_differences, list_changes
from demo.panels.headline import format_ratio
from demo.panels.templating import render_template
from demo.snapshot import Comparison, Lane, State
from engines.base import Segment
from engines.metrics import Edit, compare, name_count, normalise
from engines.registry import LANGUAGES

STATES: dict[State, tuple[str, str]] = {
    "idle": ("○", "Ready"),
    "waiting": ("○", "Waiting"),
    "loading": ("◔", "Loading the model"),
    "compiling": ("◔", "Compiling the graph"),
    "mel": ("◑", "Computing the log-mel spectrogram"),
    "encoding": ("◑", "Encoding"),
    "decoding": ("◑", "Decoding"),
    "done": ("✓", "Done"),
    "failed": ("✕", "Failed"),
    "stopped": ("■", "Stopped"),
}
"""A sign and words for each."""

STAGES = {"mel": "Log-mel", "encode": "Encoder", "decode": "Decoder loop", "total": "Total"}


def render(comparison: Comparison, document: bool = False) -> list[list[str]]:
    """Render all engines side by side, then a line for each that this machine lacks.

    `document`: with transcripts to read instead of to click.
    """
    html = render_template(
        "lanes.html",
        comparison=comparison,
        lanes=[_show_lane(lane, comparison, document) for lane in comparison.lanes],
    )
    return [part.split("<!--row-->") for part in html.split("<!--part-->")]


render_document = partial(render, document=True)


def _show_lane(lane: Lane, comparison: Comparison, document: bool) -> dict[str, Any]:
    done, busy, language = lane.transcript, lane.running and lane.state != "waiting", ""
    if done and done.language_probability is not None and not comparison.settings.language:
        name = LANGUAGES.get(done.language, done.language).title()
        language = f"Detected {name} ({done.language_probability:.0%})"
    percent = 100.0 if lane.state == "done" else 0.0
    if comparison.audio_seconds and lane.state != "done":
        percent = min(100.0, 100 * lane.audio_done / comparison.audio_seconds)
    rows = [render_segment(segment, document) for segment in lane.segments]
    if lane.state == "failed" and not lane.repeats and not document:
        rows = []
    why_empty = "No speech was found." if done else ""
    if lane.state in ("failed", "stopped"):
        why_empty = lane.reason or "Stopped before the first words."
    return {
        "lane": lane,
        "is_baseline": _is_baseline(lane, comparison),
        "sign": STATES[lane.state][0],
        "state": _describe_state(lane, comparison),
        "clock": f"{lane.elapsed:.1f} s" if busy else language,
        "percent": percent,
        "unsure": busy and not lane.audio_done,
        "tall": comparison.audio_seconds > 60 and not document,
        "live": lane.running and not lane.repeats and not document,
        "rows": rows,
        "why_empty": why_empty,
        "to_baseline": _compare_to_baseline(lane, comparison),
        "to_reference": _compare_to_reference(lane, comparison),
        "figures": _list_figures(lane, comparison),
        "spread": _describe_spread(lane, comparison),
        "stages": _list_stages(lane, comparison),
    }


def _is_baseline(lane: Lane, comparison: Comparison) -> bool:
    return comparison.baseline is not None and comparison.baseline.key == lane.key


def _describe_state(lane: Lane, comparison: Comparison) -> str:
    """Say what an engine is doing and, of several runs, in which one."""
    state = lane.note or STATES[lane.state][1]
    if not lane.note and lane.state in ("encoding", "decoding"):
        state += f" {lane.audio_done:.0f} of {comparison.audio_seconds:.0f} s"
    elif not lane.note and lane.state == "waiting" and lane.prepare:
        state += " for its turn"
    repeats, number = comparison.settings.repeats, len(lane.repeats) + 1
    if repeats == 1 or not (lane.running and lane.prepare) or number > repeats:
        return state
    return f"Run {number} of {repeats}: {state[:1].lower()}{state[1:]}"


@lru_cache(maxsize=4096)
def render_segment(segment: Segment, document: bool) -> str:
    """Render a segment: a button that plays from its start, then its words with their times."""
    if segment.words:
        timed = [(word.text.strip(), word.start) for word in segment.words if word.text.strip()]
    else:
        words = segment.text.split()
        letters = [0, *accumulate(len(word) + 1 for word in words)]  # before each word
        pace = (segment.end - segment.start) / max(letters[-1], 1)
        starts = (segment.start + pace * before for before in letters)
        timed = list(zip(words, starts, strict=False))
    return render_template("segment.html", segment=segment, words=timed, document=document)


def _compare_to_baseline(lane: Lane, comparison: Comparison) -> tuple[str, list[Edit]]:
    """Say how many words differ from the baseline's, and list the changes."""
    baseline = comparison.baseline
    if baseline is None or lane.key == baseline.key:
        return "This engine is the baseline.", []
    if lane.transcript is None or baseline.transcript is None or _waits_for_others(comparison):
        return _explain_missing(lane, baseline), []
    alignment = compare(baseline.transcript.text, lane.transcript.text)
    if alignment.errors:
        return describe_differences(alignment), list_changes(alignment)
    equal = lane.transcript.tokens == baseline.transcript.tokens
    tokens = "are equal too" if equal else "differ"
    return f"{describe_differences(alignment)} Its tokens {tokens}.", []


def _compare_to_reference(lane: Lane, comparison: Comparison) -> tuple[str, list[Edit]]:
    """Give the word error rate after normalisation, and list the changes."""
    if lane.transcript is None or comparison.reference is None or _waits_for_others(comparison):
        return _explain_missing(lane), []
    expected, text = comparison.reference, lane.transcript.text
    language = lane.transcript.language
    found = compare(normalise(expected, language), normalise(text, language))
    if found.word_error_rate is not None:
        rate, errors = found.word_error_rate, name_count(found.errors, "error")
        sentence = f"Word error rate {rate:.1%} normalised: {errors} in {name_count(found.words)}."
    elif found.errors:
        sentence = f"Nothing was said, but {name_count(found.errors)} written."
    else:
        sentence = "Nothing was said, and nothing was written."
    return sentence, list_changes(found)


def _waits_for_others(comparison: Comparison) -> bool:
    """Tell whether words are compared later: nothing else may run while engines are timed."""
    return not comparison.shared and not comparison.finished


def _explain_missing(*lanes: Lane) -> str:
    broken = [one for one in lanes if one.state in ("failed", "stopped")]
    return f"Not known: {broken[0].label} {broken[0].state}." if broken else "–"


def _list_figures(lane: Lane, comparison: Comparison) -> list[tuple[str, str, str]]:
    """List name, value and unit of the figures to read from afar.

    Tokens per second are of the whole run; while it goes on, of its segments so far.
    """
    done, total, speed, rate = lane.transcript, "–", "–", "–"
    tokens, seconds = 0, 0.0
    if done is not None:
        tokens, seconds = len(done.tokens), done.seconds.total
        total, speed = f"{seconds:.2f} s", f"{_format_figure(done.audio_seconds / seconds)}×"
    elif lane.state in ("mel", "encoding", "decoding"):
        tokens, seconds = sum(len(segment.tokens) for segment in lane.segments), lane.elapsed
    if tokens and seconds:
        rate = _format_figure(tokens / seconds)
    ratio = _stage_ratio(lane, comparison, "total") or "–"
    if comparison.shared:
        ratio = "not measured"
    elif _is_baseline(lane, comparison):
        ratio = "baseline"
    return [
        ("Whole run", total, ""),
        ("Speed-up", ratio, ""),
        ("Speed", speed, "real time" if done else ""),
        ("Tokens per second", rate, ""),
    ]


def _format_figure(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _stage_ratio(lane: Lane, comparison: Comparison, stage: str) -> str:
    """Return how many times as fast as the baseline a stage was; "" unless each ran alone."""
    baseline = comparison.baseline
    if comparison.shared or _is_baseline(lane, comparison) or baseline is None:
        return ""
    if lane.transcript is None or baseline.transcript is None:
        return ""
    ours = lane.transcript.seconds.as_dict()[stage]
    return format_ratio(baseline.transcript.seconds.as_dict()[stage] / ours) if ours else ""


def _list_stages(
    lane: Lane, comparison: Comparison
) -> list[tuple[str, str, float | None, float, str]]:
    """List key, name, seconds, percent of the slowest engine's total, and speed-up of stages."""
    totals = [one.transcript.seconds.total for one in comparison.done if one.transcript]
    longest, rows = max(totals, default=0.0), []
    for stage, name in STAGES.items():
        seconds = lane.transcript.seconds.as_dict()[stage] if lane.transcript else None
        width = 100 * seconds / longest if seconds and longest else 0.0
        rows.append((stage, name, seconds, width, _stage_ratio(lane, comparison, stage)))
    return rows


def _describe_spread(lane: Lane, comparison: Comparison) -> str:
    """Say of several runs which one the figures are of, and between what times the runs lay."""
    if comparison.settings.repeats == 1:
        return ""
    if len(lane.repeats) < 2:
        return "Median and spread: –"
    totals = [repeat.seconds.total for repeat in lane.repeats]
    spread = f"{min(totals):.3f} to {max(totals):.3f} s"
    unsteady = "" if lane.steady else " The runs wrote different tokens; shown is the first."
    return f"Median of {len(totals)} runs, which took {spread}.{unsteady}"
