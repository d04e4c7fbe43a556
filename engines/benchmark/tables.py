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

WIDEST = 400
"""Characters of a row in a pipe, where nothing is cut or wrapped."""


@dataclass(frozen=True)
class Column:
    """A title, and what stands under it for a row; `numeric` columns are set to the right."""

    title: str
    cell: Callable[[Any], str]
    numeric: bool = True


def print_table(columns: Sequence[Column], rows: Iterable[Any], markdown: bool = False) -> None:
    """Print a table, as Markdown where that is asked for or standard output is no terminal."""
    markdown = markdown or not sys.stdout.isatty()
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(
            column.title, justify="right" if column.numeric else "left", no_wrap=markdown
        )
    for row in rows:
        table.add_row(*(Text(column.cell(row)) for column in columns))
    Console(width=WIDEST if markdown else None, highlight=False).print(table)


def number(value: float | None, form: str, factor: float = 1.0) -> str:
    """Return a figure for people, or a dash where there is none."""
    return "–" if value is None else format(value * factor, form)
