"""MAX's encoder against float64, stage by stage."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from whisper.audio import N_FRAMES

pytest.importorskip("max.engine")

from max.dtype import DType

from engines import checkpoints, hardware
from engines.analysis import layers
from engines.audio import load_clip
from engines.checkpoints import Checkpoint
from engines.max_graph.operations import CpuOperations
from engines.max_whisper import load_max_encoder
from tests.engines.checkpoint_files import DIMENSIONS, random_state

pytestmark = pytest.mark.max


def random_checkpoint(size: str, half: bool = False) -> Checkpoint:
    """Random weights; `half`: such as float16 holds exactly, whose graphs most tests share."""
    return Checkpoint("random", DIMENSIONS[size], random_state(DIMENSIONS[size], half=half))


@pytest.fixture(scope="module")
def jfk() -> np.ndarray:
    """The log-mel of a clip."""
    return layers.cut_window(load_clip("audio_samples/jfk.flac"), 80)


def assert_within_the_bound(checkpoint: Checkpoint, mel: np.ndarray) -> None:
    """Every stage of MAX's encoder is as near to float64 as float32 can be."""
    opened = layers.open_max(checkpoint)
    result = layers.compare_encoders([opened], checkpoint, mel, "")
    assert result.first_past(opened.name) is None


@pytest.mark.parametrize("model", ["tiny.en", pytest.param("base", marks=pytest.mark.slow)])
def test_real_weights_are_within_the_bound_on_speech(model: str, jfk: np.ndarray) -> None:
    assert_within_the_bound(checkpoints.load(model), jfk)


@pytest.mark.parametrize(
    ("size", "half"),
    [
        ("mini", True),
        ("mini128", True),
        *(
            pytest.param(name, False, marks=pytest.mark.slow)
            for name in ("small", "medium", "large")
        ),
    ],
)
def test_random_weights_are_within_the_bound(size: str, half: bool) -> None:
    checkpoint = random_checkpoint(size, half)
    shape = (checkpoint.dims.n_mels, N_FRAMES)
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert_within_the_bound(checkpoint, noise)


def test_the_inspected_stages_are_the_engine_s_own(jfk: np.ndarray) -> None:
    checkpoint = checkpoints.load("tiny.en")
    encoder, _ = load_max_encoder(checkpoint)
    own, seen = dict(encoder.stages(jfk)), dict(layers.open_max(checkpoint).stages(jfk))
    assert list(seen)[:4] == ["log-mel", "conv1", "conv2", "positions"]
    np.testing.assert_array_equal(seen["positions"], own["conv2"])
    for name in own.keys() - {"conv2"}:
        np.testing.assert_array_equal(seen[name], own[name])
    np.testing.assert_array_equal(seen["ln_post"], encoder(jfk))
    with pytest.raises(ValueError, match=r"a window of log-mel is \(80, 3000\)"):
        encoder(jfk[:40])


def test_an_encoder_says_what_it_rounds_to() -> None:
    real = checkpoints.load("tiny.en")
    half = layers.open_max(real, "float16")
    assert half.device != "cpu" or half.rounds_to == "", "float16 holds these weights exactly"
    assert layers.open_max(random_checkpoint("mini"), "float16").rounds_to == "float16"
    if half.device == "cpu":
        with pytest.raises(layers.EngineUnavailable, match="no bfloat16 on a CPU"):
            layers.open_max(real, "bfloat16")


@pytest.mark.parametrize(("half", "terms"), [(True, 2), (False, 3)])
def test_the_terms_of_a_weight_add_up_to_it(half: bool, terms: int) -> None:
    """AMX's operand: exact, padded with zeros, two depths of a column side by side in a tile."""
    op = CpuOperations(DType.float16 if half else DType.float32, amx=True)
    matrix = np.random.default_rng(0).standard_normal((77, 133)).astype(np.float32)
    matrix = matrix.astype(np.float16).astype(np.float32) if half else matrix
    tiles = op.lay_out(matrix).reshape(3, 5, terms, 2, 16, 16, 2)
    assert (tiles == torch.from_numpy(tiles).bfloat16().float().numpy()).all()
    total = tiles.astype(np.float64).sum(2)  # (spans, steps, 2, pairs of depths, columns, 2)
    laid_out = total.transpose(0, 2, 4, 1, 3, 5).reshape(96, 160)
    assert (laid_out[:77, :133] == matrix).all()
    assert not laid_out[77:].any() and not laid_out[:, 133:].any()


def test_amx_is_asked_for_only_where_it_is_and_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux's answer is the result, and `MAX_WHISPER_AMX=0` asks for nothing."""
    flags, answers = {"amx_tile", "amx_bf16"}, list[int]()
    linux = SimpleNamespace(syscall=lambda *_: answers.pop())
    monkeypatch.setattr(hardware, "read_processor", lambda: ("", flags))
    monkeypatch.setattr(hardware, "ctypes", SimpleNamespace(CDLL=lambda _: linux))
    monkeypatch.setattr(hardware, "sys", SimpleNamespace(platform="linux"))
    ask = hardware.request_amx.__wrapped__
    answers += [-1, 0]
    assert (ask(), ask(), answers) == (True, False, [])
    monkeypatch.setenv("MAX_WHISPER_AMX", "0")
    assert not ask()
    monkeypatch.delenv("MAX_WHISPER_AMX")
    flags.clear()
    assert not ask()
