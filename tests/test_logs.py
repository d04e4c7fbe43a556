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

from demo.compare import Run
from demo.snapshot import Comparison, Settings
from engines import cli, logs, registry, worker
from engines.audio import load_clip
from engines.base import EngineError
from tests import fakes

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


def test_a_run_has_an_id_and_its_stages_have_seconds(heard: Heard) -> None:
    registry.release("tiny.en")
    with logs.in_run(logs.new_run_id()):
        run = logs.current_run()
        transcript = registry.get("cpu", "tiny.en").transcribe(load_clip(CLIP))
    prepared, transcribed = (line for line in heard() if line["event"] != "said")
    assert {line["run"] for line in (prepared, transcribed)} == {run} and len(run) == 12
    assert prepared["event"] == "prepared" and prepared["load"] > 0 and prepared["compile"] == 0
    assert (transcribed["event"], transcribed["clip"]) == ("transcribed", "jfk.flac")
    assert (transcribed["engine"], transcribed["model"]) == ("cpu", "tiny.en")
    stages = transcript.seconds.as_dict()
    assert {stage: transcribed[stage] for stage in stages} == pytest.approx(stages, abs=1e-4)
    assert transcribed["level"] == "info" and transcribed["timestamp"].endswith("Z")
    assert logs.current_run() == ""


@pytest.mark.parametrize(("level", "told"), [("info", False), ("debug", True)])
def test_what_was_said_is_logged_only_at_debug(
    level: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs.LEVEL, level)
    stream = io.StringIO()
    logs.set_up(stream=stream)
    registry.get("cpu", "tiny.en").transcribe(load_clip(CLIP))
    assert "transcribed" in stream.getvalue()
    assert ("fellow Americans" in stream.getvalue()) is told


def compare(errors: dict[str, Exception], **settings: Any) -> Comparison:
    """The last snapshot of a run over fakes that fail."""
    engines = {key: fakes.FakeEngine(key, error=error) for key, error in errors.items()}
    chosen = Settings(engines=tuple(engines), model="tiny.en", **settings)
    get = lambda key, model, dtype: engines[key]  # noqa: E731
    run = Run(chosen, fakes.STATUSES, get, fakes.open_fake_clip, clip_name="a clip")
    *_, last = run.snapshots()
    return last


@pytest.mark.parametrize("schedule", ["parallel", "one at a time"])
def test_the_page_s_run_and_its_log_share_an_id(schedule: str, heard: Heard) -> None:
    last = compare({"max_hybrid": EngineError("It broke.")}, schedule=schedule)
    started, failed = heard()
    assert started["run"] == failed["run"] == last.run and len(last.run) == 12
    assert (started["event"], started["engines"]) == ("started", ["max_hybrid"])
    about = {key: failed[key] for key in ("event", "engine", "model", "clip", "level", "error")}
    assert about == {
        "event": "failed",
        "engine": "max_hybrid",
        "model": "tiny.en",
        "clip": "a clip",
        "level": "error",
        "error": "It broke.",
    }
    assert fakes.WORDS.split()[1] not in json.dumps(heard())
    assert compare({"max_hybrid": EngineError("It broke.")}).run != last.run


def test_a_bug_is_logged_with_its_traceback(heard: Heard) -> None:
    last = compare({"cpu": ZeroDivisionError("oh"), "max_hybrid": ZeroDivisionError("oh")})
    bugs = [line for line in heard() if line["event"] == "failed"]
    assert {bug["engine"] for bug in bugs} == {"cpu", "max_hybrid"}
    assert all("Traceback" in bug["exception"] and bug["run"] == last.run for bug in bugs)


def test_other_packages_are_heard_in_the_same_form(heard: Heard) -> None:
    logging.getLogger("elsewhere").warning("port %d is taken", 7860)
    logging.getLogger("elsewhere").info("not heard")
    (line,) = heard()
    assert line["event"] == "port 7860 is taken" and line["level"] == "warning"


def test_lines_for_people_have_no_colours_in_a_pipe_and_come_once() -> None:
    stream = io.StringIO()
    logs.set_up("info", io.StringIO())
    logs.set_up("info", stream)
    logs.logger().info("prepared", engine="cpu", load=0.123456)
    (line,) = stream.getvalue().splitlines()
    assert "prepared" in line and "engine=cpu" in line and "load=0.1235" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("environment", "default", "level"),
    [
        ({}, "warning", logging.WARNING),
        ({}, "info", logging.INFO),
        ({logs.FORMAT: "json"}, "warning", logging.INFO),
        ({logs.LEVEL: "ERROR"}, "info", logging.ERROR),
        ({logs.LEVEL: "error", logs.FORMAT: "json"}, "info", logging.ERROR),
        ({logs.LEVEL: "loud"}, "info", logging.INFO),
    ],
)
def test_the_level_is_the_default_unless_told(
    environment: dict[str, str], default: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert logs.pick_level(default) == level


def test_a_command_s_error_is_a_line_of_json_where_logs_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(logs.FORMAT, "json")
    done = CliRunner().invoke(cli.app, ["transcribe", "/no/such.wav", "--engine", "cpu"])
    logged, said = done.stderr.splitlines()
    line = json.loads(logged)
    assert (line["event"], line["command"], line["level"]) == ("failed", "transcribe", "error")
    assert len(line["run"]) == 12 and said == f"error: {line['error']}"


def test_a_run_s_id_reaches_the_process_of_its_engine(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the engine logs there has the run's id, and not that of the run before."""
    monkeypatch.setenv(logs.FORMAT, "json")
    logs.set_up()
    engine = worker.RemoteEngine("cpu", "tiny.en", "float32", registry.row("cpu"))
    runs = [logs.new_run_id(), logs.new_run_id()]
    try:
        for run in runs:
            with logs.in_run(run):
                engine.transcribe(load_clip(CLIP))
    finally:
        engine.close()
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    heard = [(line["event"], line["run"]) for line in said if line["event"] != "said"]
    assert heard == [("prepared", runs[0]), *(("transcribed", run) for run in runs)]
