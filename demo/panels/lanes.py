"""The engines side by side: what each does, wrote and took, in parts of which changed ones travel.

A lane has the same rows from the first moment on, with dashes where nothing is known yet, so that
nothing moves while it fills.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from demo.panels import transcripts
from demo.panels.differences import describe, list_pieces
from demo.panels.headline import format_ratio
from demo.panels.templating import count_noun, macros
from demo.snapshot import Comparison, Lane, State
from engines.metrics import Alignment, compare, name_count, score
from engines.registry import LANGUAGES

STATE_SIGNS: dict[State, str] = {
    "idle": "○",
    "waiting": "○",
    "loading": "◔",
    "compiling": "◔",
    "mel": "◑",
    "encoding": "◑",
    "decoding": "◑",
    "done": "✓",
    "failed": "✕",
    "stopped": "■",
}
STATE_WORDS: dict[State, str] = {
    "idle": "Ready",
    "loading": "Loading the model",
    "compiling": "Compiling the graph",
    "mel": "Computing the log-mel spectrogram",
    "done": "Done",
    "failed": "Failed",
    "stopped": "Stopped",
}
STAGES = {"mel": "Log-mel", "encode": "Encoder", "decode": "Decoder loop", "total": "Total"}

RenderTranscript = Callable[[Lane, Comparison], list[Any]]


def render(comparison: Comparison, transcript: RenderTranscript = transcripts.render) -> list[Any]:
    """Render all engines side by side, then a line for each that this machine lacks."""
    macro = macros("lanes.html")
    known = comparison.settings.options.word_timestamps
    hint = transcripts.KNOWN_TIMES if known else transcripts.SPREAD_TIMES
    return [
        macro.opening(comparison.clip_id),
        [render_lane(lane, comparison, transcript) for lane in comparison.lanes],
        "</div>",
        macro.hint(hint) if comparison.lanes else "",
        [macro.absent(status) for status in comparison.absent],
    ]


def render_document(comparison: Comparison) -> list[Any]:
    """Render the engines with transcripts to read instead of to click."""
    return render(comparison, transcripts.render_document)


def render_lane(lane: Lane, comparison: Comparison, transcript: RenderTranscript) -> list[Any]:
    """Render one engine in parts."""
    macro = macros("lanes.html")
    reference: Any = '<div class="against"></div>'  # an empty row keeps the others in line
    if comparison.reference is not None:
        sentence, alignment = compare_to_reference(lane, comparison)
        reference = macro.against(lane, "Against the reference", sentence, list_pieces(alignment))
    sentence, alignment = compare_to_baseline(lane, comparison)
    brief = is_baseline(lane, comparison)
    return [
        macro.lane_opening(lane),
        macro.head(lane, brief),
        render_state(lane, comparison),
        transcript(lane, comparison),
        macro.against(lane, "Against the baseline", sentence, list_pieces(alignment), brief),
        reference,
        macro.figures(list_figures(lane, comparison)),
        render_stages(lane, comparison),
        macro.foot(lane, comparison.settings, comparison.shared),
        "</article>",
    ]


def is_baseline(lane: Lane, comparison: Comparison) -> bool:
    """Tell whether the others are measured against this engine."""
    return comparison.baseline is not None and comparison.baseline.key == lane.key


# State.


def render_state(lane: Lane, comparison: Comparison) -> str:
    """Render the state in words with its clock, above a bar of the audio finished."""
    busy = lane.running and lane.state != "waiting"
    done = 100.0 if lane.state == "done" else 0.0
    if comparison.audio_seconds and lane.state != "done":
        done = min(100.0, 100 * lane.audio_done / comparison.audio_seconds)
    return macros("lanes.html").state(
        lane.label,
        STATE_SIGNS[lane.state],
        describe_state(lane, comparison),
        f"{lane.elapsed:.1f} s" if busy else describe_language(lane, comparison),
        done,
        unsure=busy and not lane.audio_done,
    )


def describe_state(lane: Lane, comparison: Comparison) -> str:
    """Say what an engine is doing and, of several runs, in which one."""
    if lane.note:
        state = lane.note
    elif lane.state in ("encoding", "decoding"):
        done, total = lane.audio_done, comparison.audio_seconds
        state = f"{lane.state.capitalize()} {done:.0f} of {total:.0f} s"
    elif lane.state == "waiting":
        state = "Waiting for its turn" if lane.prepare else "Waiting"
    else:
        state = STATE_WORDS[lane.state]
    repeats, number = comparison.settings.repeats, len(lane.repeats) + 1
    if repeats == 1 or not (lane.running and lane.prepare) or number > repeats:
        return state
    return f"Run {number} of {repeats}: {state[:1].lower()}{state[1:]}"


def describe_language(lane: Lane, comparison: Comparison) -> str:
    """Say which language was detected, and how sure the model was; "" where it was given."""
    if lane.transcript is None or comparison.settings.options.language is not None:
        return ""
    code, sure = lane.transcript.language, lane.transcript.language_probability
    return "" if sure is None else f"Detected {LANGUAGES.get(code, code).title()} ({sure:.0%})"


# Words.


def compare_to_baseline(lane: Lane, comparison: Comparison) -> tuple[str, Alignment | None]:
    """Say how many words differ from the baseline's, and align them."""
    baseline = comparison.baseline
    if baseline is None or lane.key == baseline.key:
        return "This engine is the baseline.", None
    if lane.transcript is None or baseline.transcript is None:
        return explain_missing(lane, baseline), None
    if waits_for_others(comparison):
        return "–", None
    alignment = compare(baseline.transcript.text, lane.transcript.text)
    if alignment.errors:
        return describe(alignment), alignment
    equal = lane.transcript.tokens == baseline.transcript.tokens
    return f"{describe(alignment)} Its tokens {'are equal too' if equal else 'differ'}.", alignment


def compare_to_reference(lane: Lane, comparison: Comparison) -> tuple[str, Alignment | None]:
    """Give the word error rate after normalisation, and align the words."""
    if lane.transcript is None or comparison.reference is None:
        return explain_missing(lane), None
    if waits_for_others(comparison):
        return "–", None
    language = lane.transcript.language
    found = score(comparison.reference, lane.transcript.text, language).normalised
    if found.word_error_rate is not None:
        rate, errors = found.word_error_rate, count_noun(found.errors, "error")
        total = name_count(found.expected_words)
        return f"Word error rate {rate:.1%} normalised: {errors} in {total}.", found
    if found.errors:
        return f"Nothing was said, but {name_count(found.errors)} written.", found
    return "Nothing was said, and nothing was written.", None


def waits_for_others(comparison: Comparison) -> bool:
    """Tell whether words are compared later: nothing else may run while engines are timed."""
    return not comparison.shared and not comparison.finished


def explain_missing(*lanes: Lane) -> str:
    """Say why there is nothing to compare yet, or never will be."""
    broken = [one for one in lanes if one.state in ("failed", "stopped")]
    return f"Not known: {broken[0].label} {broken[0].state}." if broken else "–"


# Times.


def list_figures(lane: Lane, comparison: Comparison) -> list[tuple[str, str, str]]:
    """List name, value and unit of the figures to read from afar."""
    done, rate = lane.transcript, measure_rate(lane)
    factor = done.real_time_factor if done is not None and done.audio_seconds else 0.0
    tokens = "–" if rate is None else format_figure(rate)
    return [
        ("Whole run", f"{done.seconds.total:.2f} s" if done else "–", ""),
        ("Speed-up", describe_ratio(lane, comparison), ""),
        ("Speed", f"{format_figure(1 / factor)}×" if factor else "–", "real time" * bool(factor)),
        ("Tokens per second", tokens, ""),
    ]


def measure_rate(lane: Lane) -> float | None:
    """Return tokens per second of the whole run; while it goes on, of its segments so far."""
    if lane.transcript is not None:
        seconds, tokens = lane.transcript.seconds.total, len(lane.transcript.tokens)
    elif lane.state in ("mel", "encoding", "decoding"):
        seconds, tokens = lane.elapsed, sum(len(segment.tokens) for segment in lane.segments)
    else:
        return None
    return tokens / seconds if seconds and tokens else None


def format_figure(value: float) -> str:
    """Return a number with one decimal place below ten, else none."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def describe_ratio(lane: Lane, comparison: Comparison) -> str:
    """Return the speed-up after a fair run; engines that shared the processor have none."""
    if comparison.shared:
        return "not measured"
    if is_baseline(lane, comparison):
        return "baseline"
    ratio = stage_ratio(lane, comparison, "total")
    return "–" if ratio is None else format_ratio(ratio)


def stage_ratio(lane: Lane, comparison: Comparison, stage: str) -> float | None:
    """Return how many times as fast as the baseline a stage was, where each engine ran alone."""
    baseline = comparison.baseline
    if comparison.shared or lane.transcript is None or baseline is None:
        return None
    if baseline.transcript is None or baseline.key == lane.key:
        return None
    ours = lane.transcript.seconds.as_dict()[stage]
    return baseline.transcript.seconds.as_dict()[stage] / ours if ours else None


def render_stages(lane: Lane, comparison: Comparison) -> str:
    """Render seconds by stage with bars on one scale for all engines."""
    done = [one.transcript.seconds.total for one in comparison.done if one.transcript]
    longest = max(done, default=0.0)
    rows = []
    for stage, name in STAGES.items():
        seconds = lane.transcript.seconds.as_dict()[stage] if lane.transcript else None
        width = 100 * seconds / longest if seconds is not None and longest else 0.0
        ratio = stage_ratio(lane, comparison, stage)
        rows.append((stage, name, seconds, width, "" if ratio is None else format_ratio(ratio)))
    spread = describe_spread(lane, comparison)
    return macros("lanes.html").stages(spread, lane.prepare, rows, not comparison.shared)


def describe_spread(lane: Lane, comparison: Comparison) -> str:
    """Say of several runs which one the figures are of, and between what times the runs lay."""
    if comparison.settings.repeats == 1:
        return ""
    if len(lane.repeats) < 2:
        return "Median and spread: –"
    totals = [repeat.seconds.total for repeat in lane.repeats]
    spread = f"{min(totals):.3f} to {max(totals):.3f} s"
    unsteady = "" if lane.steady else " The runs wrote different tokens; shown is the first."
    return f"Median of {len(totals)} runs, which took {spread}.{unsteady}"
