"""The README's figures are made of a record, and of nothing else."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines import figures
from engines.base import EngineError
from engines.measure import phrases, record
from engines.measure.machine import Machine
from engines.measure.record import Case, Figure, Record, Result
from tests.bench.stand_ins import assert_documented

ROOT = Path(__file__).parents[1]
MACHINE = Machine(
    *("A Processor", 2, 2, 24_000_000_000, None, "Linux", "3.12.1"),
    versions={"torch": "2.13.0", "max": None},
    load_average=0.1,
)


def clip(contender: str, total: float, ratio: float, name: str = "talk", beam: int = 1) -> Result:
    """A whole run."""
    case: Case = {"model": "tiny.en", "clip": name, "beam": beam}
    derived: dict[str, Figure] = {"times_faster": ratio, "equal_tokens": True}
    derived["real_time_factor"] = total / 161.5
    derived |= {"audio_seconds": 161.5, "device": "cpu"}
    return Result("clips", case, contender, {"total": (total,)}, derived)


def written(tokens: int, cache: str, seconds: float, speed: float | None) -> Result:
    """A length of the cache's benchmark."""
    case: Case = {"size": "tiny", "tokens": tokens, "cache": cache}
    derived = {"speed_up": speed, "slope_seconds": 2e-5, "cache_bytes": 3_000_000}
    return Result("kv-cache", case, "max_full", {"total": (seconds,)}, derived)


def weights(contender: str, weights_bytes: float, of_baseline: float) -> Result:
    """What an engine holds for a checkpoint's weights."""
    held = {"held_bytes": weights_bytes + 2e7, "weights_bytes": weights_bytes}
    derived: dict[str, Figure] = {**held, "of_baseline": of_baseline}
    return Result("memory", {"size": "tiny"}, contender, {"prepare": (0.5,)}, derived)


RESULTS = (
    clip("cpu", 3.0, 1.0),
    clip("max_full", 1.5, 2.0),
    clip("faster_whisper_int8", 1.0, 3.0),
    clip("max_full", 9.0, 1.0, beam=5),
    clip("max_full", 0.5, 1.0, name="short"),
    Result("step", {"size": "tiny.en"}, "openai-whisper", {"step": (0.008, 0.004, 0.006)}),
    Result(
        *("step", {"size": "tiny.en"}, "max_full", {"step": (0.001,)}),
        {"times_faster": 6.0, "of_plain_read": 0.8},
    ),
    Result("step", {"size": "tiny"}, "openai-whisper", {"step": (0.012,)}),
    Result(
        *("step", {"size": "tiny"}, "max_full", {"step": (0.003,)}),
        {"times_faster": 4.0, "of_plain_read": 0.75},
    ),
    Result(
        *("step", {"size": "tiny"}, "plain read", {"step": (0.00225,)}),
        {"bytes_read": 72_000_000, "bytes_per_second": 32e9, "of_plain_read": 1.0},
    ),
    Result("step", {"size": "tiny.en"}, "ctranslate2_int8", {"step": (0.004,)}),
    Result("step", {"size": "tiny"}, "ctranslate2_int8", {"step": (0.009,)}),
    Result("encoder", {"size": "tiny.en"}, "torch", {"encode": (0.1,)}),
    Result(
        *("encoder", {"size": "tiny.en"}, "max", {"encode": (0.08,)}),
        {"times_faster": 1.25, "relative_error": 9.9e-7},
    ),
    Result(
        "start", {"start": "cold", "model": "tiny.en"}, "cpu", {"ready": (1.3,), "prepare": (0.1,)}
    ),
    Result(
        "start", {"start": "warm", "model": "tiny.en"}, "cpu", {"ready": (1.2,), "prepare": (0.1,)}
    ),
    written(16, "with", 0.1, 2.0),
    written(32, "with", 0.2, 4.0),
    written(32, "without", 0.8, None),
    weights("cpu", 152e6, 1.0),
    weights("max_full", 76e6, 0.5),
)
SETTINGS: dict[str, dict[str, Any]] = {
    "clips": {"baseline": "cpu", "repeats": 3, "beams": [1, 5]},
    **{name: {"repeats": 5, "tokens": 64} for name in ("step", "encoder", "kv-cache")},
    "start": {"cold": 1},
    "memory": {"baseline": "cpu", "repeats": 3},
}
FAILED = Result(
    "clips", {"model": "tiny.en", "clip": "talk", "beam": 1}, "gpu", error="no CUDA device"
)
DONE = Record("0" * 12, "2026-01-02T03:04:05+00:00", ("all",), MACHINE, SETTINGS, RESULTS)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the two texts, beside a record."""
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/benchmarks.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    record.write(DONE, tmp_path / figures.RECORD)
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    return tmp_path


def test_ratios_come_first_and_medians_are_the_record_s() -> None:
    short = figures.render_short(DONE)
    machine = "Measured on 2 cores of A Processor with 24 GB, no GPU, on 2026-01-02; torch 2.13.0"
    assert machine in " ".join(short.split())
    assert "| nano | 6.00 times faster | 80% | 6.00 | 1.00 | – | 4.00 |" in short
    assert "| tiny | 4.00 times faster | 75% | 12.0 | 3.00 | 2.25 | 9.00 |" in short
    assert "Here: tiny 72 MB at 32.0 GB/s." in " ".join(short.split())
    assert "| nano | 1.25 times faster | 100 | 80.0 | 9.9e-07 |" in short
    assert "| `cpu` | – | 3.00 |" in short
    assert "| `max_full` | 2.00 times faster | 1.50 | 0.009 | – | yes |" in short
    assert "| tiny | 152 | 76 | 0.50 |" in short
    assert "Against `faster_whisper_int8` `max_full` is 1.5 times slower." in short
    assert "Against `ctranslate2_int8` `max_full` is 3.0 to 4.0 times faster." in short
    assert "`faster_whisper_…` is the package itself" in " ".join(short.split())
    assert "| `cpu` | 1.30 | 1.20 | 0.10 | 0.10 |" in short
    assert "| `max_full` | 4.0 | 0.20 | 0.80 | 20.0 | 20.0 | 3.0 |" in short
    assert "| 9.00 | 0.056" not in short and "`python -m engines.bench step --repeats 5`:" in short
    assert "`python -m engines.bench clips --clips talk --beams 1 --repeats 3`:" in short


def test_a_sentence_has_the_ratios_before_anything_else() -> None:
    first = " ".join(figures.render_short(DONE).split("\n\n")[0].split())
    assert first == (
        "**Against openai-whisper on the same processor, `max_full` writes the talk 2.00 times "
        "faster, takes a decode step 4.0 to 6.0 times faster, reads memory in it at 75% to 80% "
        "of the speed of a plain read and keeps weights in 0.50 of the memory.**"
    )
    assert figures.summarise(replace(DONE, results=RESULTS[:1])) == ""


def test_a_run_on_an_accelerator_is_not_called_one_on_the_same_processor() -> None:
    ours = replace(RESULTS[1], figures={**RESULTS[1].figures, "device": "gpu"})
    text = figures.summarise(replace(DONE, results=(RESULTS[0], ours, *RESULTS[2:])))
    assert "the talk" not in text and "takes a decode step" in text


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([4.0, 6.0], "4.0 to 6.0 times faster"),
        ([4.0, 4.01], "4.0 times faster"),
        ([0.5, 0.25], "2.0 to 4.0 times slower"),
        ([0.8, 1.2], "from 1.2 times slower to 1.2 times faster"),
        ([0.5, 3.0], "from 2.0 times slower to 3.0 times faster"),
        ([1.0, 0.99], "as fast"),
        ([1.0, 2.0], "up to 2.0 times faster"),
        ([1.0, 0.5], "up to 2.0 times slower"),
    ],
)
def test_ratios_on_both_sides_of_one_are_not_called_faster(ratios: list[float], words: str) -> None:
    assert phrases.pace(ratios) == words


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        *((None, "–"), (1.0, "–"), (1.004, "as fast"), (0.997, "as fast")),
        *((1.5, "1.50 times faster"), (0.5, "2.00 times slower")),
    ],
)
def test_a_ratio_is_never_less_than_one(ratio: float | None, words: str) -> None:
    assert phrases.faster(Result("clips", {}, "x", {}, {"times_faster": ratio})) == words


def test_the_drawing_s_length_is_the_clip_s() -> None:
    drawn = figures.draw_talk(DONE)
    assert "The talk of 161.5 s, start to end" in drawn and "1.50 s, 2.00 times faster" in drawn


def test_the_long_form_has_every_result_and_setting() -> None:
    text = figures.render_long(DONE)
    assert "Settings: baseline cpu, repeats 3, beams 1 5." in text
    assert [text.count(f"### {name}\n") for name in SETTINGS] == [1] * 6
    broken = replace(DONE, results=(*RESULTS, FAILED))
    assert "gpu failed: no CUDA device" in figures.render_long(broken)


def test_a_record_read_again_is_the_same(tmp_path: Path) -> None:
    record.write(DONE, tmp_path / "record.json")
    again = record.read(tmp_path / "record.json")
    assert again.as_json() == DONE.as_json()
    assert_documented(json.loads((tmp_path / "record.json").read_text()))


def test_one_command_writes_all_and_a_second_run_changes_nothing(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = figures.put_between((checkout / "README.md").read_text(), "hand-written")
    (checkout / "README.md").write_text(before)
    assert figures.main(["--check"]) == 1
    assert (checkout / "README.md").read_text() == before
    assert figures.main([]) == 0
    readme = (checkout / "README.md").read_text()
    assert "6.00 times faster" in readme and "hand-written" not in readme
    outside = [text.split(figures.END)[1] for text in (before, readme)]
    assert outside[0] == outside[1] and readme.split(figures.BEGIN)[0] in before
    for name in ("talk", "kv-cache"):
        assert (checkout / "docs" / "images" / f"{name}.svg").read_text().startswith("<svg")
    capsys.readouterr()
    assert figures.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_what_can_t_be_a_record_is_refused(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record.write(replace(DONE, interrupted=True), checkout / figures.RECORD)
    assert figures.main([]) == 1
    assert "was interrupted" in capsys.readouterr().err
    record.write(replace(DONE, results=(*RESULTS, FAILED)), checkout / figures.RECORD)
    assert figures.main([]) == 1
    assert "has failures: gpu in clips (no CUDA device)" in capsys.readouterr().err
    for name in ("clips", "memory"):
        other = {**SETTINGS, name: {**SETTINGS[name], "baseline": "max_full"}}
        record.write(replace(DONE, settings=other), checkout / figures.RECORD)
        assert figures.main([]) == 1
        assert f"compares {name} with max_full, not with cpu" in capsys.readouterr().err
    (checkout / figures.RECORD).unlink()
    assert figures.main([]) == 1
    assert "run `make benchmark-save` first" in capsys.readouterr().err
    with pytest.raises(EngineError, match="once each"):
        figures.put_between("no comments", "figures")


def test_every_task_and_module_shown_in_the_docs_exists() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    tasks, modules = (
        re.findall(r"\bmake ([a-z-]+)", text),
        re.findall(r"python -m ([a-z_.]+)", text),
    )
    makefile = (ROOT / "Makefile").read_text()
    assert tasks and modules
    assert all(f"\n{task}: " in makefile for task in tasks)
    assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in modules)


def test_the_committed_figures_are_those_of_the_committed_record(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not (ROOT / figures.RECORD).exists():
        pytest.skip(f"no {figures.RECORD} is committed yet: `make benchmark-save` measures one")
    written = json.loads((ROOT / figures.RECORD).read_text())
    assert_documented(written)
    assert [each["error"] for each in written["results"] if each["error"]] == []
    assert written["interrupted"] is False
    assert figures.main(["--check"]) == 0, capsys.readouterr().out
