"""The sound of a clip: what librosa finds in it, what the panel shows, and when it comes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from demo.panels import charts, faults, sound
from demo.panels.lanes import list_tokens
from engines.analysis.faults import get_fault, show_inputs
from engines.analysis.layers import cut_window
from engines.analysis.sound import SoundView, describe_sound
from engines.audio import load_clip
from engines.base import SAMPLE_RATE, Clip, EngineError, Listener, Segment
from tests import fakes
from tests.demo.reading import list_figures, read
from tests.fake_page import make_task

TONE = np.sin(2 * np.pi * 1000 * np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)


def test_a_tone_has_its_frequency_its_level_and_its_silence() -> None:
    samples = 0.1 * TONE
    samples[SAMPLE_RATE : 2 * SAMPLE_RATE] = 0
    found = describe_sound(Clip(samples))
    column = found.mel[:, round(3 / found.column_seconds)]
    assert found.hertz[int(column.argmax())] == pytest.approx(1000, rel=0.03)
    assert found.level == pytest.approx(-23, abs=0.3) and found.peak == pytest.approx(-20, abs=0.1)
    ((start, end),) = found.silences
    assert (start, end) == pytest.approx((1, 2), abs=0.1)
    middle = found.loudness[len(found.loudness) * 3 // 8]
    assert found.loudness[0] == pytest.approx(-23, abs=0.3) and middle == -100
    assert found.notes == ()


@pytest.mark.parametrize(
    ("samples", "note"),
    [
        (0.01 * TONE, "Very quiet: 43 dB below full scale."),
        (np.clip(2 * TONE, -1, 1), "Clipped: 42,664 samples at full scale."),
        (0 * TONE, "Nothing is heard: 100 dB below full scale."),
        (TONE[:0], "Nothing is heard: 100 dB below full scale."),
        (
            np.concatenate([0.3 * TONE, np.zeros(7 * SAMPLE_RATE, np.float32), 0.3 * TONE]),
            "A long silence, at 0:04 for 7 s: Whisper may invent words in a silence.",
        ),
    ],
)
def test_notes_say_what_may_make_the_words_wrong(samples: np.ndarray, note: str) -> None:
    (found,) = describe_sound(Clip(samples.astype(np.float32))).notes
    assert found.split()[0] == note.split()[0]
    assert "samples" in note or found == note


def test_three_minutes_of_speech_are_a_light_picture_and_words_are_thinned_out() -> None:
    clip = load_clip("audio_samples/columbia.flac")
    view = describe_sound(clip)
    with open("audio_samples/columbia.txt") as file:
        spoken = Segment(0, clip.seconds, file.read(), (), 0.0)
    html = sound.draw(view, [(each.text, each.start) for each in list_tokens(spoken)])
    assert len(html) < 400_000
    page = read(html)
    (figure,) = list_figures(page)
    heat, words, silences, _ = figure["data"]
    assert heat["z"]["dtype"] == "u1" and words["customdata"] == words["x"]
    shown = [text for text in words["text"] if text]
    assert 10 < len(shown) < 100 < len(words["hovertext"]) == len(spoken.text.split())
    assert len(silences["x"]) == len(view.silences) > 10
    assert "dB below full scale on average" in sound.summarise(view)


def test_it_comes_after_the_last_run_and_its_failure_is_a_sentence() -> None:
    engine = fakes.FakeEngine()

    def describe(clip: Clip, listener: Listener) -> SoundView:
        assert task._snapshot.finished and task._snapshot.done
        return fakes.describe_fake_sound(clip)

    task = make_task(engine, describe_sound=describe)
    seen = list(task.snapshots())
    assert isinstance(seen[-1].sound, SoundView) and seen[-1].over and not seen[0].sound
    page = read(sound.render(seen[-1]))
    assert "Very quiet: 38 dB" in page.text and "compiler" in page.text
    assert sound.NOT_YET in sound.render(seen[0])
    assert sound.LOOKING in sound.render(replace(seen[-1], sound=None, describing=True))

    def fail(clip: Clip, listener: Listener) -> SoundView:
        raise EngineError("The analysis is gone.")

    last = list(make_task(engine, describe_sound=fail).snapshots())[-1]
    assert last.complete and "The analysis is gone." in sound.render(last)


def test_power_to_db_is_librosa_s_own_and_stands_beside_whisper_s_log_mel() -> None:
    import librosa
    from librosa.filters import mel as make_filters

    clip = load_clip("audio_samples/jfk.flac")
    mel = cut_window(clip, 80)
    spectrum = librosa.stft(
        np.pad(clip.samples, (0, 480_000)), n_fft=400, hop_length=160, pad_mode="reflect"
    )
    power = make_filters(sr=SAMPLE_RATE, n_fft=400, n_mels=80) @ np.abs(spectrum) ** 2
    frames = round(clip.seconds * 100)
    decibels = librosa.power_to_db(power)[:, :frames]
    fault = get_fault("power_to_db")
    # Measured: float32 rounding, but for powers near the floor.
    np.testing.assert_allclose(fault.mel(mel)[:, :frames], decibels, atol=0.05)
    inputs = show_inputs(fault, mel)
    assert inputs is not None and show_inputs(get_fault("scaled"), mel) is None
    page = read(faults.draw_inputs(inputs))
    (figure,) = list_figures(page)
    assert [each["y"] for each in figure["data"]] == [charts.name_bands(inputs.hertz)] * 2
    assert figure["layout"]["xaxis2"]["matches"] == "x"
    assert "-0.5 to 1.4 in Whisper" in page.text and "louder than 98%" in page.text
