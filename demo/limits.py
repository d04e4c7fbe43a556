"""Limits: how much one visitor may ask for, and how many may wait; `docs/limits.md` has them.

Behind a proxy a visitor's address stands in the header `X-Forwarded-For`, which anybody can write:
it is believed only from the addresses in `FORWARDED_ALLOW_IPS`, the web server's own variable. On
Hugging Face Spaces, where the proxy has a private address, those are believed.
"""

from __future__ import annotations

import ipaddress
import math
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from engines.models import estimate_megabytes

TRUSTED = "FORWARDED_ALLOW_IPS"
MOST_WAITING = 50
RUNS_A_MINUTE = 30
MOST_RUN_SECONDS = 1800.0
"""The limit of a run where other visitors wait for its end."""
OWN_UPLOAD_BYTES = 4 * 2**30
"""What may be uploaded in an hour to a page that serves its own machine only."""


@dataclass(frozen=True)
class Limits:
    """What may be asked for; None is no limit.

    `waiting`: jobs in the queue beside the running one. `run_seconds`: of one job, whatever the
    clip. Of each visitor: jobs waiting or running (`at_once`), jobs started in a minute
    (`a_minute`), and bytes uploaded in an hour (`upload_bytes`).
    """

    waiting: int = MOST_WAITING
    run_seconds: float | None = None
    at_once: int | None = None
    a_minute: int | None = None
    upload_bytes: int | None = None


def read_limits(only_this_machine: bool) -> Limits:
    """Read the limits from the environment; raise `ValueError` with a sentence for no number."""
    waiting = read_number("DEMO_QUEUE", MOST_WAITING, 1, 10_000)  # a thread each
    rate = read_number("DEMO_RATE", RUNS_A_MINUTE, 0, 1_000_000)
    if only_this_machine:
        return Limits(waiting, upload_bytes=OWN_UPLOAD_BYTES)
    if rate == 0:
        return Limits(waiting)
    at_once = 6  # three panels on each of two tabs
    return Limits(waiting, MOST_RUN_SECONDS, at_once, a_minute=rate, upload_bytes=2**30)


def find_run_seconds(model: str, audio_seconds: float, runs: int) -> float:
    """Return the limit of a comparison's seconds; `runs`: of all its engines together.

    Loading and compiling have 15 minutes. Each run has time in proportion to the clip and the
    model's size, some ten times what greedy search takes on two slow cores.
    """
    share = 1.0 + estimate_megabytes(model) / 100
    return 900.0 + runs * audio_seconds * share


def read_number(name: str, default: int, least: int, most: int) -> int:
    """Read a whole number from the environment; raise `ValueError` with a sentence."""
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal() or not least <= int(text[:19]) <= most:
        raise ValueError(
            f"{name} must be a whole number from {least} to {most}, and {text[:40]!r} isn't."
        )
    return int(text)


def describe_timeout(seconds: float) -> str:
    """Return why a run was ended after so many seconds."""
    return (
        f"Ended after {format_wait(seconds)}, the longest that a run of this clip may take here: "
        "choose a smaller model or beam, fewer engines, or a shorter clip."
    )


def trust_proxies_of_spaces() -> None:
    """On Spaces, believe the proxy's word on who is calling; called before the server starts."""
    if os.environ.get("SPACE_ID"):
        networks = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"  # private
        os.environ.setdefault(TRUSTED, networks)


def name_address(host: str | None) -> str:
    """Return the key of a visitor's limits: an IPv4 address, or an IPv6 home's first 64 bits."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Allowance:
    """A rate limit for each visitor: `most` in any `seconds`."""

    def __init__(
        self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.seconds = most, seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: OrderedDict[str, Taken] = OrderedDict()

    def take(self, visitor: str, amount: int = 1) -> float | None:
        """Return None if granted, else the seconds until a retry; a refusal is not counted."""
        with self._lock:
            now = self._clock()
            self._forget_some(now)
            taken = self._taken.get(visitor) or Taken()
            taken.forget(now - self.seconds)
            over, wait = taken.total + amount - self.most, 0.0
            if amount > self.most:
                return self.seconds  # more than anybody ever gets
            for then, each in taken.past:
                if over <= 0:
                    break
                over, wait = over - each, then + self.seconds - now
            if wait > 0:
                return wait
            taken.add(now, amount)
            self._taken[visitor] = taken
            self._taken.move_to_end(visitor)
            return None

    def _forget_some(self, now: float) -> None:
        """Drop up to two visitors with nothing left to count: few at once, all of them in time."""
        for _ in range(2):
            visitor, taken = next(iter(self._taken.items()), ("", None))
            if taken is None or (taken.past and taken.past[-1][0] > now - self.seconds):
                return  # ordered by when a visitor took something last
            del self._taken[visitor]


class Taken:
    """What one visitor took of an allowance: when and how much, and the sum."""

    def __init__(self) -> None:
        self.past: deque[tuple[float, int]] = deque()
        self.total = 0

    def add(self, now: float, amount: int) -> None:
        self.past.append((now, amount))
        self.total += amount

    def forget(self, until: float) -> None:
        """Forget what was taken until then."""
        while self.past and self.past[0][0] <= until:
            self.total -= self.past.popleft()[1]


def format_wait(seconds: float) -> str:
    """Return a wait in words, never too short: `12 s`, `3 minutes`."""
    if seconds <= 90:
        return f"{max(math.ceil(seconds), 1)} s"
    return f"{math.ceil(seconds / 60)} minutes"


def format_estimate(seconds: float) -> str:
    """Return an expected wait, as coarse as it is known: `about 5 s`, `about 2 minutes`."""
    if seconds < 57.5:
        return f"about {max(5 * round(seconds / 5), 5)} s"
    minutes = max(round(seconds / 60), 1)
    return "about a minute" if minutes == 1 else f"about {minutes} minutes"


def format_left(seconds: float | None) -> str:
    """Say how long something may still take; "" where past runs don't tell."""
    if seconds is None:
        return ""
    return f"{format_estimate(seconds)} left" if seconds > 0 else "longer than last time"
