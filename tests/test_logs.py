"""Logs: JSON or lines for people, one id a run, stages with their seconds, and nobody's words."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engines import cli, logs, worker
from engines.audio import load_clip
from engines.base import EngineError
from tests import fakes
from tests.fake_page import make_task

CLIP = Path(__file__).parents[1] / "audio_samples" / "jfk.flac"

Heard = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is set; the loggers are left as they were."""
    for name in (logs.FORMAT, logs.LEVEL):
        monkeypatch.delenv(name, raising=False)
    levels = {name: logging.getLogger(name).level for name in logs.OURS}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Sets the logs up for JSON; gives what was logged since."""
    monkeypatch.setenv(logs.FORMAT, "json")
    stream = io.StringIO()
    logs.set_up(stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.slow
def test_an_engine_s_process_logs_its_stages_under_the_run_s_id(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And not under that of the run before; what was said stands at `debug` only."""
    monkeypatch.setenv(logs.FORMAT, "json")
    monkeypatch.setenv(logs.LEVEL, "debug")
    engine = worker.RemoteEngine("cpu", "tiny.en")
    runs = [logs.new_run_id(), logs.new_run_id()]
    try:
        for run in runs:
            with logs.in_run(run):
                transcript = engine.transcribe(load_clip(CLIP))
    finally:
        engine.close()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    assert {line["level"] for line in lines if "fellow Americans" in str(line)} == {"debug"}
    prepared, first, last = (line for line in lines if line["level"] == "info")
    assert [prepared["run"], first["run"], last["run"]] == [runs[0], *runs] and len(runs[0]) == 12
    assert prepared["event"] == "prepared" and prepared["load"] > 0 and prepared["compile"] == 0
    assert (last["event"], last["clip"]) == ("transcribed", "jfk.flac")
    assert (last["engine"], last["model"]) == ("cpu", "tiny.en")
    stages = transcript.seconds.as_dict()
    assert {stage: last[stage] for stage in stages} == pytest.approx(stages, abs=1e-4)
    assert last["timestamp"].endswith("Z") and logs.current_run() == ""


@pytest.mark.parametrize("schedule", ["parallel", "one at a time"])
def test_the_page_s_run_and_its_log_share_an_id(schedule: str, heard: Heard) -> None:
    errors = {"cpu": ZeroDivisionError("oh"), "max_hybrid": EngineError("It broke.")}
    engines = [fakes.FakeEngine(key, error=error) for key, error in errors.items()]
    *_, last = make_task(*engines, name="a clip", schedule=schedule).snapshots()
    started, *failures = heard()
    assert (started["event"], started["engines"]) == ("started", ["cpu", "max_hybrid"])
    assert {line["run"] for line in (started, *failures)} == {last.run} and len(last.run) == 12
    bug, failed = sorted(failures, key=lambda line: str(line["engine"]))
    assert bug["engine"] == "cpu" and "Traceback" in bug["exception"]
    assert (failed["event"], failed["level"], failed["error"]) == ("failed", "error", "It broke.")
    about = (failed["engine"], failed["model"], failed["clip"])
    assert about == ("max_hybrid", "tiny.en", "a clip")
    assert fakes.WORDS.split()[1] not in json.dumps(heard())


def test_other_packages_are_heard_in_the_same_form(heard: Heard) -> None:
    logging.getLogger("elsewhere").warning("port %d is taken", 7860)
    logging.getLogger("elsewhere").info("not heard")
    (line,) = heard()
    assert line["event"] == "port 7860 is taken" and line["level"] == "warning"


def test_lines_for_people_have_no_colours_in_a_pipe_and_come_once() -> None:
    stream = io.StringIO()
    logs.set_up("info", io.StringIO())
    logs.set_up("info", stream)
    logs.logger("engines").info("prepared", engine="cpu", load=0.123456)
    (line,) = stream.getvalue().splitlines()
    assert "prepared" in line and "engine=cpu" in line and "load=0.1235" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("environment", "default", "level"),
    [
        ({}, "warning", logging.WARNING),
        ({logs.FORMAT: "json"}, "warning", logging.INFO),
        ({logs.LEVEL: "ERROR"}, "info", logging.ERROR),
        ({logs.LEVEL: "loud"}, "info", logging.INFO),
    ],
)
def test_the_level_is_the_default_unless_told(
    environment: dict[str, str], default: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    logs.set_up(default)
    assert logging.getLogger("engines").level == level


def test_a_command_s_error_is_a_line_of_json_in_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT, "json")
    done = CliRunner().invoke(cli.app, ["transcribe", "/no/such.wav", "--engine", "cpu"])
    logged, said = done.stderr.splitlines()
    line = json.loads(logged)
    assert (line["event"], line["command"], line["level"]) == ("failed", "transcribe", "error")
    assert len(line["run"]) == 12 and said == f"error: {line['error']}"
