"""Tables for people: Markdown in a pipe, lines without a frame on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Column:
    """A title, and what stands under it for a row; `numeric` columns are set to the right."""

    title: str
    cell: Callable[[Any], str]
    numeric: bool = True


def print_table(columns: Sequence[Column], rows: Iterable[Any], markdown: bool = False) -> None:
    """Print a table, as Markdown where that is asked for or standard output is no terminal."""
    cells = [[column.cell(row) for column in columns] for row in rows]
    if markdown or not sys.stdout.isatty():
        print(format_markdown(columns, cells))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column.title, justify="right" if column.numeric else "left")
    for line in cells:
        table.add_row(*map(Text, line))
    Console(highlight=False).print(table)


def format_markdown(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as Markdown that is aligned as plain text too."""
    titles = [column.title for column in columns]
    widths = [max(map(len, each)) for each in zip(titles, *cells, strict=True)]
    rules = [
        "-" * (width - 1) + (":" if column.numeric else "-")
        for column, width in zip(columns, widths, strict=True)
    ]
    lines = [
        [
            text.rjust(width) if column.numeric else text.ljust(width)
            for column, width, text in zip(columns, widths, line, strict=True)
        ]
        for line in (titles, rules, *cells)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, form: str, factor: float = 1.0) -> str:
    """Return a figure for people, or a dash where there is none."""
    return "–" if value is None else format(value * factor, form)
