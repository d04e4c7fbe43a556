"""Encoder features over time as small pictures: every engine's, and each difference.

A picture has at most `COLUMNS` × `ROWS` pixels, whatever the clip's length: a pixel of an engine's
map is the mean of the values beneath it, a pixel of a difference the largest of them by size, so
that nothing that differs can hide. Written as PNG by hand: a palette, and rows packed with zlib.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from demo.palette import colour_engine
from demo.snapshot import Lane
from demo.transcripts import format_clock
from demo.windows import Common
from engines.base import FloatArray

COLUMNS, ROWS = 300, 64
LEVELS = 64
"""Colours of a scale: more can't be told apart, and would not compress."""

WINDOW_SECONDS = 30.0
"""Audio in one window of Whisper's encoder."""

TAIL = 0.002
"""Share of pixels at each end of the shared scale that are drawn in its end colours."""

SEQUENTIAL = ("#14213d", "#27567b", "#3f8f86", "#9fc15c", "#fdf0a3")
DIVERGING = ("#08519c", "#6baed6", "#f4f4f2", "#f0a35e", "#9c3d00")
MISSING = "#8b93a1"

Map = npt.NDArray[np.float64]


def render_maps(
    lanes: Sequence[Lane], baseline: Lane | None, common: Common, audio_seconds: float
) -> str:
    """A map for each lane on one scale, then the difference of each from the baseline."""
    maps = {lane.key: average(common.pick(lane), common.starts, audio_seconds) for lane in lanes}
    known = np.concatenate([each[np.isfinite(each)] for each in maps.values()])
    low, high = (float(np.quantile(known, share)) for share in (TAIL, 1 - TAIL))
    panels = [
        render_panel(
            lane.label,
            f"{low:.2f} to {high:.2f}",
            draw(maps[lane.key], low, high, SEQUENTIAL),
            lane.key,
            audio_seconds,
            SEQUENTIAL,
        )
        for lane in lanes
    ]
    gaps = [
        render_difference(lane, baseline, common, audio_seconds)
        for lane in lanes
        if baseline is not None and baseline.transcript is not None and lane.key != baseline.key
    ]
    return arrange(panels, gaps)


def render_difference(lane: Lane, baseline: Lane, common: Common, audio_seconds: float) -> str:
    """A lane's features less the baseline's."""
    gap = find_extremes(common.pick(lane), common.pick(baseline), common.starts, audio_seconds)
    largest = float(np.nanmax(np.abs(gap))) if np.isfinite(gap).any() else 0.0
    note = f"−{largest:.1e} to +{largest:.1e}" if largest else "no value differs"
    picture = draw(gap, -largest or -1.0, largest or 1.0, DIVERGING)
    title = f"{lane.label} − {baseline.label}"
    return render_panel(title, note, picture, lane.key, audio_seconds, DIVERGING)


def render_blanks(lanes: Sequence[Lane], baseline: Lane | None) -> str:
    """The same panels with nothing in them."""
    panels = [render_panel(lane.label, "–", "", lane.key, 0.0, SEQUENTIAL) for lane in lanes]
    gaps = [
        render_panel(f"{lane.label} − {baseline.label}", "–", "", lane.key, 0.0, DIVERGING)
        for lane in lanes
        if baseline is not None and lane.key != baseline.key
    ]
    return arrange(panels, gaps)


def arrange(panels: Sequence[str], gaps: Sequence[str]) -> str:
    """Lanes side by side, and each difference beneath its lane where there are many."""
    columns = len(panels) if len(panels) > 2 else 3
    blank = ['<div class="blank"></div>'] if gaps and len(panels) > 2 else []
    return (
        "<h3>Over time</h3><p class='caption'>Time from left to right, the encoder’s dimensions "
        "from top to bottom. A pixel is the mean of the values beneath it; in a difference it is "
        "the largest of them by size.</p>"
        f'<div class="charts" style="--columns:{columns}">{"".join([*panels, *blank, *gaps])}</div>'
    )


def render_panel(
    title: str, note: str, picture: str, key: str, audio_seconds: float, scale: Sequence[str]
) -> str:
    """A map with its title, its scale and the ends of its axis."""
    alt = escape(f"{title} over time: {note}", quote=True)
    image = f'<img src="{picture}" alt="{alt}">' if picture else '<span class="empty"></span>'
    end = format_clock(audio_seconds) if audio_seconds else "–"
    return (
        f'<figure class="chart heat" style="--engine:{colour_engine(key)}">'
        f"<figcaption><strong>{escape(title)}</strong><span class='scaled'>"
        f'<i aria-hidden="true" style="--scale:linear-gradient(90deg,{",".join(scale)})"></i>'
        f"{escape(note)}</span></figcaption>{image}"
        f'<div class="axis" aria-hidden="true"><span>0:00</span><span>time</span>'
        f"<span>{end}</span></div></figure>"
    )


def place(start: float, next_start: float, audio_seconds: float, n_ctx: int) -> tuple[int, int]:
    """Where a window begins, and how many of its positions are its own, in positions of the clip.

    A window of 30 s may reach into the next one, and the last one reaches beyond the clip.
    """
    rate = n_ctx / WINDOW_SECONDS
    first = round(start * rate)
    last = min(round(next_start * rate), round(audio_seconds * rate), first + n_ctx)
    return first, max(last - first, 0)


def average(features: FloatArray, starts: Sequence[float], audio_seconds: float) -> Map:
    """Features `(windows, n_ctx, n_state)` as means `(rows, columns)`; nan where there are none."""
    sums, counts = None, None
    for window, column in walk(features, starts, audio_seconds):
        rows = reduce_rows(window, np.add)
        if sums is None or counts is None:
            sums = np.zeros((count_columns(features, audio_seconds), rows.shape[1]))
            counts = np.zeros(len(sums))
        np.add.at(sums, column, rows)
        np.add.at(counts, column, 1)
    if sums is None or counts is None:
        return np.full((1, 1), np.nan)
    heights = np.diff([*split_rows(features.shape[2]), features.shape[2]])
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Map = (sums / counts[:, None] / heights).T
    return means


def find_extremes(
    ours: FloatArray, theirs: FloatArray, starts: Sequence[float], audio_seconds: float
) -> Map:
    """Of `ours - theirs` the largest value by size beneath each pixel, `(rows, columns)`."""
    highest = lowest = None
    pairs = zip(walk(ours, starts, audio_seconds), walk(theirs, starts, audio_seconds), strict=True)
    for (mine, column), (other, _) in pairs:
        gap = mine.astype(np.float64) - other
        top, bottom = reduce_rows(gap, np.maximum), reduce_rows(gap, np.minimum)
        if highest is None or lowest is None:
            shape = (count_columns(ours, audio_seconds), top.shape[1])
            highest, lowest = np.full(shape, -np.inf), np.full(shape, np.inf)
        np.maximum.at(highest, column, top)
        np.minimum.at(lowest, column, bottom)
    if highest is None or lowest is None:
        return np.full((1, 1), np.nan)
    largest = np.where(highest >= -lowest, highest, lowest)
    return np.where(np.isfinite(largest), largest, np.nan).T


def walk(
    features: FloatArray, starts: Sequence[float], audio_seconds: float
) -> list[tuple[FloatArray, npt.NDArray[np.int64]]]:
    """Each window's own positions, `(positions, n_state)`, with the column each falls into."""
    n_ctx = features.shape[1]
    total = max(1, round(audio_seconds * n_ctx / WINDOW_SECONDS))
    columns = count_columns(features, audio_seconds)
    parts = []
    for window, start, after in zip(features, starts, [*starts[1:], audio_seconds], strict=True):
        first, length = place(start, after, audio_seconds, n_ctx)
        if length:
            parts.append((window[:length], np.arange(first, first + length) * columns // total))
    return parts


def count_columns(features: FloatArray, audio_seconds: float) -> int:
    """Pixels from left to right."""
    return int(min(COLUMNS, max(1, round(audio_seconds * features.shape[1] / WINDOW_SECONDS))))


def split_rows(n_state: int) -> list[int]:
    """Where each row of pixels begins among the encoder's dimensions."""
    rows = min(ROWS, n_state)
    return [row * n_state // rows for row in range(rows)]


def reduce_rows(values: npt.NDArray[np.floating], by: np.ufunc) -> Map:
    """`(positions, n_state)` to `(positions, rows)`."""
    reduced: Map = by.reduceat(values.astype(np.float64), split_rows(values.shape[1]), axis=1)
    return reduced


def draw(values: Map, low: float, high: float, scale: Sequence[str]) -> str:
    """Values `(rows, columns)` as a PNG in a data address; nan is drawn in grey."""
    span = high - low or 1.0
    level = np.clip((values - low) / span, 0, 1) * (LEVELS - 1)
    pixels = np.where(np.isfinite(values), np.nan_to_num(level).round() + 1, 0).astype(np.uint8)
    palette = [parse_colour(MISSING), *blend(scale, LEVELS)]
    return "data:image/png;base64," + base64.b64encode(write_png(pixels, palette)).decode()


def blend(scale: Sequence[str], count: int) -> list[tuple[int, int, int]]:
    """A scale's anchor colours, blended to so many."""
    anchors = np.array([parse_colour(colour) for colour in scale], float)
    at = np.linspace(0, len(anchors) - 1, count)
    channels = [np.interp(at, range(len(anchors)), anchors[:, c]).round() for c in range(3)]
    return [(int(r), int(g), int(b)) for r, g, b in zip(*channels, strict=True)]


def parse_colour(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` as three numbers."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def write_png(pixels: npt.NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """An indexed PNG (ISO/IEC 15948) of `pixels` `(rows, columns)`."""
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return (
        b"\x89PNG\r\n\x1a\n"
        + write_chunk(b"IHDR", header)
        + write_chunk(b"PLTE", bytes(value for colour in palette for value in colour))
        + write_chunk(b"IDAT", zlib.compress(rows, 9))
        + write_chunk(b"IEND", b"")
    )


def write_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk: length, kind, body, checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
