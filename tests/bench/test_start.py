"""Cold and warm starts, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engines.base import EngineError
from engines.measure import start
from tests.bench.stand_ins import silent


def test_a_start_is_divided_among_its_parts() -> None:
    child = {"entered": 10.5, "imported": 12.0, "ready": 20.0, "load": 1.0, "compile": 6.5}
    assert start.divide(10.0, child) == {
        "ready": 10.0,
        "python": 0.5,
        "imports": 1.5,
        "prepare": 8.0,
        "load": 1.0,
        "compile": 6.5,
    }


def test_start_for_real(tmp_path: Path) -> None:
    """`cpu` only: it compiles nothing."""
    started = start.start("cpu", "tiny.en", tmp_path)
    assert started.memory_bytes is None or started.memory_bytes > 0
    parts = started.seconds
    assert tuple(parts) == start.QUANTITIES
    sum_of_parts = parts["python"] + parts["imports"] + parts["prepare"]
    assert sum_of_parts == pytest.approx(parts["ready"])
    assert min(parts["python"], parts["imports"], parts["prepare"]) > 0


def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no engine 'no_such'"):
        start.start("no_such", "tiny.en", tmp_path)


def test_a_cold_start_finds_an_empty_cache_and_a_warm_one_the_same_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caches: list[str] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        cache = Path(options["env"]["MAX_WHISPER_CACHE"])
        assert "MODULAR_CACHE_DIR" not in options["env"]
        if "--imports-only" in command:
            return subprocess.CompletedProcess(command, 0, "", "")
        caches.append(f"{cache.name} {'warm' if list(cache.iterdir()) else 'cold'}")
        (cache / "graph.mef").touch()
        fields = ("entered", "imported", "ready", "load", "compile", "memory_bytes")
        times = dict.fromkeys(fields, 0.0)
        return subprocess.CompletedProcess(command, 0, json.dumps(times), "")

    monkeypatch.setenv("MODULAR_CACHE_DIR", "/elsewhere")
    monkeypatch.setattr(subprocess, "run", run)
    list(start.measure(["a", "b"], "tiny.en", 2, 1, silent))
    assert [cache.split()[1] for cache in caches] == ["cold"] * 4 + ["warm"] * 2
    folders = [cache.split()[0] for cache in caches]
    assert len(set(folders[:4])) == 4
    assert folders[4:] == folders[2:4]
