"""The promises about a GPU, for every engine that uses one: `make test-gpu`.

On a machine without one the checks of `gpu` run on a pretended device, which proves the road and
says nothing about a GPU's arithmetic; those of the MAX engines skip, and their graphs are compiled
for GPUs by `make test-cross`. The device's own events are asked for `gpu` alone: MAX's stages run
on streams that PyTorch's events don't see. The contract and the equality of tokens with every
option stand in `test_contract.py` and `test_equal_tokens.py`, for all engines of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch

from engines import checkpoints, registry, worker
from engines.audio import load_clip
from engines.base import SAMPLE_RATE, Clip, Dtype, EngineError, Options, Transcript
from engines.max_whisper import load_max_decoder
from engines.transcription import WhisperEngine
from engines.whisper_torch import TorchEngine
from engines.worker import RemoteEngine
from tests.fake_cuda import Cuda, FakeCuda
from tests.processes import wait_until

SAMPLES = ("jfk", "librivox-sense", "columbia")
GREEDY = Options(temperatures=(0.0,))

HALVES: list[tuple[str, Dtype]] = [
    ("gpu", "float16"),
    ("max_hybrid", "float16"),
    ("max_full", "float16"),
    ("max_full", "bfloat16"),
]
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
ROUNDINGS = 32
"""How many roundings the encoder's features may be off by: a bound that tells half precision from
a mistake, from the types' definitions and not from a GPU."""

MEMORY_BYTES = 2**26
"""What a driver may keep of a process that has ended, and other programs may come by meanwhile."""

needs_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device was found"),
]


@cache
def clip_of(sample: str) -> Clip:
    return load_clip(f"audio_samples/{sample}.flac")


def make_gpu(dtype: Dtype) -> TorchEngine:
    """The `gpu` engine, for a device that may be pretended."""
    return TorchEngine(registry.row("gpu"), "tiny.en", dtype)


@cache
def baseline(sample: str) -> Transcript:
    """The transcript of `cpu`."""
    return registry.get("cpu", "tiny.en").transcribe(clip_of(sample), GREEDY)


@pytest.fixture(params=[pytest.param("cuda", marks=needs_cuda), "pretended"])
def device(request: pytest.FixtureRequest) -> Iterator[Cuda | FakeCuda]:
    """The GPU, and where there is none the pretended one."""
    for sample in SAMPLES[:2]:
        baseline(sample)  # before anything is pretended
    device = Cuda() if request.param == "cuda" else FakeCuda()
    with device.use() as used:
        yield used


@pytest.fixture
def engine(device: Cuda | FakeCuda) -> Iterator[WhisperEngine]:
    """`gpu` in float32 on that device."""
    engine = make_gpu("float32")
    engine.prepare()
    yield engine
    engine.close()


def test_gpu_writes_the_baseline_s_tokens_and_the_device_s_time(
    engine: WhisperEngine, device: Cuda | FakeCuda
) -> None:
    """The encoder's seconds hold all that the device spent on it, and nothing from before."""
    with device.timed(engine._whisper) as device_seconds:
        found = engine.transcribe(clip_of("librivox-sense"), GREEDY)
        assert found.seconds.encode >= device_seconds() > 0
    assert not device.started_unfinished and not device.unfinished
    assert found.tokens == baseline("librivox-sense").tokens
    assert found.device == "cuda"


def test_gpu_gives_its_memory_back(device: Cuda | FakeCuda) -> None:
    before = device.allocated()
    engine, clip = make_gpu("float32"), Clip(clip_of("jfk").samples[: 2 * SAMPLE_RATE])
    engine.prepare()
    engine.transcribe(clip, GREEDY)
    after_one = device.allocated()
    engine.transcribe(clip, Options(temperatures=(0.0,), beam_size=2, word_timestamps=True))
    assert device.allocated() <= after_one + 2**20
    assert after_one > before
    engine.close()
    assert device.allocated() <= before + 2**20


def test_gpu_says_that_its_memory_is_full_and_the_next_run_works(
    engine: WhisperEngine, device: Cuda | FakeCuda
) -> None:
    mel = np.zeros((64, 80, 3000), np.float32)
    held = device.allocated()
    with device.filled(), pytest.raises(EngineError, match="the GPU has not enough memory") as told:
        engine.encode(mel)
    assert "\n" not in str(told.value) and not isinstance(told.value.__context__, RuntimeError)
    assert device.allocated() <= held + 2**20, "the failed run's tensors are gone"
    found = engine.transcribe(clip_of("jfk"), GREEDY)
    assert found.tokens == baseline("jfk").tokens


def test_gpu_in_float16_on_the_pretended_device() -> None:
    """That the type reaches the model; how far a GPU is off is measured below."""
    expected = baseline("jfk").features
    with FakeCuda().use():
        engine = make_gpu("float16")
        found = engine.transcribe(clip_of("jfk"), GREEDY).features
        engine.close()
    assert 0 < relative_error(found, expected) < ROUNDINGS * ROUNDING["float16"]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference over that of the expected, of the windows both have."""
    windows = min(len(found), len(expected))
    difference = np.linalg.norm(found[:windows] - expected[:windows])
    return float(difference / np.linalg.norm(expected[:windows]))


# On a GPU only, and for every engine that uses one.


@pytest.fixture(
    params=[
        pytest.param(key, marks=[*needs_cuda, *([pytest.mark.max] if key != "gpu" else [])])
        for key in registry.all_keys()
        if key != registry.BASELINE
    ]
)
def apart(request: pytest.FixtureRequest) -> Iterator[RemoteEngine]:
    """Each engine that uses the GPU, in a process of its own."""
    engine = worker.get_engine(request.param, "tiny.en")
    assert isinstance(engine, RemoteEngine)
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("key", "dtype"),
    [pytest.param(*half, marks=[*needs_cuda, pytest.mark.max]) for half in HALVES],
)
def test_half_precision_moves_the_encoder_s_features_by_roundings(key: str, dtype: Dtype) -> None:
    engine = worker.get_engine(key, "tiny.en", dtype)
    for sample in SAMPLES:
        found, expected = engine.transcribe(clip_of(sample), GREEDY), baseline(sample)
        assert relative_error(found.features, expected.features) < ROUNDINGS * ROUNDING[dtype]
    engine.close()


@pytest.mark.parametrize(
    "dtype", [pytest.param(each, marks=[*needs_cuda, pytest.mark.max]) for each in ROUNDING]
)
def test_half_precision_moves_the_decoder_s_logits_by_roundings(dtype: Dtype) -> None:
    """A product that is wrong in one type, as some were on Hopper, is no rounding."""
    from tests.engines.test_decoder import step

    checkpoint = checkpoints.load(registry.QUICK_MODEL)
    dims, generator = checkpoint.dims, np.random.default_rng(0)
    heard = generator.standard_normal((dims.n_audio_ctx, dims.n_audio_state)).astype(np.float32)
    tokens = generator.integers(0, 50_000, (3, 16))
    logits = []
    for decoder in (
        load_max_decoder(checkpoint, on_cpu=True)[0],
        load_max_decoder(checkpoint, dtype=dtype)[0],
    ):
        audio, cache = decoder.compute_cross_kv(heard), decoder.new_cache(3)
        prompt, _, _ = step(decoder, tokens[:, :15], audio, cache)
        last, _, _ = step(decoder, tokens[:, 15:], audio, cache)
        logits.append(np.concatenate([prompt, last]))
    exact, half = logits
    assert 0 < relative_error(half, exact) < ROUNDINGS * ROUNDING[dtype]


def test_runs_and_a_process_s_end_give_the_gpu_s_memory_back(apart: RemoteEngine) -> None:
    """All that the GPU's programs hold together, since each engine keeps its own account."""
    clip = clip_of("jfk")
    apart.transcribe(clip, GREEDY)
    after_one, _ = torch.cuda.mem_get_info()
    for _ in range(3):
        apart.transcribe(clip, GREEDY)
    assert torch.cuda.mem_get_info()[0] >= after_one - MEMORY_BYTES
    apart.close()  # whatever this process itself needs is there by now
    before, _ = torch.cuda.mem_get_info()
    apart.transcribe(clip, GREEDY)
    apart.close()
    wait_until(lambda: torch.cuda.mem_get_info()[0] >= before - MEMORY_BYTES, "memory given back")


def test_a_gpu_that_others_have_filled_is_told_and_the_next_run_works(apart: RemoteEngine) -> None:
    free, _ = torch.cuda.mem_get_info()
    others = torch.empty(free - MEMORY_BYTES, dtype=torch.uint8, device="cuda")
    with pytest.raises(EngineError, match=r"not enough memory|memory runs out") as told:
        apart.transcribe(clip_of("columbia"), GREEDY)
    assert "\n" not in str(told.value)
    del others
    torch.cuda.empty_cache()
    found = apart.transcribe(clip_of("jfk"), GREEDY)
    assert found.tokens == baseline("jfk").tokens
