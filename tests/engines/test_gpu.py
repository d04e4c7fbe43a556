"""The promises about a GPU, for every engine that uses one: `make test-gpu`.

On a machine without one the checks of `gpu` run on a pretended device, which proves the road and
says nothing about a GPU's arithmetic; those of the MAX engines skip, and their graphs are compiled
for GPUs by `make test-cross`. The device's own events are asked for `gpu` alone: MAX's stages run
on streams that PyTorch's events don't see. The contract and the equality of tokens with every
option stand in `test_contract.py` and `test_equal_tokens.py`, for all engines of the machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from whisper.model import AudioEncoder, Whisper

from engines import checkpoints, registry, worker
from engines.audio import load_clip
from engines.base import Clip, Dtype, EngineError, Options, Transcript
from engines.max_whisper import load_max_decoder
from engines.whisper_torch import TorchEngine
from engines.worker import RemoteEngine
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


# A device that is not there: PyTorch computes on the processor wherever it is told `cuda`. It is
# late on purpose, as a GPU is: results count as finished only once somebody has synchronised.

CUDA = torch.device("cuda")

LATE_SECONDS = 0.25
"""What an encoder's call still takes after it has returned."""


class ToProcessor(TorchFunctionMode):
    """Reads `cpu` wherever a function of PyTorch's is told `cuda`."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.device:
            return function(*args, **(kwargs or {}))
        kept = {name: to_processor(value) for name, value in (kwargs or {}).items()}
        return function(*(to_processor(value) for value in args), **kept)


def to_processor(value: Any) -> Any:
    """`cpu` for the name or the device `cuda`, anything else as it is."""
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value == "cuda" else value


class FakeCuda:
    """The pretended device; once it is `full`, nothing more can be allocated."""

    unfinished = spent = 0.0
    started_unfinished = full = False

    @contextmanager
    def use(self) -> Iterator[FakeCuda]:
        """Pretend, in this thread, until the end of the block."""
        encode, generator = AudioEncoder.forward, torch.Generator

        def encode_late(encoder: AudioEncoder, mel: Tensor) -> Tensor:
            if self.full:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            self.started_unfinished |= self.unfinished > 0
            features: Tensor = encode(encoder, mel)
            self.unfinished += LATE_SECONDS
            self.spent += LATE_SECONDS
            return features

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "is_initialized", lambda: True)
            patch.setattr(torch.cuda, "synchronize", self.synchronize)
            patch.setattr(torch.cuda, "empty_cache", gc.collect)
            patch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1)
            patch.setattr(torch, "Generator", lambda device: generator("cpu"))
            patch.setattr(Whisper, "device", property(lambda model: CUDA))
            patch.setattr(AudioEncoder, "forward", encode_late)
            with ToProcessor():
                yield self

    def synchronize(self, device: Any = None) -> None:
        """Wait for what is unfinished."""
        time.sleep(self.unfinished)
        self.unfinished = 0.0


@pytest.fixture
def pretended() -> Iterator[FakeCuda]:
    for sample in SAMPLES[:2]:
        baseline(sample)  # before anything is pretended
    with FakeCuda().use() as device:
        yield device


def test_gpu_writes_the_baseline_s_tokens_waits_and_says_that_memory_is_full(
    pretended: FakeCuda,
) -> None:
    engine = make_gpu("float32")
    engine.prepare()
    pretended.spent = 0.0
    found = engine.transcribe(clip_of("librivox-sense"), GREEDY)
    assert found.seconds.encode >= pretended.spent > 0
    assert not pretended.started_unfinished and not pretended.unfinished
    assert found.device == "cuda" and found.tokens == baseline("librivox-sense").tokens
    pretended.full = True
    with pytest.raises(EngineError, match="the GPU has not enough memory") as told:
        engine.encode(np.zeros((64, 80, 3000), np.float32))
    assert "\n" not in str(told.value)
    assert not isinstance(told.value.__context__, RuntimeError), "it would hold the run's tensors"
    pretended.full = False
    assert engine.transcribe(clip_of("jfk"), GREEDY).tokens == baseline("jfk").tokens
    engine.close()


def test_gpu_in_float16_on_the_pretended_device(pretended: FakeCuda) -> None:
    """That the type reaches the model; how far a GPU is off is measured below."""
    engine = make_gpu("float16")
    found = engine.transcribe(clip_of("jfk"), GREEDY).features
    engine.close()
    assert 0 < relative_error(found, baseline("jfk").features) < ROUNDINGS * ROUNDING["float16"]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference over that of the expected, of the windows both have."""
    windows = min(len(found), len(expected))
    difference = np.linalg.norm(found[:windows] - expected[:windows])
    return float(difference / np.linalg.norm(expected[:windows]))


# On a GPU only, and for every engine that uses one.


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=needs_cuda)])
def test_the_encoder_s_seconds_hold_all_that_the_device_spent_on_it(dtype: Dtype) -> None:
    engine = make_gpu(dtype)
    engine.prepare()
    pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(*_: Any) -> None:
        pairs.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(True)))
        pairs[-1][0].record()

    def end(*_: Any) -> None:
        pairs[-1][1].record()

    # Inside the stage clock, whose own hooks are on the encoder itself.
    whisper: Any = engine._whisper
    whisper.encoder.conv1.register_forward_pre_hook(start)
    whisper.encoder.ln_post.register_forward_hook(end)
    found = engine.transcribe(clip_of("librivox-sense"), GREEDY)
    engine.close()
    assert found.seconds.encode >= sum(first.elapsed_time(last) for first, last in pairs) / 1e3 > 0


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
