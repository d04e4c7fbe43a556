"""What README.md and docs/ show can be typed, followed and, on Spaces, built."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from demo import limits
from engines import zero_gpu
from engines.command_options import name_flag
from engines.options import OPTIONS
from engines.registry import ENGINES
from tests.test_setup import PIXI, ROOT, pins

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def front_matter() -> dict[str, Any]:
    """The YAML between the first two lines of dashes."""
    yaml = pytest.importorskip("yaml")
    _, block, _ = TEXT.split("---\n", 2)
    return yaml.safe_load(block)


KEYS = (
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file"),
    *("suggested_hardware", "short_description", "thumbnail", "license", "models", "datasets"),
    *("tags", "pinned"),
)
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
HARDWARE = ("cpu-basic", "cpu-upgrade", "t4-small", "t4-medium", "l4x1", "l4x4", "l40sx1")


def test_spaces_accepts_the_front_matter(front_matter: dict[str, Any]) -> None:
    """Keys and values: https://huggingface.co/docs/hub/spaces-config-reference"""
    assert TEXT.startswith("---\n")
    assert front_matter["sdk"] == "gradio" and front_matter["title"] and front_matter["emoji"]
    assert 0 < len(front_matter["short_description"]) <= 60
    assert set(front_matter) <= set(KEYS) and front_matter["license"] == "mit"
    assert {front_matter["colorFrom"], front_matter["colorTo"]} <= set(COLOURS)
    assert front_matter["suggested_hardware"] in HARDWARE
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", model) for model in front_matter["models"])
    assert (ROOT / front_matter["app_file"]).is_file()
    assert f"=={front_matter['sdk_version']}" == pins("requirements.txt")["gradio"]
    assert front_matter["python_version"] == "3.12"  # a string: YAML reads 3.10 as 3.1
    assert PIXI["dependencies"]["python"] == f"{front_matter['python_version']}.*"


def test_every_command_shown_exists() -> None:
    for task in re.findall(r"\b(?:make|pixi run) ([a-z-]+)\b", code()):
        assert task in PIXI["tasks"] or task in ("help", "constraints", "engines-extra"), task


PARSERS = {"engines.transcribe": "engines.cli"}
"""Where a command's options are read, if not in its own module."""


def test_every_option_shown_is_understood() -> None:
    count = 0
    for line in code().splitlines():
        module = re.search(r"python -m ([a-z_.]+)", line)
        named = PARSERS.get(module[1], module[1]) if module else "engines.cli"
        modules = (named.replace(".", "/"), "engines/command_options")
        source = "".join((ROOT / f"{module}.py").read_text() for module in modules)
        for option in re.findall(r"(?<!\S)[\[`]?(--[a-z-]+)", line):
            derived = option in {"--help", *map(name_flag, OPTIONS)}
            assert derived or f'"{option}"' in source, f"{named} {option}"
            count += 1
    assert count > 4


def code() -> str:
    """All that is set as code, one piece a line."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", TEXT)])


def test_every_link_inside_the_repository_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    inside = [link.split("#")[0] for link in links if "://" not in link]
    assert inside and all((ROOT / Path(link)).exists() for link in inside)


def test_the_commands_come_first_and_every_engine_is_in_the_table() -> None:
    start = TEXT.split("---\n", 2)[2][:1200]
    assert "make demo" in start and "make test" in start
    for key in (row.key for row in ENGINES):
        row = re.search(rf"^\|.*`{key}`.*\|$", TEXT, re.MULTILINE)
        assert row, f"{key} has no row in the README's table of engines"


def read_docs(*names: str) -> str:
    return "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in names)


def test_every_variable_that_is_read_is_documented_and_no_other() -> None:
    """Two variables of a Space, and those that keep Gradio quiet, are not the reader's to set."""
    sources = [ROOT / "app.py", *ROOT.glob("demo/**/*.py"), *ROOT.glob("engines/**/*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    prefixes = "DEMO|LOG|MAX_WHISPER|GRADIO|XDG|FORWARDED"
    read = set(re.findall(rf'"((?:{prefixes})_[A-Z_]+)"', code))
    said = set(re.findall(rf"\b(?:{prefixes})_[A-Z_]+\b", read_docs("hosting.md", "limits.md")))
    quiet = {"GRADIO_ANALYTICS_ENABLED", "GRADIO_ANALYTICS_MAX_EVENTS"}
    assert read - quiet == said - {"GRADIO_ROOT_PATH"}  # Gradio reads that by itself


@pytest.mark.parametrize(
    ("variable", "default"),
    [
        ("DEMO_QUEUE", limits.MOST_WAITING),
        ("DEMO_RATE", limits.RUNS_A_MINUTE),
        (zero_gpu.SECONDS, zero_gpu.CALL_SECONDS),
    ],
)
def test_the_documented_limits_are_the_defaults(variable: str, default: int) -> None:
    (row,) = re.findall(rf"^\|[^|]+\| (\d+) \| `{variable}`.*\|$", read_docs("limits.md"), re.M)
    assert int(row) == default


def test_whatever_was_tried_has_tests_that_exist() -> None:
    rows = re.findall(r"^\| (?!what was done).*\|$", read_docs("reliability.md"), re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named, f"no test is named: {row}"
        for path, test in named:
            written = (ROOT / "tests" / path).read_text(encoding="utf-8")
            assert re.search(rf"^(async )?def {test}\(", written, re.MULTILINE), f"{path}::{test}"


@pytest.mark.slow
def test_the_notebook_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From its own folder, as Jupyter does."""
    notebook = json.loads(read_docs("notebook.ipynb"))
    assert len(notebook["cells"]) == 10
    code = ["".join(each["source"]) for each in notebook["cells"] if each["cell_type"] == "code"]
    assert not any(each.get("outputs") for each in notebook["cells"])
    monkeypatch.chdir(ROOT / "docs")
    monkeypatch.setattr(sys, "path", list(sys.path))
    named: dict[str, Any] = {}
    for cell in code:
        exec(compile(cell, "notebook", "exec"), named)
    written = capsys.readouterr().out
    for key in named["keys"]:
        assert f"{key}: word error rate 0.0%, 0 words unlike cpu's, equal tokens: True" in written
        assert re.search(rf"^{key} 0\.\d\d And", written, re.MULTILINE)
        assert re.search(rf"^{key}: \d+\.\d\d s \(audio ", written, re.MULTILINE)
