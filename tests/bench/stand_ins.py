"""Clocks, commands and checks that the benchmark's tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "benchmark-record.schema.json").read_text())
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


class FakeClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def silent(text: str) -> None:
    """Nobody reads what is being done."""


def command(*arguments: str) -> list[str]:
    """`python -m engines.bench` with its arguments."""
    return [sys.executable, "-m", "engines.bench", *arguments]


def run_command(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m engines.bench` in a process of its own, its output in a pipe."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def assert_documented(written: dict[str, Any], part: str = "record") -> None:
    """A record, or a `line` of one, follows the documented schema, and its medians their order."""
    import jsonschema

    schema = {"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]}
    jsonschema.validate(written, schema, cls=jsonschema.Draft202012Validator)
    for result in written.get("results") or [] if part == "record" else [written]:
        for seconds in result.get("seconds", {}).values():
            assert seconds["min"] <= seconds["median"] <= seconds["max"]
