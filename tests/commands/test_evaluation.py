"""Evaluations: what is run, what is left when one goes on, how errors are counted, and Ray."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from engines.base import EngineError, Options, Transcript
from engines.benchmark import evaluation, ray_cluster
from engines.benchmark.evaluation import Line, Task
from tests import fakes
from tests.commands.conftest import Command

SPOKEN = fakes.WORDS.replace("the graph", "a graph")
"""One of the eleven words is another."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clips with the words above, one of them in a folder, and one clip without words."""
    at = tmp_path / "clips"
    (at / "more").mkdir(parents=True)
    for name in ("a", "b[1]", "more/c", "no_words"):
        soundfile.write(at / f"{name}.wav", fakes.make_clip(2.0).samples, 16_000)
        if name != "no_words":
            (at / f"{name}.txt").write_text(f"\ufeff{SPOKEN}\n", encoding="utf-8")
    return at


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every line of a file."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


# Clips.


def test_a_folder_s_clips_are_those_with_words_beside_them(folder: Path) -> None:
    clips = evaluation.find_clips(folder)
    assert [(name, text) for name, _, text in clips] == [
        (name, SPOKEN) for name in ("a.wav", "b[1].wav", "more/c.wav")
    ]
    assert all(path.is_file() for _, path, _ in clips)


def test_a_list_has_a_path_on_each_line(folder: Path) -> None:
    (folder / "list").write_text(f"more/c.wav\n\n{folder / 'a.wav'}\nmore/c.wav\n")
    found = evaluation.find_clips(folder / "list")
    assert [name for name, _, _ in found] == ["more/c.wav", "a.wav"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no clip"),
        (b"no_words.wav", r"no_words\.txt can't be read"),
        (b"fLaC\x00\xff\xfe", "is not text in UTF-8"),
        (b"latin.wav", r"latin\.txt is not text in UTF-8"),
    ],
)
def test_what_can_t_be_used_is_refused(folder: Path, content: bytes, sentence: str) -> None:
    (folder / "latin.txt").write_bytes("schön".encode("latin-1"))
    (folder / "list").write_bytes(content)
    with pytest.raises(EngineError, match=sentence):
        evaluation.find_clips(folder / "list")


# Lines.


def make_task(clip: str = "a", engine: str = "cpu", **fields: Any) -> Task:
    """A task for a clip with two words."""
    return Task(engine, "tiny.en", clip, Path(clip), "Hello, world!", Options(), **fields)


def make_line(task: Task, text: str = "hello word", seconds: float = 2.0, **fields: Any) -> Line:
    """The line of a run of four seconds of audio."""
    transcript = fakes.FakeEngine().write(fakes.make_clip(4.0), (), seconds - 0.323)
    return evaluation.score(task, replace(transcript, text=text, **fields))


def test_a_line_counts_words_after_the_normalizer() -> None:
    line = make_line(make_task())
    assert set(line) == {
        *evaluation.KEY,
        *("text", "unit", "expected", "errors", "error_rate", "audio_seconds", "seconds"),
        *("real_time_factor", "error"),
    }
    assert (line["unit"], line["expected"], line["errors"], line["error_rate"]) == (
        "word",
        2,
        1,
        0.5,
    )
    assert line["real_time_factor"] == pytest.approx(0.5) and line["text"] == "hello word"
    none = make_line(replace(make_task(), reference=""), "two words")
    assert (none["expected"], none["errors"], none["error_rate"]) == (0, 2, None)


@pytest.mark.parametrize(
    ("asked", "detected", "unit"),
    [("ja", "ja", "character"), (None, "zh", "character"), ("ja", "en", "character")],
)
def test_languages_without_spaces_are_counted_by_characters(
    asked: str | None, detected: str, unit: str
) -> None:
    task = replace(make_task(), reference="今日は、天気。", options=Options(language=asked))
    line = make_line(task, "今日 の 天気", language=detected)
    assert (line["unit"], line["expected"], line["errors"]) == (unit, 5, 1)


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_half_a_line_is_cut_off_and_what_only_looks_like_an_end_is_not(
    mark: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    line = make_line(make_task(), f"hello{mark}world")
    evaluation.append(line, out)
    whole = out.read_bytes()
    out.write_bytes(whole + b'{"engine": "cp')
    assert evaluation.read_lines(out) == [line]
    assert out.read_bytes() == whole


@pytest.mark.parametrize("content", ["dear diary", "dear diary\n", '{"engine": "cpu"}\n', "1\n"])
def test_a_stranger_s_file_is_left_alone(content: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(content)
    with pytest.raises(EngineError, match="name another file with --out"):
        evaluation.read_lines(out)
    assert out.read_text() == content


def test_what_has_a_text_is_left_alone_and_what_failed_is_tried_again() -> None:
    done, broken, new = (make_task(clip) for clip in ("done", "broken", "new"))
    others = [
        replace(done, options=Options(beam_size=5)),
        replace(done, reference="Hello, you!"),
        replace(done, threads=2),
    ]
    lines = [make_line(done), evaluation.fail(broken, "It broke.")]
    assert evaluation.left_over([done, broken, new, *others], lines) == [broken, new, *others]
    (summary,) = evaluation.summarise([done, broken, new], lines)
    assert (summary["clips"], summary["failed"]) == (1, 1)
    lines.append(make_line(broken, "hello world", 6.0))
    (summary,) = evaluation.summarise([done, broken], lines)
    assert (summary["clips"], summary["failed"]) == (2, 0)
    assert summary["error_rate"] == 0.25 and summary["real_time_factor"] == pytest.approx(1.0)


def test_the_best_comes_first_and_what_has_no_result_last() -> None:
    none, much, less = (make_task(engine=engine) for engine in ("none", "much", "less"))
    found = [evaluation.fail(none, "It broke."), make_line(much, "nothing"), make_line(less)]
    summaries = evaluation.summarise([none, much, less], found)
    assert [summary["engine"] for summary in summaries] == ["less", "much", "none"]


# The command.


def test_an_evaluation_and_going_on(command: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.jsonl"
    arguments = ("evaluate", folder, "--engines", "cpu", "--model", "tiny.en", "--out", out)
    done = command(*arguments, "--threads", "1", "--json")
    assert done.exit_code == 0, done.output
    lines = lines_of(out)
    assert [line["clip"] for line in lines] == ["a.wav", "b[1].wav", "more/c.wav"]
    assert {(line["text"], line["errors"]) for line in lines} == {(fakes.WORDS, 1)}
    assert {(line["threads"], line["workers"]) for line in lines} == {(1, 1)}
    summary = json.loads(done.stdout)
    assert (summary["errors"], summary["expected"]) == (3, 33)
    again = command(*arguments, "--threads", "1")
    assert "3 of 3 were done before" in again.stderr and lines_of(out) == lines
    assert "9.09% | 3 of 33 |" in again.stdout


def test_a_clip_that_fails_is_a_line_and_a_status(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    (folder / "a.wav").write_bytes(b"no audio")
    out = tmp_path / "out.jsonl"
    done = command("evaluate", folder, "--engines", "cpu,gpu", "--out", out)
    assert done.exit_code == 1
    errors = {(line["engine"], line["clip"]): line["error"] for line in lines_of(out)}
    assert "can't be read as audio" in errors["cpu", "a.wav"]
    assert errors["cpu", "more/c.wav"] is None and errors["gpu", "more/c.wav"] == "It broke."


def test_an_interrupt_leaves_what_was_done(
    command: Command, engines: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = iter([fakes.FakeEngine().transcribe])

    def transcribe(*about: Any) -> Transcript:
        for run in runs:
            return run(*about)
        raise KeyboardInterrupt

    monkeypatch.setattr(engines["cpu"], "transcribe", transcribe)
    out = tmp_path / "out.jsonl"
    done = command("evaluate", folder, "--engines", "cpu", "--out", out)
    assert done.exit_code == 130 and "the same command goes on from here" in done.stderr
    assert [line["clip"] for line in lines_of(out)] == ["a.wav"]
    assert "9.09%" in done.stdout


def test_one_engine_at_a_time_is_ready() -> None:
    events: list[str] = []

    class Engine(fakes.FakeEngine):
        def close(self) -> None:
            events.append(f"close {self.key}")

    def get(key: str, model: str) -> Any:
        events.append(f"open {key}")
        return Engine(key)

    tasks = [make_task("none", engine) for engine in ("cpu", "cpu", "gpu")]
    assert len(list(evaluation.run_here(tasks, get))) == 3
    assert events == ["open cpu", "close cpu", "open gpu"]


# Ray.


def test_without_ray_the_option_says_what_to_install(
    command: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = command("evaluate", folder, "--ray", "--out", tmp_path / "out.jsonl")
    assert done.exit_code == 1 and "pip install -r requirements-ray.txt" in done.stderr


class FakeRay:
    """Ray as far as starting it goes."""

    def __init__(self, failures: int) -> None:
        self.failures, self.begun = failures, 0

    def init(self, **_: Any) -> None:
        """Fail so often."""
        self.begun += 1
        if self.begun <= self.failures:
            raise RuntimeError("The current node timed out during startup.")

    def shutdown(self) -> None:
        """Nothing was started."""


@pytest.mark.parametrize(
    ("address", "failures", "sentence"),
    [
        ("local", 2, ""),
        ("local", 3, "Ray could not be started here: The current node timed out"),
        ("ray://x:1", 1, "Ray is not at ray://x:1"),
    ],
)
def test_a_ray_that_is_slow_to_start_is_tried_again(
    address: str, failures: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(failures)
    monkeypatch.setitem(sys.modules, "ray", ray)
    if sentence:
        with pytest.raises(EngineError, match=sentence):
            ray_cluster.connect(address, 1)
    else:
        assert ray_cluster.connect(address, 1) is ray
        assert ray.begun == 3


@pytest.mark.slow
def test_a_real_ray_on_this_machine(folder: Path) -> None:
    """A clip that can't be read, or kills its worker, costs a line; the rest is written."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install -r requirements-ray.txt")
    (folder / "bad.wav").write_bytes(b"no audio")
    names = ("a", "bad", "none", "more/c")
    tasks = [
        Task("cpu", "tiny.en", name, folder / f"{name}.wav", SPOKEN, Options(), 1, 2)
        for name in names
    ]
    lines = {line["clip"]: line for line in ray_cluster.run_on_ray(tasks)}
    assert set(lines) == set(names)
    assert "can't be read as audio" in lines["bad"]["error"]
    assert "can't be read" in lines["none"]["error"]
    assert lines["a"]["error"] is None and lines["more/c"]["expected"] == 11


@pytest.mark.slow
def test_a_worker_of_ray_that_is_killed_costs_one_clip(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next clip has a new worker in its place."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install -r requirements-ray.txt")

    class Doomed(ray_cluster.Evaluator):
        def run(self, task: Task, content: bytes) -> Line:
            if task.name == "a":
                os.kill(os.getpid(), signal.SIGKILL)
            return super().run(task, content)

    monkeypatch.setattr(ray_cluster, "Evaluator", Doomed)
    tasks = [
        Task("cpu", "tiny.en", name, folder / f"{name}.wav", SPOKEN, Options())
        for name in ("a", "more/c")
    ]
    killed, fine = ray_cluster.run_on_ray(tasks)
    assert "The worker died" in killed["error"] and fine["error"] is None
