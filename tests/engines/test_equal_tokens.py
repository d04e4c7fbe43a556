"""At temperature 0 every float32 engine gives openai-whisper's tokens and word times.

The quick tests run a short sample through `tiny.en`, and through `base` for `max_full`. The slow
ones run all samples, and `PROMPTS` telephone prompts for each model: `base` hears five languages,
`tiny.en` English. Prompts run one by one, and joined to clips of several windows, which are decoded
with and without the text of the window before. What takes longest is the baseline, so that what two
tests would show stands in one: `max_hybrid`, whose encoder is `max_full`'s and whose decoder is the
baseline's, takes few clips. The prompts are Debian's `asterisk-core-sounds-*-g722`; without them
their tests are skipped.
"""

from __future__ import annotations

import os
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import whisper

from engines import checkpoints, models, registry
from engines.audio import load_clip
from engines.base import (
    Clip,
    Engine,
    EngineError,
    EngineUnavailable,
    Options,
    Transcript,
    Word,
)
from tests.engines.test_contract import MARKS

SAMPLES = Path("audio_samples")
MODELS = ("tiny.en", "base")
MANY: dict[str, Any] = {
    "beam_size": 3,
    "word_timestamps": True,
    "patience": 2.0,
    "initial_prompt": "FELLOW AMERICANS; VOTRE APPEL",
    "carry_initial_prompt": True,
    "hallucination_silence_threshold": 1.0,
    "append_punctuations": ",",
}
OPTIONS = {
    "greedy": Options(temperatures=(0.0,)),
    "greedy with words": Options(temperatures=(0.0,), word_timestamps=True),
    "greedy with words, windows apart": Options(
        temperatures=(0.0,), word_timestamps=True, condition_on_previous_text=False
    ),
    "beam 5 with words": Options(temperatures=(0.0,), beam_size=5, word_timestamps=True),
    "beam 5 with words, windows apart": Options(
        temperatures=(0.0,), beam_size=5, word_timestamps=True, condition_on_previous_text=False
    ),
    "many options": Options(
        **MANY,
        temperatures=(0.0,),
        suppress_tokens=(-1, 13),  # the full stop
        clip_timestamps=(0.5, 4.0, 5.5),
    ),
    "translated": Options(temperatures=(0.0,), task="translate"),
}
THEIRS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "many options": {**MANY, "suppress_tokens": "-1,13", "clip_timestamps": "0.5,4,5.5"},
    "translated": {"task": "translate"},
}
"""The same as arguments of `whisper.transcribe`, which takes lists as text."""

TRANSLATED = ("beam 5 with words", "translated")
SHORT = [
    ("tiny.en", "jfk", ("greedy", "many options")),
    pytest.param("base", "french-prompt", TRANSLATED, marks=pytest.mark.slow),
]
OTHERS = [
    pytest.param(key, marks=MARKS.get(key, []))
    for key in registry.all_keys()
    if key != registry.BASELINE and not registry.row(key).is_optional
]
SOUNDS = Path("/usr/share/asterisk/sounds")
VOICES = (
    "en_US_f_Allison",
    "fr_CA_f_June",
    "es_MX_f_Allison",
    "it_IT_m_Carlo",
    "ru_RU_f_IvrvoiceRU",
)
PROMPTS = int(os.environ.get("PROMPTS", 5))
"""Prompts for each model; a hundred, with all else that is left out for time, take over an hour."""

JOINED = 10
"""Prompts in one joined clip, of which there is one for each language."""

needs_prompts = pytest.mark.skipif(
    not all((SOUNDS / voice).is_dir() for voice in VOICES),
    reason="asterisk-core-sounds-{en,fr,es,it,ru}-g722 are not installed",
)


def get_engine(key: str, model: str) -> Engine:
    try:
        return registry.get(key, model)
    except EngineUnavailable as error:
        pytest.skip(str(error))


@cache
def sample(name: str) -> Clip:
    return load_clip(SAMPLES / f"{name}.flac")


@cache
def expected(model: str, name: str, options: str) -> Transcript:
    """What the baseline writes for a sample."""
    return registry.get(registry.BASELINE, model).transcribe(sample(name), OPTIONS[options])


def list_words(transcript: Transcript) -> list[Word]:
    return [word for segment in transcript.segments for word in segment.words or ()]


def assert_equal(found: Transcript, wanted: Transcript) -> None:
    """Language, tokens, text and word times are the same, probabilities to four digits."""
    assert found.language == wanted.language
    assert found.tokens == wanted.tokens
    assert found.text == wanted.text
    times = [(word.text, word.start, word.end) for word in list_words(found)]
    assert times == [(word.text, word.start, word.end) for word in list_words(wanted)]
    likely = [word.probability for word in list_words(found)]
    assert likely == pytest.approx([w.probability for w in list_words(wanted)], abs=1e-4)


@pytest.mark.parametrize(("model", "name", "each"), SHORT)
@pytest.mark.parametrize("key", OTHERS)
def test_short_samples(key: str, model: str, name: str, each: tuple[str, ...]) -> None:
    if (key, model) == ("max_hybrid", "base"):
        pytest.skip("its encoder is max_full's; `test_every_sample` has it")
    engine = get_engine(key, model)
    for options in each:
        found = engine.transcribe(sample(name), OPTIONS[options])
        assert_equal(found, expected(model, name, options))
        drafts = found.device == "cpu" and key == "max_full" and not OPTIONS[options].beam_size
        guessed = sum(window.drafted for window in found.windows)
        assert (guessed > len(found.tokens) / 2) if drafts else guessed == 0


@pytest.mark.slow
@pytest.mark.parametrize("options", ["greedy with words", "beam 5 with words, windows apart"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("key", OTHERS)
def test_every_sample(key: str, model: str, options: str) -> None:
    beams = OPTIONS[options].beam_size
    if key == "max_hybrid" and (beams or model == "base"):
        pytest.skip("its encoder is max_full's, and its decoder the baseline's")
    engine = get_engine(key, model)
    names = [path.stem for path in sorted(SAMPLES.glob("*.flac"))]
    if beams and model == "base" and PROMPTS < 100:
        names.remove("columbia")  # minutes of the baseline; joined prompts have several windows too
    for name in names:
        found = engine.transcribe(sample(name), OPTIONS[options])
        assert_equal(found, expected(model, name, options))


def read_prompt(path: Path) -> np.ndarray:
    """Decode one of Asterisk's raw G.722 files to samples `(n,)`, float32 at 16 kHz."""
    with av.open(str(path), format="g722") as opened:
        frames = [frame.to_ndarray() for frame in opened.decode(audio=0)]
    return np.concatenate(frames, axis=1)[0].astype(np.float32) / 32768


@cache
def draw_prompts(voice: str) -> tuple[Clip, ...]:
    """As many prompts of 2 to 10 s in one voice as are needed, in a random order that stays."""
    seconds = ((p, p.stat().st_size / 8000) for p in sorted((SOUNDS / voice).glob("*.g722")))
    files = [path for path, length in seconds if 2 < length < 10]
    order = np.random.default_rng(0).permutation(len(files))[: max(PROMPTS, JOINED)]
    return tuple(Clip(read_prompt(files[at]), f"{voice}/{files[at].name}") for at in order)


def choose_voices(model: str) -> tuple[str, ...]:
    return VOICES[:1] if model.endswith(".en") else VOICES


@cache
def prompts(model: str) -> tuple[Clip, ...]:
    """`PROMPTS` prompts that a model can be asked about; its languages take turns."""
    in_turn = zip(*map(draw_prompts, choose_voices(model)), strict=False)
    return tuple(chain.from_iterable(in_turn))[:PROMPTS]


@cache
def joined_prompts(model: str) -> tuple[Clip, ...]:
    """`JOINED` prompts of each language as one clip of several windows."""
    return tuple(
        Clip(np.concatenate([clip.samples for clip in draw_prompts(voice)[:JOINED]]), voice)
        for voice in choose_voices(model)
    )


@cache
def expected_prompt(model: str, joined: bool, at: int, options: str) -> Transcript:
    """What the baseline writes for a prompt, or for joined ones."""
    clip = (joined_prompts(model) if joined else prompts(model))[at]
    return registry.get(registry.BASELINE, model).transcribe(clip, OPTIONS[options])


@needs_prompts
@pytest.mark.slow
@pytest.mark.parametrize(
    ("joined", "options"),
    [
        (False, "greedy with words"),
        (False, "beam 5 with words"),
        (True, "greedy with words, windows apart"),
        (True, "beam 5 with words"),
    ],
)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("key", OTHERS)
def test_telephone_prompts(key: str, model: str, joined: bool, options: str) -> None:
    """Prompts one by one, or joined to clips of several windows."""
    if key == "max_hybrid" and joined:
        pytest.skip("its decoder, which sees the windows, is the baseline's")
    engine = get_engine(key, model)
    clips = joined_prompts(model) if joined else prompts(model)
    if key == "max_hybrid":
        clips = clips[: max(1, len(clips) // 5)]
    if joined and OPTIONS[options].beam_size:
        clips = clips[:2]  # two languages: the baseline's beams take minutes
    windows, languages = 0, set()
    for at, clip in enumerate(clips):
        wanted = expected_prompt(model, joined, at, options)
        assert_equal(engine.transcribe(clip, OPTIONS[options]), wanted)
        windows += len(wanted.window_starts)
        languages.add(wanted.language)
    kind = "joined clips" if joined else "prompts"
    print(f"\n{key}, {model}, {options}: {len(clips)} {kind} equal, in {sorted(languages)}")
    assert windows > len(clips) if joined else windows == len(clips)
    if joined and len(clips) == len(VOICES):
        assert languages == {"en", "fr", "es", "it", "ru"}


@pytest.mark.max
def test_clips_together_are_each_as_if_alone() -> None:
    """Of more clips than run at once, whose searches differ, and one of which fails."""
    engine: Any = get_engine("max_full", "tiny.en")
    each = [
        ("jfk", "greedy"),
        ("jfk", "many options"),
        ("jfk-noisy", "greedy"),
        ("silence", "greedy"),
    ]
    options = [OPTIONS[name] for _, name in each]
    clips = [sample(name) for name, _ in each]
    wanted = [expected("tiny.en", *one) for one in each]
    french = Options(language="fr")  # which tiny.en doesn't know
    *found, failed = engine.transcribe_batch([*clips, clips[0]], [*options, french], 3)
    for transcript, other in zip(found, wanted, strict=True):
        assert_equal(transcript, other)
    assert isinstance(failed, EngineError) and "English" in str(failed)


@needs_prompts
@pytest.mark.max
@pytest.mark.slow
@pytest.mark.parametrize("options", ["greedy with words", "beam 5 with words"])
@pytest.mark.parametrize("model", MODELS)
def test_prompts_together(model: str, options: str) -> None:
    engine: Any = get_engine("max_full", model)
    clips = prompts(model)
    found = engine.transcribe_batch(clips, [OPTIONS[options]] * len(clips), 4)
    for at, transcript in enumerate(found):
        assert_equal(transcript, expected_prompt(model, False, at, options))


@pytest.mark.parametrize(("model", "name", "each"), SHORT)
def test_the_baseline_is_openai_whisper_itself(
    model: str, name: str, each: tuple[str, ...]
) -> None:
    """Nothing of ours changes what whisper writes from the same tensors."""
    theirs = checkpoints.load(model).build(whisper.model.Whisper)
    for options in set(each) & set(THEIRS):
        told = {"temperature": 0.0, "fp16": False, **THEIRS[options]}
        wanted = theirs.transcribe(sample(name).samples, **told)
        found = expected(model, name, options)
        assert found.text == wanted["text"]
        assert found.language == wanted["language"]
        assert list(found.tokens) == [t for s in wanted["segments"] for t in s["tokens"]]
        words = [w["word"] for s in wanted["segments"] for w in s.get("words", ())]
        assert [word.text for word in list_words(found)] == words


ALONE: dict[str, dict[str, Any]] = {
    "prompt": {"initial_prompt": "ASK NOT, MY FELLOW AMERICANS; KENNEDY, J. F."},
    "prompt for every window": {"initial_prompt": "KENNEDY; J. F.", "carry_initial_prompt": True},
    "windows apart": {"condition_on_previous_text": False},
    "patience": {"beam_size": 5, "patience": 0.4},
    "best of": {"temperatures": (0.7,), "best_of": 4},
    "compression": {"temperatures": (0.0, 0.3), "compression_ratio_threshold": 0.5},
    "log-probability": {"temperatures": (0.0, 0.3), "logprob_threshold": -0.05},
    "no speech": {"no_speech_threshold": 0.0, "logprob_threshold": 0.0},
    "suppressed": {"suppress_tokens": (-1, 11, 13)},
    "nothing suppressed": {"suppress_tokens": ()},
    "parts": {"clip_timestamps": (2.0, 6.5, 8.0)},
    "part past the end": {"clip_timestamps": (1.0, 500.0)},
    "signs apart": {
        "word_timestamps": True, "prepend_punctuations": "", "append_punctuations": "",
    },
    "silence skipped": {"word_timestamps": True, "hallucination_silence_threshold": 0.2},
    "translated": {"task": "translate"},
}  # fmt: skip
"""Each option by itself, on top of the greedy ones."""


@cache
def expected_alone(model: str, name: str, options: Options) -> Transcript:
    """What the baseline writes for a sample with one option, greedy else."""
    return registry.get(registry.BASELINE, model).transcribe(sample(name), options)


@pytest.mark.slow
@pytest.mark.parametrize("option", ALONE)
@pytest.mark.parametrize("key", [*OTHERS, "openvino"])
def test_each_option_by_itself(key: str, option: str) -> None:
    """Every engine with whisper's loop follows each option as the baseline does."""
    if key == "max_hybrid":
        pytest.skip("its encoder is max_full's, and its decoder the baseline's")
    model, name = "tiny.en", "jfk"
    if option == "translated":
        model, name = "base", "french-prompt"
    elif option in ("windows apart", "signs apart"):  # has no effect on a short clip
        name = "librivox-sense"
    engine, options = get_engine(key, model), Options(**{"temperatures": (0.0,), **ALONE[option]})
    wanted = expected_alone(model, name, options)
    assert_equal(engine.transcribe(sample(name), options), wanted)
    usual = expected(model, name, "greedy with words" if options.word_timestamps else "greedy")
    changed = (list_words(wanted), wanted.segments) != (list_words(usual), usual.segments)
    without = option == "silence skipped"  # no words are made up in the samples
    assert changed or without, "the option has an effect"


@pytest.mark.max
@pytest.mark.slow
def test_sampling_draws_the_same_numbers_in_every_engine() -> None:
    """Above temperature 0 the run's own generator decides, whoever else is sampling."""
    options = Options(temperatures=(0.6,), best_of=2)
    keys = ("cpu", "max_hybrid", "max_full", "cpu")
    texts = {registry.get(key, "tiny.en").transcribe(sample("jfk"), options).text for key in keys}
    assert len(texts) == 1


def test_the_language_is_detected_and_said_with_its_probability() -> None:
    heard = expected("base", "french-prompt", "greedy")
    assert heard.language == "fr"
    assert heard.language_probability is not None
    assert heard.language_probability > 0.5


def test_names_are_whispers() -> None:
    assert tuple(whisper.available_models()) == models.OFFICIAL_MODELS
