"""The two commands for a terminal: one clip through one engine, and the list of engines."""

import importlib.util
import json
from typing import Any

import pytest

from engines import max_hybrid, registry, transcribe
from engines.base import EngineError

CLIP = "audio_samples/jfk.flac"


@pytest.fixture(autouse=True)
def no_engine_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_engines", {})


def test_json_is_one_object_with_the_documented_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe.main([CLIP, "--engine", "cpu", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert list(found) == [
        *("engine", "model", "device", "dtype", "language", "text", "tokens", "segments"),
        *("seconds", "audio_seconds"),
    ]
    assert (found["engine"], found["model"], found["device"]) == ("cpu", "tiny.en", "cpu")
    assert (found["dtype"], found["language"]) == ("float32", "en")
    assert set(found["seconds"]) == {"prepare", "audio", "mel", "encode", "decode", "total"}
    assert found["audio_seconds"] == pytest.approx(3.6, abs=1.0)
    tokens = [token for segment in found["segments"] for token in segment["tokens"]]
    assert found["tokens"] == tokens and "words" not in found["segments"][0]
    assert found["text"] == "".join(segment["text"] for segment in found["segments"])


def test_options_reach_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--language", "en", "--beam-size", "2", "--word-timestamps", "--json"]
    assert transcribe.main([CLIP, "--engine", "cpu", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    words = [word for segment in found["segments"] for word in segment["words"]]
    assert "".join(word["text"] for word in words).split() == found["text"].split()
    assert all(0 <= word["start"] <= word["end"] <= found["audio_seconds"] for word in words)


def test_without_json_there_is_a_line_for_each_segment(capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe.main([CLIP, "--engine", "cpu"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed and all(line.startswith("[") and "→" in line for line in printed)


def test_a_beam_that_is_none_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe.main([CLIP, "--engine", "cpu", "--beam-size", "0"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_the_list_has_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    registry.main()
    lines = capsys.readouterr().out.splitlines()
    for status in registry.statuses():
        (line,) = [each for each in lines if each.split()[0] == status.key]
        assert (status.reason or "available") in line


def test_without_max_its_engines_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, package: str | None = None) -> Any:
        return None if name.split(".")[0] == "max" else importlib.util.find_spec(name, package)

    monkeypatch.setattr(max_hybrid, "find_spec", find)
    reasons = {status.key: status.reason for status in registry.statuses()}
    assert reasons["cpu"] is None
    assert "not installed" in str(reasons["max_hybrid"]) and reasons["max_full"]
    with pytest.raises(EngineError, match="not installed"):
        registry.get("max_full", "tiny.en")
