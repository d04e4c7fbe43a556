"""The named endpoints, called as programs call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from engines.base import Clip, EngineError, Listener
from engines.clip_source import Source, Track
from tests import fakes
from tests.fake_page import FakePage
from tests.processes import PATIENCE


@pytest.fixture
def client(fake_page: FakePage, connect: Callable[..., Client]) -> Client:
    """A program that calls the page."""
    return connect(fake_page.url)


def test_compare_gives_every_lane_and_its_differences(fake_page: FakePage, client: Client) -> None:
    fake_page.use(max_hybrid=fakes.fake_max(words="The compiler turned"))
    record = client.predict(sample="jfk", api_name="/compare")
    assert [lane["engine"] for lane in record["lanes"]] == ["cpu", "max_hybrid"]
    assert record["lanes"][1]["against_baseline"]["deleted"] == 8
    assert record["reference"].startswith("The compiler turns a graph")
    assert record["settings"]["schedule"] == "one at a time" and not record["shared_processor"]
    assert record["settings"]["model"] == "base" and record["settings"]["language"] is None


def test_a_clip_of_one_s_own_with_settings(
    fake_page: FakePage, client: Client, sample_folder: Path
) -> None:
    tracks = (Track(1, "aac", 2), Track(2, "aac", 2, default=True))
    source = Source(tracks, 2, 1, ((0.0, 3.0),), ("One note.",))
    asked: list[tuple[int, ...]] = []

    def read(path: str, listener: Listener, *picked: int) -> Clip:
        asked.append(picked)
        return replace(fakes.read_fake_clip(path), source=source)

    fake_page.load_clip = read
    settings = {"engines": ["max_hybrid"], "model": "base", "language": "en", "beam_size": 5}
    settings |= {"schedule": "parallel", "word_timestamps": True, "repeats": 3}
    settings |= {"track": 2, "channel": 1, "task": "translate", "temperatures": [0.0]}
    clip = handle_file(sample_folder / "columbia.flac")
    record = client.predict(clip=clip, **settings, api_name="/compare")
    (lane,) = record["lanes"]
    assert record["clip"] == "columbia.flac" and len(lane["runs"]) == 3
    assert lane["segments"][0]["words"][0]["text"] == " The"
    told = {**settings, "gpu_dtype": "float32", "temperatures": [0.0], "best_of": None}
    assert record["settings"].items() >= told.items() and asked == [(2, 1)]
    assert record["tracks"][1]["default"] and record["track"] == 2
    assert list(record["notes"]) == ["One note."]
    first = lane["segments"][0]
    assert first["start"] == 3.0 and first["words"][0]["start"] == 3.0, "by the file's clock"


def test_a_failed_engine_is_an_error_alone_and_a_lane_among_others(
    fake_page: FakePage, client: Client
) -> None:
    fake_page.use(max_hybrid=fakes.fake_max(error=ValueError("broken")))
    lane = client.predict(sample="jfk", engine="cpu", api_name="/transcribe")
    assert lane["text"] == fakes.WORDS and lane["seconds"]["total"] > 0
    with pytest.raises(AppError, match="ValueError: broken"):
        client.predict(sample="jfk", engine="max_hybrid", api_name="/transcribe")
    record = client.predict(sample="jfk", api_name="/compare")
    assert [lane["state"] for lane in record["lanes"]] == ["done", "failed"]
    assert record["lanes"][1]["reason"] == "ValueError: broken"


def test_only_these_are_public_and_they_are_documented(client: Client) -> None:
    info = client.view_api(return_format="dict", print_info=False)
    assert isinstance(info, dict)
    assert set(info["named_endpoints"]) == {"/compare", "/transcribe", "/why", "/engines"}
    assert not info["unnamed_endpoints"]
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    for name, endpoint in info["named_endpoints"].items():
        assert f"`{name}`" in page
        for parameter in endpoint["parameters"]:
            assert parameter["type"] and f"`{parameter['parameter_name']}`" in page
        (returned,) = endpoint["returns"]
        fields = returned["type"].get("items", returned["type"])["properties"]
        assert fields and all(f"`{field}`" in page for field in fields)
    found = client.predict(api_name="/engines")
    assert [record["engine"] for record in found] == ["cpu", "gpu", "max_hybrid"]
    assert [record["available"] for record in found] == [True, False, True]
    assert found[1]["reason"] == "no CUDA device was found"


def test_why_gives_the_step_and_who_is_right(fake_page: FakePage, client: Client) -> None:
    fake_page.use(max_hybrid=fakes.fake_max(words="The compiler turned"))
    found = client.predict(sample="jfk", engine="max_hybrid", api_name="/why")
    assert found["engines"] == ["cpu", "max_hybrid"] and found["right_engine"] == "cpu"
    assert [each["text"] for each in found["candidates"]] == [" turns", " turned"]
    assert len(found["pairings"]) == 4 and found["judge"]["margin"] == 0.25
    assert found["summary"][1].startswith("The encoders part them")
    with pytest.raises(AppError, match="one does not differ from itself"):
        client.predict(sample="jfk", engine="cpu", api_name="/why")
    fake_page.use(max_hybrid=fakes.fake_max(error=EngineError("It broke.")))
    with pytest.raises(AppError, match="It broke"):
        client.predict(sample="jfk", engine="max_hybrid", api_name="/why")


def test_wrong_calls_are_refused_in_a_sentence_and_their_clip_goes(
    client: Client, tmp_path: Path, uploads: Path
) -> None:
    (tmp_path / "letter.wav").write_text("not audio")
    own = handle_file(tmp_path / "letter.wav")
    for arguments, sentence in (
        ({"sample": "../jfk"}, "use one of jfk, columbia"),
        ({"clip": own}, "letter.wav holds no audio"),
        ({"clip": own, "sample": "jfk"}, "not both"),
        ({"clip": own, "model": "huge"}, "use one of base"),
        (
            {"sample": "jfk", "clip_timestamps": [7.0]},
            "begins at 7 s, and fake ends at 6.00 s",
        ),
    ):
        with pytest.raises(AppError, match=sentence) as caught:
            client.predict(api_name="/compare", **arguments)
        refusal = str(caught.value)
        assert refusal.endswith(".") and "\n" not in refusal and "Traceback" not in refusal
        assert not [path for path in uploads.rglob("*") if path.is_file()], arguments


def test_a_caller_who_leaves_frees_the_processor(
    fake_page: FakePage, connect: Callable[..., Client]
) -> None:
    """By its heartbeat alone, as `Client.close` leaves: its streams stay open."""
    engine = fakes.FakeEngine(last_word=Event())
    fake_page.use(cpu=engine)
    leaving, other = (connect(fake_page.url) for _ in range(2))
    waiting = leaving.submit(sample="jfk", engine="cpu", api_name="/transcribe")
    assert engine.prepared.wait(PATIENCE)
    leaving.close()
    lane = other.predict(sample="jfk", engine="max_hybrid", api_name="/transcribe")
    assert lane["text"] == fakes.WORDS
    waiting.cancel()
