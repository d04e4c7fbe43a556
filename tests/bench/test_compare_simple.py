"""What every engine wrote, one under another; and whether a GPU works."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import compare_simple, gpu_check, registry
from engines.audio import load_clip
from engines.base import EngineError, FloatArray, Options
from tests import fakes

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "compare-simple-line.schema.json").read_text()
)
SPOKEN = "The compiler turns a graph into fast code for every chip"
ENGINES = {
    "max_full": fakes.FakeEngine("max_full", words=f"{fakes.WORDS} twice"),
    "cpu": fakes.FakeEngine("cpu"),
    "same": fakes.FakeEngine("same"),
    "broken": fakes.FakeEngine("broken", error=EngineError("It broke.")),
}


@pytest.fixture
def clip(sample_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A clip with its reference, and fakes in the registry's place."""
    monkeypatch.setattr(registry, "get", lambda key, model: ENGINES[key])
    monkeypatch.setattr(registry, "available", lambda: tuple(ENGINES))
    return str(sample_folder / "short.flac")


def test_texts_stand_under_one_another_with_differences_marked(
    clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_simple.main([clip, "--engines", "max_full,cpu,same"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    places = [shown.index(part) for part in ("the words spoken", "cpu,", "max_full,", "same,")]
    assert places == sorted(places), "the baseline comes before the others"
    assert "turns [-a-] {+the+} graph into" in shown
    assert "1 word unlike the words spoken" in shown
    assert "every chip {+twice+}" in shown and "1 word unlike cpu" in shown
    assert "the same words as cpu" in shown
    # Of 11 words one is another, or one is another and one too many.
    assert "word error rate 9.1%" in shown and "word error rate 18.2%" in shown
    assert "\x1b" not in shown


def test_a_failed_engine_is_named_and_the_rest_are_shown(
    clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_simple.main([clip, "--engines", "cpu,broken,same"]) == 1
    shown = capsys.readouterr().out
    assert "failed: It broke." in shown and "same," in shown


@pytest.mark.parametrize(("engines", "status"), [("cpu,max_full", 2), ("cpu,same", 0)])
def test_differences_are_an_exit_status_for_who_asks(
    engines: str, status: int, clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_simple.main([clip, "--engines", engines, "--strict"]) == status


def test_lines_of_json_for_programs(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    compare_simple.main([clip, "--engines", "cpu,max_full,broken", "--json"])
    cpu, ours, broken = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    jsonschema = pytest.importorskip("jsonschema")
    for line in (cpu, ours, broken):
        jsonschema.validate(line, SCHEMA, cls=jsonschema.Draft202012Validator)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**line, "more": 1}, SCHEMA)
    assert len({line["run"] for line in (cpu, ours, broken)}) == 1
    assert cpu["engine"] == "cpu" and cpu["compared_with"] == "the words spoken"
    assert cpu["changes"] == [{"expected": "a", "found": "the"}]
    assert ours["changes"] == [{"expected": "", "found": "twice"}]
    assert ours["compared_with"] == "cpu" and ours["seconds"]["total"] > 0
    assert (broken["engine"], broken["error"]) == ("broken", "It broke.")
    assert broken["clip"] == "short.flac" and broken["model"] == "tiny.en" and "text" not in broken


def test_words_are_scored_by_the_normalizer_of_their_language(clip: str) -> None:
    """The English one takes `colour` and `color` for the same word; the basic one does not."""
    engine = fakes.FakeEngine("cpu")
    transcript = replace(engine.transcribe(load_clip(clip), Options()), text="color")
    for language, errors in (("en", 0), ("de", 1)):
        found = compare_simple.score_of(replace(transcript, language=language), "colour")
        assert found.errors == errors


def test_a_failure_is_logged_at_the_default_level(
    clip: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    monkeypatch.delenv("LOG_FORMAT", raising=False)
    assert compare_simple.main([clip, "--engines", "broken"]) == 1
    said = capsys.readouterr().err
    assert "failed" in said and "engine=broken" in said and "clip=short.flac" in said


def test_a_reference_that_is_no_text_is_refused(
    clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.txt").write_bytes("schön".encode("latin-1"))
    assert compare_simple.main([clip, "--reference", str(tmp_path / "words.txt")]) == 1
    assert "words.txt is not text in UTF-8" in capsys.readouterr().err


def test_a_reference_that_is_not_there_is_refused(
    clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_simple.main([clip, "--reference", "/no/such.txt"]) == 1
    assert "/no/such.txt can't be read" in capsys.readouterr().err


# The GPU.


def test_both_sides_say_why_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "why_no_cuda", lambda: "no CUDA device was found")
    monkeypatch.setattr(gpu_check, "why_no_max", lambda: "max is not installed")
    assert gpu_check.main() == 1
    torch, ours = capsys.readouterr().out.splitlines()
    assert torch.startswith("PyTorch  no: no CUDA device was found")
    assert ours == "MAX      no: max is not installed"


def test_what_one_side_raises_does_not_hide_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Any:
        raise RuntimeError("driver\ntoo old")

    monkeypatch.setattr(gpu_check, "check_torch", fail)
    monkeypatch.setattr(gpu_check, "check_max", lambda: ["cuda", "sm_90a"])
    assert gpu_check.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "PyTorch  no: RuntimeError: driver too old",
        "MAX      cuda, sm_90a",
    ]


def test_a_wrong_sum_is_no_gpu() -> None:
    def wrong(a: FloatArray, b: FloatArray) -> FloatArray:
        return (a * b + a * np.float32(1.001)).astype(np.float32)

    assert "right" in gpu_check.hold(lambda a, b: a * b + a)
    with pytest.raises(EngineError, match="is off by"):
        gpu_check.hold(wrong)


@pytest.mark.gpu
def test_a_gpu_for_real() -> None:
    if reason := gpu_check.why_no_cuda():
        pytest.skip(reason)
    assert "right" in gpu_check.check_torch()[-1]


@pytest.mark.max
def test_max_compiles_and_runs_a_small_graph(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("max")
    from engines.max_graph import check

    check.check_small_graph()
    assert "compile a sum" in capsys.readouterr().out
