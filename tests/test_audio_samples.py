"""The sample clips: format, lengths, and a reference text for each."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

CLIPS = Path(__file__).resolve().parents[1] / "audio_samples"
SECONDS = {"short": (3, 5), "short_noisy": (3, 5), "half_minute": (27, 30), "silence": (4, 10)}
NAMES = (*SECONDS, "talk")


@pytest.mark.parametrize("name", NAMES)
def test_clip_is_small_mono_flac_at_16_khz_with_a_reference(name: str) -> None:
    info = soundfile.info(CLIPS / f"{name}.flac")
    assert (info.samplerate, info.channels, info.format) == (16000, 1, "FLAC")
    assert (CLIPS / f"{name}.flac").stat().st_size < 3_000_000
    words = (CLIPS / f"{name}.txt").read_text("utf-8").split()
    assert bool(words) == (name != "silence")


@pytest.mark.parametrize("name", SECONDS)
def test_clip_length(name: str) -> None:
    low, high = SECONDS[name]
    assert low <= soundfile.info(CLIPS / f"{name}.flac").duration <= high


def test_talk_lasts_exactly_161_5_seconds() -> None:
    assert soundfile.info(CLIPS / "talk.flac").frames == 161.5 * 16000


def test_noisy_clip_is_the_short_one_at_10_decibels() -> None:
    clean, _ = soundfile.read(CLIPS / "short.flac")
    noisy, _ = soundfile.read(CLIPS / "short_noisy.flac")
    noise = noisy - clean
    decibels = 10 * np.log10(np.mean(clean**2) / np.mean(noise**2))
    assert abs(decibels - 10) < 0.1  # 16-bit rounding is 60 dB further down
    assert (CLIPS / "short.txt").read_text() == (CLIPS / "short_noisy.txt").read_text()


def test_silence_is_digital_silence() -> None:
    samples, _ = soundfile.read(CLIPS / "silence.flac")
    assert not samples.any()
