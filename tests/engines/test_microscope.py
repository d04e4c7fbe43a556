"""The microscope: stages that are whisper's own, figures that are right, an exit status that
tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim
from whisper.model import Whisper

from engines import checkpoints, microscope
from engines.audio import load_clip
from engines.base import (
    SAMPLE_RATE,
    Clip,
    EngineError,
    FloatArray,
    Listener,
    PartListener,
    Progress,
    Stopped,
)
from engines.checkpoints import Checkpoint
from engines.examination import OpenSpecimen, Stages, examine
from engines.microscope import cut_window
from tests.engines.checkpoint_files import DIMENSIONS, random_state

NOISE = np.random.default_rng(0).standard_normal((80, N_FRAMES)).astype(np.float32)
NAMES = ("log-mel", "conv1", "conv2", "positions", "blocks.0", "ln_post")
CLIP = "audio_samples/jfk.flac"
SCHEMA = json.loads(Path("docs/microscope.schema.json").read_text())


def mini() -> Checkpoint:
    return Checkpoint("mini", DIMENSIONS["mini"], random_state(DIMENSIONS["mini"]))


def fake_specimen(name: str, change: Callable[[str, FloatArray], FloatArray]) -> OpenSpecimen:
    """One whose stages are seeded noise, changed."""

    def stages(mel: FloatArray) -> Stages:
        rng = np.random.default_rng(3)
        for stage in NAMES:
            yield stage, change(stage, rng.normal(size=(50, 8)).astype(np.float32))

    return OpenSpecimen(name, name, "cpu", stages)


def same(stage: str, output: FloatArray) -> FloatArray:
    return output


def test_pytorch_s_stages_end_in_what_whisper_computes() -> None:
    encoder = mini().build(Whisper).encoder
    stages = dict(microscope.torch_stages(encoder, NOISE, torch.float32))
    assert tuple(stages) == NAMES
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(NOISE)[None])[0].numpy()
    np.testing.assert_array_equal(stages["ln_post"], expected)
    gap = stages["positions"] - stages["conv2"]
    np.testing.assert_allclose(gap, encoder.positional_embedding.numpy(), atol=1e-6)
    assert stages["conv1"].shape == (3000, 64)
    assert not torch.is_inference_mode_enabled()


def test_the_window_is_the_one_that_whisper_cuts() -> None:
    clip = load_clip(CLIP)
    padded = log_mel_spectrogram(clip.samples, padding=480_000)
    expected = pad_or_trim(padded[:, : padded.shape[-1] - N_FRAMES], N_FRAMES).numpy()
    np.testing.assert_array_equal(cut_window(clip, 80), expected)
    later = cut_window(clip, 80, start=1.0)
    np.testing.assert_array_equal(later[:, :100], expected[:, 100:200])
    with pytest.raises(EngineError, match=r"can't start at 99 s"):
        cut_window(clip, 80, start=99)


def test_a_fault_shows_first_where_it_is() -> None:
    def half(stage: str, output: FloatArray) -> FloatArray:
        early = NAMES.index(stage) < NAMES.index("positions")
        return output if early else (output / 2).astype(np.float32)

    examination = examine([fake_specimen("a", same), fake_specimen("b", half)], NOISE)
    assert [stage.name for stage in examination.stages] == list(NAMES)
    assert [stage.error("b") for stage in examination.stages] == pytest.approx(
        [0, 0, 0, *[0.5] * 3]
    )
    assert examination.first_past("b") == "positions"
    assert replace(examination, tolerance=0.6).first_past("b") is None
    cosines = [s.similarity["b"].cosine for s in examination.stages if s.similarity["b"]]
    assert cosines == pytest.approx([1.0] * 6)
    shares = examination.stages[-1].histograms
    assert shares is not None
    assert set(shares.shares) == {"a", "b"}


def test_values_that_are_not_finite_are_past_any_tolerance() -> None:
    def broken(stage: str, output: FloatArray) -> FloatArray:
        broken = output.copy()
        if stage == "blocks.0":
            broken[0, 0] = np.inf
        return broken

    examination = examine([fake_specimen("a", same), fake_specimen("b", broken)], NOISE)
    assert replace(examination, tolerance=1e30).first_past("b") == "blocks.0"
    stage = examination.stages[NAMES.index("blocks.0")]
    assert stage.statistics["b"] is None
    assert stage.statistics["a"] is not None
    assert stage.histograms is None
    assert "not finite" in microscope.render_text(examination)
    record = json.loads(json.dumps(microscope.as_json(examination), allow_nan=False))
    jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)
    record["stages"][0]["similarity"]["b"]["cosine"] = "near"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_encoders_of_other_depths_and_twice_the_same_are_refused() -> None:
    short = OpenSpecimen("s", "s", "cpu", lambda mel: iter([("log-mel", mel)]))
    with pytest.raises(EngineError, match="different stages"):
        examine([fake_specimen("a", same), short], NOISE)
    with pytest.raises(EngineError, match="once"):
        examine([fake_specimen("a", same), fake_specimen("a", same)], NOISE)


def test_an_observer_hears_every_stage_and_may_stop() -> None:
    class Impatient(Listener):
        def __init__(self) -> None:
            self.told: list[float] = []

        def progress(self, progress: Progress) -> None:
            self.told.append(progress.done)

        def stopped(self) -> bool:
            return len(self.told) == 3

    listener = Impatient()
    with pytest.raises(Stopped):
        examine(
            [fake_specimen("a", same)], NOISE, listener=PartListener(listener, 0.5, 1.0), layers=1
        )
    assert listener.told == pytest.approx([0.5, 0.5 + 0.5 / 6, 0.5 + 1 / 6])


@pytest.mark.parametrize(
    ("name", "message"),
    [("abacus", "no engine 'abacus'"), ("cpu:float16", "no type"), ("max_full:int8", "no type")],
)
def test_a_wrong_specimen_is_a_sentence(name: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        microscope.open_specimen(name, mini())


def test_the_terminal_tells_of_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert microscope.main(["cpu", "abacus", "--clip", CLIP]) == 1
    assert "error: There is no engine 'abacus'" in capsys.readouterr().err
    assert microscope.main(["--clip", str(tmp_path / "none.wav")]) == 1
    assert "error:" in capsys.readouterr().err


@pytest.mark.max
def test_max_s_stages_are_the_engine_s_own() -> None:
    from engines.max_hybrid import load_max_encoder

    checkpoint = checkpoints.load("tiny.en")
    mel = cut_window(load_clip(CLIP), 80)
    encoder, _ = load_max_encoder(checkpoint)
    own = dict(encoder.stages(mel))
    seen = dict(microscope.open_max(checkpoint).stages(mel))
    assert list(seen)[:4] == ["log-mel", "conv1", "conv2", "positions"]
    np.testing.assert_array_equal(seen["positions"], own["conv2"])
    for name in own.keys() - {"conv2"}:
        np.testing.assert_array_equal(seen[name], own[name])
    np.testing.assert_array_equal(seen["ln_post"], encoder(mel))


@pytest.mark.max
def test_a_specimen_says_what_it_rounds_to() -> None:
    exact = microscope.open_max(checkpoints.load("tiny.en"), "float16")
    assert exact.device != "cpu" or exact.label_only().rounds_to == ""
    assert microscope.open_max(checkpoints.load("tiny.en"), "float32").rounds_to == ""
    assert microscope.open_max(mini(), "float16").label_only().rounds_to == "float16"


@pytest.mark.max
def test_the_exit_status_tells_agreement_from_difference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Measured at nano on speech: 2.6e-7 to 9.8e-7 after each stage, so 1e-5 is kept and 1e-7
    can't be."""
    assert microscope.main(["cpu", "max_hybrid", "--clip", CLIP]) == 0
    assert "every stage is within 1e-05" in capsys.readouterr().out
    assert microscope.main(["cpu", "max_full", "--tolerance", "1e-7", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)
    first, second = record["specimens"]
    assert (first["name"], first["first_past"]) == ("cpu:float32", None)
    assert second["first_past"] == "conv1"
    assert [stage["name"] for stage in record["stages"]][-1] == "ln_post"
    assert record["stages"][0]["similarity"][second["name"]]["relative_l2"] == 0


def test_silence_has_a_window_too() -> None:
    clip = Clip(np.zeros(SAMPLE_RATE, np.float32))
    assert np.isfinite(cut_window(clip, 80)).all()
