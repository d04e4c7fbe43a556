"""The engines as ranked rows: what each does, how far it is, and what it took.

A row keeps its height while the engine runs, so that nothing moves, and opens to its figures. In
the document rows stay in the registry's order; ranks order them by CSS, so that a bar goes on
growing where it was.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Any

from demo.limits import format_left
from demo.panels.headline import find_common_reason, format_ratio, format_seconds
from demo.panels.templating import render_template
from demo.panels.times import STAGES
from demo.snapshot import Comparison, Lane, State

STATES: dict[State, tuple[str, str]] = {
    "idle": ("○", "Ready"),
    "waiting": ("○", "Waiting for its turn"),
    "loading": ("◔", "Loading the model"),
    "compiling": ("◔", "Compiling the graph"),
    "mel": ("◑", "Computing the log-mel spectrogram"),
    "encoding": ("◑", "Encoding"),
    "decoding": ("◑", "Decoding"),
    "done": ("✓", "Done"),
    "failed": ("⚠", "Failed"),
    "stopped": ("■", "Stopped"),
}
"""A sign and words for each."""


def render(comparison: Comparison, document: bool = False) -> list[str]:
    """Render a row for each engine, in parts of which changed ones travel.

    `document`: with every row open.
    """
    ranked = sorted(comparison.done, key=attrgetter("total_seconds")) if comparison.finished else []
    slowest = max((total for lane in comparison.done for total in _list_totals(lane)), default=0.0)
    html = render_template(
        "race.html",
        idle=all(lane.state == "idle" for lane in comparison.lanes),
        document=document,
        can_time=comparison.can_time,
        absent=comparison.absent,
        rows=[_show_row(lane, comparison, ranked, slowest) for lane in comparison.lanes],
    )
    return html.split("<!--part-->")


render_document = partial(render, document=True)


def _show_row(
    lane: Lane, comparison: Comparison, ranked: list[Lane], slowest: float
) -> dict[str, Any]:
    busy = lane.running and lane.state != "waiting"
    rank = ranked.index(lane) + 1 if lane in ranked else 0
    percent = 0.0
    if rank and slowest:
        percent = 100 * lane.total_seconds / slowest
    elif lane.state in ("done", "waiting") and lane.transcript is not None:
        percent = 100.0
    elif comparison.audio_seconds:
        percent = min(100.0, 100 * lane.audio_done / comparison.audio_seconds)
    seconds = speed = ""
    if busy:
        seconds = f"{lane.elapsed:.1f} s"
        speed = format_left(lane.left)
    elif lane.transcript is not None:
        seconds = format_seconds(lane.total_seconds)
        speed = format_speed(lane)
    unique = lane.reason if find_common_reason(comparison) is None else None
    return {
        "lane": lane,
        "about": _describe_engine(lane),
        "rank": rank,
        "order": rank or len(comparison.lanes) + 1,
        "sign": STATES[lane.state][0],
        "state": _describe_state(lane, comparison),
        "percent": percent,
        "unsure": busy and not lane.audio_done,
        "dots": [100 * total / slowest for total in _list_totals(lane)] if rank and slowest else [],
        "seconds": seconds,
        "speed": speed,
        "reason": unique if lane.state == "failed" else None,
        "figures": _list_figures(lane, comparison),
    }


def _list_totals(lane: Lane) -> list[float]:
    """List the times that count: of the repeats, else of the run beside other engines."""
    return [repeat.seconds.total for repeat in lane.repeats] or [lane.total_seconds]


def format_speed(lane: Lane) -> str:
    """Return seconds of audio for each second of the run."""
    if lane.transcript is None or not lane.transcript.seconds.total:
        return ""
    speed = lane.transcript.audio_seconds / lane.transcript.seconds.total
    return f"{_format_figure(speed)}× real time"


def _format_figure(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _describe_engine(lane: Lane) -> str:
    """Say in plain words what an engine is."""
    halves = f"{lane.encoder} encoder, {lane.decoder} decoder"
    if lane.encoder == lane.decoder:
        halves = f"{lane.encoder} encoder and decoder"
    return " · ".join(part for part in (halves, lane.device, lane.dtype) if part)


def _describe_state(lane: Lane, comparison: Comparison) -> str:
    """Say what an engine is doing and, of several runs, in which one."""
    state = lane.note or STATES[lane.state][1]
    if not lane.note and lane.state in ("encoding", "decoding"):
        state += f" {lane.audio_done:.0f} of {comparison.audio_seconds:.0f} s"
    if not lane.running or lane.prepare is None:
        return state
    if comparison.at_once and lane.race is None:
        return state
    repeats, number = comparison.settings.repeats, len(lane.repeats) + 1
    alone = "Alone" if comparison.at_once else ""
    if repeats > 1 and number <= repeats:
        alone = f"{alone}, run" if alone else "Run"
        alone += f" {number} of {repeats}"
    if not alone or lane.state == "waiting":
        return state
    return f"{alone}: {state[:1].lower()}{state[1:]}"


def _list_figures(lane: Lane, comparison: Comparison) -> list[tuple[str, str]]:
    """List a row's figures by name; those not known yet are dashes."""
    done, baseline = lane.transcript, comparison.baseline
    figures = {
        "Load": f"{lane.prepare.load:.2f} s" if lane.prepare else "–",
        "Compile": f"{lane.prepare.compile:.2f} s"
        if lane.prepare and lane.prepare.compile
        else "–",
    }
    if done is None:
        return list(figures.items())
    stages = done.seconds.as_dict()
    figures |= {style.name: format_seconds(stages[stage]) for stage, style in STAGES.items()}
    if lane.race is not None and lane.repeats:
        figures["Beside the others"] = format_seconds(lane.race.total)
    if baseline is not None and baseline.transcript and lane is not baseline:
        apart = not comparison.shared and done.seconds.total
        ratio = baseline.total_seconds / lane.total_seconds if apart else 0.0
        figures[f"Against {baseline.label}"] = format_ratio(ratio) if ratio else "not comparable"
    if len(lane.repeats) > 1:
        totals = _list_totals(lane)
        figures["Spread of repeats"] = (
            f"{format_seconds(min(totals))} to {format_seconds(max(totals))}"
        )
    tokens, memory = len(done.tokens), done.peak_memory_bytes / 2**20
    figures["Tokens"] = f"{tokens}" if lane.steady else f"{tokens}; repeats wrote others"
    rate = tokens / done.seconds.total if done.seconds.total else 0.0
    figures["Tokens per second"] = _format_figure(rate)
    figures["Peak memory"] = f"{memory:.0f} MiB"
    return list(figures.items())
