"""An engine with a fault in it, and what the fault does to a clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from whisper.decoding import DecodingOptions, DecodingResult

from engines import checkpoints, microscope, registry
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
)
from engines.checkpoints import Checkpoint
from engines.decoding import ClockedWhisper
from engines.examination import Examination, Specimen, examine
from engines.faults.catalogue import Fault
from engines.max_hybrid import EncoderModule, HybridWhisper, MaxHybridEngine, why_no_max

if TYPE_CHECKING:
    from engines.max_graph.encoder import MaxEncoder

ENGINE = "max_hybrid"
"""The engine that gets the faults: MAX's encoder, and PyTorch's decoder, which stays sound."""

TEMPERATURES = (0.0,)
"""Greedy at temperature 0 without fallback: what comes out is what the encoder's output led to,
and no random sample."""


class FaultyModule(EncoderModule):
    """MAX's encoder with a fault, where whisper expects PyTorch's."""

    def __init__(self, encoder: MaxEncoder, fault: Fault) -> None:
        super().__init__(encoder)
        self.fault = fault

    def encode(self, mel: FloatArray) -> FloatArray:
        """One window, `(n_mels, 3000)` to `(n_audio_ctx, n_audio_state)`."""
        *_, (_, features) = self.fault.stages(self.max_encoder.stages(self.fault.mel(mel)))
        return features

    def forward(self, mel: Tensor) -> Tensor:
        """As `EncoderModule.forward`."""
        windows = mel.float().cpu().numpy()
        features = [torch.from_numpy(self.encode(window)) for window in windows]
        return torch.stack(features).to(mel.device, mel.dtype)


class FirstWindowWhisper(HybridWhisper):
    """Decodes the first window and calls every later one silence."""

    def __init__(self, dims: Any) -> None:
        super().__init__(dims)
        self.first: Tensor | None = None

    def decode(self, mel: Tensor, options: Any = None, **kwargs: Any) -> Any:
        """A retry of the first window brings the same tensor."""
        if self.first is None or mel is self.first:
            self.first = mel
            return super().decode(mel, options, **kwargs)
        language = (options or DecodingOptions(**kwargs)).language or "en"
        return DecodingResult(torch.zeros(0), language, no_speech_prob=1.0)


class FaultyEngine(MaxHybridEngine):
    """`max_hybrid` with a fault; make a new one for each clip."""

    def __init__(self, fault: Fault, model: str) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        super().__init__(model, device, "float32")
        self.fault = fault
        self.key = f"{ENGINE} with {fault.key}"
        self.label = f"MAX hybrid, {fault.title}"

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[ClockedWhisper, float]:
        """The checkpoint's model with the faulty encoder."""
        kind = FirstWindowWhisper if self.fault.first_window_only else HybridWhisper
        model = checkpoint.build(kind)
        encoder, seconds = load_faulty_encoder(checkpoint, self.fault, listener)
        model.encoder = FaultyModule(encoder, self.fault)
        return model.to(self.device), seconds


def load_faulty_encoder(
    checkpoint: Checkpoint, fault: Fault, listener: Listener
) -> tuple[MaxEncoder, float]:
    """`load_max_encoder` with the fault's weights, in the same compiled graphs.

    Their type is the sound checkpoint's, so weights rounded to int8 steps on a processor are kept
    in float16, which moves them by 2 ** -12 of their size at most.
    """
    from engines.max_graph import session
    from engines.max_graph.encoder import MaxEncoder
    from engines.max_graph.weights import encoder_weights

    weights = fault.weights(encoder_weights(checkpoint.state, checkpoint.dims))
    device = session.pick_device()
    weight = session.pick_weight(checkpoint, device, "float32")
    start = perf_counter()
    models, op = session.load_encoder(checkpoint.dims, device, weight, listener)
    seconds = perf_counter() - start
    return MaxEncoder(models, weights, op, device), seconds


# A run in the lab.


@dataclass(frozen=True)
class Finding:
    """What a fault did to one clip.

    `right`: the engine without the fault, same options. `faulty` is None where the faulty run
    broke; `error` then says how. Both are of the whole clip. `examination`: PyTorch's encoder (the
    baseline), MAX's, and MAX's with the fault, over the clip's first window.
    """

    fault: Fault
    model: str
    clip: str
    audio_seconds: float
    right: Transcript
    faulty: Transcript | None
    error: str | None
    examination: Examination

    def without_features(self) -> Finding:
        """The same without the encoder's features of the whole clip, which may be large."""
        return replace(
            self,
            right=self.right.without_features(),
            faulty=self.faulty and self.faulty.without_features(),
        )

    @property
    def sound(self) -> Specimen:
        """MAX's encoder without the fault."""
        return self.examination.specimens[1]

    @property
    def specimen(self) -> Specimen:
        """MAX's encoder with the fault."""
        return self.examination.specimens[2]

    @property
    def first_stage(self) -> str | None:
        """The first stage that the fault moves past the tolerance; None where none is."""
        return self.examination.first_past(self.specimen.name)


def run_fault(
    fault: Fault,
    model: str,
    clip: Clip,
    language: str | None = "en",
    listener: Listener = SILENT,
) -> Finding:
    """Run the clip without the fault and with it, then look at every stage of its first window.

    Raises `EngineUnavailable` without MAX, `Stopped`, and other `EngineError`s; one that the fault
    itself causes is kept in the finding.
    """
    if reason := why_no_max():
        raise EngineUnavailable(f"Faults are put into MAX’s encoder, and {reason}.")
    listener.report("loading")
    checkpoint = checkpoints.load(model, listener)
    options = Options(language=language, temperatures=TEMPERATURES)
    sound = registry.get(ENGINE, model)
    sound.prepare(listener)
    part = PartListener(listener, 0.05, 0.4, "transcribing without the fault")
    right = sound.transcribe(clip, options, part)
    part = PartListener(listener, 0.4, 0.75, "transcribing with the fault")
    faulty, error = _transcribe_faulty(FaultyEngine(fault, model), clip, options, part)
    examination = _examine(fault, checkpoint, clip, PartListener(listener, 0.75, 1.0))
    return Finding(fault, model, clip.name, clip.seconds, right, faulty, error, examination)


def _transcribe_faulty(
    engine: FaultyEngine, clip: Clip, options: Options, listener: Listener
) -> tuple[Transcript | None, str | None]:
    try:
        return engine.transcribe(clip, options, listener), None
    except Stopped:
        raise
    except Exception as error:  # what a fault breaks is what the lab is there to show
        return None, f"{type(error).__name__}: {error}"
    finally:
        engine.close()


def _examine(fault: Fault, checkpoint: Checkpoint, clip: Clip, listener: Listener) -> Examination:
    listener.report("comparing", 0.0, 1.0, "opening the encoders")
    opened = microscope.open_max(checkpoint, change=fault.weights)
    faulty = replace(
        opened,
        name=f"{opened.name} with {fault.key}",
        label="MAX with the fault",
        stages=lambda mel: fault.stages(opened.stages(fault.mel(mel))),
    )
    sound = replace(microscope.open_max(checkpoint), label="MAX")
    specimens = [microscope.open_torch(checkpoint, "cpu", "float32"), sound, faulty]
    dims = checkpoint.dims
    mel = microscope.cut_window(clip, dims.n_mels)
    return examine(specimens, mel, checkpoint.name, clip.name, 0.0, listener, dims.n_audio_layer)
