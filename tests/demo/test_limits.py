"""Who a visitor is, and how much one may ask for."""

from __future__ import annotations

import pytest

from demo import limits
from demo.limits import Allowance, Limits, name_address, read_limits


class Clock:
    """A time that only the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_allowance_comes_back_with_time() -> None:
    clock = Clock()
    allowance = Allowance(2, 60.0, clock)
    for clock.now in (0.0, 10.0):
        assert allowance.take("me") is None
    clock.now = 20.0
    assert allowance.take("me") == 40.0 and allowance.take("you") is None
    clock.now = 60.0
    assert allowance.take("me") is None and allowance.take("me") == 10.0
    clock.now = 500.0
    assert allowance.take("you") is None
    assert set(allowance._taken) == {"you"}


def test_a_request_forgets_two_visitors_at_most() -> None:
    """So each costs the same, however many came before."""
    clock = Clock()
    allowance = Allowance(5, 60.0, clock)
    for number in range(100):
        allowance.take(str(number))
    clock.now = 61.0
    allowance.take("late")
    assert len(allowance._taken) == 100 - 2 + 1


def test_a_visitor_is_an_address_of_ipv6_the_first_half() -> None:
    named = {
        "192.0.2.7": "192.0.2.7",
        "::ffff:192.0.2.7": "192.0.2.7",
        "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
        "fe80::1%eth0": "fe80::/64",
        "testclient": "testclient",
        None: "unknown",
    }
    assert {host: name_address(host) for host in named} == named


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Limits(limits.MOST_WAITING, upload_bytes=limits.OWN_UPLOAD_BYTES)
    assert read_limits(only_this_machine=True) == own
    open_to_all = read_limits(only_this_machine=False)
    assert open_to_all.a_minute == limits.RUNS_A_MINUTE and open_to_all.at_once
    monkeypatch.setenv("DEMO_QUEUE", "7")
    monkeypatch.setenv("DEMO_RATE", "0")
    assert read_limits(only_this_machine=False) == Limits(7)


def test_on_spaces_and_nowhere_else_the_proxy_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(limits.TRUSTED, raising=False)
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setattr(limits.os, "environ", dict(limits.os.environ))
    limits.trust_proxies_of_spaces()
    assert limits.TRUSTED not in limits.os.environ
    limits.os.environ["SPACE_ID"] = "someone/page"
    limits.trust_proxies_of_spaces()
    server = pytest.importorskip("uvicorn.middleware.proxy_headers")
    trusted = server._TrustedHosts(limits.os.environ[limits.TRUSTED])
    heard = "192.0.2.66, 203.0.113.5, 10.16.4.2"  # the first one is what the visitor claims
    assert "10.16.4.2" in trusted and "203.0.113.5" not in trusted
    assert trusted.get_trusted_client_address(heard)[0] == "203.0.113.5"


def test_a_wait_is_never_said_too_short_and_an_expected_one_coarsely() -> None:
    waits = {0.2: "1 s", 12.1: "13 s", 90: "90 s", 91: "2 minutes"}
    assert {seconds: limits.format_wait(seconds) for seconds in waits} == waits
    estimates = {1: "about 5 s", 23: "about 25 s", 58: "about a minute", 150: "about 2 minutes"}
    assert {seconds: limits.format_estimate(seconds) for seconds in estimates} == estimates
