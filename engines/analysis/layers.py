"""Compare encoders after every stage of one window.

Stages in order of depth: `log-mel` (the encoder's input), `conv1`, `conv2`, `positions` (`conv2`
with the positional embedding added), `blocks.0`, …, `ln_post`. All are float32 on the host,
whatever an encoder computes in: `log-mel` is `(n_mels, 3000)`, `conv1` `(3000, n_state)` and the
rest `(n_audio_ctx, n_state)`.

An encoder is spelled `ENGINE` or `ENGINE:DTYPE`. It is opened by its registry row's `open_stages`,
a function of checkpoint, dtype (None: the engine's own choice) and listener that returns an open
`Encoder`. For a MAX encoder on a CPU the dtype is that of its weights; it computes in float32
either way.

Every encoder is judged against PyTorch's in float64, which stands in for the exact result. An
encoder passes a stage if its relative L2 error is at most `records.FACTOR` times the error that
PyTorch's own float32 encoder makes there. Measured, MAX against PyTorch on an AVX-512 processor,
the worst stage of each: 1.8 to 2.4 on tiny.en and base with real weights over five samples (base
has outlier channels and reaches an error of 1.1e-5); on random weights of small, medium and large
(8 layers) 4.0, 4.3 and 4.7, all at `conv2`, whose sums are the deepest: MAX's kernel adds them up
in one chain, PyTorch in blocks. The factor leaves room for processors that sum in another order. A
wrong operation, or one matrix that is one percent too large, is far outside (see the tests).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, zip_longest
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from whisper.audio import (
    HOP_LENGTH,
    N_FRAMES,
    N_SAMPLES,
    SAMPLE_RATE,
    log_mel_spectrogram,
    pad_or_trim,
)
from whisper.model import AudioEncoder, Whisper

from engines import checkpoints, registry
from engines.analysis.records import Encoder, LayerComparison, StageComparison, not_open
from engines.base import SILENT, Clip, EngineError, EngineUnavailable, FloatArray, Listener, Stages
from engines.checkpoints import Checkpoint
from engines.metrics import bin_together, measure_similarity, summarise

if TYPE_CHECKING:
    from engines.max_graph.weights import EncoderWeights

AnyWhisper = TypeVar("AnyWhisper", bound=Whisper)


def cut_window(clip: Clip, n_mels: int, start: float = 0.0, end: float = math.inf) -> FloatArray:
    """Return one window's log-mel `(n_mels, 3000)`, as whisper's own loop cuts it at `start` s,
    with nothing from `end` s on.

    Raises `EngineError` when the clip ends before `start`.
    """
    if not 0 <= start <= clip.seconds:
        raise EngineError(
            f"The clip has {clip.seconds:.1f} s: a window can't start at {start:g} s."
        )
    mel = log_mel_spectrogram(clip.samples, n_mels, padding=N_SAMPLES)
    at = round(start * SAMPLE_RATE / HOP_LENGTH)
    stop = int(min(mel.shape[-1] - N_FRAMES, at + N_FRAMES, end * SAMPLE_RATE / HOP_LENGTH))
    window: FloatArray = pad_or_trim(mel[:, at:stop], N_FRAMES).numpy()
    return window


@torch.inference_mode()
def torch_stages(encoder: AudioEncoder, mel: FloatArray, dtype: torch.dtype) -> Stages:
    """Yield every stage of `whisper.model.AudioEncoder.forward` (20250625).

    Outputs are float32 on the host, float64 where `dtype` is.
    """
    kept = torch.float64 if dtype == torch.float64 else torch.float32

    def on_host(x: torch.Tensor) -> np.ndarray:
        host: np.ndarray = x.to(kept).cpu().numpy()
        return host

    yield "log-mel", mel
    x = torch.from_numpy(mel)[None].to(encoder.positional_embedding.device, dtype)
    x = F.gelu(encoder.conv1(x))  # (1, n_state, 3000)
    yield "conv1", on_host(x[0].T)
    x = F.gelu(encoder.conv2(x)).permute(0, 2, 1)  # (1, n_audio_ctx, n_state)
    yield "conv2", on_host(x[0])
    x = (x + encoder.positional_embedding).to(x.dtype)
    yield "positions", on_host(x[0])
    for layer, block in enumerate(encoder.blocks):
        x = block(x)
        yield f"blocks.{layer}", on_host(x[0])
    yield "ln_post", on_host(encoder.ln_post(x)[0])


def open_torch(
    checkpoint: Checkpoint, dtype: str | None, listener: Listener, device: str
) -> Encoder:
    """Open PyTorch's encoder; float16 has half inputs and activations, as whisper's `fp16`."""
    encoder, name = checkpoint.build(Whisper).encoder.to(device), dtype or "float32"
    stages = partial(torch_stages, encoder, dtype=getattr(torch, name))
    return Encoder(name, name, device, stages, rounds_to="" if name == "float32" else name)


open_torch_cpu = partial(open_torch, device="cpu")
open_torch_gpu = partial(open_torch, device="cuda")


def float64_stages(checkpoint: Checkpoint, mel: FloatArray) -> Stages:
    """Yield every stage of PyTorch's encoder in float64, the reference of all errors."""
    encoder = to_float64(checkpoint.build(Whisper)).encoder
    yield from torch_stages(encoder, mel, torch.float64)


def to_float64(model: AnyWhisper) -> AnyWhisper:
    """Let a model compute in float64 throughout."""
    for module in model.double().modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.__class__ = torch.nn.LayerNorm  # whisper's own computes in float32
    return model


def open_max(
    checkpoint: Checkpoint,
    dtype: str | None = None,
    listener: Listener = SILENT,
    change: Callable[[EncoderWeights], EncoderWeights] = lambda weights: weights,
) -> Encoder:
    """Open MAX's encoder where the engines run it; `dtype` of its weights, else the engines' own.

    `change` is applied to the weights before they are laid out. On an accelerator `dtype` is that
    of every product as well. Raises `EngineUnavailable` for a type that the graphs lack there.
    """
    from max.dtype import DType

    from engines.max_graph import compile_cache
    from engines.max_graph.encoder import MaxEncoder
    from engines.max_graph.weights import encoder_weights

    device = compile_cache.pick_device()
    on_cpu = device.label == "cpu"
    dtype = dtype or compile_cache.pick_weight(checkpoint, device, "float32").name
    if on_cpu and dtype == "bfloat16":
        raise EngineUnavailable("MAX's encoder has no bfloat16 on a CPU.")
    weights = change(encoder_weights(checkpoint.state, checkpoint.dims))
    models, op = compile_cache.load_graphs(
        "encoder", checkpoint.dims, device, DType[dtype], listener
    )
    # The stem graph computes `conv2` and `positions` as one: with zeros for positions it computes
    # `conv2` alone, so no stage is computed by anything but the engines' own compiled graphs.
    unplaced = replace(weights, positions=np.zeros_like(weights.positions), blocks=())
    whole, without_positions = (
        MaxEncoder(models, each, op, device) for each in (weights, unplaced)
    )

    def stages(mel: FloatArray) -> Stages:
        yield "log-mel", mel
        yield from islice(without_positions.stages(mel), 2)  # conv1, conv2
        rest = islice(whole.stages(mel), 1, None)
        yield "positions", next(rest)[1]
        yield from rest

    exact = dtype == "float32" or (on_cpu and checkpoint.fits_float16)
    label = f"{dtype} weights" if on_cpu else dtype
    return Encoder(dtype, label, device.label, stages, rounds_to="" if exact else dtype)


def open_encoder(name: str, checkpoint: Checkpoint, listener: Listener = SILENT) -> Encoder:
    """Open the encoder spelled `ENGINE` or `ENGINE:DTYPE`.

    Raises `EngineUnavailable` where this machine has none, `EngineError` for a wrong spelling or
    an engine whose stages can't be opened.
    """
    key, _, dtype = name.partition(":")
    row = registry.row(key)
    if row.open_stages is None:
        raise EngineError(f"{key} can't be inspected layer by layer: it has no stages to open.")
    if dtype and dtype not in row.dtypes:
        raise EngineError(
            f"{key} has no type {dtype!r}: pick {' or '.join(row.dtypes)}, after a colon."
        )
    if reason := row.why_unavailable():
        raise EngineUnavailable(f"{key} can't run here: {reason}.")
    opened: Encoder = resolve_name(row.open_stages)(checkpoint, dtype or None, listener)
    return replace(opened, name=f"{key}:{opened.name}", label=f"{row.label}, {opened.label}")


def compare_layers(
    names: Sequence[str],
    model: str,
    clip: Clip,
    listener: Listener = SILENT,
    start: float = 0.0,
) -> LayerComparison:
    """Open encoders and compare them over one window of the clip; the first is the baseline.

    Raises any `EngineError`, `Stopped` among them.
    """
    listener.report("loading")
    checkpoint = checkpoints.load(model, listener)
    opened = []
    for name in names:
        listener.report("comparing", 0.0, 1.0, f"opening {name}")
        opened.append(open_encoder(name, checkpoint, listener))
    mel = cut_window(clip, checkpoint.dims.n_mels, start)
    return compare_encoders(opened, checkpoint, mel, clip.name, start, listener)


def compare_encoders(
    encoders: Sequence[Encoder],
    checkpoint: Checkpoint,
    mel: FloatArray,
    clip: str,
    start: float = 0.0,
    listener: Listener = SILENT,
) -> LayerComparison:
    """Run open encoders over one window in step, so that only one stage is held at a time.

    `clip`, `start`: where the window is from. Raises `Stopped`, and `EngineError` when the encoders
    have different stages.
    """
    if len({encoder.name for encoder in encoders}) < len(encoders):
        raise EngineError("Name each encoder once: there is nothing to compare one with itself.")
    plain = checkpoint.build(Whisper).encoder
    runs = [
        float64_stages(checkpoint, mel),
        torch_stages(plain, mel, torch.float32),
        *(encoder.stages(mel) for encoder in encoders),
    ]
    stages: list[StageComparison] = []
    total = 5 + checkpoint.dims.n_audio_layer  # as the stages beside the blocks are five
    nothing = "", np.zeros(0)
    for step in zip_longest(*runs, fillvalue=nothing):
        share = len(stages) / total
        listener.report("comparing", share, 1.0, f"comparing stage {len(stages) + 1}")
        if len({name for name, _ in step}) > 1:
            raise EngineError("These encoders have different stages and can't be compared.")
        exact, float32, *outputs = (output for _, output in step)
        by_name = {each.name: output for each, output in zip(encoders, outputs, strict=True)}
        stages.append(compare_stage(step[0][0], exact, float32, by_name))
    closed = tuple(replace(each, stages=not_open) for each in encoders)
    return LayerComparison(checkpoint.name, clip, start, closed, tuple(stages))


def compare_stage(
    name: str, exact: np.ndarray, float32: FloatArray, outputs: Mapping[str, FloatArray]
) -> StageComparison:
    """Return the figures of one stage; the first of `outputs` is the baseline's.

    `exact`: float64. `float32`: PyTorch's in float32.
    """
    baseline = next(iter(outputs))
    finite = {key: bool(np.isfinite(output).all()) for key, output in outputs.items()}
    return StageComparison(
        name=name,
        shape=outputs[baseline].shape,
        histograms=bin_together(outputs) if all(finite.values()) else None,
        statistics={
            key: summarise(output) if finite[key] else None for key, output in outputs.items()
        },
        similarity={
            key: measure_similarity(output[None], outputs[baseline][None])
            for key, output in outputs.items()
            if key != baseline
        },
        errors={key: relative_error(output, exact) for key, output in outputs.items()},
        float32_error=relative_error(float32, exact),
    )


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Return ‖found - exact‖ / ‖exact‖; infinite for other shapes and values not finite."""
    if found.shape != exact.shape or not np.isfinite(found).all():
        return float("inf")
    gap = float(np.linalg.norm(found.astype(np.float64) - exact))
    norm = float(np.linalg.norm(exact.astype(np.float64)))
    return gap / norm if gap and norm else (float("inf") if gap else 0.0)
