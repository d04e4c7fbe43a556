"""The lanes: what each engine does, says and took, side by side, as HTML.

Every lane has the same rows from the first moment on, with dashes where nothing is known yet, so
that nothing moves while it fills.
"""

from __future__ import annotations

from html import escape

from demo import diffs
from demo.palette import colour_engine
from demo.snapshot import Comparison, Lane, State, Status
from engines.base import Segment

LONG_CLIP_SECONDS = 60.0
"""Clips longer than this get a taller transcript box."""

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
STAGES = {"mel": "Log-mel", "encode": "Encoder", "decode": "Decoder loop", "total": "Total"}


def render_lanes(comparison: Comparison) -> str:
    """All lanes side by side, then a line for each engine that this machine lacks."""
    lanes = "".join(render_lane(lane, comparison) for lane in comparison.lanes)
    absent = "".join(render_absent(status) for status in comparison.absent)
    return f'<div class="lanes">{lanes}</div>{absent}'


def render_absent(status: Status) -> str:
    """One line for an engine that can't run here, and why."""
    return (
        f'<p class="absent"><span aria-hidden="true">—</span> <strong>{escape(status.label)}'
        f"</strong> can’t run on this machine: {escape(status.reason or 'reason unknown')}</p>"
    )


def render_lane(lane: Lane, comparison: Comparison) -> str:
    """One engine's lane."""
    name = escape(lane.key, quote=True)
    return (
        f'<article class="lane lane--{lane.state}" data-engine="{name}" '
        f'data-state="{lane.state}" aria-labelledby="lane-{name}" '
        f'style="--engine:{colour_engine(lane.key)}">'
        f"{render_head(lane, comparison)}{render_state(lane, comparison)}"
        f"{render_transcript(lane, comparison)}{render_against(lane, comparison)}"
        f"{render_figures(lane, comparison)}{render_stages(lane, comparison)}"
        f"{render_foot(lane, comparison)}</article>"
    )


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
    text = escape(describe_state(lane, comparison.audio_seconds))
    clock = f"{lane.elapsed:.1f} s" if lane.running else ""
    share = describe_progress(lane, comparison.audio_seconds)
    unsure = " unsure" if lane.running and not lane.audio_done else ""
    return (
        f'<div class="state"><p><span class="sign" aria-hidden="true">{STATE_SIGNS[lane.state]}'
        f'</span> <span class="what">{text}</span><span class="clock">{clock}</span></p>'
        f'<div class="bar{unsure}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share:.0f}" aria-label="Audio finished by {escape(lane.label)}">'
        f'<span style="width:{share:.1f}%"></span></div></div>'
    )


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
        return "Ready, waiting for its turn" if lane.prepare else "Waiting"
    return {
        "idle": "Ready",
        "loading": "Loading the model",
        "compiling": "Compiling the graph",
        "mel": "Computing the log-mel spectrogram",
        "done": "Done",
        "failed": "Failed",
        "stopped": "Stopped",
    }[lane.state]


def render_transcript(lane: Lane, comparison: Comparison) -> str:
    """The words so far, each segment with its start; scrolls on its own, newest in view."""
    tall = " tall" if comparison.audio_seconds > LONG_CLIP_SECONDS else ""
    live = " live" if lane.running else ""
    return (
        f'<div class="transcript{tall}{live}" tabindex="0" role="region" '
        f'aria-label="Transcript by {escape(lane.label)}"><div>'
        f"{render_words(lane)}</div></div>"
    )


def render_words(lane: Lane) -> str:
    """The transcript's rows, or a sentence where there are none."""
    if lane.state == "failed":
        return f'<p class="reason">{escape(lane.reason or "No reason was given.")}</p>'
    if lane.segments:
        return "".join(render_segment(segment) for segment in lane.segments)
    if lane.transcript is not None:
        return '<p class="none">No speech was found.</p>'
    if lane.state == "stopped":
        return '<p class="none">Stopped before the first words.</p>'
    return '<p class="none">The words appear here.</p>'


def render_segment(segment: Segment) -> str:
    """One segment: its start, then its words; times above the words where they are known."""
    if segment.words:
        body = " ".join(
            f"<ruby>{escape(word.text.strip())}<rt>{word.start:.1f}</rt></ruby>"
            for word in segment.words
        )
    else:
        body = escape(segment.text.strip())
    kind = " timed" if segment.words else ""
    return (
        f'<p class="segment{kind}"><time>{format_clock(segment.start)}</time>'
        f"<span>{body}</span></p>"
    )


def format_clock(seconds: float) -> str:
    """Minutes and seconds, as 1:04."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def render_against(lane: Lane, comparison: Comparison) -> str:
    """Words against the baseline's, and against the reference where there is one."""
    baseline = render_row(lane, "Against the baseline", *compare_to_baseline(lane, comparison))
    if comparison.reference is None:
        return baseline + '<div class="against"></div>'
    reference = render_row(lane, "Against the reference", *compare_to_reference(lane, comparison))
    return baseline + reference


def render_row(lane: Lane, title: str, sentence: str, marked: str = "") -> str:
    """A titled sentence with the changes it speaks of."""
    name = escape(f"{lane.label}: changes {title.lower()}", quote=True)
    changes = (
        f'<p class="changes" tabindex="0" role="region" aria-label="{name}">{marked}</p>'
        if marked
        else ""
    )
    return f'<div class="against"><h3>{title}</h3><p>{escape(sentence)}</p>{changes}</div>'


def compare_to_baseline(lane: Lane, comparison: Comparison) -> tuple[str, str]:
    """A sentence on the words that differ from the baseline's, and the changes marked up."""
    baseline = comparison.baseline
    if is_baseline(lane, comparison):
        return "This lane is the baseline.", ""
    if lane.transcript is None or baseline is None or baseline.transcript is None:
        return pending(lane, baseline), ""
    alignment = diffs.compare(baseline.transcript.text, lane.transcript.text)
    tokens = (
        " Its tokens are equal too."
        if lane.transcript.tokens == baseline.transcript.tokens
        else " Its tokens differ."
    )
    extra = tokens if not alignment.errors else ""
    return diffs.describe(alignment) + extra, diffs.mark_changes(alignment)


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
    score = diffs.score(comparison.reference, lane.transcript.text, lane.transcript.language)
    rate = score.normalised.word_error_rate
    if rate is None:
        found = score.normalised.errors
        return (
            ("Nothing was said, and nothing was written.", "")
            if not found
            else (
                f"Nothing was said, but {count_words(found)} written.",
                diffs.mark_changes(score.normalised),
            )
        )
    raw = score.raw.word_error_rate or 0.0
    sentence = (
        f"Word error rate {rate:.1%} normalised ({score.normalised.errors} of "
        f"{score.normalised.expected_words}), {raw:.1%} as written."
    )
    return sentence, diffs.mark_changes(score.normalised)


def render_figures(lane: Lane, comparison: Comparison) -> str:
    """The figures to read from afar: total, real-time factor, ratio to the baseline."""
    transcript = lane.transcript
    total = f"{transcript.seconds.total:.2f} s" if transcript else "–"
    factor = f"{transcript.real_time_factor:.3f}" if transcript else "–"
    name, ratio = describe_ratio(lane, comparison)
    figures = (("Whole run", total), ("Real-time factor", factor), (name, ratio))
    cells = "".join(
        f'<div><dt>{escape(title)}</dt><dd class="{"word" if value.isalpha() else "number"}">'
        f"{escape(value)}</dd></div>"
        for title, value in figures
    )
    return f'<dl class="figures">{cells}</dl>'


def describe_ratio(lane: Lane, comparison: Comparison) -> tuple[str, str]:
    """A speed-up after a fair run; after a parallel one only a ratio of times."""
    fair = comparison.settings.schedule == "one at a time"
    name = "Speed-up" if fair else "Time ÷ baseline"
    if is_baseline(lane, comparison):
        return name, "baseline"
    ratio = stage_ratio(lane, comparison, "total")
    return name, "–" if ratio is None else f"{ratio:.2f}×"


def stage_ratio(lane: Lane, comparison: Comparison, stage: str) -> float | None:
    """A stage's ratio to the baseline: above 1 is faster in a fair run, slower in a shared one."""
    baseline = comparison.baseline
    if lane.transcript is None or baseline is None or baseline.transcript is None:
        return None
    ours = lane.transcript.seconds.as_dict()[stage]
    theirs = baseline.transcript.seconds.as_dict()[stage]
    fair = comparison.settings.schedule == "one at a time"
    above, below = (theirs, ours) if fair else (ours, theirs)
    return above / below if below else None


def render_stages(lane: Lane, comparison: Comparison) -> str:
    """Seconds by stage with bars on one scale for all lanes, and getting ready apart."""
    longest = max(
        (one.transcript.seconds.total for one in comparison.done if one.transcript), default=0.0
    )
    rows = "".join(render_stage(lane, comparison, stage, longest) for stage in STAGES)
    names = ("Stage", "Length", "Seconds", describe_ratio(lane, comparison)[0])
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        f'<table class="stages"><caption>{escape(describe_preparation(lane))}</caption>'
        f'<thead class="spoken"><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def render_stage(lane: Lane, comparison: Comparison, stage: str, longest: float) -> str:
    """One stage: name, bar, seconds, ratio to the baseline."""
    seconds = lane.transcript.seconds.as_dict()[stage] if lane.transcript else None
    width = 100 * seconds / longest if seconds is not None and longest else 0.0
    ratio = None if is_baseline(lane, comparison) else stage_ratio(lane, comparison, stage)
    return (
        f'<tr class="{stage}"><th scope="row">{STAGES[stage]}</th>'
        f'<td class="length"><span style="width:{width:.1f}%"></span></td>'
        f"<td>{'–' if seconds is None else f'{seconds:.3f} s'}</td>"
        f"<td>{'' if ratio is None else f'{ratio:.2f}×'}</td></tr>"
    )


def describe_preparation(lane: Lane) -> str:
    """What getting ready took; it is no part of a run."""
    if lane.prepare is None:
        return "Getting ready: –"
    compiled = f", compile {lane.prepare.compile:.2f} s" if lane.prepare.compile else ""
    return f"Getting ready, apart: load {lane.prepare.load:.2f} s{compiled}"


def render_foot(lane: Lane, comparison: Comparison) -> str:
    """The settings that every figure above belongs to."""
    options = comparison.settings.options
    parts = [
        lane.device,
        lane.dtype,
        f"beam {options.beam_size or 1}",
        comparison.settings.model,
        "shared the processor" if shared(comparison) else comparison.settings.schedule,
    ]
    if lane.transcript is not None:
        parts.append(f"{len(lane.transcript.tokens)} tokens")
        parts.append(f"peak {lane.transcript.peak_memory_bytes / 2**20:.0f} MiB")
    return f"<footer>{escape(' · '.join(part for part in parts if part))}</footer>"


def shared(comparison: Comparison) -> bool:
    """Whether lanes ran at the same time on the same machine."""
    return comparison.settings.schedule == "parallel" and len(comparison.lanes) > 1


def summarise(comparison: Comparison) -> str:
    """One sentence on the whole comparison; it changes only when a lane changes its state."""
    if comparison.refusal is not None:
        return comparison.refusal
    lanes = comparison.lanes
    if not lanes or all(lane.state == "idle" for lane in lanes):
        return "Press Compare: the same clip goes through every chosen engine."
    if not comparison.finished:
        running = [f"{lane.label} {coarse_state(lane)}" for lane in lanes]
        return "; ".join(running) + "."
    if any(lane.state == "stopped" for lane in lanes):
        kept = len(comparison.done)
        return f"Stopped. {kept} of {len(lanes)} lanes had finished."
    if len(comparison.done) < len(lanes):
        return summarise_failures(comparison)
    return summarise_words(comparison)


def summarise_failures(comparison: Comparison) -> str:
    """Which lanes failed; the lanes themselves say why."""
    failed = [lane.label for lane in comparison.lanes if lane.state == "failed"]
    if len(failed) == len(comparison.lanes):
        return "Nothing was transcribed: every lane failed and says why."
    return f"Finished, except for a lane that failed: {', '.join(failed)}."


def coarse_state(lane: Lane) -> str:
    """A lane's state for the summary, without figures that change five times a second."""
    if lane.state in ("mel", "encoding", "decoding"):
        return "running"
    return lane.state


def summarise_words(comparison: Comparison) -> str:
    """How the words of the finished lanes relate, and how the times may be read."""
    texts = {lane.transcript.text.strip() for lane in comparison.done if lane.transcript}
    count = len(diffs.split_words(next(iter(texts), "")))
    if len(comparison.done) == 1:
        words = f"Finished with {count_words(count)}."
    elif len(texts) == 1:
        words = (
            f"Every lane wrote the same {count_words(count)}." if count else "No lane found speech."
        )
    else:
        words = "The lanes wrote different words; each lane shows where."
    note = (
        " The lanes shared the processor, so times are no speed-ups." if shared(comparison) else ""
    )
    return words + note


def count_words(count: int) -> str:
    """A number of words, in good English."""
    return "1 word" if count == 1 else f"{count} words"
