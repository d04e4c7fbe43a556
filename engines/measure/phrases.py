"""A record's figures in words, numbers for people, and Markdown tables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from engines.measure import tables
from engines.measure.record import Record, Result

WIDTH = 100
"""Characters a line of text, as everywhere in this repository."""

Rows = list[list[str]]


def of(done: Record, benchmark: str) -> list[Result]:
    """The results of one benchmark."""
    return [each for each in done.results if each.benchmark == benchmark]


def settings_of(done: Record, benchmark: str) -> dict[str, Any]:
    """What was equal on every side of one benchmark."""
    return dict(done.settings[benchmark])


def title(words: str, command: str, done: Record, options: str = "") -> str:
    """What a table shows, and the command that prints it anew."""
    settings = done.settings.get(command, {})
    if "repeats" in settings:
        options = f"{options} --repeats {settings['repeats']}"
    return f"**{words}**, `{' '.join(f'python -m engines.bench {command} {options}'.split())}`:"


def wrap(text: str) -> str:
    """A paragraph in lines."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def contenders(results: Sequence[Result]) -> list[str]:
    """Everyone who took part, in the order of the record."""
    return list(dict.fromkeys(each.contender for each in results))


def find(results: Sequence[Result], key: str, **case: object) -> Result | None:
    """The contender's first result in such a case."""
    return next(
        (
            each
            for each in results
            if each.contender == key and all(each.case.get(k) == v for k, v in case.items())
        ),
        None,
    )


def median(result: Result | None, quantity: str) -> str:
    """Seconds, or a dash."""
    return number(None if result is None else result.median(quantity), ".2f")


def figure(result: Result | None, key: str) -> Any:
    """A derived figure, or None."""
    return None if result is None else result.figures.get(key)


def number(value: Any, form: str, factor: float = 1.0) -> str:
    """A figure for people, or a dash where there is none."""
    return tables.NOTHING if value is None else format(float(value) * factor, form)


def milliseconds(seconds: float | None) -> str:
    """Seconds in milliseconds, the fewer digits the more there are."""
    if seconds is None:
        return tables.NOTHING
    return number(seconds, ".2f" if seconds < 0.01 else ".1f" if seconds < 0.1 else ".0f", 1e3)


def faster(result: Result | None, nothing: str = tables.NOTHING) -> str:
    """The ratio to the baseline in words; `nothing` for the baseline itself."""
    ratio = figure(result, "times_faster")
    if ratio is None or ratio == 1:
        return nothing
    if f"{max(ratio, 1 / ratio):.2f}" == "1.00":
        return "as fast"
    return f"{ratio:.2f} times faster" if ratio > 1 else f"{1 / ratio:.2f} times slower"


def pace(ratios: Sequence[float]) -> str:
    """Several ratios to a baseline in words: faster, slower, or from the one to the other."""
    least, most = min(ratios), max(ratios)
    slowest, fastest = f"{1 / least:.1f}", f"{most:.1f}"
    if fastest == slowest == "1.0":
        return "as fast"
    if fastest == "1.0" and least < 1:
        return f"up to {slowest} times slower"
    if slowest == "1.0" and most > 1:
        return f"up to {fastest} times faster"
    if least > 1:
        return f"{between(ratios, '.1f')} times faster"
    if most < 1:
        return f"{between([1 / each for each in ratios], '.1f')} times slower"
    return f"from {slowest} times slower to {fastest} times faster"


def known(results: Sequence[Result], key: str) -> list[float]:
    """A figure of all that have it."""
    return [float(each.figures[key] or 0) for each in results if each.figures.get(key)]


def between(values: Sequence[float], form: str) -> str:
    """Least to most, or the one that both are."""
    ends = [format(bound(values), form) for bound in (min, max)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def markdown(rows: Rows) -> str:
    """A table whose first column is text and whose others are figures."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [rows[0], rule, *rows[1:]])
