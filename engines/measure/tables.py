"""Tables for people: aligned ones that are Markdown as well, and coloured ones for terminals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from engines.measure.record import Result

NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """A title, and what stands under it for a result; `numeric` ones are set to the right."""

    title: str
    cell: Callable[[Result], str]
    numeric: bool = True


def render(columns: Sequence[Column], results: Iterable[Result]) -> str:
    """The table, then one line for each contender that failed."""
    results = list(results)
    rows = [[column.cell(result) for column in columns] for result in results]
    titles = [column.title for column in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
    rules = [
        "-" * (width - 1) + (":" if column.numeric else "-")
        for column, width in zip(columns, widths, strict=True)
    ]
    lines = [_line(columns, widths, cells) for cells in (titles, rules, *rows)]
    return "\n".join([*lines, *_failures(results)])


def draw(columns: Sequence[Column], results: Iterable[Result], title: str = "") -> Group:
    """The same for a terminal: failures in red, the fastest of each case in green."""
    results = list(results)
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column.title, justify="right" if column.numeric else "left")
    best = _fastest(results)
    for result in results:
        style = "red" if result.error else "green" if result in best else ""
        table.add_row(*(Text(column.cell(result)) for column in columns), style=style)
    return Group(table, *(Text(line, style="red") for line in _failures(results)))


def _fastest(results: Sequence[Result]) -> list[Result]:
    """Of each case the one with the largest ratio, where there is more than one."""
    cases: dict[str, list[Result]] = {}
    for result in results:
        if isinstance(result.figures.get("times_faster"), (int, float)):
            cases.setdefault(repr(dict(result.case)), []).append(result)
    return [
        max(case, key=lambda result: float(result.figures["times_faster"] or 0))
        for case in cases.values()
        if len(case) > 1
    ]


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    aligned = (
        cell.rjust(width) if column.numeric else cell.ljust(width)
        for column, width, cell in zip(columns, widths, cells, strict=True)
    )
    return f"| {' | '.join(aligned)} |"


def _failures(results: Iterable[Result]) -> list[str]:
    failures: dict[str, None] = {}
    for result in results:
        if result.error:
            failures[f"{result.contender} failed: {result.error}"] = None
    return ["", *failures] if failures else []


def of_case(key: str, title: str | None = None, numeric: bool = False) -> Column:
    """Something the case says, such as its clip."""
    return Column(title or key, lambda result: str(result.case.get(key, NOTHING)), numeric)


def contender(title: str) -> Column:
    """Who ran it."""
    return Column(title, lambda result: result.contender, numeric=False)


def seconds(quantity: str, title: str | None = None) -> Column:
    """Median seconds."""
    return Column(title or f"{quantity} s", lambda r: number(r.median(quantity), ".2f"))


def milliseconds(quantity: str, title: str | None = None) -> Column:
    """Median milliseconds."""
    return Column(title or f"{quantity} ms", lambda r: number(r.median(quantity), ".1f", 1e3))


def spread(quantity: str, unit: str = "s") -> Column:
    """Least and most."""
    factor, form = (1e3, ".1f") if unit == "ms" else (1.0, ".2f")

    def cell(result: Result) -> str:
        samples = result.seconds.get(quantity)
        if not samples:
            return NOTHING
        least, most = (number(bound(samples), form, factor) for bound in (min, max))
        return f"{least} to {most}"

    return Column(f"{unit}, min to max", cell)


def runs(quantity: str) -> Column:
    """How many runs were timed and finished."""
    return Column("runs", lambda result: str(len(result.seconds.get(quantity, ()))))


def figure(key: str, title: str, form: str = ".2f", factor: float = 1.0) -> Column:
    """Something derived; true and false are set as yes and no."""

    def cell(result: Result) -> str:
        value = result.figures.get(key)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return value if isinstance(value, str) else number(value, form, factor)

    return Column(title, cell)


def times_faster(baseline: str) -> Column:
    """The ratio of medians to the baseline's, above 1 when faster."""
    column = figure("times_faster", f"times faster than {baseline}")
    return Column(column.title, lambda r: NOTHING if r.contender == baseline else column.cell(r))


def number(value: float | None, form: str, factor: float = 1.0) -> str:
    """A figure for people, or a dash where there is none."""
    return NOTHING if value is None else format(value * factor, form)
