"""At temperature 0 every float32 engine gives the baseline's tokens, all of them."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import whisper
from whisper.model import ModelDimensions
from whisper.tokenizer import LANGUAGES

from engines import checkpoints, registry
from engines.audio import load_clip
from engines.base import Clip, EngineUnavailable, Options, Transcript, Word
from engines.checkpoints import NANO_PATH
from tests.engines.checkpoint_files import write_checkpoint
from tests.engines.test_contract import MARKS

SAMPLES = sorted(Path("audio_samples").glob("*.flac"))
OPTIONS = {
    "greedy": Options(temperatures=(0.0,)),
    "greedy with words": Options(temperatures=(0.0,), word_timestamps=True),
    "each window for itself": Options(temperatures=(0.0,), condition_on_previous_text=False),
    "beam 5": Options(temperatures=(0.0,), beam_size=5),
    "beam 5 with words": Options(temperatures=(0.0,), beam_size=5, word_timestamps=True),
}
MULTILINGUAL = ModelDimensions(80, 1500, 64, 1, 1, 51865, 448, 64, 1, 1)
OTHERS = [
    pytest.param(key, marks=MARKS.get(key, []))
    for key in registry.all_keys()
    if key != registry.BASELINE
]


@cache
def baseline(sample: Path, options: str) -> Transcript:
    return registry.get(registry.BASELINE).transcribe(load_clip(sample), OPTIONS[options])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("key", OTHERS)
def test_tokens_equal_the_baseline(key: str, sample: Path, options: str) -> None:
    try:
        engine = registry.get(key)
    except EngineUnavailable as error:
        pytest.skip(str(error))
    assert_equal(engine.transcribe(load_clip(sample), OPTIONS[options]), baseline(sample, options))


def assert_equal(found: Transcript, expected: Transcript) -> None:
    """Tokens, text and word times are the same, the words' probabilities to four digits."""
    assert found.tokens == expected.tokens
    assert found.text == expected.text
    times = [(word.text, word.start, word.end) for word in words(found)]
    assert times == [(word.text, word.start, word.end) for word in words(expected)]
    likely = [word.probability for word in words(found)]
    assert likely == pytest.approx([word.probability for word in words(expected)], abs=1e-4)


def words(transcript: Transcript) -> list[Word]:
    return [word for segment in transcript.segments for word in segment.words or ()]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_baseline_is_openai_whisper_itself(sample: Path) -> None:
    """With whisper's defaults but for sampling: nothing of ours changes what it writes."""
    clip = load_clip(sample)
    expected = whisper.load_model(str(NANO_PATH), device="cpu").transcribe(
        clip.samples, temperature=0.0, fp16=False
    )
    found = baseline(sample, "greedy")
    assert found.text == expected["text"]
    assert list(found.tokens) == [t for s in expected["segments"] for t in s["tokens"]]


@pytest.mark.max
def test_sampling_draws_the_same_numbers_in_every_engine() -> None:
    """Above temperature 0 the run's own generator decides, whoever else is sampling."""
    clip = load_clip("audio_samples/jfk.flac")
    options = Options(temperatures=(0.6,))
    keys = ("cpu", "max_hybrid", "max_full")
    texts = {registry.get(key).transcribe(clip, options).text for key in keys}
    texts.add(registry.get("cpu").transcribe(clip, options).text)
    assert len(texts) == 1


@pytest.mark.max
def test_a_window_that_fails_at_temperature_0_is_sampled_alike_in_every_engine() -> None:
    """Whisper's default temperatures on speech in loud noise, whose words are too unlikely."""
    clip, rng = load_clip("audio_samples/librivox-sense.flac"), np.random.default_rng(1)
    noise = rng.standard_normal(len(clip.samples)) * clip.samples.std() * 2
    drowned = Clip((clip.samples + noise).astype(np.float32), "drowned")
    expected = registry.get(registry.BASELINE).transcribe(drowned)
    assert any(segment.temperature > 0 for segment in expected.segments)
    for key in ("max_hybrid", "max_full"):
        assert_equal(registry.get(key).transcribe(drowned), expected)


@pytest.mark.max
def test_every_engine_detects_the_same_language(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "many.pt", MULTILINGUAL)
    clip, options = load_clip("audio_samples/jfk.flac"), Options(temperatures=(0.0,))
    expected = registry.get(registry.BASELINE, str(path)).transcribe(clip, options)
    assert expected.language in LANGUAGES
    for key in ("max_hybrid", "max_full"):
        found = registry.get(key, str(path)).transcribe(clip, options)
        assert found.language == expected.language
        assert_equal(found, expected)


def test_names_list_nano_first_and_all_of_whispers() -> None:
    assert checkpoints.names() == ("tiny.en", *whisper.available_models())
