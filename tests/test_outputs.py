"""docs/tools.md shows what every task for a terminal prints."""

from __future__ import annotations

import re
from pathlib import Path

from engines import outputs
from tests.test_setup import make_tasks

TEXT = outputs.PAGE.read_text(encoding="utf-8")
SHOWN = {
    *("engines", "graph-test", "gpu-check", "transcribe", "compare-simple", "debug-encoder"),
    *("benchmark", "benchmark-json", "benchmark-kv-cache", "evaluate", "evaluate-ray"),
}


def test_every_task_is_shown_with_what_it_prints() -> None:
    commands = [found["command"] for found in outputs.BLOCK.finditer(TEXT)]
    assert TEXT.count("```\n$ ") == len(commands)
    found = [re.search(r"\bmake (?:--silent )?([a-z-]+)", command) for command in commands]
    tasks = {each[1] for each in found if each}
    assert tasks == SHOWN and tasks <= set(make_tasks())
    assert {"LOG_LEVEL=info", "LOG_FORMAT=json"} <= {command.split()[0] for command in commands}
    for block in outputs.BLOCK.finditer(TEXT):
        assert block[0].count("\n") > 2, f"{block['command']} shows nothing"


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


def test_both_streams_and_the_exit_status_are_shown() -> None:
    assert outputs.run("echo out; echo err >&2; exit 3") == "out\nerr\n(exit status 3)\n"
    shown = outputs.shorten(f"{outputs.ROOT}/docs {Path.home()}/x  \n{'y' * 500}")
    assert shown.splitlines() == ["docs ~/x", "y" * outputs.LONGEST + "…"]


def test_the_machine_stands_between_its_comments() -> None:
    page = f"a\n{outputs.BEGIN}\nold\n{outputs.END}\nb"
    assert outputs.put_machine(page, "new") == f"a\n{outputs.BEGIN}\nnew\n{outputs.END}\nb"
    assert "cores of" in outputs.describe()
