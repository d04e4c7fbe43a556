"""Small charts as SVG text: the same figures give the same bytes, so a test can compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 250, 44, 52
"""Margins; the names of lines stand to the right of their ends."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which people who see colours differently can tell apart."""
DASHES = ("", "7 4", "2 3", "9 3 2 3")
BAR_HEIGHT, BAR_GAP = 24, 10
LABEL_GAP = 17
TICKS = 5

Points = Sequence[tuple[float, float]]


def draw_lines(title: str, x_title: str, y_title: str, lines: Mapping[str, Points]) -> str:
    """Lines from zero on both axes, each with its name at its end."""
    far = max((x for points in lines.values() for x, _ in points), default=1.0)
    high = max((y for points in lines.values() for _, y in points), default=1.0)
    x_ticks, y_ticks = nice_ticks(far), nice_ticks(high)
    far, high = max(far, x_ticks[-1]), max(high, y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / far * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - y / high * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 24, title, size=16, weight="bold")]
    for tick in y_ticks:
        (left, y), (right, _) = place(0, tick), place(far, tick)
        parts.append(_line((left, y), (right, y), "#ddd"))
        parts.append(_text(left - 8, y + 4, short(tick), anchor="end"))
    for tick in x_ticks:
        x, y = place(tick, 0)
        parts.append(_text(x, y + 18, short(tick), anchor="middle"))
    middle, bottom = place(far / 2, 0)
    parts.append(_text(middle, bottom + 40, x_title, anchor="middle"))
    parts.append(_text(LEFT - 4, TOP - 17, y_title, anchor="end"))
    ends = spread_labels([place(*points[-1])[1] for points in lines.values()])
    for number, (name, points) in enumerate(lines.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(
            f'<polyline points="{placed}" fill="none" stroke="{colour}" stroke-width="2.5"'
            f' stroke-dasharray="{dash}"/>'
        )
        parts.append(_text(place(*points[-1])[0] + 8, ends[number] + 4, name, colour=colour))
    return _svg(HEIGHT, title, parts)


def draw_bars(title: str, bars: Sequence[tuple[str, float, str]]) -> str:
    """Bars from zero: name, length, and what stands at the end of each."""
    height = TOP + len(bars) * (BAR_HEIGHT + BAR_GAP) + BAR_GAP
    left = 230
    longest = max((length for _, length, _ in bars), default=1.0) or 1.0
    parts = [_text(16, 24, title, size=16, weight="bold")]
    for number, (name, length, label) in enumerate(bars):
        y = TOP + number * (BAR_HEIGHT + BAR_GAP)
        width = length / longest * (WIDTH - left - 190)
        middle = y + BAR_HEIGHT / 2 + 4
        parts.append(_text(left - 8, middle, name, anchor="end"))
        parts.append(
            f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}"'
            f' fill="{COLOURS[number % len(COLOURS)]}"/>'
        )
        parts.append(_text(left + width + 8, middle, label))
    return _svg(height, title, parts)


def nice_ticks(most: float) -> list[float]:
    """About five round numbers from zero to beyond `most`."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(number * step, 12) for number in range(ceil(most / step) + 1)]


def spread_labels(heights: Sequence[float]) -> list[float]:
    """The heights, moved down where two labels would lie on each other."""
    placed = list(heights)
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + LABEL_GAP)
    return placed


def short(value: float) -> str:
    """A number without zeros that say nothing."""
    return f"{value:g}"


def _line(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        f' stroke="{colour}"/>'
    )


def _text(
    x: float,
    y: float,
    words: str,
    anchor: str = "start",
    size: int = 13,
    colour: str = "#222",
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        f' font-weight="{weight}" fill="{colour}">{escape(words)}</text>'
    )


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img"'
        f' aria-label="{escape(title)}" font-family="system-ui, sans-serif">'
    )
    ground = f'<rect width="{WIDTH}" height="{height:g}" fill="#fff"/>'
    return "\n".join([head, ground, *parts, "</svg>", ""])
