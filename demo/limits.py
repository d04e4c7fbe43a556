"""Limits: how much one visitor may ask for, and how many may wait; `docs/hosting.md` has them.

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

TRUSTED = "FORWARDED_ALLOW_IPS"
MOST_WAITING = 50
RUNS_A_MINUTE = 30


@dataclass(frozen=True)
class Limits:
    """`waiting`: runs in the queue beside the one that goes on. The rest is for each visitor, and
    None is no limit: runs waiting or going on, runs started in a minute, bytes sent in an hour."""

    waiting: int = MOST_WAITING
    at_once: int | None = None
    a_minute: int | None = None
    upload_bytes: int | None = None


def read_limits(only_this_machine: bool) -> Limits:
    """Read the limits from the environment; raise `ValueError` with a sentence for no number."""
    waiting = read_number("DEMO_QUEUE", MOST_WAITING, least=1)
    rate = read_number("DEMO_RATE", RUNS_A_MINUTE, least=0)
    if only_this_machine or rate == 0:
        return Limits(waiting)
    at_once = 6  # three panels on each of two tabs
    return Limits(waiting, at_once, a_minute=rate, upload_bytes=2**30)


def read_number(name: str, default: int, least: int) -> int:
    """Read a whole number from the environment; raise `ValueError` with a sentence."""
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal() or int(text[:9]) < least:
        raise ValueError(f"{name} must be a whole number from {least} up, and {text!r} isn't.")
    return int(text[:9])


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
        self._taken: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()

    def take(self, visitor: str, amount: int = 1) -> float | None:
        """Return None if granted, else the seconds until a retry; a refusal is not counted."""
        with self._lock:
            now = self._clock()
            for past in self._taken.values():
                while past and past[0][0] <= now - self.seconds:
                    past.popleft()
            while self._taken and not next(iter(self._taken.values())):
                self._taken.popitem(last=False)  # whoever took something last stands last
            taken = self._taken.get(visitor, deque())
            over, wait = sum(each for _, each in taken) + amount - self.most, 0.0
            for then, each in taken:
                if over <= 0:
                    break
                over, wait = over - each, then + self.seconds - now
            if over > 0:
                return self.seconds  # more than anybody ever gets
            if wait > 0:
                return wait
            self._taken.setdefault(visitor, taken).append((now, amount))
            self._taken.move_to_end(visitor)
            return None


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
