"""Logs: JSON or lines for people, one id a run, stages with their seconds, and nobody's words."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from demo.compare import Run
from demo.snapshot import Comparison, Settings
from engines import logs, microscope, registry, transcribe, worker
from engines.audio import load_clip
from engines.base import Engine, EngineError
from engines.measure.clips import clip_path
from tests import fakes

Heard = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Leave the loggers as they were."""
    root = logging.getLogger()
    handlers, levels = list(root.handlers), {n: logging.getLogger(n).level for n in logs.OURS}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Sets the logs up for JSON; gives what was logged since."""
    monkeypatch.setenv(logs.FORMAT, "json")
    monkeypatch.delenv(logs.LEVEL, raising=False)
    stream = io.StringIO()
    logs.set_up(stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_run_has_an_id_and_its_stages_have_seconds(heard: Heard) -> None:
    run = logs.new_run_id()
    registry.release("tiny.en")
    with logs.in_run(run):
        transcript = registry.get("cpu").transcribe(load_clip(clip_path("short")))
    prepared, transcribed = heard()
    assert {line["run"] for line in (prepared, transcribed)} == {run}
    assert prepared["event"] == "prepared" and prepared["load"] > 0 and prepared["compile"] == 0
    assert transcribed["event"] == "transcribed"
    assert (transcribed["engine"], transcribed["model"]) == ("cpu", "tiny.en")
    assert transcribed["clip"] == "short.flac"
    stages = transcript.seconds.as_dict()
    assert {stage: transcribed[stage] for stage in stages} == pytest.approx(stages, abs=1e-4)
    assert transcribed["level"] == "info" and transcribed["timestamp"].endswith("Z")


@pytest.mark.parametrize(("level", "told"), [("info", False), ("debug", True)])
def test_what_was_said_is_logged_only_for_who_asks(
    level: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs.LEVEL, level)
    stream = io.StringIO()
    logs.set_up(stream=stream)
    transcript = registry.get("cpu").transcribe(load_clip(clip_path("short")))
    words = transcript.text.split()
    pairs = [" ".join(words[at : at + 2]) for at in range(0, len(words) - 1)]
    assert "transcribed" in stream.getvalue() and len(pairs) > 3
    assert all((pair in stream.getvalue()) is told for pair in pairs)


def compare(get: Callable[..., Engine], **settings: Any) -> Comparison:
    """The last snapshot of a run over fakes."""
    chosen = Settings(engines=("cpu", "max_hybrid"), model="tiny.en", **settings)
    run = Run(chosen, fakes.STATUSES, get, fakes.open_fake_clip, clip_name="a clip")
    *_, last = run.snapshots()
    return last


@pytest.mark.parametrize("schedule", ["parallel", "one at a time"])
def test_the_page_s_run_and_its_log_share_an_id(schedule: str, heard: Heard) -> None:
    broken = fakes.FakeEngine("max_hybrid", error=EngineError("It broke."))
    engines = {"cpu": fakes.FakeEngine("cpu"), "max_hybrid": broken}
    last = compare(lambda key, model, dtype: engines[key], schedule=schedule)
    started, failed = heard()
    assert started["run"] == failed["run"] == last.run and len(last.run) == 12
    assert started["event"] == "started" and started["engines"] == ["cpu", "max_hybrid"]
    assert failed["event"] == "failed" and failed["error"] == "It broke."
    about = {key: failed[key] for key in ("engine", "model", "clip", "level")}
    expected = {"engine": "max_hybrid", "model": "tiny.en", "clip": "a clip", "level": "error"}
    assert about == expected
    assert fakes.WORDS.split()[1] not in json.dumps(heard())


def test_a_bug_is_logged_with_its_traceback(heard: Heard) -> None:
    engine = fakes.FakeEngine("cpu", error=ZeroDivisionError("oh"))
    last = compare(lambda key, model, dtype: engine)
    bugs = [line for line in heard() if line["event"] == "failed"]
    assert {bug["engine"] for bug in bugs} == {"cpu", "max_hybrid"}
    assert all("Traceback" in bug["exception"] and bug["run"] == last.run for bug in bugs)


def test_two_runs_have_two_ids() -> None:
    get = lambda key, model, dtype: fakes.FakeEngine(key)  # noqa: E731
    assert compare(get).run != compare(get).run


def test_other_packages_are_heard_in_the_same_form(heard: Heard) -> None:
    logging.getLogger("elsewhere").warning("port %d is taken", 7860)
    logging.getLogger("elsewhere").info("not heard")
    (line,) = heard()
    assert line["event"] == "port 7860 is taken" and line["level"] == "warning"


def test_lines_for_people_have_no_colours_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(logs.FORMAT, raising=False)
    monkeypatch.delenv(logs.LEVEL, raising=False)
    stream = io.StringIO()
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
    for name in (logs.FORMAT, logs.LEVEL):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert logs.pick_level(default) == level


def test_a_command_that_fails_logs_engine_model_and_clip(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(logs.FORMAT, "json")
    assert transcribe.main(["/no/such.wav", "--engine", "cpu"]) == 1
    logged, said = capsys.readouterr().err.splitlines()
    line = json.loads(logged)
    about = {key: line[key] for key in ("event", "engine", "model", "clip")}
    expected = {"event": "failed", "engine": "cpu", "model": "tiny.en", "clip": "/no/such.wav"}
    assert about == expected
    assert said == f"error: {line['error']}"
    assert line["level"] == "error", "so it is heard without LOG_FORMAT as well"


def test_the_microscope_s_run_has_an_id(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(logs.FORMAT, "json")
    assert microscope.main(["cpu", "no_such", "--model", "tiny.en"]) == 1
    line = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (line["event"], line["level"], line["model"]) == ("failed", "error", "tiny.en")
    assert line["engines"] == ["cpu", "no_such"] and len(line["run"]) == 12


def test_a_run_s_id_reaches_the_process_of_its_engine(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the engine logs there has the run's id, and not that of the run before."""
    monkeypatch.setenv(logs.FORMAT, "json")
    engine = worker.RemoteEngine("cpu", "tiny.en", "float32", registry.row("cpu"))
    runs = [logs.new_run_id(), logs.new_run_id()]
    try:
        for run in runs:
            with logs.in_run(run):
                engine.transcribe(load_clip(clip_path("short")))
    finally:
        engine.close()
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    heard = [(line["event"], line["run"]) for line in said]
    assert heard == [("prepared", runs[0]), *(("transcribed", run) for run in runs)]
