"""The lanes: what each engine does, says and took, side by side, as HTML.

Every lane has the same rows from the first moment on, with dashes where nothing is known yet, so
that nothing moves while it fills. They are made as a list of parts: from one snapshot to the next
only the parts that changed travel to the browser.
"""

from __future__ import annotations

from html import escape
from typing import Any

from demo import diffs
from demo.palette import colour_engine
from demo.snapshot import Comparison, Lane, State, Status
from demo.transcripts import KNOWN_TIMES, SPREAD_TIMES, list_transcript

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
BASELINE_TITLE = "Against the baseline"
STAGES = {"mel": "Log-mel", "encode": "Encoder", "decode": "Decoder loop", "total": "Total"}


def render_lanes(comparison: Comparison) -> str:
    """All lanes side by side, then a line for each engine that this machine lacks."""
    return join_parts(list_lanes(comparison))


def join_parts(parts: list[Any]) -> str:
    """Nested lists of HTML as one text, as the page's template joins them."""
    return "".join(part if isinstance(part, str) else join_parts(part) for part in parts)


def list_lanes(comparison: Comparison) -> list[Any]:
    """`render_lanes` in parts, nested."""
    lanes = [list_lane(lane, comparison) for lane in comparison.lanes]
    times = KNOWN_TIMES if comparison.settings.options.word_timestamps else SPREAD_TIMES
    hint = f'<p class="hint">{times}</p>' if lanes else ""
    absent = [render_absent(status) for status in comparison.absent]
    opening = f'<div class="lanes" data-clip="{escape(comparison.clip_id, quote=True)}">'
    return [opening, lanes, "</div>", hint, absent]


def render_absent(status: Status) -> str:
    """One line for an engine that can't run here, and why."""
    return (
        f'<p class="absent"><span aria-hidden="true">—</span> <strong>{escape(status.label)}'
        f"</strong> can’t run on this machine: {escape(status.reason or 'reason unknown')}</p>"
    )


def render_lane(lane: Lane, comparison: Comparison) -> str:
    """One engine's lane."""
    return join_parts(list_lane(lane, comparison))


def list_lane(lane: Lane, comparison: Comparison) -> list[Any]:
    """`render_lane` in parts."""
    name = escape(lane.key, quote=True)
    return [
        f'<article class="lane lane--{lane.state}" data-engine="{name}" '
        f'data-state="{lane.state}" aria-labelledby="lane-{name}" '
        f'style="--engine:{colour_engine(lane.key)}">',
        render_head(lane, comparison),
        render_state(lane, comparison),
        list_transcript(lane, comparison),
        render_against(lane, comparison),
        render_figures(lane, comparison),
        render_stages(lane, comparison),
        render_foot(lane, comparison),
        "</article>",
    ]


def render_head(lane: Lane, comparison: Comparison) -> str:
    """The engine's name and what runs its halves."""
    badge = '<span class="badge">baseline</span>' if is_baseline(lane, comparison) else ""
    return (
        f'<header><h2 id="lane-{escape(lane.key, quote=True)}">{escape(lane.label)}</h2>{badge}'
        f"<p>Encoder {escape(lane.encoder)}, decoder {escape(lane.decoder)}</p></header>"
    )


def is_baseline(lane: Lane, comparison: Comparison) -> bool:
    """Whether the others are measured against this lane."""
    return comparison.baseline is not None and comparison.baseline.key == lane.key


def render_state(lane: Lane, comparison: Comparison) -> str:
    """The state in words with its clock, above a bar of the audio finished."""
    text = escape(describe_run(lane, comparison))
    busy = lane.running and lane.state != "waiting"
    clock = f"{lane.elapsed:.1f} s" if busy else ""
    share = describe_progress(lane, comparison.audio_seconds)
    unsure = " unsure" if busy and not lane.audio_done else ""
    return (
        f'<div class="state"><p><span class="sign" aria-hidden="true">{STATE_SIGNS[lane.state]}'
        f'</span> <span class="what">{text}</span><span class="clock">{clock}</span></p>'
        f'<div class="bar{unsure}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share:.0f}" aria-label="Audio finished by {escape(lane.label)}">'
        f'<span style="width:{share:.1f}%"></span></div></div>'
    )


def describe_run(lane: Lane, comparison: Comparison) -> str:
    """The state and, of several runs, which one."""
    state = describe_state(lane, comparison.audio_seconds)
    repeats, number = comparison.settings.repeats, len(lane.laps) + 1
    if repeats == 1 or not (lane.running and lane.prepare) or number > repeats:
        return state
    return f"Run {number} of {repeats}: {state[:1].lower()}{state[1:]}"


def describe_progress(lane: Lane, audio_seconds: float) -> float:
    """Per cent of the audio that a lane has finished."""
    if lane.state == "done":
        return 100.0
    return min(100.0, 100 * lane.audio_done / audio_seconds) if audio_seconds else 0.0


def describe_state(lane: Lane, audio_seconds: float) -> str:
    """What a lane is doing, in a few words."""
    if lane.note:
        return lane.note
    if lane.state in ("encoding", "decoding"):
        return f"{lane.state.capitalize()} {lane.audio_done:.0f} of {audio_seconds:.0f} s"
    if lane.state == "waiting":
        return "Waiting for its turn" if lane.prepare else "Waiting"
    return {
        "idle": "Ready",
        "loading": "Loading the model",
        "compiling": "Compiling the graph",
        "mel": "Computing the log-mel spectrogram",
        "done": "Done",
        "failed": "Failed",
        "stopped": "Stopped",
    }[lane.state]


def render_against(lane: Lane, comparison: Comparison) -> str:
    """Words against the baseline's, and against the reference where there is one."""
    baseline = render_row(lane, comparison, BASELINE_TITLE, *compare_to_baseline(lane, comparison))
    if comparison.reference is None:
        return baseline + '<div class="against"></div>'
    reference = render_row(
        lane, comparison, "Against the reference", *compare_to_reference(lane, comparison)
    )
    return baseline + reference


def render_row(
    lane: Lane, comparison: Comparison, title: str, sentence: str, marked: str = ""
) -> str:
    """A titled sentence with the changes it speaks of; the baseline's own will have none."""
    name = escape(f"{lane.label}: changes {title.lower()}", quote=True)
    changes = (
        f'<p class="changes" tabindex="0" role="region" aria-label="{name}">{marked}</p>'
        if marked
        else ""
    )
    brief = " brief" if title == BASELINE_TITLE and is_baseline(lane, comparison) else ""
    return f'<div class="against{brief}"><h3>{title}</h3><p>{escape(sentence)}</p>{changes}</div>'


def compare_to_baseline(lane: Lane, comparison: Comparison) -> tuple[str, str]:
    """A sentence on the words that differ from the baseline's, and the changes marked up."""
    baseline = comparison.baseline
    if is_baseline(lane, comparison):
        return "This lane is the baseline.", ""
    if lane.transcript is None or baseline is None or baseline.transcript is None:
        return pending(lane, baseline), ""
    if waits_for_others(comparison):
        return "–", ""
    alignment = diffs.compare(baseline.transcript.text, lane.transcript.text)
    tokens = (
        " Its tokens are equal too."
        if lane.transcript.tokens == baseline.transcript.tokens
        else " Its tokens differ."
    )
    extra = tokens if not alignment.errors else ""
    return diffs.describe(alignment) + extra, diffs.mark_changes(alignment)


def waits_for_others(comparison: Comparison) -> bool:
    """Whether words are compared later: where engines take turns to be timed, nothing else should
    use the processor meanwhile."""
    return not comparison.shared and not comparison.finished


def pending(lane: Lane, baseline: Lane | None) -> str:
    """Why there is no difference to show yet, or never will be."""
    for one in (lane, baseline):
        if one is not None and one.state in ("failed", "stopped"):
            return f"Not known: {one.label} {one.state}."
    return "–"


def compare_to_reference(lane: Lane, comparison: Comparison) -> tuple[str, str]:
    """Word error rate after normalisation and as written, and the errors marked up."""
    if lane.transcript is None or comparison.reference is None:
        return pending(lane, None), ""
    if waits_for_others(comparison):
        return "–", ""
    score = diffs.score(comparison.reference, lane.transcript.text, lane.transcript.language)
    rate = score.normalised.word_error_rate
    if rate is None:
        found = score.normalised.errors
        return (
            ("Nothing was said, and nothing was written.", "")
            if not found
            else (
                f"Nothing was said, but {diffs.name_count(found)} written.",
                diffs.mark_changes(score.normalised),
            )
        )
    errors, total = score.normalised.errors, diffs.name_count(score.normalised.expected_words)
    noun = "error" if errors == 1 else "errors"
    sentence = f"Word error rate {rate:.1%} normalised: {errors} {noun} in {total}."
    return sentence, diffs.mark_changes(score.normalised)


def render_figures(lane: Lane, comparison: Comparison) -> str:
    """The figures to read from afar: total, real-time factor, ratio to the baseline."""
    transcript = lane.transcript
    total = f"{transcript.seconds.total:.2f} s" if transcript else "–"
    factor = f"{transcript.real_time_factor:.3f}" if transcript else "–"
    name, ratio = describe_ratio(lane, comparison)
    figures = (
        ("Whole run", total),
        (name, ratio),
        ("Real-time factor", factor),
        ("Tokens per second", format_rate(measure_rate(lane))),
    )
    cells = "".join(
        f'<div><dt>{escape(title)}</dt><dd class="{"word" if value[0].isalpha() else "number"}">'
        f"{escape(value)}</dd></div>"
        for title, value in figures
    )
    return f'<dl class="figures">{cells}</dl>'


def measure_rate(lane: Lane) -> float | None:
    """Tokens per second of the whole run; while it goes on, of its segments so far."""
    if lane.transcript is not None:
        seconds, tokens = lane.transcript.seconds.total, len(lane.transcript.tokens)
    elif lane.state in ("mel", "encoding", "decoding"):
        seconds, tokens = lane.elapsed, sum(len(segment.tokens) for segment in lane.segments)
    else:
        return None
    return tokens / seconds if seconds and tokens else None


def format_rate(rate: float | None) -> str:
    """Tokens per second, or a dash."""
    return "–" if rate is None else f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def describe_ratio(lane: Lane, comparison: Comparison) -> tuple[str, str]:
    """The speed-up after a fair run; lanes that shared the processor have none."""
    name = "Speed-up"
    if comparison.shared:
        return name, "not measured"
    if is_baseline(lane, comparison):
        return name, "baseline"
    ratio = stage_ratio(lane, comparison, "total")
    return name, "–" if ratio is None else format_ratio(ratio)


def format_ratio(ratio: float) -> str:
    """How many times as fast, here and in the headline."""
    return f"{ratio:.2f}×"


def stage_ratio(lane: Lane, comparison: Comparison, stage: str) -> float | None:
    """How many times a lane was as fast as the baseline at a stage; only where each ran alone."""
    baseline = comparison.baseline
    if comparison.shared or lane.transcript is None:
        return None
    if baseline is None or baseline.transcript is None:
        return None
    ours = lane.transcript.seconds.as_dict()[stage]
    theirs = baseline.transcript.seconds.as_dict()[stage]
    return theirs / ours if ours else None


def render_stages(lane: Lane, comparison: Comparison) -> str:
    """Seconds by stage with bars on one scale for all lanes, and getting ready apart."""
    longest = max(
        (one.transcript.seconds.total for one in comparison.done if one.transcript), default=0.0
    )
    rows = "".join(render_stage(lane, comparison, stage, longest) for stage in STAGES)
    names = ["Stage", "Length", "Seconds"] + ["Speed-up"] * (not comparison.shared)
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    notes = " ".join((describe_spread(lane, comparison), describe_preparation(lane))).strip()
    return (
        f'<table class="stages"><caption>{escape(notes)}</caption>'
        f'<thead class="spoken"><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def render_stage(lane: Lane, comparison: Comparison, stage: str, longest: float) -> str:
    """One stage: name, bar, seconds and, where each engine ran alone, the speed-up."""
    seconds = lane.transcript.seconds.as_dict()[stage] if lane.transcript else None
    width = 100 * seconds / longest if seconds is not None and longest else 0.0
    ratio = None if is_baseline(lane, comparison) else stage_ratio(lane, comparison, stage)
    last = "" if comparison.shared else f"<td>{'' if ratio is None else format_ratio(ratio)}</td>"
    return (
        f'<tr class="{stage}"><th scope="row">{STAGES[stage]}</th>'
        f'<td class="length"><span style="width:{width:.1f}%"></span></td>'
        f"<td>{'–' if seconds is None else f'{seconds:.3f} s'}</td>{last}</tr>"
    )


def describe_preparation(lane: Lane) -> str:
    """What getting ready took; it is no part of a run."""
    if lane.prepare is None:
        return "Getting ready: –"
    compiled = f", compile {lane.prepare.compile:.2f} s" if lane.prepare.compile else ""
    return f"Getting ready, apart: load {lane.prepare.load:.2f} s{compiled}."


def describe_spread(lane: Lane, comparison: Comparison) -> str:
    """Of several runs: which one the figures are of, and between what times the runs lay."""
    if comparison.settings.repeats == 1:
        return ""
    if len(lane.laps) < 2:
        return "Median and spread: –"
    totals = [lap.seconds.total for lap in lane.laps]
    spread = f"{min(totals):.3f} to {max(totals):.3f} s"
    unsteady = "" if lane.steady else " The runs wrote different tokens; shown is the first."
    return f"Median of {len(totals)} runs, which took {spread}.{unsteady}"


def render_foot(lane: Lane, comparison: Comparison) -> str:
    """The settings that every figure above belongs to."""
    options = comparison.settings.options
    parts = [
        lane.device,
        lane.dtype,
        f"beam {options.beam_size or 1}",
        comparison.settings.model,
        "shared the processor" if comparison.shared else comparison.settings.schedule,
    ]
    if lane.transcript is not None:
        parts.append(f"{len(lane.transcript.tokens)} tokens")
        parts.append(f"peak {lane.transcript.peak_memory_bytes / 2**20:.0f} MiB")
    return f"<footer>{escape(' · '.join(part for part in parts if part))}</footer>"
