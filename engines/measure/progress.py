"""What is being measured now: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engines.measure.record import Record, Result


class Quiet:
    """Nobody watches."""

    def say(self, text: str) -> None:
        """What is being done now."""

    def step(self) -> None:
        """One more is done."""

    def start(self, record: Record) -> None:
        """Nothing is measured yet."""

    def add(self, record: Record, result: Result) -> None:
        """One more result."""
        self.step()

    def end(self, record: Record) -> None:
        """All is measured."""


class Bar(Quiet):
    """A bar that fills with the results, and beside it what is being done now."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=total)

    def say(self, text: str) -> None:
        """Show what is being done now."""
        self._progress.update(self._task, description=text)

    def step(self) -> None:
        """One step further."""
        self._progress.advance(self._task)


@contextmanager
def watch(total: int) -> Iterator[Quiet]:
    """A bar of so many steps while the block runs, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield Quiet()
        return
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, total)
