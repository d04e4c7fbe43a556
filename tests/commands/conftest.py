"""Commands in this process, over fake engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from typer.testing import CliRunner, Result

from engines import audio, cli, registry, worker
from engines.base import EngineError
from engines.benchmark import machine, speed
from tests import fakes

RATE = {"samples": [2e11], "median": 2e11, "min": 1e11, "max": 3e11}
LIMITS = {"read_bytes_per_second": RATE, "multiply_add_flops": RATE}
SPOKEN = fakes.WORDS.replace("the graph", "a graph")
"""One of the eleven words is another."""

Command = Callable[..., Result]


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two samples of two seconds, `short`, with the words above beside it, and `talk`."""
    folder = tmp_path / "samples"
    folder.mkdir()
    for name in ("short", "talk"):
        soundfile.write(folder / f"{name}.flac", fakes.make_clip(2.0).samples, 16_000)
    (folder / "short.txt").write_text(SPOKEN)
    monkeypatch.setattr(audio, "SAMPLES", folder)
    return folder / "short.flac"


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
    """Runs a command, given as words and then what stays whole, over fake engines."""

    def get(key: str, model: str, dtype: str = "float32") -> Any:
        return engines[registry.read_lane(key).engine]

    monkeypatch.setattr(worker, "get_engine", get)
    monkeypatch.setattr(worker, "close_engines", lambda: None)
    monkeypatch.setattr(registry, "get", get)
    monkeypatch.setattr(registry, "available", lambda: tuple(reversed(engines)))
    monkeypatch.setattr(machine, "limit_threads", lambda *_: 1)
    monkeypatch.setattr(machine, "measure_limits", lambda: LIMITS)
    monkeypatch.setattr(speed, "SETTLE_SECONDS", 0.0)
    return lambda words, *whole: CliRunner().invoke(cli.app, [*words.split(), *map(str, whole)])
