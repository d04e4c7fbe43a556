"""The promises about a GPU, for every engine that uses one: `make test-gpu`.

On a machine without one all of them skip, and MAX's graphs are compiled for GPUs by
`make test-cross`. The device's own events are asked for `gpu` alone: MAX's stages run on streams
that PyTorch's events don't see. The contract and the equality of tokens with every
option stand in `test_contract.py` and `test_equal_tokens.py`, for all engines of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from engines import checkpoints, models, registry, worker
from engines.analysis.layers import relative_error
from engines.audio import load_clip
from engines.base import Clip, Dtype, EngineError, Options, Transcript
from engines.max_whisper import load_max_decoder
from engines.worker import RemoteEngine
from tests.processes import wait_until

GREEDY = Options(temperatures=(0.0,))

ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
ROUNDINGS = 32
"""How many roundings the encoder's features may be off by: a bound that tells half precision from
a mistake, from the types' definitions and not from a GPU."""

MEMORY_BYTES = 2**26
"""What a driver may keep of a process that has ended, and other programs may come by meanwhile."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device was found"),
]


@cache
def clip_of(sample: str) -> Clip:
    return load_clip(f"audio_samples/{sample}.flac")


@cache
def baseline(sample: str) -> Transcript:
    return registry.get("cpu", "tiny.en").transcribe(clip_of(sample), GREEDY)


def test_the_encoder_s_seconds_hold_all_that_the_device_spent_on_it() -> None:
    engine: Any = registry.get("gpu", "tiny.en")
    engine.prepare()
    events: list[torch.cuda.Event] = []

    def mark(*_: Any) -> None:
        events.append(torch.cuda.Event(enable_timing=True))
        events[-1].record()

    # Inside the stage clock, whose own hooks are on the encoder itself.
    engine._whisper.encoder.conv1.register_forward_pre_hook(mark)
    engine._whisper.encoder.ln_post.register_forward_hook(mark)
    found = engine.transcribe(clip_of("librivox-sense"), GREEDY)
    engine.close()
    pairs = zip(events[::2], events[1::2], strict=True)
    assert found.seconds.encode >= sum(first.elapsed_time(last) for first, last in pairs) / 1e3 > 0


@pytest.fixture(
    params=[
        pytest.param(key, marks=[pytest.mark.max] if key != "gpu" else [])
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


@pytest.mark.max
@pytest.mark.parametrize(
    "lane", ["gpu:float16", "max_hybrid:float16", "max_full:float16", "max_full:bfloat16"]
)
def test_half_precision_moves_the_encoder_s_features_by_roundings(lane: str) -> None:
    engine, bound = worker.get_engine(lane, "tiny.en"), ROUNDINGS * ROUNDING[lane.split(":")[1]]
    for sample in ("jfk", "librivox-sense", "columbia"):
        found = engine.transcribe(clip_of(sample), GREEDY).features
        expected = baseline(sample).features
        windows = min(len(found), len(expected))
        assert relative_error(found[:windows], expected[:windows]) < bound
    engine.close()


@pytest.mark.max
@pytest.mark.parametrize("dtype", ROUNDING)
def test_half_precision_moves_the_decoder_s_logits_by_roundings(dtype: Dtype) -> None:
    """A product that is wrong in one type, as some were on Hopper, is no rounding."""
    from tests.engines.test_decoder import step

    checkpoint = checkpoints.load(models.QUICK_MODEL)
    dims, generator = checkpoint.dims, np.random.default_rng(0)
    heard = generator.standard_normal((dims.n_audio_ctx, dims.n_audio_state)).astype(np.float32)
    tokens = generator.integers(0, 50_000, (3, 16))
    logits = []
    for place in ({"on_cpu": True}, {"dtype": dtype}):
        decoder, _ = load_max_decoder(checkpoint, **place)
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
