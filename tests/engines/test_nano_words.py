"""The shipped checkpoint writes the right words, with whisper's default options."""

from pathlib import Path

import jiwer
import pytest
from whisper.normalizers import EnglishTextNormalizer

from engines import registry
from engines.audio import load_clip

LARGEST = {"short": 0.1, "half_minute": 0.1, "talk": 0.2}


@pytest.mark.parametrize("sample", LARGEST)
def test_words_of_the_samples(sample: str) -> None:
    normalise = EnglishTextNormalizer()
    reference = Path(f"audio_samples/{sample}.txt").read_text()
    text = registry.get("cpu").transcribe(load_clip(f"audio_samples/{sample}.flac")).text
    rate = jiwer.wer(normalise(reference), normalise(text))
    assert rate <= LARGEST[sample], f"{rate:.1%} of the words are wrong: {text}"


def test_silence_has_no_words() -> None:
    clip = load_clip("audio_samples/silence.flac")
    assert registry.get("cpu").transcribe(clip).text.strip() == ""
