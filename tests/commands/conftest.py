"""Commands in this process, over fake engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from engines import cli, registry
from engines.base import EngineError
from engines.benchmark import interleave, machine, processes
from tests import fakes

LIMITS = {
    "read_bytes_per_second": {"samples": [2e10], "median": 2e10, "min": 2e10, "max": 2e10},
    "multiply_add_flops": {"samples": [3e11], "median": 3e11, "min": 3e11, "max": 3e11},
}

Command = Callable[..., Result]


@pytest.fixture
def engines() -> dict[str, Any]:
    """The engines of this machine by key; `gpu` fails."""
    return {
        "cpu": fakes.FakeEngine("cpu"),
        "max_hybrid": fakes.FakeEngine("max_hybrid"),
        "max_full": fakes.FakeEngine("max_full", words=f"{fakes.WORDS} twice"),
        "gpu": fakes.FakeEngine("gpu", error=EngineError("It broke.")),
    }


@pytest.fixture
def command(engines: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command; what its engines' processes would do is done by fakes."""

    def get(key: str, model: str, dtype: str = "float32") -> Any:
        return engines[key]

    monkeypatch.setattr(processes, "get_engine", get)
    monkeypatch.setattr(processes, "shut_down", lambda: None)
    monkeypatch.setattr(registry, "get", get)
    monkeypatch.setattr(registry, "available", lambda: tuple(reversed(engines)))
    monkeypatch.setattr(machine, "limit_threads", lambda *_: 1)
    monkeypatch.setattr(machine, "measure_limits", lambda: LIMITS)
    monkeypatch.setattr(interleave, "SETTLE_SECONDS", 0.0)
    return lambda *arguments: CliRunner().invoke(cli.app, [str(each) for each in arguments])
