"""The set-up keeps its promises: exact versions, one list of tasks, a second run at once."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ROOT = Path(__file__).parents[1]
PIXI = tomllib.loads((ROOT / "pixi.toml").read_text())
PIXI_MACHINE = {
    "python_version": "3.12",
    "python_full_version": "3.12.12",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}
"""The machine pixi.toml is written for, in the words of an environment marker."""

REQUIREMENTS = (
    "requirements.txt",
    *(f"requirements-{name}.txt" for name in ("dev", "ray", "extra")),
)


def requirements(name: str, machine: dict[str, str] | None = None) -> list[Requirement]:
    """What a pip file names itself, without its includes: all of it, or for a machine."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return [r for r in found if not machine or r.marker is None or r.marker.evaluate(machine)]


def pins(name: str) -> dict[str, str]:
    """`{package: "==version"}` of a pip file, as it applies to pixi's machine."""
    named = requirements(name, PIXI_MACHINE)
    return {canonicalize_name(each.name): str(each.specifier) for each in named}


def pixi_pins(table: dict[str, Any]) -> dict[str, str]:
    """`{package: "==version"}` of a pypi-dependencies table."""
    return {
        canonicalize_name(name): value if isinstance(value, str) else value["version"]
        for name, value in table.items()
    }


def test_every_version_is_exact_and_there_is_one_for_every_python() -> None:
    for name in (*REQUIREMENTS, "constraints.txt"):
        for item in requirements(name):
            assert re.fullmatch(r"==[^*,]+", str(item.specifier)), f"{name}: {item}"
    for python in ("3.10", "3.11", "3.12", "3.13", "3.14"):
        machine = {**PIXI_MACHINE, "python_version": python, "python_full_version": f"{python}.0"}
        named = [each.name for each in requirements("requirements.txt", machine)]
        assert len(named) == len(set(named)) and {"torch", "max", "numpy", "av"} <= set(named)


def test_pixi_has_the_versions_of_pip() -> None:
    table, feature = PIXI["pypi-dependencies"], PIXI["feature"]
    for platform in ("*-cuda", "*-cpu"):
        whole = table | PIXI["target"][platform]["pypi-dependencies"]
        assert pixi_pins(whole) == pins("requirements.txt"), platform
    for name, file in {"dev": "dev", "ray": "ray", "engines-extra": "extra"}.items():
        expected = pins(f"requirements-{file}.txt")
        assert pixi_pins(feature[name]["pypi-dependencies"]) == expected, name
    with_cuda, without = PIXI["workspace"]["platforms"]
    assert with_cuda["name"].endswith("-cuda") and with_cuda["cuda"]
    assert without["name"].endswith("-cpu") and "cuda" not in without


def make_tasks() -> dict[str, str]:
    """`{task: command}` of the described Makefile targets that run Python."""
    pattern = r"^([a-z-]+):[^\n]*?## [^\n]+\n\t(\$\(PY\)[^\n]*)"
    found = re.findall(pattern, (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {task: s.replace("$(PY)", "python").removesuffix(" $(ARGS)") for task, s in found}


def test_make_and_pixi_have_the_same_tasks_and_ci_runs_the_tests() -> None:
    pixi = {name: task["cmd"] for name, task in PIXI["tasks"].items()}
    assert pixi == make_tasks()
    assert all(task["description"] for task in PIXI["tasks"].values())
    for part in " && ".join(pixi.values()).split(" && "):
        module = part.removeprefix("python ").removeprefix("-m ").split()[0]
        assert importlib.util.find_spec(module.removesuffix(".py")), part
    script = (ROOT / ".ci" / "run").read_text()
    for task in ("test", "test-slow", "lint"):
        assert re.search(rf"^([A-Z]+=\w+ )?make {task}\b", script, re.MULTILINE)


def test_the_container_has_the_same_commands_and_nothing_but_what_it_copies() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    said: dict[str, list[str]] = {}
    for word, value in re.findall(r"^([A-Z]+) +(.*)$", text, re.MULTILINE):
        said.setdefault(word, []).append(value)
    base = f"BASE=python:{PIXI['dependencies']['python'].removesuffix('.*')}-slim"
    assert said["ARG"][0].startswith(base)
    ran = " ".join(said["RUN"])
    targets = re.findall(r"\bmake (\.venv/[\w.-]+|[a-z-]+)(?= *(?:&&|;|$))", ran)
    stamps = re.findall(r"^[A-Z_]+ := \$\(VENV\)/(\S+)", (ROOT / "Makefile").read_text(), re.M)
    assert targets and set(targets) <= {f".venv/{stamp}" for stamp in stamps}
    assert not re.search(r"pip install(?! --no-deps -c requirements.txt )", ran), "the Makefile's"
    (started,) = said["CMD"]
    assert " ".join(json.loads(started)) == f".venv/bin/{make_tasks()['demo']}"
    copied = {part for value in said["COPY"] for part in value.split()[:-1]}
    sent = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if "#" not in line]
    assert sent[0] == "*" and set(sent[1:]) == {f"!{each}" for each in copied} | {"**/__pycache__"}
    assert {"app.py", "demo", "engines"} <= copied
    assert all((ROOT / each).exists() for each in copied)
    assert said["USER"][-1] != "root" and f" {said['USER'][-1]} " in ran
    shown = (ROOT / "docs" / "hosting.md").read_text()
    arguments = {value.split("=")[0] for value in said["ARG"]}
    assert arguments == set(re.findall(r"--build-arg ([A-Z]+)=", shown))
    (port,), (volume,) = said["EXPOSE"], said["VOLUME"]
    assert f"-p {port}:{port}" in shown and f"-v max-whisper:{volume} " in shown
    settings = dict(re.findall(r"(\w+)=(\S+)", " ".join(said["ENV"])))
    assert settings["GRADIO_SERVER_PORT"] == port and settings["XDG_CACHE_HOME"] == volume


def tracked_files(*options: str) -> list[Path]:
    """Every file git tracks, or lists with these options."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", *options]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_spaces_takes_every_tracked_file_and_package_name() -> None:
    """And no file above 10 MiB, for which Spaces wants Git LFS."""
    assert not [path for path in tracked_files() if path.stat().st_size > 10 * 2**20]
    # Spaces hands the words to apt-get as they are: a comment would be taken for packages.
    names = (ROOT / "packages.txt").read_text().split()
    assert names and all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name) for name in names)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files `make` looks at, beside a .venv that claims to be complete."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    for name in ("Makefile", "constraints.txt", *REQUIREMENTS):
        shutil.copy(ROOT / name, tmp_path)
        os.utime(tmp_path / name, (time.time() - 100,) * 2)
    (tmp_path / ".venv").mkdir()
    stamps = (".ray-ready", ".dev-ready", ".run-ready", ".made")
    models = (".default-model-ready", ".test-models-ready")
    for age, stamp in enumerate((*models, *stamps)):
        (tmp_path / ".venv" / stamp).touch()
        os.utime(tmp_path / ".venv" / stamp, (time.time() - 10 - age,) * 2)
    return tmp_path


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` without what an outer `make test` hands to an inner one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=kept)


def planned(checkout: Path, *arguments: str) -> list[str]:
    done = make(checkout, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_second_run_starts_at_once(checkout: Path) -> None:
    assert planned(checkout, "demo", "ARGS=") == [".venv/bin/python app.py "]
    tests = [f".venv/bin/python -m {each}" for each in ("tests.install_browser", "pytest ")]
    assert planned(checkout, "test", "ARGS=") == tests
    assert len(planned(checkout, "evaluate-ray")) == 1
    extra = "\n".join(planned(checkout, "engines-extra"))
    assert "--no-deps -r requirements-extra.txt" in extra


def test_changed_requirements_are_installed_and_a_new_checkout_is_set_up(checkout: Path) -> None:
    (checkout / "requirements.txt").touch()
    assert any(" install -r " in command for command in planned(checkout, "test"))
    shutil.rmtree(checkout / ".venv")
    commands = "\n".join(planned(checkout, "demo"))
    steps = ("-m venv", "install -r requirements.txt", "engines.checkpoints", "python app.py")
    places = [commands.index(step) for step in steps]
    assert places == sorted(places)


def test_an_old_python_is_named_with_the_remedy(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    (checkout / ".venv").mkdir()
    done = make(checkout, "demo", "PYTHON=false")
    assert done.returncode and "Python 3.10 or newer is needed" in done.stdout
    assert not (checkout / ".venv" / ".made").exists()
