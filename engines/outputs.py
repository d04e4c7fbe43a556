"""`python -m engines.outputs`: what docs/tools.md shows is what the tasks print, made anew.

Every block of that page that begins with `$ COMMAND` gets what the command prints here, both
streams as a terminal has them, and the line between the two comments `machine` and `/machine` says
where that was. Paths are shortened to this folder and the home folder; long lines are cut with `…`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from engines.measure import machine

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tools.md"
BLOCK = re.compile(r"^```\n\$ (?P<command>.+)\n(?:.*\n)*?```$", re.MULTILINE)
BEGIN, END = "<!-- machine -->", "<!-- /machine -->"
LONGEST = 240
"""Characters of a line that are shown."""

Run = Callable[[str], str]


def main() -> int:
    """Run every command of the page and write what they print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engines.outputs", description=__doc__)
    parser.parse_args()
    for left_behind in (ROOT / "build").glob("shown*"):
        left_behind.unlink()
    page = PAGE.read_text(encoding="utf-8")
    for task in ("engines", "evaluate-ray"):  # what is to be installed is no output of the task
        setting_up = ["make", "--silent", task, "ARGS=--help"]
        subprocess.run(setting_up, cwd=ROOT, check=True, capture_output=True)
    PAGE.write_text(put_machine(remake(page, run), describe()), encoding="utf-8")
    return 0


def remake(page: str, run: Run) -> str:
    """The page with each command's output in its block."""

    def block(found: re.Match[str]) -> str:
        command = found["command"]
        return f"```\n$ {command}\n{run(command)}```"

    return BLOCK.sub(block, page)


def run(command: str) -> str:
    """What a shell prints for a command, and its exit status where that is not 0."""
    print(f"$ {command}", file=sys.stderr)
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
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
