"""docs/tools.md shows what every task for a terminal prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engines import outputs
from engines.base import EngineError
from tests.test_setup import make_tasks

TEXT = outputs.PAGE.read_text(encoding="utf-8")
SHOWN = {
    *("engines", "graph-test", "gpu-check", "transcribe", "compare-simple", "debug-encoder"),
    *("benchmark", "benchmark-json", "benchmark-save", "benchmark-kv-cache", "figures"),
    *("evaluate", "evaluate-ray", "test-cpu", "test-max", "test-gpu"),
}


def test_every_task_is_shown_with_what_it_prints() -> None:
    commands = [found["command"] for found in outputs.BLOCK.finditer(TEXT)]
    assert TEXT.count("```\n$ ") == len(commands)
    found = [re.search(r"\bmake (?:--silent )?([a-z-]+)", command) for command in commands]
    tasks = {each[1] for each in found if each}
    assert tasks == SHOWN and tasks <= set(make_tasks())
    assert "not made yet" not in TEXT, "python -m engines.outputs makes it"
    assert {"LOG_LEVEL=info", "LOG_FORMAT=json"} <= {command.split()[0] for command in commands}
    for block in outputs.BLOCK.finditer(TEXT):
        assert block[0].count("\n") > 2, f"{block['command']} shows nothing"


def test_nothing_shown_has_failed() -> None:
    """But for the check for a GPU, on a machine without one."""
    for block in outputs.BLOCK.finditer(TEXT):
        status = re.findall(r"^\(exit status (\d+)\)$", block[0], re.MULTILINE)
        allowed = outputs.EXPECTED.get(block["command"], (0,))
        assert all(int(each) in allowed for each in status), block["command"]
        assert not re.search(r'"error": "|\[error |Traceback| failed: ', block[0]), block["command"]
        if "benchmark-kv-cache" in block["command"]:
            assert "--repeats 1 " not in block["command"], "a slope needs more than one run"


def test_where_it_was_made_is_said_and_nothing_of_the_machine_s_paths() -> None:
    (where,) = re.findall(f"{outputs.BEGIN}\n(.*)\n{outputs.END}", TEXT)
    assert re.match(r"Made on \d{4}-\d\d-\d\d on \d+ cores of ", where)
    assert str(outputs.ROOT) not in TEXT and "/home/" not in TEXT and "file://" not in TEXT


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links and all((outputs.PAGE.parent / link).exists() for link in links)


def test_only_the_outputs_are_made_anew() -> None:
    page = "a\n\n```\n$ one --x\nold\nold\n```\n\nb\n\n```\n$ two\n```\n\n```\nno command\n```\n"
    made = outputs.remake(page, lambda command: f"{command} ran\n")
    assert made == (
        "a\n\n```\n$ one --x\none --x ran\n```\n\nb\n\n```\n$ two\ntwo ran\n```\n\n"
        "```\nno command\n```\n"
    )
    assert outputs.remake(made, lambda command: f"{command} ran\n") == made


def test_both_streams_and_an_expected_exit_status_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = "echo out; echo err >&2; exit 3"
    monkeypatch.setattr(outputs, "EXPECTED", {command: (0, 3)})
    assert outputs.run(command) == "out\nerr\n(exit status 3)\n"
    shown = outputs.shorten(f"{outputs.ROOT}/docs {Path.home()}/x  \n{'y' * 500}")
    assert shown.splitlines() == ["docs ~/x", "y" * outputs.LONGEST + "…"]


@pytest.mark.parametrize("command", ["echo why; exit 2", "(echo why; exit 2) | tail -n 1"])
def test_a_command_that_fails_leaves_the_page_as_it_was(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(EngineError, match=r"exit status 2, so .*\nwhy"):
        outputs.run(command)
    page = tmp_path / "tools.md"
    text = f"{outputs.BEGIN}\nold\n{outputs.END}\n\n```\n$ {command}\nold\n```\n"
    page.write_text(text)
    order: list[str] = []

    def describe() -> str:
        order.append("described")
        return "here"

    monkeypatch.setattr(outputs, "PAGE", page)
    monkeypatch.setattr(outputs, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["outputs"])
    monkeypatch.setattr(outputs, "set_up_tasks", lambda: order.append("set up"))
    monkeypatch.setattr(outputs, "describe", describe)
    assert outputs.main() == 1 and page.read_text() == text
    assert "ended with exit status 2" in capsys.readouterr().err
    assert order == ["described", "set up"], "the load is the one before anything is run"
    page.write_text(text.replace("exit 2", "exit 0"))
    assert outputs.main() == 0
    assert "\nhere\n" in page.read_text() and "\nwhy\n```" in page.read_text()


def test_the_machine_stands_between_its_comments() -> None:
    page = f"a\n{outputs.BEGIN}\nold\n{outputs.END}\nb"
    assert outputs.put_machine(page, "new") == f"a\n{outputs.BEGIN}\nnew\n{outputs.END}\nb"
    assert "cores of" in outputs.describe()
