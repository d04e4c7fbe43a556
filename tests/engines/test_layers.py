"""The layer comparison: stages that are whisper's own, figures that are right, a fair verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim
from whisper.model import Whisper

from engines.analysis import decoder_layers, layers, records
from engines.analysis.records import Half, LayerComparison
from engines.audio import load_clip
from engines.base import (
    SAMPLE_RATE,
    Clip,
    EngineError,
    FloatArray,
    Listener,
    PartListener,
    Stages,
    Stopped,
)
from engines.checkpoints import Checkpoint
from tests.engines.checkpoint_files import DIMENSIONS, random_state
from tests.processes import Recorder

MEL = np.random.default_rng(0).standard_normal((80, N_FRAMES)).astype(np.float32)
NAMES = ("log-mel", "conv1", "conv2", "positions", "blocks.0", "ln_post")
CLIP = "audio_samples/jfk.flac"
MINI = Checkpoint("mini", DIMENSIONS["mini"], random_state(DIMENSIONS["mini"]))


def same(stage: str, output: FloatArray) -> FloatArray:
    return output


def open_encoder(name: str, change: Callable[[str, FloatArray], FloatArray] = same) -> Half:
    """PyTorch's encoder of `MINI` in float32, its stages changed."""
    encoder = MINI.build(Whisper).encoder

    def stages(mel: FloatArray) -> Stages:
        for stage, output in layers.torch_stages(encoder, mel, torch.float32):
            yield stage, change(stage, output)

    return Half(name, name, "cpu", stages)


def compare(*encoders: Half, listener: Listener = layers.SILENT) -> LayerComparison:
    return layers.compare_encoders(encoders, MINI, MEL, "noise", listener=listener)


def test_pytorch_s_stages_end_in_what_whisper_computes() -> None:
    encoder = MINI.build(Whisper).encoder
    stages = dict(layers.torch_stages(encoder, MEL, torch.float32))
    assert tuple(stages) == NAMES
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(MEL)[None])[0].numpy()
    np.testing.assert_array_equal(stages["ln_post"], expected)
    gap = stages["positions"] - stages["conv2"]
    np.testing.assert_allclose(gap, encoder.positional_embedding.numpy(), atol=1e-6)
    assert stages["conv1"].shape == (3000, 64)
    assert not torch.is_inference_mode_enabled()


GIVEN = records.DecoderInput(
    np.random.default_rng(1).standard_normal((1500, 64)).astype(np.float32), (7, 3, 11, 5)
)
SPOKEN = (("<|sot|>", None), (" a", 0.5), (" b", 1.25), (" c", 2.0))


def open_decoder(change: Callable[[str, FloatArray], FloatArray] = same) -> Half:
    """PyTorch's decoder of `MINI` in float32, its stages changed."""
    decoder = MINI.build(Whisper).decoder

    def stages(given: records.DecoderInput) -> Stages:
        for stage, output in decoder_layers.torch_stages(decoder, given, torch.float32):
            yield stage, change(stage, output)

    return Half("b", "b", "cpu", stages)


def test_pytorch_s_decoder_stages_are_what_whisper_computes() -> None:
    decoder = MINI.build(Whisper).decoder
    kept: dict[str, FloatArray] = {}
    parts = {"self_keys": "attn.key", "self_values": "attn.value", "cross_keys": "cross_attn.key"}
    parts |= {"cross_values": "cross_attn.value"}
    for stage, name in parts.items():
        module = decoder.blocks[0].get_submodule(name)
        module.register_forward_hook(
            lambda _, __, output, stage=stage: kept.update({f"blocks.0.{stage}": output[0].numpy()})
        )
    decoder.blocks[0].register_forward_hook(
        lambda _, __, output: kept.update({"blocks.0.mlp": output[0].numpy()})
    )
    with torch.inference_mode():
        audio = torch.from_numpy(GIVEN.features)[None]
        kept["logits"] = decoder(torch.tensor([GIVEN.tokens]), audio)[0].numpy()
    stages = dict(decoder_layers.torch_stages(decoder, GIVEN, torch.float32))
    for name, expected in kept.items():
        np.testing.assert_allclose(stages[name], expected, atol=1e-6, err_msg=name)
    assert len(kept) == 6 and len(stages) == 3 + 7 * MINI.dims.n_text_layer


@pytest.mark.parametrize(
    ("place", "said", "time"),
    [
        ("blocks.0.cross_attention", "unit 9 of token 2 “b” at 31.25 s", 31.25),
        ("blocks.0.self_keys", "unit 9 of token 2 “b” at 31.25 s", 31.25),
        ("blocks.0.cross_values", "unit 9 of frame 2 at 30.04 s", 30.04),
        ("logits", "unit 9 of token 2 “b” at 31.25 s", 31.25),
    ],
)
def test_a_decoder_s_worst_element_has_its_stage_place_and_time(
    place: str, said: str, time: float
) -> None:
    def bend(stage: str, output: FloatArray) -> FloatArray:
        output = output.copy()
        output[2, 9] += 5.0 if stage == place else 0.0
        return output

    rows = layers.Rows(30.0, SPOKEN)
    halves = [replace(open_decoder(), name="a"), open_decoder(bend)]
    result = decoder_layers.compare_open(halves, MINI, GIVEN, rows, "noise")
    assert (result.half, result.text) == ("decoder", "<|sot|> a b c")
    assert (result.first_past("a"), result.first_past("b")) == (None, place)
    stage = result.find_worst("b")
    worst = stage.worst["b"]
    assert stage.name == place and worst is not None and str(worst) == said
    assert worst.gap == pytest.approx(5.0, abs=1e-3) and worst.time == pytest.approx(time)
    [told] = [each for each in result.as_dict()["stages"] if each["name"] == place]
    assert told["halves"]["b"]["worst"]["unit"] == 9 and told["halves"]["b"]["error"] > 0


def test_the_reference_is_float64_throughout() -> None:
    """Its own error is far below float32's, which a layer norm in float32 would bring back."""
    exact = dict(layers.float64_stages(MINI, MEL))
    assert all(output.dtype == np.float64 for name, output in exact.items() if name != "log-mel")
    x = exact["blocks.0"]
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scale, shift = (MINI.state[f"encoder.ln_post.{each}"].numpy() for each in ("weight", "bias"))
    expected = (x - mean) / np.sqrt(variance + 1e-5) * scale.astype(np.float64) + shift
    np.testing.assert_allclose(exact["ln_post"], expected, atol=1e-13)


def test_the_window_is_the_one_that_whisper_cuts() -> None:
    clip = load_clip(CLIP)
    padded = log_mel_spectrogram(clip.samples, padding=480_000)
    expected = pad_or_trim(padded[:, : padded.shape[-1] - N_FRAMES], N_FRAMES).numpy()
    np.testing.assert_array_equal(layers.cut_window(clip, 80), expected)
    later = layers.cut_window(clip, 80, start=1.0)
    np.testing.assert_array_equal(later[:, :100], expected[:, 100:200])
    part = layers.cut_window(clip, 80, start=1.0, end=1.5)
    np.testing.assert_array_equal(part[:, :50], later[:, :50])
    assert not part[:, 50:].any()
    with pytest.raises(EngineError, match=r"can't start at 99 s"):
        layers.cut_window(clip, 80, start=99)
    assert np.isfinite(layers.cut_window(Clip(np.zeros(SAMPLE_RATE, np.float32)), 80)).all()


def test_a_difference_shows_first_where_it_is() -> None:
    def half(stage: str, output: FloatArray) -> FloatArray:
        early = NAMES.index(stage) < NAMES.index("positions")
        return output if early else (output / 2).astype(np.float32)

    result = compare(open_encoder("a"), open_encoder("b", half))
    assert [stage.name for stage in result.stages] == list(NAMES)
    errors = [stage.errors["b"] for stage in result.stages]
    assert errors == pytest.approx([0, 0, 0, *[0.5] * 3], abs=1e-6)
    assert (result.first_past("a"), result.first_past("b")) == (None, "positions")
    assert [s.errors["a"] for s in result.stages] == [s.float32_error for s in result.stages]
    assert replace(result, factor=1e9).first_past("b") is None
    cosines = [s.similarity["b"].cosine for s in result.stages if s.similarity["b"]]
    assert cosines == pytest.approx([1.0] * 6)
    shares = result.stages[-1].histograms
    assert shares is not None and set(shares.shares) == {"a", "b"}


def test_values_that_are_not_finite_are_past_any_bound() -> None:
    def broken(stage: str, output: FloatArray) -> FloatArray:
        broken = output.copy()
        if stage == "blocks.0":
            broken[0, 0] = np.inf
        return broken

    result = compare(open_encoder("a"), open_encoder("b", broken))
    assert replace(result, factor=1e30).first_past("b") == "blocks.0"
    worst = result.find_worst("b").worst["b"]
    assert (
        worst is not None
        and (worst.axis, worst.row, worst.unit, worst.time) == ("frame",) + (0,) * 3
    )
    stage = result.stages[NAMES.index("blocks.0")]
    assert stage.statistics["b"] is None and stage.statistics["a"] is not None
    assert stage.histograms is None


def test_encoders_of_other_depths_and_twice_the_same_are_refused() -> None:
    short = Half("s", "s", "cpu", lambda mel: iter([("log-mel", mel)]))
    with pytest.raises(EngineError, match="different stages"):
        compare(open_encoder("a"), short)
    with pytest.raises(EngineError, match="once"):
        compare(open_encoder("a"), open_encoder("a"))


def test_a_listener_gets_every_stage_and_may_stop() -> None:
    class Impatient(Recorder):
        def stopped(self) -> bool:
            return len(self.sent) == 3

    listener = Impatient()
    with pytest.raises(Stopped):
        compare(open_encoder("a"), listener=PartListener(listener, 0.5, 1.0))
    shares = [progress.done for progress in listener.sent]
    assert shares == pytest.approx([0.5, 0.5 + 0.5 / 6, 0.5 + 1 / 6])


def test_encoders_that_this_machine_lacks_are_refused() -> None:
    found = [candidate.name for candidate in records.candidates()]
    assert found[0] == "cpu:float32"
    assert not any(name.startswith("max_full") for name in found), "its encoder is max_hybrid's"
    decoders = [candidate.name for candidate in records.candidates("decoder")]
    assert not any(name.startswith("max_hybrid") for name in decoders), "its decoder is PyTorch's"
    for name, message in (("abacus", "no engine 'abacus'"), ("cpu:float16", "no type")):
        with pytest.raises(EngineError, match=message):
            layers.open_half("encoder", name, MINI)
