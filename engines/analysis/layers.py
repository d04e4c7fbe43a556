"""Compare encoders after every stage of one window, and what decoders' comparison shares.

Stages in order of depth: `log-mel` (the encoder's input), `conv1`, `conv2`, `positions` (`conv2`
with the positional embedding added), `blocks.0`, …, `ln_post`. All are float32 on the host,
whatever an encoder computes in: `log-mel` is `(n_mels, 3000)`, `conv1` `(3000, n_state)` and the
rest `(n_audio_ctx, n_state)`.

An encoder is spelled `ENGINE` or `ENGINE:DTYPE`. It is opened by its registry row's
`open_encoder`, a function of checkpoint, dtype (None: the engine's own choice) and listener that
returns an open `Half`. For a MAX encoder on a CPU the dtype is that of its weights; it computes in
float32 either way.

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
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, zip_longest
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar

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
from engines.analysis.records import (
    Half,
    HalfName,
    Inspection,
    LayerComparison,
    StageComparison,
    WorstElement,
    not_open,
)
from engines.base import SILENT, Clip, EngineError, EngineUnavailable, FloatArray, Listener, Stages
from engines.checkpoints import Checkpoint
from engines.feature_statistics import (
    WINDOW_SECONDS,
    bin_together,
    measure_similarity,
    summarise,
)

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
    checkpoint: Checkpoint,
    dtype: str | None,
    listener: Listener,
    device: str,
    half: HalfName = "encoder",
    stages: Callable[..., Stages] = torch_stages,
) -> Half:
    """Open PyTorch's half; float16 has half inputs and activations, as whisper's `fp16`.

    `stages`: yields the stages of the half's module for its input and a `dtype`.
    """
    module, name = getattr(checkpoint.build(Whisper), half).to(device), dtype or "float32"
    list_stages = partial(stages, module, dtype=getattr(torch, name))
    return Half(name, name, device, list_stages, rounds_to="" if name == "float32" else name)


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
) -> Half:
    """Open MAX's encoder where the engines run it; `dtype` of its weights, else the engines' own.

    `change` is applied to the weights before they are laid out. On an accelerator `dtype` is that
    of every product as well. Raises `EngineUnavailable` for a type that the graphs lack there.
    """
    from max.dtype import DType

    from engines.max_graph import compile_cache
    from engines.max_graph.encoder import MaxEncoder
    from engines.max_graph.weights import encoder_weights

    half, device = describe_max("encoder", checkpoint, dtype), compile_cache.pick_device()
    weights = change(encoder_weights(checkpoint.state, checkpoint.dims))
    models, op = compile_cache.load_graphs(
        "encoder", checkpoint.dims, device, DType[half.name], listener
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

    return replace(half, stages=stages)


def describe_max(half: HalfName, checkpoint: Checkpoint, dtype: str | None) -> Half:
    """Return MAX's encoder or decoder before it is open, named by the type of its weights.

    Raises `EngineUnavailable` for a type that the graphs lack here.
    """
    from engines.max_graph import compile_cache

    device = compile_cache.pick_device()
    on_cpu = device.label == "cpu"
    dtype = dtype or compile_cache.pick_weight(checkpoint, device, "float32").name
    if on_cpu and dtype == "bfloat16":
        raise EngineUnavailable(f"MAX's {half} has no bfloat16 on a CPU.")
    exact = dtype == "float32" or (on_cpu and checkpoint.fits_float16)
    label = f"{dtype} weights" if on_cpu else dtype
    return Half(dtype, label, device.label, rounds_to="" if exact else dtype)


def open_halves(inspection: Inspection, listener: Listener) -> tuple[Checkpoint, list[Half]]:
    """Load a checkpoint and open several encoders or decoders; raises as `open_half` does."""
    listener.report("loading")
    checkpoint = checkpoints.load(inspection.model, listener)
    opened = []
    for name in inspection.names:
        listener.report("comparing", 0.0, 1.0, f"opening {name}")
        opened.append(open_half(inspection.half, name, checkpoint, listener))
    return checkpoint, opened


def open_half(
    half: HalfName, name: str, checkpoint: Checkpoint, listener: Listener = SILENT
) -> Half:
    """Open the encoder or decoder spelled `ENGINE` or `ENGINE:DTYPE`.

    Raises `EngineUnavailable` where this machine has none, `EngineError` for a wrong spelling or
    an engine whose stages can't be opened.
    """
    key, _, dtype = name.partition(":")
    row = registry.row(key)
    place = row.find_stages(half)
    if place is None:
        raise EngineError(f"{key} can't be inspected layer by layer: it has no stages to open.")
    if dtype and dtype not in row.dtypes:
        raise EngineError(
            f"{key} has no type {dtype!r}: pick {' or '.join(row.dtypes)}, after a colon."
        )
    if reason := row.why_unavailable():
        raise EngineUnavailable(f"{key} can't run here: {reason}.")
    opened: Half = resolve_name(place)(checkpoint, dtype or None, listener)
    return replace(opened, name=f"{key}:{opened.name}", label=f"{row.label}, {opened.label}")


def compare_layers(inspection: Inspection, clip: Clip, listener: Listener) -> LayerComparison:
    """Open encoders and compare them, as `records.compare_halves` does."""
    checkpoint, opened = open_halves(inspection, listener)
    mel = cut_window(clip, checkpoint.dims.n_mels, inspection.start)
    return compare_encoders(opened, checkpoint, mel, clip.name, inspection.start, listener)


def compare_encoders(
    encoders: Sequence[Half],
    checkpoint: Checkpoint,
    mel: FloatArray,
    clip: str,
    start: float = 0.0,
    listener: Listener = SILENT,
) -> LayerComparison:
    """Run open encoders over one window in step; `clip`, `start`: where it is from.

    Raises as `compare_stages` does.
    """
    plain = checkpoint.build(Whisper).encoder
    references = float64_stages(checkpoint, mel), torch_stages(plain, mel, torch.float32)
    about = LayerComparison(checkpoint.name, clip, start, tuple(encoders), ())
    total = 5 + checkpoint.dims.n_audio_layer  # as the stages beside the blocks are five
    return compare_stages(about, mel, references, Rows(start), total, listener)


@dataclass(frozen=True)
class Rows:
    """What the rows of stages stand for: frames of a window that begins at `start` seconds, or
    `tokens`, each with its text and, in seconds from there, when it is said, if that is known."""

    start: float = 0.0
    tokens: tuple[tuple[str, float | None], ...] = ()

    def find_worst(self, output: np.ndarray, exact: np.ndarray) -> WorstElement | None:
        """Return the element farthest from the exact one, or the first that is not finite; None
        where shapes differ."""
        if output.shape != exact.shape:
            return None
        gaps = np.abs(output.astype(np.float64) - exact)
        gaps[~np.isfinite(gaps)] = np.inf
        row, unit = map(int, np.unravel_index(gaps.argmax(), gaps.shape))
        gap, value = float(gaps[row, unit]), float(exact[row, unit])
        if len(output) == len(self.tokens):
            text, time = self.tokens[row]
            at = None if time is None else self.start + time
            return WorstElement("token", row, unit, gap, value, at, text)
        if len(output) < output.shape[1] == N_FRAMES:  # log-mel has its frames in columns
            row, unit, frames = unit, row, N_FRAMES
        else:
            frames = len(output)
        time = row * WINDOW_SECONDS / frames
        return WorstElement("frame", row, unit, gap, value, self.start + time)


def compare_stages(
    about: LayerComparison,
    given: Any,
    references: tuple[Stages, Stages],
    rows: Rows,
    total: int,
    listener: Listener = SILENT,
) -> LayerComparison:
    """Run open encoders or decoders in step, so that only one stage of each is held at a time.

    `about`: the comparison without its stages. `given`: what the halves are given. `references`:
    the stages of PyTorch in float64 and in float32; `total`: how many there are. Raises `Stopped`,
    and `EngineError` when the halves have different stages.
    """
    if len({half.name for half in about.halves}) < len(about.halves):
        raise EngineError("Name each engine once: there is nothing to compare one with itself.")
    runs = [*references, *(half.stages(given) for half in about.halves)]
    stages: list[StageComparison] = []
    nothing = "", np.zeros(0)
    for step in zip_longest(*runs, fillvalue=nothing):
        share = len(stages) / total
        listener.report("comparing", share, 1.0, f"comparing stage {len(stages) + 1}")
        if len({name for name, _ in step}) > 1:
            raise EngineError("These engines have different stages and can't be compared.")
        exact, float32, *outputs = (output for _, output in step)
        by_name = {each.name: output for each, output in zip(about.halves, outputs, strict=True)}
        stages.append(compare_stage(step[0][0], exact, float32, by_name, rows))
    closed = tuple(replace(each, stages=not_open) for each in about.halves)
    return replace(about, halves=closed, stages=tuple(stages))


def compare_stage(
    name: str,
    exact: np.ndarray,
    float32: FloatArray,
    outputs: Mapping[str, FloatArray],
    rows: Rows,
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
        worst={key: rows.find_worst(output, exact) for key, output in outputs.items()},
    )


def relative_error(output: np.ndarray, exact: np.ndarray) -> float:
    """Return ‖output - exact‖ / ‖exact‖; infinite for other shapes and values not finite."""
    if output.shape != exact.shape or not np.isfinite(output).all():
        return float("inf")
    gap = float(np.linalg.norm(output.astype(np.float64) - exact))
    norm = float(np.linalg.norm(exact.astype(np.float64)))
    return gap / norm if gap and norm else (float("inf") if gap else 0.0)
