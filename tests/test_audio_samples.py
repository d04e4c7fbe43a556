"""The sample clips: format, lengths, and a reference text for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_samples import make
from engines.audio import load_clip

CLIPS = Path(__file__).resolve().parents[1] / "audio_samples"
SECONDS = {
    "jfk": 11.0,
    "librivox-sense": 24.73,
    "columbia": 198.77,
    "jfk-noisy": 11.0,
    "french-prompt": 8.48,
    "silence": 6.0,
}


def test_every_clip_is_listed_with_its_source() -> None:
    readme = (CLIPS / "README.md").read_text("utf-8")
    assert {path.stem for path in CLIPS.glob("*.flac")} == set(SECONDS)
    assert all(f"\n| `{name}` |" in readme for name in SECONDS)


@pytest.mark.parametrize("name", SECONDS)
def test_a_clip_is_a_flac_of_its_length_with_its_words(name: str) -> None:
    info = soundfile.info(CLIPS / f"{name}.flac")
    assert info.format == "FLAC"
    assert info.duration == pytest.approx(SECONDS[name], abs=0.01)
    words = (CLIPS / f"{name}.txt").read_text("utf-8").split()
    assert bool(words) == (name != "silence")


def test_the_derived_clips_are_noise_at_10_decibels_and_silence() -> None:
    jfk = load_clip(CLIPS / "jfk.flac").samples
    noise = load_clip(CLIPS / "jfk-noisy.flac").samples - jfk
    decibels = 10 * np.log10(np.mean(jfk**2) / np.mean(noise**2))
    assert abs(decibels - make.SIGNAL_TO_NOISE_DECIBELS) < 0.1  # 16-bit rounding is far below
    assert not load_clip(CLIPS / "silence.flac").samples.any()
