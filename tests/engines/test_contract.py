"""The same assertions for every engine that this machine can run."""

import itertools
import threading
import time

import numpy as np
import pytest
from whisper.audio import N_FRAMES

from engines import registry
from engines.audio import load_clip
from engines.base import (
    SAMPLE_RATE,
    Clip,
    Engine,
    EngineError,
    EngineUnavailable,
    Listener,
    Options,
    Progress,
    Segment,
    Stopped,
)

MARKS = {
    "gpu": [pytest.mark.gpu],
    "max_hybrid": [pytest.mark.max],
    "max_full": [pytest.mark.max],
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(key, marks=MARKS.get(key, [])) for key in registry.all_keys()],
)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Every engine in turn; one that this machine lacks is skipped with its own reason."""
    try:
        return registry.get(request.param)
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def short() -> Clip:
    return load_clip("audio_samples/jfk.flac")


class Recorder(Listener):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.stages: list[tuple[str, float]] = []

    def segment(self, segment: Segment) -> None:
        self.segments.append(segment)

    def progress(self, progress: Progress) -> None:
        self.stages.append((progress.stage, progress.done))


def test_it_keeps_the_protocol(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.key in registry.all_keys()


def test_preparing_twice_costs_nothing_more(engine: Engine) -> None:
    first = engine.prepare()
    stages: list[str] = []
    assert engine.prepare(stages.append) == first
    assert stages == []
    assert first.total > 0


def test_transcript_record(engine: Engine, short: Clip) -> None:
    transcript = engine.transcribe(short, Options(temperatures=(0.0,)))
    assert (transcript.engine, transcript.model) == (engine.key, "tiny.en")
    assert transcript.language == "en"
    assert transcript.text == "".join(segment.text for segment in transcript.segments)
    assert transcript.tokens == tuple(t for s in transcript.segments for t in s.tokens)
    assert transcript.features.dtype == np.float32
    assert transcript.features.shape[1:] == (1500, 192)
    assert np.isfinite(transcript.features).all()
    assert transcript.audio_seconds == short.seconds
    assert len(transcript.window_starts) == len(transcript.features)
    assert transcript.window_starts[0] == 0
    assert transcript.peak_memory_bytes > 10e6


def test_stage_seconds_add_up(engine: Engine, short: Clip) -> None:
    seconds = engine.transcribe(short, Options(temperatures=(0.0,))).seconds
    parts = [seconds.audio, seconds.mel, seconds.encode, seconds.decode]
    assert min(parts) > 0
    assert seconds.total == pytest.approx(sum(parts))


def test_spans_tell_when_each_stage_ran(engine: Engine, short: Clip) -> None:
    before = time.perf_counter()
    transcript = engine.transcribe(short, Options(temperatures=(0.0,)))
    after = time.perf_counter()
    spans = transcript.spans
    for earlier, later in itertools.pairwise(spans):
        assert later.start == pytest.approx(earlier.start + earlier.seconds, abs=1e-9)
    assert before < spans[0].start and spans[-1].start + spans[-1].seconds < after
    for stage in ("mel", "encode", "decode"):
        seconds = sum(span.seconds for span in spans if span.stage == stage)
        assert seconds == pytest.approx(transcript.seconds.as_dict()[stage], abs=1e-6)
    encoded = {span.window for span in spans if span.stage == "encode"}
    assert encoded == set(range(len(transcript.features)))


def test_window_starts_are_where_whisper_cut() -> None:
    """On `cpu` only, as below: where a segment of the window before ended, or 30 s after it."""
    talk = load_clip("audio_samples/columbia.flac")
    transcript = registry.get("cpu").transcribe(talk, Options(temperatures=(0.0,)))
    starts = transcript.window_starts
    assert len(starts) == len(transcript.features) > 5
    assert starts[0] == 0 and list(starts) == sorted(set(starts))
    ends = {round(segment.end, 2) for segment in transcript.segments}
    for before, after in itertools.pairwise(starts):
        assert round(after, 2) in ends or after - before == pytest.approx(30)


def test_segments_are_heard_as_they_become_final() -> None:
    """On `cpu` only: the loop is the same for all, and the talk has many windows."""
    recorder = Recorder()
    talk = load_clip("audio_samples/columbia.flac")
    transcript = registry.get("cpu").transcribe(talk, Options(temperatures=(0.0,)), recorder)
    assert tuple(recorder.segments) == transcript.segments
    assert len(transcript.features) > 5
    done = [seconds for stage, seconds in recorder.stages if stage == "decoding"]
    assert done == sorted(done)
    assert 150 < done[-1] <= talk.seconds
    assert {stage for stage, _ in recorder.stages} == {"mel", "encoding", "decoding"}


def test_word_timestamps(engine: Engine, short: Clip) -> None:
    options = Options(temperatures=(0.0,), word_timestamps=True)
    transcript = engine.transcribe(short, options)
    words = [word for segment in transcript.segments for word in segment.words or ()]
    assert "".join(word.text for word in words) == transcript.text
    starts = [word.start for word in words]
    assert starts == sorted(starts)
    assert all(0 <= word.start <= word.end <= 30 for word in words)


def test_stop(engine: Engine, short: Clip) -> None:
    class StopAtFirstToken(Listener):
        tokens = 0

        def stopped(self) -> bool:
            self.tokens += 1
            return self.tokens > 3

    with pytest.raises(Stopped):
        engine.transcribe(short, Options(temperatures=(0.0,)), StopAtFirstToken())
    assert engine.transcribe(short, Options(temperatures=(0.0,))).text


def test_encode(engine: Engine) -> None:
    mel = np.random.default_rng(0).standard_normal((2, 80, N_FRAMES)).astype(np.float32)
    features = engine.encode(mel)
    assert features.shape == (2, 1500, 192)
    assert features.dtype == np.float32
    np.testing.assert_allclose(engine.encode(mel[1:])[0], features[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("n_samples", [1, 159, 160, 480_001])
def test_any_length(engine: Engine, n_samples: int) -> None:
    samples = np.zeros(n_samples, np.float32)
    transcript = engine.transcribe(Clip(samples), Options(temperatures=(0.0,)))
    assert transcript.audio_seconds == n_samples / SAMPLE_RATE


def test_a_language_it_does_not_know(engine: Engine, short: Clip) -> None:
    with pytest.raises(EngineError, match="knows English only"):
        engine.transcribe(short, Options(language="de"))
    with pytest.raises(EngineError, match="knows no language 'xx': give a code"):
        engine.transcribe(short, Options(language="xx"))


def test_a_beam_of_a_width_that_no_window_fills(engine: Engine, short: Clip) -> None:
    for width in (0, 51):
        with pytest.raises(EngineError, match=f"may be 1 to 50, not {width}"):
            engine.transcribe(short, Options(beam_size=width))


@pytest.mark.parametrize("shape", [(1, 80, 100), (1, 40, N_FRAMES), (1, 128, N_FRAMES)])
def test_a_mel_of_another_shape_is_refused(engine: Engine, shape: tuple[int, ...]) -> None:
    with pytest.raises((EngineError, RuntimeError, ValueError, AssertionError)):
        engine.encode(np.zeros(shape, np.float32))


def test_it_can_be_closed_and_used_again(engine: Engine, short: Clip) -> None:
    before = engine.transcribe(short, Options(temperatures=(0.0,))).tokens
    engine.close()
    assert engine.transcribe(short, Options(temperatures=(0.0,))).tokens == before


def test_two_threads_take_turns(engine: Engine, short: Clip) -> None:
    found: list[tuple[int, ...]] = []

    def run() -> None:
        found.append(engine.transcribe(short, Options(temperatures=(0.0,))).tokens)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]


def test_unavailable_engines_give_their_reason() -> None:
    for status in registry.statuses():
        if not status.available:
            assert status.reason
            with pytest.raises(EngineUnavailable, match=status.reason):
                registry.get(status.key)


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(EngineError, match="no engine 'tpu'"):
        registry.get("tpu")
