"""Evaluations: what is run, what is left when one goes on, how errors are counted, and Ray."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile

from engines import worker
from engines.base import EngineError, StageSeconds, Transcript
from engines.benchmark import clip_list, evaluation
from engines.benchmark.evaluation_lines import Line, Task
from tests import fakes
from tests.commands.conftest import SPOKEN, Command


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
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def make_task(path: Path, **fields: Any) -> Task:
    """A task for a clip with the words above."""
    common = {"engine": "cpu", "model": "tiny.en", "clip": path.stem, "beam": 1, "language": None}
    common |= {"reference": SPOKEN, "threads": 1, "workers": 1, "path": path}
    return Task(**{**common, **fields})


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        ("list", "more/c.wav\n\n{folder}/a.wav\nmore/c.wav\n", SPOKEN),
        ("m.jsonl", '{{"audio_filepath": "more/c.wav", "text": "A, “b”"}}\n\n'
         '{{"audio": "a.wav"}}\n', "A, “b”"),
        ("m.csv", 'id,file_name,transcription\n1,more/c.wav,"A, “b”"\n2,a.wav,\n', "A, “b”"),
        ("m.tsv", 'client\tpath\tsentence\nx\tmore/c.wav\t"A", b\nx\ta.wav\n', '"A", b'),
    ],
)  # fmt: skip
def test_a_list_or_a_manifest_names_clips_and_perhaps_their_words(
    folder: Path, name: str, content: str, first: str
) -> None:
    (folder / name).write_text(content.format(folder=folder), encoding="utf-8")
    found = clip_list.find_clips(folder / name)
    second = "" if name == "m.csv" else SPOKEN  # an empty cell is a clip where nothing is said
    assert [(each.name, each.reference) for each in found] == [
        ("more/c.wav", first),
        ("a.wav", second),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no clip"),
        (b"no_words.wav", r"no_words\.txt can't be read"),
        (b"fLaC\x00\xff\xfe", "is not text in UTF-8"),
        (b"latin.wav", r"latin\.txt is not text in UTF-8"),
        (b"a.wav\n", "list.jsonl, line 1: not an object of JSON"),
        (b'{"text": "a"}', "list.json, row 1: no clip: its file stands in one of audio,"),
        (b"a.wav,words\nb.wav,others\n", "list.csv, row 1: no clip"),
    ],
)
def test_what_can_t_be_used_is_refused(folder: Path, content: bytes, sentence: str) -> None:
    name = sentence.partition(",")[0] if sentence.startswith("list.") else "list"
    (folder / "latin.txt").write_bytes("schön".encode("latin-1"))
    (folder / name).write_bytes(content)
    with pytest.raises(EngineError, match=sentence):
        clip_list.find_clips(folder / name)


@pytest.mark.parametrize(
    ("spoken", "words", "unit", "expected", "errors", "rate"),
    [
        ("Hello, world!", "hello word", "word", 2, 1, 0.5),
        ("", "two words", "word", 0, 2, None),
        ("今日は、天気。", "今日 の 天気", "character", 5, 1, 0.2),
    ],
)
def test_errors_are_counted_after_the_normalizer_in_words_or_characters(
    folder: Path, spoken: str, words: str, unit: str, expected: int, errors: int, rate: float | None
) -> None:
    language = "ja" if unit == "character" else "en"
    task = make_task(folder / "a.wav", reference=spoken, language=language)
    line = evaluation.run_task(task, lambda *_: fakes.FakeEngine(words=words))
    assert line["error"] is None and line["text"] == words
    found = (line["unit"], line["expected"], line["errors"], line["error_rate"])
    assert found == (unit, expected, errors, rate)
    assert line["real_time_factor"] == line["seconds"]["total"] / 2.0


def test_an_evaluation_and_going_on(command: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.jsonl"
    words, where = "evaluate --engines cpu --model tiny.en --out", (out, folder)
    done = command(words, *where, "--json")
    assert done.exit_code == 0, done.output
    lines = lines_of(out)
    assert [line["clip"] for line in lines] == ["a.wav", "b[1].wav", "more/c.wav"]
    assert {(line["text"], line["errors"]) for line in lines} == {(fakes.WORDS, 1)}
    assert set(lines[0]) == {
        *(
            "engine",
            "model",
            "clip",
            "beam",
            "language",
            "reference",
            "threads",
            "workers",
            "batch",
        ),
        *("text", "unit", "expected", "errors", "error_rate", "audio_seconds", "seconds"),
        *("real_time_factor", "error", "options"),
    }
    summary = json.loads(done.stdout)
    assert (summary["errors"], summary["expected"]) == (3, 33)
    assert summary["interval"] == [1 / 11, 1 / 11], "all clips have the same rate"
    again = command(words, *where)
    assert "3 of 3 were done before" in again.stderr and lines_of(out) == lines
    assert "9.09%" in again.stdout and "3 of 33" in again.stdout
    # A kill left half a line; a clip has other words; other beams are another task.
    out.write_bytes(out.read_bytes() + '{"text": "é'.encode()[:-1])
    (folder / "a.txt").write_text(fakes.WORDS)
    assert "2 of 3 were done before" in command(words, *where).stderr
    assert "0 of 3 were done before" in command(words, *where, "--beam-size=5").stderr
    prompted = (*where, "--initial_prompt", "Chips", "--temperature=0,0.5")
    assert "0 of 3 were done before" in command(words, *prompted).stderr
    assert "3 of 3 were done before" in command(words, *prompted).stderr
    assert len(lines_of(out)) == 3 + 1 + 3 + 3
    asked = {"initial_prompt": "Chips", "temperatures": [0.0, 0.5]}
    assert lines_of(out)[-1]["options"] == asked and lines_of(out)[0]["options"] == {}
    refused = command(words, *where, "--patience=2")
    assert refused.exit_code == 1 and "patience 2 needs a beam search" in refused.stderr
    # Lines from before there were options or batches are of those that had none.
    new = ("options", "batch")
    old = [{name: v for name, v in line.items() if name not in new} for line in lines_of(out)]
    out.write_text("".join(json.dumps(line) + "\n" for line in old[:4]))
    assert "3 of 3 were done before" in command(words, *where).stderr


@pytest.mark.parametrize("content", ["dear diary", '{"engine": "cpu"}\n'])
def test_a_stranger_s_file_is_left_alone(
    command: Command, folder: Path, content: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(content)
    done = command("evaluate --engines cpu --out", out, folder)
    assert done.exit_code == 1 and "name another file with --out" in done.stderr
    assert out.read_text() == content


def test_a_clip_that_fails_is_a_line_and_a_status_and_is_tried_again(
    command: Command, engines: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.wav").write_bytes(b"no audio")
    out = tmp_path / "out.jsonl"
    words = "evaluate --json --engines cpu,max_full,gpu --out"
    events: list[str] = []
    monkeypatch.setattr(worker, "close_engines", lambda: events.append("closed"))
    done = command(words, out, folder)
    assert done.exit_code == 1
    assert len(events) == 4, "after each engine, before the next is ready, and at the end"
    errors = {(line["engine"], line["clip"]): line["error"] for line in lines_of(out)}
    assert "can't be read as audio" in errors["cpu", "a.wav"]
    assert errors["cpu", "more/c.wav"] is None and errors["gpu", "more/c.wav"] == "It broke."
    summaries = [json.loads(line) for line in done.stdout.splitlines()]
    found = [(each["engine"], each["clips"], each["failed"]) for each in summaries]
    assert found == [("cpu", 2, 1), ("max_full", 2, 1), ("gpu", 0, 3)], "the best comes first"
    engines["gpu"].error = None
    again = command(words, out, folder)
    assert "4 of 9 were done before" in again.stderr and len(lines_of(out)) == 9 + 5


def test_clips_of_an_engine_that_can_run_together(
    command: Command, engines: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their seconds add up to the time they took; another engine's clips run one by one."""

    def ask(method: str, clips: list[Any], options: list[Any], at_once: int) -> list[Any]:
        assert (method, at_once, len(clips)) == ("transcribe_batch", 2, 2)
        first = engines["max_full"].transcribe(clips[0], options[0])
        return [replace(first, seconds=StageSeconds(0, 0, 500.0, 500.0)), EngineError("It broke.")]

    worker_of = SimpleNamespace(ask=ask)
    monkeypatch.setattr(engines["max_full"], "worker", worker_of, raising=False)
    (folder / "b[1].wav").write_bytes(b"no audio")
    out = tmp_path / "out.jsonl"
    assert command("evaluate --engines cpu,max_full --batch 2 --out", out, folder).exit_code == 1
    lines = {(line["engine"], line["clip"]): line for line in lines_of(out)}
    assert {line["batch"] for (engine, _), line in lines.items() if engine == "cpu"} == {1}
    mine = {clip: line for (engine, clip), line in lines.items() if engine == "max_full"}
    assert {line["batch"] for line in mine.values()} == {2}
    assert mine["a.wav"]["error"] is None and mine["a.wav"]["seconds"]["total"] < 100
    assert "can't be read" in mine["b[1].wav"]["error"]
    assert mine["more/c.wav"]["error"] == "It broke."


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
    done = command("evaluate --engines cpu --out", out, folder)
    assert done.exit_code == 130 and "the same command goes on from here" in done.stderr
    assert [line["clip"] for line in lines_of(out)] == ["a.wav"]
    assert "9.09%" in done.stdout


def test_without_ray_the_option_says_what_to_install(
    command: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = command("evaluate --ray --out", tmp_path / "out.jsonl", folder)
    assert done.exit_code == 1 and "pip install -r requirements-ray.txt" in done.stderr


@pytest.mark.slow
def test_a_real_ray_on_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip that can't be read, or kills its worker, costs a line; the rest is written."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install -r requirements-ray.txt")

    class Doomed(evaluation.Evaluator):
        def run(self, task: Task, content: bytes | None) -> Line:
            if task.clip == "b[1]":
                os.kill(os.getpid(), signal.SIGKILL)
            return super().run(task, content)

    monkeypatch.setattr(evaluation, "Evaluator", Doomed)
    (folder / "bad.wav").write_bytes(b"no audio")
    names = ("a", "bad", "b[1]", "none", "more/c")
    tasks = [make_task(folder / f"{name}.wav", workers=2) for name in names]
    lines = {line["clip"]: line for line in evaluation.run_on_ray(tasks, "local")}
    assert set(lines) == {"a", "bad", "b[1]", "none", "c"}
    assert "can't be read as audio" in lines["bad"]["error"]
    assert "There is no file" in lines["none"]["error"]
    assert "The worker died" in lines["b[1]"]["error"]
    assert lines["a"]["error"] is None and lines["c"]["expected"] == 11
