"""Run MAX's encoder with a deliberate fault beside the same encoder without it.

The engines know nothing of faults. A fault (`fault_catalogue.Fault`) is up to four changes: to the
record of weights before they are laid out (weights are the graphs' inputs, so nothing is compiled
anew), to the log-mel window, to the outputs of the stages as they come, and to whisper's loop over
windows. `FaultyEngine` is a subclass of the engine that applies them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from whisper.decoding import DecodingOptions, DecodingResult

from engines import checkpoints, registry
from engines.analysis import layers, records
from engines.analysis.fault_catalogue import FAULTS, Fault, get_fault
from engines.analysis.records import FaultResult, LayerComparison
from engines.base import (
    SILENT,
    Clip,
    EngineUnavailable,
    FloatArray,
    Listener,
    Options,
    PartListener,
    Stopped,
    Transcript,
    describe_error,
)
from engines.checkpoints import Checkpoint
from engines.hardware import why_no_max
from engines.max_whisper import EncoderModule, HybridWhisper, MaxHybridEngine, load_max_encoder
from engines.transcription import TimedWhisper

if TYPE_CHECKING:
    from engines.max_graph.encoder import MaxEncoder

__all__ = ["FAULTS", "as_json", "format_text", "get_fault", "run_fault"]

ENGINE = "max_hybrid"
"""The engine that gets the faults: MAX's encoder, and PyTorch's decoder, which has none."""

TEMPERATURES = (0.0,)
"""Greedy without fallback: what comes out follows from the encoder's output alone."""


class FaultyModule(EncoderModule):
    """MAX's encoder with a fault, where whisper expects PyTorch's."""

    def __init__(self, encoder: MaxEncoder, fault: Fault) -> None:
        super().__init__(encoder)
        self.fault = fault

    def encode(self, mel: FloatArray) -> FloatArray:
        """Encode one window, `(n_mels, 3000)` to `(n_audio_ctx, n_audio_state)`."""
        *_, (_, features) = self.fault.stages(self.max_encoder.stages(self.fault.mel(mel)))
        return features

    def forward(self, mel: Tensor) -> Tensor:
        """As `EncoderModule.forward`."""
        windows = mel.float().cpu().numpy()
        features = [torch.from_numpy(self.encode(window)) for window in windows]
        return torch.stack(features).to(mel.device, mel.dtype)


class FirstWindowWhisper(HybridWhisper):
    """Decodes the first window and reports every later one as silence."""

    def __init__(self, dims: Any) -> None:
        super().__init__(dims)
        self.first: Tensor | None = None

    def decode(self, mel: Tensor, options: Any = None, **kwargs: Any) -> Any:
        """As whisper's; a retry of the first window brings the same tensor."""
        if self.first is None or mel is self.first:
            self.first = mel
            return super().decode(mel, options, **kwargs)
        language = (options or DecodingOptions(**kwargs)).language or "en"
        return DecodingResult(torch.zeros(0), language, no_speech_prob=1.0)


class FaultyEngine(MaxHybridEngine):
    """`max_hybrid` with a fault, for one clip."""

    def __init__(self, fault: Fault, model: str) -> None:
        row = registry.row(ENGINE)
        key, label = f"{row.key} with {fault.key}", f"{row.label}, {fault.title}"
        super().__init__(replace(row, key=key, label=label), model, "float32")
        self.fault = fault

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        """Return the checkpoint's model with the faulty encoder.

        The type of the weights is the sound checkpoint's, so weights rounded to int8 steps are kept
        in float16 on a CPU, which moves them by 2 ** -12 of their size at most.
        """
        from engines.max_graph.weights import encoder_weights

        kind = FirstWindowWhisper if self.fault.first_window_only else HybridWhisper
        model = checkpoint.build(kind)
        weights = self.fault.weights(encoder_weights(checkpoint.state, checkpoint.dims))
        encoder, seconds = load_max_encoder(checkpoint, listener, weights=weights)
        model.encoder = FaultyModule(encoder, self.fault)
        return model.to(self.device), seconds


def run_fault(
    key: str,
    model: str,
    clip: Clip,
    language: str | None = None,
    listener: Listener = SILENT,
) -> FaultResult:
    """Transcribe the clip without and with a fault, then compare every stage of its first window.

    Raises `EngineUnavailable` without MAX, `Stopped`, and other `EngineError`s; an error that the
    fault itself causes is kept in the result.
    """
    return run(get_fault(key), model, clip, language, listener)


def run(
    fault: Fault, model: str, clip: Clip, language: str | None, listener: Listener = SILENT
) -> FaultResult:
    """As `run_fault`, for any fault."""
    if reason := why_no_max():
        raise EngineUnavailable(f"Faults are put into MAX’s encoder, and {reason}.")
    listener.report("loading")
    checkpoint = checkpoints.load(model, listener)
    options = Options(language=language, temperatures=TEMPERATURES)
    engine = registry.get(ENGINE, model)
    engine.prepare(listener)
    part = PartListener(listener, 0.05, 0.4, "transcribing without the fault")
    right = engine.transcribe(clip, options, part)
    part = PartListener(listener, 0.4, 0.75, "transcribing with the fault")
    faulty, error = _transcribe_faulty(FaultyEngine(fault, model), clip, options, part)
    compared = _compare(fault, checkpoint, clip, PartListener(listener, 0.75, 1.0))
    return FaultResult(fault, model, clip.name, clip.seconds, right, faulty, error, compared)


def _transcribe_faulty(
    engine: FaultyEngine, clip: Clip, options: Options, listener: Listener
) -> tuple[Transcript | None, str | None]:
    try:
        return engine.transcribe(clip, options, listener), None
    except Stopped:
        raise
    except Exception as error:  # showing what a fault breaks is the purpose
        return None, describe_error(error)
    finally:
        engine.close()


def _compare(
    fault: Fault, checkpoint: Checkpoint, clip: Clip, listener: Listener
) -> LayerComparison:
    listener.report("comparing", 0.0, 1.0, "opening the encoders")
    baseline = layers.open_encoder(registry.BASELINE, checkpoint, listener)
    right = replace(layers.open_max(checkpoint), name=ENGINE, label="MAX")
    broken = layers.open_max(checkpoint, change=fault.weights)
    faulty = replace(
        broken,
        name=f"{ENGINE} with {fault.key}",
        label="MAX with the fault",
        stages=lambda mel: fault.stages(broken.stages(fault.mel(mel))),
    )
    encoders = (baseline, right, faulty)
    mel = layers.cut_window(clip, checkpoint.dims.n_mels)
    stages = layers.compare_stages(encoders, checkpoint, mel, listener)
    infos = tuple(encoder.info() for encoder in encoders)
    return LayerComparison(checkpoint.name, clip.name, 0.0, infos, stages)


def as_json(result: FaultResult) -> dict[str, Any]:
    """Return one object: `fault`, `title`, `model`, `clip`, `audio_seconds`, `first_stage` (null
    where no stage shows the fault), `right` and `faulty` text (null where the run failed, and then
    `error` says how), and `layers` as `records.as_json`."""
    return {
        "fault": result.fault.key,
        "title": result.fault.title,
        "model": result.model,
        "clip": result.clip,
        "audio_seconds": result.audio_seconds,
        "first_stage": result.first_stage,
        "right": result.right.text.strip(),
        "faulty": None if result.faulty is None else result.faulty.text.strip(),
        "error": result.error,
        "layers": records.as_json(result.layers),
    }


def format_text(result: FaultResult) -> str:
    """Return a few lines: where the fault first shows, the features at the end, and both texts."""
    last, name = result.layers.stages[-1], result.faulty_encoder.name
    figures, similarity = last.statistics[name], last.similarity[name]
    lines = [f"{result.fault.key}: {result.fault.title}"]
    lines.append(f"  first shows  {result.first_stage or 'nowhere in the encoder'}")
    if figures is not None and similarity is not None:
        lines.append(
            f"  features     mean {figures.mean:.4f}, std {figures.std:.4f}, cosine "
            f"{similarity.cosine:.6f}, relative error {last.error(name):.1e}"
        )
    lines.append(f"  right        {result.right.text.strip()}")
    text = result.error if result.faulty is None else result.faulty.text.strip()
    lines.append(f"  with fault   {text}")
    return "\n".join(lines)
