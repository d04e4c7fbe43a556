"""Stage timings of every finished engine as stacked bars."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

from demo.panels.templating import render as render_template
from demo.snapshot import Comparison, Lane

STAGE_NAMES = {
    "audio": "Read audio",
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
    """One engine's row: its name, boxes, and the same in words."""

    key: str
    label: str
    place: str
    words: str
    boxes: tuple[Box, ...]
    total: str = ""
    spread: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chart:
    """Rows over one axis in seconds."""

    title: str
    tracks: tuple[Track, ...]

    @property
    def longest(self) -> float:
        """Return where the last box or run ends."""
        ends = [box.start + box.seconds for track in self.tracks for box in track.boxes]
        ends += [track.spread[1] for track in self.tracks if track.spread]
        return max(ends, default=0.0)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Return places and labels of round seconds."""
        return list_ticks(self.longest)


def render(comparison: Comparison) -> str:
    """Render a bar for each engine, seconds from left to right."""
    if not comparison.finished or not comparison.done:
        return render_template("nothing.html", sentence=NOT_YET)
    tracks = tuple(make_track(lane) for lane in comparison.lanes)
    chart = Chart(describe(comparison), tracks)
    return render_template("tracks.html", charts=[chart], legend=LEGEND, bars=True)


def describe(comparison: Comparison) -> str:
    """Say what the bars show, and the settings that the figures belong to."""
    settings = comparison.settings
    runs = "" if settings.repeats == 1 else f", median of {settings.repeats}, the line its spread"
    schedule = "the engines shared the processor" if comparison.shared else settings.schedule
    beam = settings.options.beam_size or 1
    return f"Seconds by stage{runs}: {settings.model}, beam {beam}, {schedule}."


def make_track(lane: Lane) -> Track:
    """Stack the stages of an engine's median run."""
    place = ", ".join(part for part in (lane.device, lane.dtype) if part)
    if lane.transcript is None:
        return Track(lane.key, lane.label, place, "nothing", (), total="–")
    seconds = lane.transcript.seconds.as_dict()
    boxes, start = [], 0.0
    for stage, name in STAGE_NAMES.items():
        boxes.append(Box(stage, start, seconds[stage], f"{name}: {seconds[stage]:.3f} s"))
        start += seconds[stage]
    words = ", ".join(box.tip.replace(":", "").lower() for box in boxes)
    words += f", together {seconds['total']:.3f} s"
    totals = [repeat.seconds.total for repeat in lane.repeats]
    spread = (min(totals), max(totals)) if len(totals) > 1 else None
    if spread:
        words += f"; runs from {spread[0]:.3f} to {spread[1]:.3f} s"
    total = f"{seconds['total']:.2f} s"
    return Track(lane.key, lane.label, place, words, tuple(boxes), total, spread)


def list_ticks(longest: float, most: int = 6) -> list[tuple[float, str]]:
    """Return round numbers from 0 on, at most `most` beside 0, with the unit at the last."""
    if longest <= 0:
        return []
    step = 10 ** floor(log10(longest / most))
    step *= next(factor for factor in (1, 2, 5, 10) if longest / (step * factor) <= most)
    places = max(0, -floor(log10(step) + 1e-9))
    count = floor(longest / step + 1e-9)
    return [
        (n * step, f"{n * step:.{places}f}{' s' if n == count else ''}") for n in range(count + 1)
    ]
