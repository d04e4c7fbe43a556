"""The same assertions for every engine that this machine can run."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from whisper.tokenizer import get_tokenizer

from engines import registry, whisper_hooks
from engines.audio import load_clip
from engines.base import (
    SAMPLE_RATE,
    Clip,
    Engine,
    EngineError,
    EngineUnavailable,
    Listener,
    Options,
    Stopped,
    Transcript,
)
from engines.transcription import TranscriptionState
from tests.processes import Recorder

MARKS = {
    row.key: [getattr(pytest.mark, name) for name in ("max", "gpu") if f"why_no_{name}" in reason]
    for row in registry.ENGINES
    if (reason := (row.why_not or "").replace("why_no_cuda", "why_no_gpu"))
}
GREEDY = Options(temperatures=(0.0,))


@pytest.fixture(
    scope="module",
    params=[pytest.param(key, marks=MARKS.get(key, [])) for key in registry.all_keys()],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Every engine in turn; one that this machine lacks is skipped with its own reason."""
    try:
        yield registry.get(request.param, "tiny.en")
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def jfk() -> Clip:
    return load_clip("audio_samples/jfk.flac")


@pytest.fixture(scope="module")
def transcript(engine: Engine, jfk: Clip) -> Transcript:
    """One run with words, which most of the assertions are about."""
    engine.prepare()
    before = time.perf_counter()
    transcript = engine.transcribe(jfk, Options(temperatures=(0.0,), word_timestamps=True))
    first, last = transcript.spans[0], transcript.spans[-1]
    assert before < first.start and last.start + last.seconds < time.perf_counter()
    return transcript


def test_preparing_twice_costs_nothing_more(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    first = engine.prepare()
    recorder = Recorder()
    assert engine.prepare(recorder) == first
    assert recorder.sent == []
    assert first.total > 0


def test_transcript_record(engine: Engine, jfk: Clip, transcript: Transcript) -> None:
    assert (transcript.engine, transcript.model) == (engine.key, "tiny.en")
    assert (transcript.language, transcript.language_probability) == ("en", None)
    assert "ask what you can do for your country" in transcript.text
    words = [word.text for segment in transcript.segments for word in segment.words or ()]
    assert "".join(words) == transcript.text
    assert transcript.text == "".join(segment.text for segment in transcript.segments)
    assert transcript.tokens == tuple(t for s in transcript.segments for t in s.tokens)
    assert transcript.features.dtype == np.float32
    if engine.key.startswith("whisper_cpp"):  # its encoder's output stays inside
        assert transcript.features.shape == (0, 0, 0) and not transcript.window_starts
    else:
        assert transcript.features.shape[1:] == (1500, 384)
        assert transcript.window_starts[0] == 0
    assert np.isfinite(transcript.features).all()
    assert transcript.audio_seconds == jfk.seconds
    assert len(transcript.window_starts) == len(transcript.features)
    assert transcript.peak_memory_bytes > 10e6


def test_spans_tell_when_each_stage_ran(transcript: Transcript) -> None:
    seconds, spans = transcript.seconds, transcript.spans
    assert min(seconds.audio, seconds.mel, seconds.encode, seconds.decode) > 0
    for earlier, later in itertools.pairwise(spans):
        assert later.start == pytest.approx(earlier.start + earlier.seconds, abs=1e-9)
    for stage in ("setup", "mel", "encode", "decode"):
        spent = sum(span.seconds for span in spans if span.stage == stage)
        assert spent == pytest.approx(seconds.as_dict()[stage], abs=1e-6)
    assert sum(span.seconds for span in spans) + seconds.audio == pytest.approx(seconds.total)
    encoded = {span.window for span in spans if span.stage == "encode"}
    assert encoded == set(range(len(transcript.features) or 1))


def test_each_run_encodes_a_window_once(engine: Engine, jfk: Clip, transcript: Transcript) -> None:
    """Whisper's own loop asks for the words' times with the window, not with its features."""
    if not engine.key.startswith(("max_", "openvino")):
        pytest.skip("its encoder is PyTorch's or its runtime's own")
    for run in (transcript, engine.transcribe(jfk, GREEDY)):
        assert [span.window for span in run.spans if span.stage == "encode"] == [0]


@pytest.mark.parametrize("beams", [1, 5])
def test_words_are_told_token_by_token_where_asked_for(
    engine: Engine, jfk: Clip, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.key.startswith(("faster_whisper", "whisper_cpp")):
        pytest.skip("its runtime gives the words of a window at a time")
    monkeypatch.setattr(whisper_hooks, "TELL_SECONDS", 0.0)
    listener, said = Listener(), list[str]()
    listener.partial = said.append  # type: ignore[method-assign,assignment]
    clip, options = Clip(jfk.samples[: 4 * SAMPLE_RATE]), Options("en", beams, temperatures=(0.0,))
    quiet = engine.transcribe(clip, options, listener)
    assert said == []
    assert engine.transcribe(clip, replace(options, live=True), listener).tokens == quiet.tokens
    assert len(set(said)) > 5 and not any("<|" in each for each in said)
    if beams == 1:
        assert all(quiet.text.startswith(each) for each in said)


def test_no_half_character_is_told() -> None:
    tokenizer, listener, said = get_tokenizer(True), Listener(), list[str]()
    listener.partial = said.append  # type: ignore[method-assign,assignment]
    state = TranscriptionState(torch.device("cpu"), Clip(np.zeros(0, np.float32)), listener)
    text = " née 日本語 👩‍🚀"
    tokens = [tokenizer.timestamp_begin, *tokenizer.encode(text), tokenizer.eot]
    for end in range(len(tokens) + 1):
        state.report_words(tokenizer, tokens[:end])
    assert all(text.startswith(each) for each in said) and said[-1] == text


@pytest.mark.slow
def test_windows_and_segments_of_a_long_clip() -> None:
    """On `cpu` only, since the loop is the same for all: windows start where a segment of the
    window before ended, or 30 s after it; segments are sent as they become final."""
    recorder, speech = Recorder(), load_clip("audio_samples/columbia.flac")
    speech = Clip(speech.samples[: 65 * SAMPLE_RATE])
    transcript = registry.get("cpu", "tiny.en").transcribe(speech, GREEDY, recorder)
    starts = transcript.window_starts
    assert len(starts) == len(transcript.features) > 2
    assert starts[0] == 0 and list(starts) == sorted(set(starts))
    ends = {round(segment.end, 2) for segment in transcript.segments}
    for before, after in itertools.pairwise(starts):
        assert round(after, 2) in ends or after - before == pytest.approx(30)
    assert tuple(recorder.segments) == transcript.segments
    done = [progress.done for progress in recorder.sent if progress.stage == "decoding"]
    assert done == sorted(done)
    assert 40 < done[-1] <= speech.seconds
    assert {progress.stage for progress in recorder.sent} == {"mel", "encoding", "decoding"}
    assert {progress.total for progress in recorder.sent} == {speech.seconds}


def test_a_stopped_and_a_closed_engine_works_again(
    engine: Engine, jfk: Clip, transcript: Transcript
) -> None:
    with pytest.raises(Stopped):
        engine.transcribe(jfk, GREEDY, Recorder(patience=3))  # at the first token
    engine.close()
    assert engine.transcribe(jfk, GREEDY).text == transcript.text


@pytest.mark.parametrize("n_samples", [1, 160, 480_001])
def test_any_length(engine: Engine, n_samples: int) -> None:
    transcript = engine.transcribe(Clip(np.zeros(n_samples, np.float32)), GREEDY)
    assert transcript.audio_seconds == n_samples / SAMPLE_RATE


def test_a_given_language_has_no_probability() -> None:
    clip = load_clip("audio_samples/french-prompt.flac")
    told = registry.get("cpu", "base").transcribe(clip, replace(GREEDY, language="french"))
    assert (told.language, told.language_probability) == ("french", None)


def test_options_that_it_cannot_serve_are_sentences(engine: Engine, jfk: Clip) -> None:
    with pytest.raises(EngineError, match=r"tiny\.en knows English only"):
        engine.transcribe(jfk, Options(language="de"))
    with pytest.raises(EngineError, match="knows no language 'xx': give a code"):
        engine.transcribe(jfk, Options(language="xx"))
    for width in (0, 51):
        with pytest.raises(EngineError, match=f"may be 1 to 50, not {width}"):
            engine.transcribe(jfk, Options(beam_size=width))
