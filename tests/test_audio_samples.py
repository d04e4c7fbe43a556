"""The sample clips: all listed, with their words, and the derived ones as they are described."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audio_samples import make
from engines.audio import load_clip

CLIPS = Path(__file__).resolve().parents[1] / "audio_samples"


def test_every_clip_is_listed_with_its_length_and_has_its_words() -> None:
    readme = (CLIPS / "README.md").read_text("utf-8")
    rows = [line.split("|") for line in readme.splitlines() if line.startswith("| `")]
    listed = {name.strip(" `"): float(length.removesuffix(" s ")) for _, name, length, *_ in rows}
    assert listed.keys() == {path.stem for path in CLIPS.glob("*.flac")}
    for name, seconds in listed.items():
        assert load_clip(CLIPS / f"{name}.flac").seconds == pytest.approx(seconds, abs=0.1)
        words = (CLIPS / f"{name}.txt").read_text("utf-8").split()
        assert bool(words) == (name != "silence")


def test_the_derived_clips_are_noise_at_10_decibels_and_silence() -> None:
    jfk = load_clip(CLIPS / "jfk.flac").samples
    noise = load_clip(CLIPS / "jfk-noisy.flac").samples - jfk
    decibels = 10 * np.log10(np.mean(jfk**2) / np.mean(noise**2))
    assert abs(decibels - make.SIGNAL_TO_NOISE_DECIBELS) < 0.1  # 16-bit rounding is far below
    assert not load_clip(CLIPS / "silence.flac").samples.any()
