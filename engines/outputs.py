"""`python -m engines.outputs`: what docs/tools.md shows is what the tasks print, made anew.

Every block of that page that begins with `$ COMMAND` gets what the command prints here, both
streams as a terminal has them, and the line between the two comments `machine` and `/machine` says
where that was, and how busy it was before. A command that ends with another exit status than it
should leaves the page as it was (exit status 1). Paths are shortened to this folder and the home
folder; long lines are cut with `…`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from engines.base import EngineError
from engines.measure import machine

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tools.md"
BLOCK = re.compile(r"^```\n\$ (?P<command>.+)\n(?:.*\n)*?```$", re.MULTILINE)
BEGIN, END = "<!-- machine -->", "<!-- /machine -->"
EXPECTED = {"make gpu-check": (0, 2)}
"""Exit statuses of commands that need not end with 0: without a GPU the check says so, and `make`
makes a 2 of it."""
LONGEST = 240
"""Characters of a line that are shown."""

Run = Callable[[str], str]


def main() -> int:
    """Run every command of the page and write what they print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engines.outputs", description=__doc__)
    parser.parse_args()
    where = describe()  # before the commands, which are what it will be busy with
    (ROOT / "build").mkdir(exist_ok=True)
    for left_behind in (ROOT / "build").glob("shown*"):
        left_behind.unlink()
    page = PAGE.read_text(encoding="utf-8")
    set_up_tasks()
    try:
        made = remake(page, run)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    PAGE.write_text(put_machine(made, where), encoding="utf-8")
    return 0


def set_up_tasks() -> None:
    """Install what the commands need, which is no output of theirs."""
    for task in ("benchmark-save", "evaluate-ray"):
        setting_up = ["make", "--silent", task, "ARGS=--help"]
        subprocess.run(setting_up, cwd=ROOT, check=True, capture_output=True)


def remake(page: str, run: Run) -> str:
    """The page with each command's output in its block."""

    def block(found: re.Match[str]) -> str:
        command = found["command"]
        return f"```\n$ {command}\n{run(command)}```"

    return BLOCK.sub(block, page)


def run(command: str) -> str:
    """What a shell prints for a command, and its exit status where that is not 0.

    Raises `EngineError` for an exit status that the command should not end with, whichever part of
    a pipe it comes from.
    """
    print(f"$ {command}", file=sys.stderr)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode not in EXPECTED.get(command, (0,)):
        raise EngineError(
            f"`{command}` ended with exit status {done.returncode}, so {PAGE.name} was left as it "
            f"was. It printed:\n{done.stdout.strip()}"
        )
    status = f"(exit status {done.returncode})\n" if done.returncode else ""
    return shorten(done.stdout) + status


def shorten(text: str) -> str:
    """The text without this machine's paths, and without what is too long to show."""
    text = text.replace(f"{ROOT}/", "").replace(str(Path.home()), "~")
    lines = (line.rstrip() for line in text.splitlines())
    return "".join(f"{line if len(line) <= LONGEST else line[:LONGEST] + '…'}\n" for line in lines)


def describe() -> str:
    """The machine, the day and how busy it was."""
    where = machine.describe()
    busy = "" if where.load_average is None else f", load average before {where.load_average:.1f}"
    return (
        f"Made on {datetime.now().date()} on {where.cores} cores of {where.cpu}, "
        f"{where.gpu or 'no GPU'}{busy}."
    )


def put_machine(page: str, where: str) -> str:
    """The page with that sentence between its two comments."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{where}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    sys.exit(main())
