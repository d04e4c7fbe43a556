"""Stage timings of every finished lane as stacked bars, drawn as the timeline is."""

from __future__ import annotations

from html import escape

from demo.palette import STAGE_COLOURS, colour_engine
from demo.snapshot import Comparison, Lane
from demo.timeline import render_axis

STAGE_NAMES = {
    "audio": "Read audio",
    "mel": "Log-mel",
    "encode": "Encoder",
    "decode": "Decoder loop",
}


def render_timings(comparison: Comparison) -> str:
    """A bar for each lane, seconds from left to right, with room for all from the first moment."""
    ready = bool(comparison.finished and comparison.done)
    lanes = [lane if ready else wipe(lane) for lane in comparison.lanes]
    longest = max((max(list_totals(lane), default=0.0) for lane in lanes), default=0.0)
    rows = "".join(render_bar(lane, longest) for lane in lanes)
    return (
        f'<figure class="timeline timeline--bars"><figcaption>{escape(describe(comparison, ready))}'
        f"</figcaption>{rows}{render_axis(longest)}</figure>"
    )


def wipe(lane: Lane) -> Lane:
    """The lane without times, since another one still runs."""
    return Lane(lane.key, lane.label, lane.dtype, lane.encoder, lane.decoder, lane.device)


def describe(comparison: Comparison, ready: bool) -> str:
    """What the bars show, and the settings that the figures belong to."""
    settings = comparison.settings
    beam = settings.options.beam_size or 1
    runs = "" if settings.repeats == 1 else f", median of {settings.repeats}, the line its spread"
    note = "" if ready else " They are drawn when the last lane is done."
    schedule = "the lanes shared the processor" if comparison.shared else settings.schedule
    return f"Seconds by stage{runs}: {settings.model}, beam {beam}, {schedule}.{note}"


def list_totals(lane: Lane) -> list[float]:
    """Seconds of every run of a lane."""
    totals = [lap.seconds.total for lap in lane.laps]
    return totals or ([lane.transcript.seconds.total] if lane.transcript else [])


def render_bar(lane: Lane, longest: float) -> str:
    """One engine's name with its device and type, its stages, and the median run's seconds."""
    total = f"{lane.transcript.seconds.total:.2f} s" if lane.transcript else "–"
    place = ", ".join(part for part in (lane.device, lane.dtype) if part)
    return (
        f'<div class="track" style="--engine:{colour_engine(lane.key)}">'
        f'<span class="who">{escape(lane.label)}<em>{escape(place)}</em></span>'
        f'<span class="boxes" role="img" aria-label="{escape(describe_bar(lane), quote=True)}">'
        f"{render_stages(lane, longest)}{render_spread(lane, longest)}</span>"
        f'<span class="sum" aria-hidden="true">{total}</span></div>'
    )


def render_stages(lane: Lane, longest: float) -> str:
    """The stages of the median run one after another, told apart by colour and by pattern."""
    if lane.transcript is None or not longest:
        return ""
    boxes, left = [], 0.0
    seconds = lane.transcript.seconds.as_dict()
    for stage, name in STAGE_NAMES.items():
        boxes.append(
            f'<i class="key--{stage}" title="{name}: {seconds[stage]:.3f} s" '
            f'style="left:{100 * left / longest:.3f}%;width:{100 * seconds[stage] / longest:.3f}%;'
            f'--stage:{STAGE_COLOURS[stage]}"></i>'
        )
        left += seconds[stage]
    return "".join(boxes)


def render_spread(lane: Lane, longest: float) -> str:
    """A line from the fastest run's end to the slowest one's; nothing after a single run."""
    totals = list_totals(lane)
    if len(totals) < 2 or not longest:
        return ""
    left, width = 100 * min(totals) / longest, 100 * (max(totals) - min(totals)) / longest
    return f'<b class="spread" style="left:{left:.3f}%;width:{width:.3f}%"></b>'


def describe_bar(lane: Lane) -> str:
    """A bar in words, for those who can't see it."""
    if lane.transcript is None:
        return f"{lane.label}: nothing yet"
    seconds = lane.transcript.seconds.as_dict()
    parts = [f"{name.lower()} {seconds[stage]:.3f} s" for stage, name in STAGE_NAMES.items()]
    totals = list_totals(lane)
    spread = f"; runs from {min(totals):.3f} to {max(totals):.3f} s" if len(totals) > 1 else ""
    return f"{lane.label}: {', '.join(parts)}, together {seconds['total']:.3f} s{spread}"


def render_legend() -> str:
    """What the colours and patterns of timeline and bars stand for, in their order."""
    items = "".join(
        f'<li><span class="key key--{stage}" style="--stage:{STAGE_COLOURS[stage]}"></span>'
        f"{name}</li>"
        for stage, name in {"prepare": "Getting ready", **STAGE_NAMES}.items()
    )
    return f'<ul class="legend">{items}</ul>'
