"""The sample clips: all listed, with their words."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.audio import load_clip

CLIPS = Path(__file__).resolve().parents[1] / "audio_samples"


def test_every_clip_is_listed_with_its_length_and_has_its_words() -> None:
    readme = (CLIPS / "README.md").read_text("utf-8")
    rows = [line.split("|") for line in readme.splitlines() if line.startswith("| `")]
    listed = {name.strip(" `"): float(length.removesuffix(" s ")) for _, name, length, *_ in rows}
    assert listed.keys() == {path.stem for path in CLIPS.glob("*.flac")}
    for name, seconds in listed.items():
        clip = load_clip(CLIPS / f"{name}.flac")
        words = (CLIPS / f"{name}.txt").read_text("utf-8").split()
        assert clip.seconds == pytest.approx(seconds, abs=0.1)
        assert bool(words) == clip.samples.any() == (name != "silence")
