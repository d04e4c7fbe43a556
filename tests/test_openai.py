"""The routes of OpenAI's audio API, called by its own client and as any program calls them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo import middleware
from engines import audio, registry
from engines.base import Clip, Options, Transcript
from tests import fakes
from tests.fake_page import FakePage
from tests.test_mcp import call

JFK = Path("audio_samples/jfk.flac")
SPOKEN = "ask not what your country can do for you"


class Recorder(fakes.FakeEngine):
    """A fake that keeps the options of its last run."""

    asked: Options | None = None

    def transcribe(self, clip: Clip, *how: Any) -> Transcript:
        self.asked = how[0]
        return super().transcribe(clip, *how)


def post(page: FakePage, clip: Path, task: str = "transcriptions", **fields: Any) -> httpx.Response:
    with clip.open("rb") as file:
        files = {"file": (clip.name, file)}
        address = f"{page.url}v1/audio/{task}"
        return httpx.post(address, data={"model": "whisper-1", **fields}, files=files, timeout=60)


@pytest.fixture
def clip(sample_folder: Path) -> Path:
    return sample_folder / "columbia.flac"


def test_each_format_has_the_words(fake_page: FakePage, clip: Path, uploads: Path) -> None:
    assert post(fake_page, clip).json() == {"text": fakes.WORDS}
    assert post(fake_page, clip, response_format="text").text == f"{fakes.WORDS}\n"
    srt = post(fake_page, clip, response_format="srt", max_line_width="20", max_line_count="1").text
    assert srt.startswith("1\n00:00:00,000 --> ") and srt.count("-->") == 3
    assert post(fake_page, clip, response_format="vtt").text.startswith("WEBVTT\n\n00:00.000 -->")
    asked: dict[str, Any] = {"response_format": "verbose_json"}
    asked["timestamp_granularities[]"] = ["word", "segment"]
    found = post(fake_page, clip, **asked).json()
    assert (found["task"], found["language"], found["duration"]) == ("transcribe", "english", 6.0)
    assert found["words"][1]["word"] == "compiler" and found["words"][1]["start"] > 0
    assert [each["id"] for each in found["segments"]] == [0, 1, 2]
    assert "words" not in post(fake_page, clip, response_format="verbose_json").json()
    assert not [path for path in uploads.rglob("*") if path.name == clip.name]


def test_options_reach_the_engine_that_was_named(fake_page: FakePage, clip: Path) -> None:
    cpu, other = Recorder(), Recorder("max_hybrid")
    fake_page.use(cpu=cpu, max_hybrid=other)
    post(fake_page, clip, prompt="Names", temperature="0", language="fr", model="base")
    assert cpu.asked == Options("fr", 1, initial_prompt="Names")
    asked = {"engine": "max_hybrid", "temperature": "0.4", "beam_size": "3", "best_of": "2"}
    assert post(fake_page, clip, "translations", **asked).status_code == 200
    assert other.asked == Options(None, 3, temperatures=(0.4,), best_of=2, task="translate")


def test_what_can_t_be_done_is_an_error_in_their_form(
    fake_page: FakePage, clip: Path, tmp_path: Path
) -> None:
    (letter := tmp_path / "letter.wav").write_text("not audio")
    fake_page.use(max_hybrid=fakes.fake_max(error=ValueError("broken")))
    for path, fields, status, sentence in (
        (clip, {"model": "gpt-5"}, 400, "model can't be 'gpt-5': use one of base"),
        (clip, {"engine": "gpu"}, 400, "GPU can't run here"),
        (clip, {"temperature": "2"}, 400, "temperatures must be numbers from 0 to 1"),
        (clip, {"prompts": "x"}, 400, "There is no field 'prompts'"),
        (clip, {"response_format": "docx"}, 400, "response_format must be one of json"),
        (clip, {"timestamp_granularities[]": "word"}, 400, "needs verbose_json"),
        (clip, {"max_line_count": "99"}, 400, "max_line_count must be a whole number from 1 to 10"),
        (letter, {}, 400, "letter.wav holds no audio"),
        (clip, {"engine": "max_hybrid"}, 500, "ValueError: broken"),
    ):
        answer = post(fake_page, path, **fields)
        assert answer.status_code == status and sentence in answer.json()["error"]["message"]
    address = f"{fake_page.url}v1/audio/transcriptions"
    assert "Send a form" in httpx.post(address, json={}).json()["error"]["message"]
    assert "file must be" in httpx.post(address, files={"model": (None, "base")}).text
    assert httpx.get(address).status_code == 405


def test_limits_and_the_password_hold_here_as_well(
    serve_fakes: Callable[..., FakePage], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(middleware.AUTH, "me:hush-hush")
    page = serve_fakes()
    address, whole = f"{page.url}v1/audio/transcriptions", {"file": ("a", clip.read_bytes())}
    assert "asks for a name" in httpx.post(address, files=whole).json()["error"]["message"]
    assert httpx.post(address, files=whole, auth=("me", "hush-hush")).status_code == 200
    for key, status in (("me:hush-hush", 200), ("me:hush", 401)):
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.post(address, files=whole, headers=headers).status_code == status
    assert httpx.get(page.url, headers={"authorization": "Bearer me:hush-hush"}).status_code == 401
    monkeypatch.setattr(middleware, "MOST_BYTES", 100)
    assert httpx.post(address, files=whole, auth=("me", "hush-hush")).status_code == 413


def test_openai_s_client_and_an_mcp_client_transcribe_a_sample(fake_page: FakePage) -> None:
    """By the baseline itself, on the real clip."""
    openai = pytest.importorskip("openai")
    engine = registry.get(registry.BASELINE, "tiny.en")
    fake_page.use(cpu=engine)
    fake_page.load_clip = audio.load_clip
    client = openai.OpenAI(base_url=f"{fake_page.url}v1", api_key="none", max_retries=0)
    asked: dict[str, Any] = {"model": "tiny.en", "response_format": "verbose_json"}
    with JFK.open("rb") as file:
        found = client.audio.transcriptions.create(
            file=file, timestamp_granularities=["word"], temperature=0, **asked
        )
    assert SPOKEN in found.text and found.language == "english"
    assert found.duration == pytest.approx(11.0) and found.segments[0].avg_logprob < 0
    assert [word.word for word in found.words[:3]] == ["And", "so", "my"]
    with pytest.raises(openai.BadRequestError, match="choose a multilingual model"):
        client.audio.translations.create(file=JFK, model="tiny.en")
    code = base64.b64encode(JFK.read_bytes()).decode()
    asked = {"clip_base64": code, "engines": ["cpu"], "model": "tiny.en", "clip_timestamps": [4.0]}
    record = call(fake_page.url, "compare_clip", asked).structuredContent
    assert "your country can do for you" in record["lanes"][0]["text"]
    assert "fellow" not in record["lanes"][0]["text"], "it begins later"
