"""Evaluations: what is run, what is left when one goes on, and where it runs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from engines import evaluate
from engines import metrics as words
from engines.base import EngineError, Options
from engines.evaluation import lines, on_ray
from engines.evaluation.clips import Spoken, find_clips
from engines.evaluation.lines import (
    KEY,
    Conditions,
    Line,
    Task,
    append,
    failed,
    finished,
    left_over,
    read_lines,
    summarise,
)
from engines.measure.worker import Run
from tests.bench.stand_ins import ENVIRONMENT, ROOT
from tests.fakes import WORDS, make_clip

PEERS = ["--peers", "tests.bench.fake_peer"]
SPOKEN = WORDS.replace("the graph", "a graph")
"""One of the eleven words is another."""
CONDITIONS = Conditions("0" * 12, False, 2, 1)
SCHEMA = json.loads((ROOT / "docs" / "evaluation-line.schema.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clips with the words above, one of them in a folder, and one clip without words."""
    at = tmp_path / "clips"
    (at / "more").mkdir(parents=True)
    for name in ("short", "b", "more/c", "no_words"):
        soundfile.write(at / f"{name}.wav", make_clip(2.0).samples, 16_000)
        if name != "no_words":
            (at / f"{name}.txt").write_text(SPOKEN)
    return at


def run(folder: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m engines.evaluate` over the fake peers."""
    return subprocess.run(
        [sys.executable, "-m", "engines.evaluate", str(folder), "--out", str(out), *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every line of a file, which is as documented."""
    lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    for line in lines:
        assert_documented(line)
    return lines


def assert_documented(line: Line) -> None:
    """A line follows the documented schema."""
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(line, SCHEMA, cls=jsonschema.Draft202012Validator)


# Clips.


def test_a_folder_s_clips_are_those_with_words_beside_them(folder: Path) -> None:
    clips = find_clips(folder)
    assert [clip.name for clip in clips] == ["b.wav", "more/c.wav", "short.wav"]
    assert {clip.reference for clip in clips} == {SPOKEN}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.jsonl", '{"clip": "b.wav", "text": "one"}\n\n{"audio": "c.wav", "text": ""}\n'),
        (
            "m.json",
            '{"audio_filepath": "b.wav", "reference": "one"}\n{"path": "c.wav", "text": ""}',
        ),
        ("m.csv", 'file,sentence\nb.wav,one\nc.wav,""\n'),
        ("m.tsv", "path\tsentence\nb.wav\tone\nc.wav\t\n"),
    ],
)
def test_manifests(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert find_clips(tmp_path / name) == [
        Spoken("b.wav", tmp_path / "b.wav", "one"),
        Spoken("c.wav", tmp_path / "c.wav", ""),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has no clip"),
        ('{"clip": "b.wav"}', "Line 1 of .* needs a clip and its words"),
        ("not json", "Line 1 of .* is not a JSON object"),
        ('{"clip": "b.wav", "text": null}', "Line 1 of .* needs a clip and its words"),
        ('{"clip": null, "text": "x"}', "Line 1 of .* needs a clip and its words"),
        ('{"clip": "b.wav", "text": "x"}\n' * 2, "has b.wav twice"),
    ],
)
def test_a_manifest_that_can_t_be_used_is_refused(
    content: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "m.jsonl").write_text(content)
    with pytest.raises(EngineError, match=sentence):
        find_clips(tmp_path / "m.jsonl")
    with pytest.raises(EngineError, match="no folder or manifest at"):
        find_clips(tmp_path / "absent")


def test_a_row_that_is_too_short_has_no_words(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("clip,text\na.wav,one\nb.wav\n")
    with pytest.raises(EngineError, match=r"Line 3 of .* needs a clip and its words"):
        find_clips(tmp_path / "m.csv")


@pytest.mark.parametrize("name", ["clip.flac", "m.jsonl", "m.csv"])
def test_what_is_no_text_is_refused_in_a_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"fLaC\x00\xff\xfe\x00")
    status = evaluate.main([str(tmp_path / name), "--out", str(tmp_path / "out.jsonl")])
    assert status == 1
    assert re.search("is not text in UTF-8.* Name a folder", capsys.readouterr().err)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").touch()
    (tmp_path / "clips" / "a.txt").write_bytes("schön".encode("latin-1"))
    with pytest.raises(EngineError, match=r"a\.txt is not text in UTF-8"):
        find_clips(tmp_path / "clips")


# Lines.


def make_task(clip: str = "a", engine: str = "cpu", **options: Any) -> Task:
    """A task for a clip with two words."""
    return Task(engine, "tiny.en", Spoken(clip, Path(clip), "Hello, world!"), Options(**options))


def make_run(text: str = "hello word", seconds: float = 2.0) -> Run:
    """A run of four seconds of audio."""
    return Run(text, "en", (1, 2), {"total": seconds}, 4.0, "cpu", "float32")


def test_a_line_counts_words_after_the_normalizer() -> None:
    line = finished(make_task(), make_run())
    assert (line["words"], line["errors"], line["word_error_rate"]) == (2, 1, 0.5)
    assert line["real_time_factor"] == 0.5 and line["text"] == "hello word"
    assert line["error"] is None


def test_every_line_is_as_documented() -> None:
    fine, broken = finished(make_task(), make_run()), failed(make_task(), "It broke.")
    for line in (fine, broken):
        whole = CONDITIONS.put_on(line)
        assert_documented(whole)
        assert list(whole)[: len(KEY)] == list(KEY) and whole["run"] == CONDITIONS.run
    jsonschema = pytest.importorskip("jsonschema")
    for wrong in ({"error": 1}, {"more": 1}, {"reference": None}, {"run": "x"}, {"threads": 0}):
        for line in (fine, broken):
            with pytest.raises(jsonschema.ValidationError):
                assert_documented({**CONDITIONS.put_on(line), **wrong})
    fields = {name for part in SCHEMA["oneOf"] for name in part["required"]}
    names = re.findall(r"^(\w+(?:, \w+)*)  ", str(lines.__doc__), re.MULTILINE)
    assert fields == {name for each in names for name in each.split(", ")}


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_what_only_looks_like_the_end_of_a_line_is_part_of_it(mark: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    line = finished(make_task(), make_run(f"hello{mark}world"))
    append(line, out)
    append(line, out)
    assert read_lines(out) == [line, line] and line["text"] == f"hello{mark}world"


def test_other_words_or_another_sound_make_another_task(tmp_path: Path) -> None:
    path, out = tmp_path / "a.wav", tmp_path / "out.jsonl"
    path.write_bytes(b"one")
    task = Task("cpu", "tiny.en", Spoken("a", path, "Hello, world!"), Options())
    append(finished(task, make_run()), out)
    assert left_over([task], read_lines(out)) == []
    edited = Task("cpu", "tiny.en", Spoken("a", path, "Hello, you!"), Options())
    assert left_over([edited], read_lines(out)) == [edited]
    path.write_bytes(b"two")
    replaced = Task("cpu", "tiny.en", Spoken("a", path, "Hello, world!"), Options())
    assert left_over([replaced], read_lines(out)) == [replaced]
    assert summarise([replaced], read_lines(out))[0].clips == 0


def test_times_of_unlike_settings_are_not_added_up() -> None:
    a, b = make_task("a"), make_task("b")
    alike = [CONDITIONS.put_on(finished(task, make_run())) for task in (a, b)]
    (summary,) = summarise([a, b], alike)
    assert summary.real_time_factor == 0.5 and not summary.mixed
    other = Conditions("1" * 12, False, 1, 2).put_on(finished(b, make_run()))
    (mixed,) = summarise([a, b], [alike[0], other])
    assert mixed.mixed and mixed.real_time_factor is None and mixed.word_error_rate == 0.5
    assert mixed.as_json()["real_time_factor"] is None
    (half,) = summarise([a, b], [alike[0], CONDITIONS.put_on(failed(b, "It broke."))])
    assert half.real_time_factor == 0.5


def test_an_engine_without_a_result_comes_last() -> None:
    tasks = [make_task(engine=engine) for engine in ("none", "much", "less")]
    found = [
        failed(tasks[0], "It broke."),
        finished(tasks[1], make_run("nothing alike")),
        finished(tasks[2], make_run()),
    ]
    shown = evaluate.render(summarise(tasks, found))
    assert re.findall("none|much|less", shown) == ["less", "much", "none"]


def test_what_has_a_text_is_left_alone_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done, broken, new = (make_task(clip) for clip in ("done", "broken", "new"))
    other = make_task("done", beam_size=5)
    append(finished(done, make_run()), out)
    append(failed(broken, "It broke."), out)
    tasks = [done, broken, new, other]
    assert left_over(tasks, read_lines(out)) == [broken, new, other]
    (summary,) = summarise([done, broken], read_lines(out))
    assert (summary.clips, summary.failed) == (1, 1)
    append(finished(broken, make_run("hello world", 6.0)), out)
    (summary,) = summarise([done, broken], read_lines(out))
    assert (summary.clips, summary.failed, summary.errors, summary.words) == (2, 0, 1, 4)
    assert summary.word_error_rate == 0.25
    assert summary.real_time_factor == 1.0


def test_half_a_line_is_cut_off_and_a_stranger_s_file_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    line = finished(make_task(), make_run())
    append(line, out)
    with out.open("a") as file:
        file.write('{"engine": "cp')
    assert read_lines(out) == [line]
    append(line, out)
    assert read_lines(out) == [line, line]
    for content in ("dear diary", "dear diary\n", '{"engine": "cpu"}\n'):
        out.write_text(content)
        with pytest.raises(EngineError, match="name another file with --out"):
            read_lines(out)
        assert out.read_text() == content


def test_the_rate_is_the_one_jiwer_counts() -> None:
    jiwer = pytest.importorskip("jiwer")
    reference = "the quick brown fox jumps over the lazy dog"
    for text in ("the quick fox jumped over a lazy dog", "dog", f"{reference} {reference}"):
        ours = words.align(reference.split(), text.split()).word_error_rate
        assert ours == pytest.approx(jiwer.wer(reference, text))


# Processes.


def test_another_folder_with_the_same_names_is_run(folder: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out.jsonl", tmp_path / "other"
    other.mkdir()
    for name in ("b.wav", "short.wav"):
        (other / name).write_bytes((folder / name).read_bytes())
        (other / name).with_suffix(".txt").write_text(WORDS)
    assert run(folder, out, "--engines", "steady", *PEERS).returncode == 0
    done = run(other, out, "--engines", "steady", "--json", *PEERS)
    assert done.returncode == 0 and "0 of 2 were done before" in done.stderr
    (summary,) = (json.loads(line) for line in done.stdout.splitlines())
    assert (summary["clips"], summary["errors"]) == (2, 0)
    lines = lines_of(out)
    assert len(lines) == 5 and len({line["run"] for line in lines}) == 2
    assert len({line["audio_sha256"] for line in lines}) == 1, "the clips' sounds are the same"


def test_two_processes_and_going_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = run(folder, out, "--engines", "steady", "--processes", "2", "--json", *PEERS)
    assert done.returncode == 0, done.stderr
    lines = lines_of(out)
    assert sorted(line["clip"] for line in lines) == ["b.wav", "more/c.wav", "short.wav"]
    assert {(line["text"], line["errors"], line["words"]) for line in lines} == {(WORDS, 1, 11)}
    (summary,) = (json.loads(line) for line in done.stdout.splitlines())
    assert summary["errors"] == 3 and summary["words"] == 33
    assert summary["word_error_rate"] == pytest.approx(1 / 11)
    again = run(folder, out, "--engines", "steady", *PEERS)
    assert again.returncode == 0 and "3 of 3 were done before" in again.stderr
    assert lines_of(out) == lines
    assert "| steady | nano  |     3 |      0 | 9.09% (3 of 33) |" in again.stdout


def test_an_engine_that_is_killed_costs_one_clip_and_is_tried_again(
    folder: Path, tmp_path: Path
) -> None:
    """`doomed` kills its process at its third clip; the next evaluation starts it anew."""
    out = tmp_path / "out.jsonl"
    done = run(folder, out, "--engines", "doomed,steady", *PEERS)
    assert done.returncode == 1
    lines = lines_of(out)
    lost = [line for line in lines if line["error"]]
    assert len(lines) == 6 and len(lost) == 1
    assert "signal 9, SIGKILL" in lost[0]["error"] and lost[0]["clip"] == "short.wav"
    again = run(folder, out, "--engines", "doomed,steady", *PEERS)
    assert again.returncode == 0, again.stderr
    assert "5 of 6 were done before" in again.stderr and len(lines_of(out)) == 7


def test_a_clip_that_can_t_be_read_is_a_line(folder: Path, tmp_path: Path) -> None:
    (folder / "b.wav").write_bytes(b"no audio")
    out = tmp_path / "out.jsonl"
    done = run(folder, out, "--engines", "steady", *PEERS)
    assert done.returncode == 1
    errors = {line["clip"]: line["error"] for line in lines_of(out)}
    assert errors["b.wav"] and errors["short.wav"] is None


def test_ctrl_c_leaves_what_was_done(folder: Path, tmp_path: Path) -> None:
    """`slow` needs a minute for every clip but `short`, which the manifest has first."""
    manifest = folder / "manifest.jsonl"
    clips = [json.dumps({"clip": f"{name}.wav", "text": SPOKEN}) for name in ("short", "b")]
    manifest.write_text("\n".join(clips))
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "engines.evaluate", str(manifest), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--engines", "slow", *PEERS],
        cwd=ROOT,
        env={**ENVIRONMENT, "LOG_LEVEL": "info"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "evaluated" in line:
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in said
    assert "the same command goes on from here" in said
    assert [line["clip"] for line in lines_of(out)] == ["short.wav"]


def test_a_source_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.jsonl")
    assert evaluate.main([str(tmp_path / "absent"), "--out", out]) == 1
    assert "no folder or manifest" in capsys.readouterr().err
    assert evaluate.main([str(tmp_path), "--out", out, "--peers", "no_such_peer"]) == 1
    assert "There is no module 'no_such_peer'" in capsys.readouterr().err


# Ray.


def test_without_ray_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install -r requirements-ray\.txt"):
        on_ray.start_ray(on_ray.HERE, 1)


def test_a_ray_that_is_slow_to_start_is_tried_again() -> None:
    class Ray:
        def __init__(self, failures: int) -> None:
            self.failures, self.begun = failures, 0

        def init(self, **_: Any) -> None:
            self.begun += 1
            if self.begun <= self.failures:
                raise RuntimeError("The current node timed out during startup.")

        def shutdown(self) -> None:
            pass

    slow = Ray(2)
    on_ray.connect(slow, {"address": on_ray.HERE}, 3)
    assert slow.begun == 3
    with pytest.raises(EngineError, match="could not be started here: The current node timed out"):
        on_ray.connect(Ray(3), {"address": on_ray.HERE}, 3)
    with pytest.raises(EngineError, match=r"No Ray is at ray://x:1"):
        on_ray.connect(Ray(1), {"address": "ray://x:1"}, 1)


NEEDS_RAY = "Ray is an extra: pip install -r requirements-ray.txt"


def test_a_real_ray_on_this_machine(folder: Path, tmp_path: Path) -> None:
    """Two workers; a clip that can't be read is a line, as everywhere."""
    pytest.importorskip("ray", reason=NEEDS_RAY)
    (folder / "d.wav").write_bytes(b"no audio")
    (folder / "d.txt").write_text(SPOKEN)
    out = tmp_path / "out.jsonl"
    ray = ["--ray", "--processes", "2", "--threads", "1"]
    done = run(folder, out, "--engines", "steady", *ray, *PEERS)
    assert done.returncode == 1 and out.exists(), done.stderr
    lines = {line["clip"]: line for line in lines_of(out)}
    assert set(lines) == {"b.wav", "more/c.wav", "short.wav", "d.wav"}, done.stderr
    assert lines["d.wav"]["error"] and lines["short.wav"]["text"] == WORDS


def test_a_worker_of_ray_that_is_killed_costs_one_clip(folder: Path, tmp_path: Path) -> None:
    """`doomed` kills its process at its third clip."""
    pytest.importorskip("ray", reason=NEEDS_RAY)
    out = tmp_path / "out.jsonl"
    done = run(folder, out, "--engines", "doomed", "--ray", "--threads", "1", *PEERS)
    assert done.returncode == 1 and out.exists(), done.stderr
    lost = [line["error"] for line in lines_of(out) if line["error"]]
    assert len(lines_of(out)) == 3 and len(lost) == 1
    assert "The worker died" in lost[0]
