"""Finding speech first: silence is skipped, times stay, the language is taken from what is said."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engines import registry, speech
from engines.audio import load_clip
from engines.base import SAMPLE_RATE, SILENT, Clip, EngineError, Options, Stopped
from tests.processes import Recorder

JFK, FRENCH = Path("audio_samples/jfk.flac"), Path("audio_samples/french-prompt.flac")


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


@pytest.fixture
def clip() -> Clip:
    """5 s of silence, 11 of speech, 6 of silence, 11 of speech and 3 of silence."""
    pytest.importorskip("silero_vad")
    said = load_clip(JFK).samples
    return Clip(np.concatenate([silence(5), said, silence(6), said, silence(3)]), "two")


def test_speech_is_found_within_the_parts_that_were_asked_for(clip: Clip) -> None:
    threads = torch.get_num_threads()
    found = speech.list_speech(clip, (), SILENT)
    assert found == pytest.approx((5.0, 16.3, 22.0, 33.2), abs=0.4)
    assert torch.get_num_threads() == threads, "which the package sets to one"
    part = speech.list_speech(clip, (8.0, 12.0, 20.0), SILENT)
    assert part[:2] == (8.0, 12.0) and part[2:] == pytest.approx(found[2:])
    assert speech.list_speech(Clip(silence(9)), (), SILENT) == speech.NOTHING


def test_a_search_is_stopped(clip: Clip) -> None:
    with pytest.raises(Stopped):
        speech.list_speech(clip, (), Recorder(patience=0))


def test_without_the_package_a_sentence_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    speech.load_model.cache_clear()
    with pytest.raises(EngineError, match=r"pip install -r requirements.txt brings it"):
        speech.load_model()
    speech.load_model.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["cpu", "max_hybrid", "max_full", "openvino"])
def test_a_language_behind_silence_is_known_and_its_words_keep_their_times(key: str) -> None:
    pytest.importorskip("silero_vad")
    if reason := registry.row(key).why_unavailable():
        pytest.skip(reason)
    late = Clip(np.concatenate([silence(31), load_clip(FRENCH).samples]), "late")
    for found, wanted in ((True, "fr"), (False, "en")):
        options = Options(temperatures=(0.0,), vad=found)
        heard = registry.get(key, "base").transcribe(late, options)
        assert heard.language == wanted
        assert (min(each.start for each in heard.segments) > 30) is found
        if found:
            assert "Votre appel est important pour nous" in heard.text
