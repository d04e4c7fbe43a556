"""The recipe of the shipped checkpoint: what it may train on, and what the export writes."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper

from assets.nano.recipe import accents, espeak, evaluate, export, text
from assets.nano.recipe import tokens as vocab
from assets.nano.recipe.network import HeadByHead
from assets.nano.recipe.train import SAVED
from assets.nano.recipe.windows import QUIET_MARKS, Library, Shares, quiet_window

NANO = Path(__file__).resolve().parents[1] / "assets" / "nano" / "nano.pt"


def first(count: int, seed: int, kind: str = "plain") -> list[str]:
    return list(itertools.islice(text.training_sentences(seed, kind), count))


def test_sentences_follow_from_the_seed() -> None:
    assert first(50, 1) == first(50, 1)
    assert first(50, 1) != first(50, 2)


def test_clips_and_held_out_sentences_are_excluded() -> None:
    clips = text.clip_sentences()
    assert len(clips) > 40
    assert {text.normalized(s) for s in clips + text.held_out_sentences()} <= text.excluded()


def test_training_skips_an_excluded_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    banned = first(20, 3)[7]
    monkeypatch.setattr(text, "excluded", lambda: {text.normalized(banned)})
    assert banned not in first(20, 3)


def test_training_never_uses_the_held_out_seed() -> None:
    with pytest.raises(ValueError, match="evaluation"):
        next(text.training_sentences(text.HELD_OUT_SEED))


def test_the_evaluations_new_voices_are_new() -> None:
    """Neither a voice, nor a throat or an accent's table of phones that two of them have alone."""
    known = {*espeak.VOICES, *accents.VOICES}
    assert not known & set(evaluate.UNSEEN_VOICES)
    assert not {voice.split("+")[1] for voice in known} & {"m2", "f3"}
    assert not set(accents.PHONEMES) & {"en-wi", "en-n"}


def test_an_accent_follows_from_its_number() -> None:
    files = [accents.voice_file(number) for number in range(accents.COUNT)]
    assert files == [accents.voice_file(number) for number in range(accents.COUNT)]
    assert len(set(files)) == accents.COUNT
    changed = [file.count("replace ") for file in files]
    assert 3 < np.mean(changed) < 7, "some phones are others, most are not"


def test_every_word_of_the_clips_is_in_the_vocabulary() -> None:
    known = {word.lower() for word in text.vocabulary()}
    spoken = {w for s in text.clip_sentences() for w in text.normalized(s).split()}
    assert spoken <= known


@pytest.mark.parametrize("kind", ["plain", "linked", "company"])
def test_every_word_of_the_training_is_in_the_vocabulary(kind: str) -> None:
    known = {word.lower() for word in text.vocabulary()}
    assert {w for s in first(500, 5, kind) for w in text.normalized(s).split()} <= known


def test_word_by_word_tokens_are_the_sentence_tokens() -> None:
    for sentence in first(200, 4):
        apart = [i for word in sentence.split() for i in vocab.word_tokens(word)]
        assert apart == vocab.tokenizer().encode(" " + sentence)
        assert set(apart) <= set(vocab.compact_ids().tolist())


def test_a_window_without_speech_says_so_or_begins_at_nought() -> None:
    rng, no_speech, eot = random.Random(0), vocab.tokenizer().no_speech, vocab.tokenizer().eot
    windows = [quiet_window(Library([]), rng, 50, Shares(prompts=0.0)) for _ in range(300)]
    firsts = [window.targets[0] for window in windows]
    assert set(firsts) == {no_speech, vocab.timestamp(0)}
    assert abs(firsts.count(vocab.timestamp(0)) / 300 - QUIET_MARKS) < 0.06
    assert {tuple(window.targets[1:]) for window in windows} == {(eot,)}


def test_attention_head_by_head_is_attention_there_and_back() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 5, dtype=torch.float64, requires_grad=True) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)
    assert torch.allclose(HeadByHead.apply(q, k, v), expected)
    assert torch.autograd.gradcheck(HeadByHead.apply, (q, k, v))


def test_export_puts_each_row_in_its_place() -> None:
    ids = vocab.compact_ids()
    rows = torch.arange(len(ids) + 1, dtype=torch.float32)[:, None]
    full = export.full_embedding(rows)[:, 0].numpy()
    assert full.shape == (vocab.N_VOCAB,)
    assert np.array_equal(full[ids], np.arange(len(ids)))
    others = np.setdiff1d(np.arange(vocab.N_VOCAB), ids)
    assert (full[others] == len(ids)).all()


def test_export_takes_the_mean_by_shares() -> None:
    states = {"a": {"weight": torch.tensor([1.0, 4.0])}, "b": {"weight": torch.tensor([3.0, 0.0])}}
    mixed = export.mean(states, {"a": 0.25, "b": 0.75})["weight"]
    assert torch.equal(mixed, torch.tensor([2.5, 1.0]))
    assert set(export.EXPORTED) == set(SAVED)
    assert sum(export.EXPORTED.values()) == pytest.approx(1)


def test_shipped_file_is_small_and_loads_in_plain_whisper() -> None:
    assert NANO.stat().st_size < 10_000_000
    model = whisper.load_model(str(NANO), device="cpu")
    assert not model.is_multilingual
    dims = model.dims
    assert (dims.n_vocab, dims.n_mels, dims.n_audio_ctx, dims.n_text_ctx) == (51864, 80, 1500, 448)
    assert dims.n_audio_state // dims.n_audio_head == 64 == dims.n_text_state // dims.n_text_head


def test_shipped_weights_are_exact_in_float16() -> None:
    saved = torch.load(NANO, weights_only=True)["model_state_dict"]
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}


def test_silence_is_one_window_when_words_are_timed() -> None:
    model = whisper.load_model(str(NANO), device="cpu")
    silence = np.zeros(6 * whisper.audio.SAMPLE_RATE, dtype=np.float32)
    segments = whisper.transcribe(model, silence, language="en", fp16=False, word_timestamps=True)
    assert [segment["end"] for segment in segments["segments"]] == [6.0]
