"""Download checkpoints: `python -m engines.checkpoints [NAME …]`, `base` if none is named.

python -m engines.checkpoints --digest NAME    print the digest of its tensors instead
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from engines import base, checkpoints
from engines.checkpoints.content import digest_tensors
from engines.models import DEFAULT_MODEL


class Bar(base.Listener):
    """Shows a download as a bar with megabytes and the time left."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None)

    def progress(self, progress: base.Progress) -> None:
        note = progress.note or progress.stage.capitalize()
        total = progress.total or None
        self._bar.update(self._task, description=note, completed=progress.done, total=total)


def main() -> int:
    """Download and check each checkpoint; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engines.checkpoints", description=__doc__)
    parser.add_argument("names", nargs="*", default=[DEFAULT_MODEL], metavar="NAME")
    parser.add_argument("--digest", action="store_true", help="print the digest of the tensors")
    arguments = parser.parse_args()
    columns = (BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}"))
    for name in arguments.names:
        try:
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                checkpoint = checkpoints.load(name, Bar(bar))
        except base.EngineError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(digest_tensors(checkpoint.state) if arguments.digest else f"{name} is here.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
