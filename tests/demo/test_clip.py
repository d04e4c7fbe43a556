"""What the page shows of a visitor's clip: something to play, its tracks and its channels."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from demo import clip, uploads
from demo.comparison import Backend
from demo.request import ComparisonRequest
from engines import worker
from engines.base import SAMPLE_RATE
from tests.bad_input.corpus import tone
from tests.fake_page import make_backend
from tests.test_audio import write_film


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.setenv(uploads.VARIABLE, str(tmp_path))
    yield replace(make_backend(tmp_path), show_clip=worker.show_clip)
    worker.reader.close()


def test_a_film_is_heard_as_a_copy_and_its_tracks_and_channels_can_be_chosen(
    backend: Backend, tmp_path: Path
) -> None:
    film, sound = tmp_path / "upload" / "film", tone(1.0)
    film.parent.mkdir()
    write_film(tmp_path / "film.mkv", sound[None] * 0, np.stack([sound, sound * 0]), late=1.0)
    shutil.move(tmp_path / "film.mkv", film)  # a name without an ending
    player, track, channel, note = clip.show_clip(backend, str(film), 0, 0)
    samples, rate = soundfile.read(player)
    assert rate == SAMPLE_RATE and len(samples) == 2 * SAMPLE_RATE, "on the film's clock"
    assert not samples[: SAMPLE_RATE - 100].any() and np.abs(samples[SAMPLE_RATE:]).max() > 0.1
    assert track["visible"] and [value for _, value in track["choices"]] == [0, 1, 2]
    assert track["choices"][2][0] == "2 (Title 2, pcm_s16le, stereo, default)"
    assert channel["choices"] == [("All mixed", 0), ("Left", 1), ("Right", 2)]
    right, _, channel, _ = clip.show_clip(backend, player, 0, 2)
    assert not note and not soundfile.read(right)[0].any() and channel["value"] == 2
    choices = backend.choices()
    request = ComparisonRequest(engines=("cpu",), upload=right, channel=2)
    found = request.find_clip(choices)
    assert found and found.path == film and found.title == "film"
    assert found.key == f"upload/{Path(right).name}", "as the page names what the player has"


def test_what_browsers_play_is_left_as_it_is_and_what_is_no_clip_too(
    backend: Backend, tmp_path: Path
) -> None:
    path = tmp_path / "upload <b>.wav"
    soundfile.write(path, tone(0.5), SAMPLE_RATE)
    heard = clip.show_clip(backend, str(path), 0, 0)
    path.write_bytes(b"no sound at all")
    refused = clip.show_clip(backend, str(path), 0, 0)
    for player, track, channel, _ in (heard, refused):
        assert player == {"__type__": "update"}
        assert not track["visible"] and not channel["visible"]
    assert not heard[3] and "upload &lt;b&gt;.wav can&#x27;t be read as audio" in refused[3]
    assert list(tmp_path.iterdir()) == [path]
