"""The microscope: encoders compared after every stage. `python -m engines.microscope`.

Stages in order of depth: `log-mel` (what the encoder is given), `conv1`, `conv2`, `positions`
(`conv2` with the positions added), `blocks.0`, …, `ln_post`. All are float32 on the host, whatever
an encoder computes in: `log-mel` is `(n_mels, 3000)`, `conv1` `(3000, n_audio_state)` and the rest
`(n_audio_ctx, n_audio_state)`.

A specimen is an encoder in one type, spelled `ENGINE` or `ENGINE:TYPE`. For a MAX encoder on a
processor the type is that of its weights; it computes in float32 either way.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

from engines import checkpoints, logs, registry
from engines.audio import load_clip
from engines.base import SILENT, Clip, EngineError, EngineUnavailable, FloatArray, Listener
from engines.checkpoints import DEFAULT_MODEL, Checkpoint
from engines.examination import (
    TOLERANCE,
    Candidate,
    Examination,
    OpenSpecimen,
    StageReading,
    Stages,
    examine,
)
from engines.metrics import FeatureSimilarity, FeatureStatistics

if TYPE_CHECKING:
    from max.driver import Device
    from max.engine import Model

    from engines.max_graph.encoder import MaxEncoder
    from engines.max_graph.operations import Operations
    from engines.max_graph.weights import EncoderWeights

MAX_ENGINES = ("max_hybrid", "max_full")
"""Both have the same encoder."""


def cut_window(clip: Clip, n_mels: int, start: float = 0.0) -> FloatArray:
    """One window's log-mel `(n_mels, 3000)`, as whisper's own loop cuts it at `start` seconds.

    Raises `EngineError` when the clip ends before `start`.
    """
    if not 0 <= start <= clip.seconds:
        raise EngineError(
            f"The clip has {clip.seconds:.1f} s: a window can't start at {start:g} s."
        )
    mel = log_mel_spectrogram(clip.samples, n_mels, padding=N_SAMPLES)
    at = round(start * SAMPLE_RATE / HOP_LENGTH)
    end = min(mel.shape[-1] - N_FRAMES, at + N_FRAMES)
    window: FloatArray = pad_or_trim(mel[:, at:end], N_FRAMES).numpy()
    return window


# PyTorch's encoder, stage by stage.


@torch.inference_mode()
def torch_stages(encoder: AudioEncoder, mel: FloatArray, dtype: torch.dtype) -> Stages:
    """Every stage of whisper's own encoder (`whisper.model.AudioEncoder.forward`, 20250625)."""
    yield "log-mel", mel
    device = encoder.positional_embedding.device
    x = torch.from_numpy(mel)[None].to(device, dtype)
    x = F.gelu(encoder.conv1(x))
    yield "conv1", _on_host(x[0].T)
    x = F.gelu(encoder.conv2(x)).permute(0, 2, 1)
    yield "conv2", _on_host(x[0])
    x = (x + encoder.positional_embedding).to(x.dtype)
    yield "positions", _on_host(x[0])
    for layer, block in enumerate(encoder.blocks):
        x = block(x)
        yield f"blocks.{layer}", _on_host(x[0])
    yield "ln_post", _on_host(encoder.ln_post(x)[0])


def _on_host(x: torch.Tensor) -> FloatArray:
    host: FloatArray = x.float().cpu().numpy()
    return host


def open_torch(checkpoint: Checkpoint, engine: str, dtype: str) -> OpenSpecimen:
    """`cpu` or `gpu`; float16 has half inputs and activations, as whisper's `fp16` has."""
    device = "cuda" if engine == "gpu" else "cpu"
    encoder = checkpoint.build(Whisper).encoder.to(device)
    kind = torch.float16 if dtype == "float16" else torch.float32
    label = f"PyTorch {engine.upper()}, {dtype}"
    return OpenSpecimen(
        f"{engine}:{dtype}",
        label,
        device,
        lambda mel: torch_stages(encoder, mel, kind),
        rounds_to="" if dtype == "float32" else dtype,
    )


# MAX's encoder, stage by stage.


class StagedMaxEncoder:
    """MAX's encoder with `conv2` and `positions` apart, which its stem graph computes as one.

    `conv2` alone is the same compiled stem with zeros for positions, so nothing is computed here
    that the graphs don't compute.
    """

    def __init__(
        self, models: dict[str, Model], weights: EncoderWeights, op: Operations, device: Device
    ) -> None:
        from engines.max_graph.encoder import MaxEncoder

        *convolutions, positions = weights.stem
        assert isinstance(positions, np.ndarray)
        unplaced = replace(weights, stem=[*convolutions, np.zeros_like(positions)], blocks=())
        self._whole: MaxEncoder = MaxEncoder(models, weights, op, device)
        self._unplaced: MaxEncoder = MaxEncoder(models, unplaced, op, device)

    def stages(self, mel: FloatArray) -> Stages:
        """Every stage of one window."""
        yield "log-mel", mel
        yield from islice(self._unplaced.stages(mel), 2)
        rest = islice(self._whole.stages(mel), 1, None)
        yield "positions", next(rest)[1]
        yield from rest


def open_max(
    checkpoint: Checkpoint,
    dtype: str | None = None,
    engine: str = "max_hybrid",
    change: Callable[[EncoderWeights], EncoderWeights] = lambda weights: weights,
    listener: Listener = SILENT,
) -> OpenSpecimen:
    """MAX's encoder where the engines run it; `dtype` of its weights, else the engines' own.

    `change` is applied to the weights before they are laid out. On an accelerator the type is that
    of every product as well. Raises `EngineUnavailable` for a type that the graphs lack there.
    """
    from max.dtype import DType

    from engines.max_graph import session
    from engines.max_graph.weights import encoder_weights, matrix_dtype

    device = session.pick_device()
    usual = matrix_dtype(checkpoint).name if device.label == "cpu" else "float32"
    dtype = dtype or usual
    if dtype not in max_types(on_cpu=device.label == "cpu"):
        raise EngineUnavailable(f"MAX's encoder has no {dtype} on a processor.")
    weights = change(encoder_weights(checkpoint.state, checkpoint.dims))
    models, op = session.load_encoder(checkpoint.dims, device, DType[dtype], listener)
    encoder = StagedMaxEncoder(models, weights, op, device)
    label = label_max(dtype, on_cpu=device.label == "cpu")
    exact = dtype == "float32" or (device.label == "cpu" and checkpoint.fits_float16)
    return OpenSpecimen(
        f"{engine}:{dtype}",
        label,
        device.label,
        encoder.stages,
        rounds_to="" if exact else dtype,
    )


def max_types(on_cpu: bool) -> tuple[str, ...]:
    """The types of MAX's encoder: of the weights on a processor, of the products elsewhere."""
    return ("float32", "float16") if on_cpu else ("float32", "float16", "bfloat16")


def label_max(dtype: str, on_cpu: bool) -> str:
    """MAX's encoder in one type, in words."""
    return f"MAX, {dtype} weights" if on_cpu else f"MAX on the accelerator, {dtype}"


# What can be looked at on this machine.


def candidates() -> tuple[Candidate, ...]:
    """Every specimen that this machine has, the baseline first."""
    ready = registry.available()
    found = [Candidate("cpu:float32", "PyTorch CPU, float32")]
    if "gpu" in ready:
        found += [
            Candidate("gpu:float32", "PyTorch GPU, float32"),
            Candidate("gpu:float16", "PyTorch GPU, float16"),
        ]
    if "max_hybrid" in ready:
        from max.driver import accelerator_count

        on_cpu = accelerator_count() == 0
        found += [
            Candidate(f"max_hybrid:{kind}", label_max(kind, on_cpu)) for kind in max_types(on_cpu)
        ]
    return tuple(found)


def open_specimen(name: str, checkpoint: Checkpoint, listener: Listener = SILENT) -> OpenSpecimen:
    """The specimen spelled `ENGINE` or `ENGINE:TYPE`.

    Raises `EngineUnavailable` where this machine has none, `EngineError` for a wrong spelling.
    """
    engine, _, dtype = name.partition(":")
    row = next((row for row in registry.ROWS if row.key == engine), None)
    if row is None:
        known = ", ".join(registry.all_keys())
        raise EngineError(f"There is no engine {engine!r}: pick one of {known}.")
    types = ["", "float32"] if engine == "cpu" else ["", "float32", "float16"]
    types += ["bfloat16"] if engine in MAX_ENGINES else []
    if dtype not in types:
        raise EngineError(
            f"{engine} has no type {dtype!r}: pick {' or '.join(types[1:])}, after a colon."
        )
    if reason := row.why_not():
        raise EngineUnavailable(f"{engine} can't run here: {reason}.")
    if engine in MAX_ENGINES:
        return open_max(checkpoint, dtype or None, engine, listener=listener)
    return open_torch(checkpoint, engine, dtype or "float32")


def look(
    names: Sequence[str],
    model: str,
    clip: Clip,
    listener: Listener = SILENT,
    start: float = 0.0,
) -> Examination:
    """Open the specimens and examine them over one window of the clip; the first is the baseline.

    Raises any `EngineError`, `Stopped` among them.
    """
    listener.report("loading")
    checkpoint = checkpoints.load(model, listener)
    specimens = []
    for name in names:
        listener.report("comparing", 0.0, 1.0, f"opening {name}")
        specimens.append(open_specimen(name, checkpoint, listener))
    mel = cut_window(clip, checkpoint.dims.n_mels, start)
    layers = checkpoint.dims.n_audio_layer
    return examine(specimens, mel, model, clip.name, start, listener, layers)


# The terminal.

CLIP = Path(__file__).parent.parent / "audio_samples" / "short.flac"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; exit status 0 within the tolerance, 1 past it or after an error."""
    asked = _parse(arguments)
    logs.set_up()
    run = logs.new_run_id()
    with logs.in_run(run):
        return _examine(asked, run)


def _examine(asked: argparse.Namespace, run: str) -> int:
    names = (asked.baseline, *asked.engines)
    try:
        seen = look(names, asked.model, load_clip(asked.clip), start=asked.start)
    except EngineError as error:
        about = {"engines": names, "model": asked.model, "clip": asked.clip}
        logs.logger().error("failed", **about, error=str(error))
        print(f"error: {error}", file=sys.stderr)
        return 1
    examination = replace(seen, tolerance=asked.tolerance)
    if asked.json:
        print(json.dumps({"run": run, **as_json(examination)}, ensure_ascii=False))
    else:
        print(render_text(examination))
    return int(any(examination.first_past(specimen.name) for specimen in examination.others))


def as_json(examination: Examination) -> dict[str, Any]:
    """One object: `model`, `clip`, `start` in seconds, `tolerance`, `baseline`, `specimens`
    (`name`, `label`, `device`, and `first_past`: the first stage past the tolerance or null) and
    `stages` (`name`, `shape`, `statistics` and `similarity` by specimen; null where values are
    not finite)."""
    return {
        "model": examination.model,
        "clip": examination.clip,
        "start": examination.start,
        "tolerance": examination.tolerance,
        "baseline": examination.baseline.name,
        "specimens": [
            {
                "name": specimen.name,
                "label": specimen.label,
                "device": specimen.device,
                "first_past": examination.first_past(specimen.name)
                if specimen in examination.others
                else None,
            }
            for specimen in examination.specimens
        ],
        "stages": [
            {
                "name": stage.name,
                "shape": list(stage.shape),
                "statistics": {key: _plain(value) for key, value in stage.statistics.items()},
                "similarity": {key: _plain(value) for key, value in stage.similarity.items()},
            }
            for stage in examination.stages
        ],
    }


def _plain(figures: FeatureStatistics | FeatureSimilarity | None) -> dict[str, Any] | None:
    """Figures for JSON, which has no word for what isn't finite."""
    if figures is None:
        return None
    return {key: value if np.isfinite(value) else None for key, value in asdict(figures).items()}


HEADINGS = ("stage", "mean", "std", "min", "max", "relative L2", "cosine", "max |Δ|")


def render_text(examination: Examination) -> str:
    """A table for each specimen but the baseline, and a sentence beneath it."""
    baseline = examination.baseline
    lines = [
        f"{examination.model}, {examination.clip}, the window at {examination.start:g} s",
        f"baseline: {baseline.label} ({baseline.device})",
    ]
    for specimen in examination.others:
        lines += ["", f"{specimen.label} ({specimen.device})"]
        lines.append(f"{HEADINGS[0]:<12}" + "".join(f"{name:>13}" for name in HEADINGS[1:]))
        lines += [_render_line(stage, specimen.name) for stage in examination.stages]
        first = examination.first_past(specimen.name)
        lines.append(
            f"past {examination.tolerance:.0e} from {first} on"
            if first
            else f"every stage is within {examination.tolerance:.0e} of the baseline"
        )
    return "\n".join(lines)


def _render_line(stage: StageReading, specimen: str) -> str:
    statistics, similarity = stage.statistics[specimen], stage.similarity[specimen]
    if statistics is None:
        return f"{stage.name:<12}" + "not finite".rjust(13)
    cells = [
        f"{value:13.5f}"
        for value in (statistics.mean, statistics.std, statistics.minimum, statistics.maximum)
    ]
    if similarity is None:
        return f"{stage.name:<12}" + "".join(cells) + "other shape".rjust(13)
    cells += [f"{similarity.relative_l2:13.1e}", f"{similarity.cosine:13.9f}"]
    return f"{stage.name:<12}" + "".join(cells) + f"{similarity.max_abs:13.1e}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engines.microscope",
        description="Compare encoders after every stage: statistics, cosine and relative L2. "
        "Exit status 1 past the tolerance. An engine is spelled ENGINE or ENGINE:TYPE, "
        "for example max_hybrid:float32.",
    )
    parser.add_argument("baseline", nargs="?", default="cpu", help="what others are held against")
    parser.add_argument("engines", nargs="*", default=["max_hybrid"], help="one engine or more")
    parser.add_argument("--clip", default=str(CLIP), help="any audio file")
    parser.add_argument("--start", type=float, default=0.0, help="seconds to the window")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="nano, an official name, or a path")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="of the relative error")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
