"""What a process group does, from Linux's /proc: who is in it, and the processor time it took."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")

PATIENCE = 60.0
"""Seconds after which a condition that hasn't come true never will."""


def read_stat(pid: str) -> list[str]:
    """The fields of `/proc/PID/stat` after the name: state, parent, group and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def living() -> dict[int, list[str]]:
    """Every process that is no zombie, with what `read_stat` gives."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = read_stat(name)
        except OSError:
            continue
        if stat[0] != "Z":
            found[int(name)] = stat
    return found


def members(group: int) -> dict[int, float]:
    """The living processes of a group, each with the processor seconds it has taken."""
    tick = os.sysconf("SC_CLK_TCK")
    return {
        pid: (int(stat[11]) + int(stat[12])) / tick
        for pid, stat in living().items()
        if int(stat[2]) == group
    }


def children(parent: int) -> list[int]:
    """The living processes that a process started."""
    return [pid for pid, stat in living().items() if int(stat[1]) == parent]


def workers(group: int) -> list[int]:
    """The members of a worker's group but the shell that ends it with its parent."""

    def is_shell(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sh")
        except OSError:
            return True

    return [pid for pid in members(group) if not is_shell(pid)]


def is_gone(pid: int) -> bool:
    """Whether there is no such process any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition; fails the test when it doesn't come true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.02)


def is_idle(group: int, seconds: float = 0.3) -> bool:
    """Whether a group takes next to nothing of the processor; one that is gone is idle."""
    before = sum(members(group).values())
    time.sleep(seconds)
    return sum(members(group).values()) - before < 0.2 * seconds
