"""Where the time went: stages as stacked bars, and what every engine did when.

The timeline has two clocks, since the first comparison may compile for half a minute what then
runs for a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import floor, log10

from demo.panels.templating import render_template
from demo.snapshot import Comparison, Lane
from engines.base import Span

STAGE_NAMES = {
    "audio": "Read audio",
    "setup": "Set-up",
    "mel": "Log-mel",
    "encode": "Encoder",
    "decode": "Decoder loop",
}
LEGEND = {"prepare": "Getting ready", **STAGE_NAMES}

NOT_YET = "Drawn when the last engine is done."


@dataclass(frozen=True)
class Box:
    """A stretch of time of one stage, with what a tooltip says of it."""

    stage: str
    start: float
    seconds: float
    tip: str


@dataclass(frozen=True)
class Track:
    """One engine's row: its boxes, and the same in words.

    Of a bar also `place`, `total`, and `spread`: between what times several runs lay.
    """

    lane: Lane
    words: str
    boxes: Sequence[Box]
    place: str = ""
    total: str = "–"
    spread: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chart:
    """Rows over one axis in seconds; `longest`: where the last box or run ends."""

    title: str
    tracks: Sequence[Track]
    longest: float

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels of round seconds: 0 and at most six more, with the unit at the last."""
        if self.longest <= 0:
            return []
        step = 10 ** floor(log10(self.longest / 6))
        step *= next(factor for factor in (1, 2, 5, 10) if self.longest / (step * factor) <= 6)
        places = max(0, -floor(log10(step) + 1e-9))
        count = floor(self.longest / step + 1e-9)
        return [
            (n * step, f"{n * step:.{places}f}{' s' if n == count else ''}")
            for n in range(count + 1)
        ]


def render_bars(comparison: Comparison) -> str:
    """Render a bar for each engine, seconds from left to right."""
    if not comparison.finished or not comparison.done:
        return render_template("nothing.html", sentence=NOT_YET)
    settings = comparison.settings
    runs = "" if settings.repeats == 1 else f", median of {settings.repeats}, the line its spread"
    schedule = "the engines shared the processor" if comparison.shared else "one at a time"
    beam = settings.beam_size
    title = f"Seconds by stage{runs}: {settings.model}, beam {beam}, {schedule}."
    tracks = [_make_bar(lane) for lane in comparison.lanes]
    ends = [repeat.seconds.total for lane in comparison.lanes for repeat in lane.repeats]
    chart = Chart(title, tracks, max(ends))
    return render_template("tracks.html", charts=[chart], legend=LEGEND, bars=True)


def _make_bar(lane: Lane) -> Track:
    """Stack the stages of an engine's median run."""
    place = ", ".join(part for part in (lane.device, lane.dtype) if part)
    if lane.transcript is None:
        return Track(lane, "nothing", (), place)
    seconds = lane.transcript.seconds.as_dict()
    starts = accumulate((seconds[stage] for stage in STAGE_NAMES), initial=0.0)
    boxes = [
        Box(stage, start, seconds[stage], f"{name}: {seconds[stage]:.3f} s")
        for (stage, name), start in zip(STAGE_NAMES.items(), starts, strict=False)
    ]
    words = ", ".join(box.tip.replace(":", "").lower() for box in boxes)
    words += f", together {seconds['total']:.3f} s"
    totals, spread = [repeat.seconds.total for repeat in lane.repeats], None
    if len(totals) > 1:
        spread = min(totals), max(totals)
        words += f"; runs from {spread[0]:.3f} to {spread[1]:.3f} s"
    return Track(lane, words, boxes, place, f"{seconds['total']:.2f} s", spread)


def render_timeline(comparison: Comparison) -> str:
    """Render the median runs side by side, and all runs on one clock."""
    if not comparison.finished or not comparison.done:
        return render_template("nothing.html", sentence=NOT_YET)
    medians, all_runs = [], []
    for lane in comparison.lanes:
        spans = lane.transcript.spans if lane.transcript else ()
        medians.append((lane, _list_boxes(spans, spans[0].start if spans else 0.0)))
        runs = [span for repeat in lane.repeats for span in repeat.spans]
        ready = [lane.ready] if lane.ready else []
        all_runs.append((lane, _list_boxes([*ready, *runs], comparison.start)))
    repeats = comparison.settings.repeats
    median = f" (of {repeats} the median)" if repeats > 1 else ""
    own = f"Each engine’s run from its own start{median}, window by window."
    whole = "Everything on one clock, from the click: getting ready, then every run."
    charts = [_lay_over(own, medians), _lay_over(whole, all_runs)]
    return render_template("tracks.html", charts=charts, legend=LEGEND, bars=False)


def _list_boxes(spans: Sequence[Span], zero: float) -> list[Box]:
    """Put spans on a clock that starts at `zero`."""
    boxes = []
    for span in spans:
        window = "" if span.window is None else f", window {span.window + 1}"
        start = span.start - zero
        tip = f"{LEGEND[span.stage]}{window}: {span.seconds:.3f} s from {start:.3f} s"
        boxes.append(Box(span.stage, start, span.seconds, tip))
    return boxes


def _lay_over(title: str, rows: Sequence[tuple[Lane, list[Box]]]) -> Chart:
    """Lay engines' boxes over one axis, of a crowded row those wide enough to be seen."""
    longest = max((box.start + box.seconds for _, boxes in rows for box in boxes), default=0.0)
    tracks = []
    for lane, boxes in rows:
        seconds: dict[str, float] = {}
        for box in boxes:
            seconds[box.stage] = seconds.get(box.stage, 0.0) + box.seconds
        words = [f"{LEGEND[stage].lower()} {total:.3f} s" for stage, total in seconds.items()]
        if len(boxes) > 400:
            boxes = [box for box in boxes if box.seconds / longest >= 0.0005]
        tracks.append(Track(lane, ", ".join(words) or "nothing", boxes))
    return Chart(title, tracks, longest)
