"""Faults that can be put into MAX's encoder, and runs with and without one side by side.

The engines know nothing of faults. A fault is up to four changes: to the record of weights before
they are laid out (weights are the graphs' inputs, so nothing is compiled anew), to the log-mel
window, to the outputs of the stages as they come, and to which windows are decoded. PyTorch and MAX
are imported only by a run: the page lists the faults without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from engines import registry
from engines.analysis.records import Half, LayerComparison
from engines.base import (
    SAMPLE_RATE,
    SILENT,
    Clip,
    Engine,
    EngineError,
    EngineUnavailable,
    FloatArray,
    Listener,
    Options,
    PartListener,
    Stages,
    Stopped,
    Transcript,
    describe_error,
)
from engines.feature_statistics import WINDOW_SECONDS
from engines.hardware import why_no_max

if TYPE_CHECKING:
    from engines.checkpoints import Checkpoint
    from engines.max_graph.weights import EncoderWeights, Weights
    from engines.transcription import TimedWhisper

ENGINE = "max_hybrid"
"""The engine that gets the faults: MAX's encoder, and PyTorch's decoder, which has none."""


def unchanged(value: Any) -> Any:
    """Return the value."""
    return value


@dataclass(frozen=True)
class Fault:
    """A mistake that can be put into MAX's encoder.

    `story`: one sentence for the page. `weights` changes the weights before they are laid out,
    `mel` the encoder's input `(n_mels, 3000)`, `stages` the outputs of its stages as they come.
    `first_window_only` leaves out what was said after the first window.
    """

    key: str
    title: str
    story: str
    weights: Callable[[EncoderWeights], EncoderWeights] = field(default=unchanged, repr=False)
    mel: Callable[[FloatArray], FloatArray] = field(default=unchanged, repr=False)
    stages: Callable[[Stages], Stages] = field(default=unchanged, repr=False)
    first_window_only: bool = False

    def run_stages(self, sound: Callable[[FloatArray], Stages], mel: FloatArray) -> Stages:
        """Yield the stages of a window, in an encoder whose weights have the fault already."""
        return self.stages(sound(self.mel(mel)))

    def __reduce__(self) -> tuple[Callable[[str], Fault], tuple[str]]:
        """Pickle a fault as its key, because closures can't be pickled."""
        return get_fault, (self.key,)


def leave_out_ln_post(stages: Stages) -> Stages:
    """Return the last block's output in place of the last norm's."""
    before = np.zeros((0, 0), np.float32)
    for name, output in stages:
        before = before if name == "ln_post" else output
        yield name, before


def scale_output(stages: Stages) -> Stages:
    """Multiply the encoder's output by 0.276, as the 2025 attempt did."""
    for name, output in stages:
        yield name, output * np.float32(0.276) if name == "ln_post" else output


def to_decibels(mel: FloatArray) -> FloatArray:
    """Convert a window `(n_mels, 3000)` to what `librosa.power_to_db` makes of the same power.

    Whisper takes log10 of a power of at least 1e-10, lifts what is more than 8 decades below the
    clip's maximum, and maps x to (x + 4) / 4: undone, that is the power. `power_to_db` would lift
    what is more than 80 dB below its maximum, which is the same and done already. The zeros that
    fill up a short window are put in after either, so they stay zeros.
    """
    import librosa

    columns = np.flatnonzero(mel.any(axis=0))
    sound = int(columns[-1]) + 1 if columns.size else 0
    power = 10 ** (4 * mel[:, :sound].astype(np.float64) - 4)
    decibels = np.zeros_like(mel)
    decibels[:, :sound] = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
    return decibels


def misread_convolutions(weights: EncoderWeights) -> EncoderWeights:
    """Read PyTorch's `(n_out, n_in, 3)` as if it lay in memory as `(n_out, 3, n_in)`."""

    def misread(taps: FloatArray) -> FloatArray:
        n_out, depth = taps.shape
        laid = taps.reshape(n_out, 3, depth // 3).transpose(0, 2, 1)
        return np.ascontiguousarray(laid).reshape(n_out, depth)

    return replace(weights, convolutions=change_matrices(weights.convolutions, misread))


def zero_positions(weights: EncoderWeights) -> EncoderWeights:
    """Zero the positional embedding."""
    return replace(weights, positions=np.zeros_like(weights.positions))


def skip_block(weights: EncoderWeights) -> EncoderWeights:
    """Skip the middle block by zeroing its last matrices and biases.

    A block adds its attention and its MLP to what comes in, so adding zeros is skipping it.
    """
    blocks = list(weights.blocks)
    middle = len(blocks) // 2
    outputs = (4, 5, 10, 11)  # matrix and bias of attention's output and of the MLP's
    blocks[middle] = [
        np.zeros_like(weight) if at in outputs else weight
        for at, weight in enumerate(blocks[middle])
    ]
    return replace(weights, blocks=tuple(blocks))


def round_to_int8(matrix: FloatArray) -> FloatArray:
    """Round each row to 255 even steps, as symmetric int8 weights with a scale per row do."""
    scale = np.abs(matrix).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    return (np.round(matrix / scale) * scale).astype(np.float32)


def round_to_bfloat16(matrix: FloatArray) -> FloatArray:
    """Round each value to the nearest bfloat16, ties to even."""
    import torch

    rounded: FloatArray = torch.from_numpy(matrix).bfloat16().float().numpy()
    return rounded


def round_weights(
    rounded: Callable[[FloatArray], FloatArray], weights: EncoderWeights
) -> EncoderWeights:
    """Round every matrix; biases, norms and positions stay, as is usual."""
    return replace(
        weights,
        convolutions=change_matrices(weights.convolutions, rounded),
        blocks=tuple(change_matrices(block, rounded) for block in weights.blocks),
    )


def change_matrices(weights: Weights, change: Callable[[FloatArray], FloatArray]) -> Weights:
    """Apply `change` to the matrices and leave the other weights as they are."""
    return [change(each) if each.ndim == 2 else each for each in weights]


FAULTS = (
    Fault(
        "conv_layout",
        "Convolution weights in the wrong layout",
        "The 2025 attempt read the convolutions’ weights in another order: the spread looked "
        "plausible, 1.708 beside 1.448, but the cosine was −0.038 and the text nonsense. Of the "
        "JFK sample base makes “I’m sorry.” and tiny.en “I’m gonna go...”",
        weights=misread_convolutions,
    ),
    Fault(
        "positions",
        "Positions zeroed",
        "Without its positions the encoder hears the same sounds but cannot tell when each of "
        "them was. Of the JFK sample tiny.en makes “I I I I …”, two hundred times; base is silent.",
        weights=zero_positions,
    ),
    Fault(
        "ln_post",
        "ln_post left out",
        "The 2025 attempt left out the last layer norm: its features had a mean of 0.692 where "
        "0.002 was due, and the decoder repeated the token <|ml|>. Of the JFK sample tiny.en makes "
        "“Qu Qu Qu Qu”; base is silent.",
        stages=leave_out_ln_post,
    ),
    Fault(
        "scaled",
        "Output scaled by 0.276",
        "The 2025 attempt multiplied its features by 0.276 so that their spread became 0.40, and "
        "got coherent but empty English, such as “I’m sorry.” Of the JFK sample base and tiny.en "
        "make “I’m” and stop.",
        stages=scale_output,
    ),
    Fault(
        "block",
        "One block skipped",
        "The middle block adds nothing to what passes through it, as if the loop over the layers "
        "had missed one. Of the JFK sample base makes “I” and tiny.en “the”.",
        weights=skip_block,
    ),
    Fault(
        "power_to_db",
        "power_to_db in place of Whisper’s log-mel",
        "The 2025 attempt fed the encoder decibels from librosa, where Whisper was trained on a "
        "log-mel of its own scale: a poor cosine, and nonsense. Of the JFK sample base and tiny.en "
        "make no word at all.",
        mel=to_decibels,
    ),
    Fault(
        "first_window",
        "Only the first window decoded",
        f"It needs a clip longer than {WINDOW_SECONDS:.0f} s. The 2025 attempt stopped after the "
        "first 30 seconds of a longer talk: 838 of 2035 characters came out, 41.2 %.",
        first_window_only=True,
    ),
    Fault(
        "int8",
        "Weights rounded to int8",
        "Every matrix is rounded to 255 steps a row, which many engines do to save memory: a price "
        "and no mistake. The words mostly stay; the layers below show what it costs.",
        weights=partial(round_weights, round_to_int8),
    ),
    Fault(
        "bfloat16",
        "Weights rounded to bf16",
        "Every matrix keeps 8 significant bits, the type that most accelerators multiply in: a "
        "price and no mistake. The words mostly stay; the layers below show what it costs.",
        weights=partial(round_weights, round_to_bfloat16),
    ),
)
"""Those that change the most first, as measured on the JFK sample."""


def get_fault(key: str) -> Fault:
    """Return the fault of that key; raises `EngineError` when there is none."""
    for fault in FAULTS:
        if fault.key == key:
            return fault
    known = ", ".join(fault.key for fault in FAULTS)
    raise EngineError(f"There is no fault {key!r}: pick one of {known}.")


@dataclass(frozen=True)
class Inputs:
    """The first window as Whisper's log-mel and as the fault makes it, for the eye.

    Both `(n_mels, columns)`, a column being the mean of some frames; `hertz`: the middle of each
    band.
    """

    right: FloatArray = field(repr=False)
    faulty: FloatArray = field(repr=False)
    hertz: tuple[float, ...] = field(repr=False)


def show_inputs(fault: Fault, mel: FloatArray, frames: int = 5) -> Inputs | None:
    """Return what the fault makes of a window `(n_mels, 3000)`, or None if it leaves that alone."""
    if fault.mel is unchanged:
        return None
    import librosa

    pictures = [each.reshape(len(mel), -1, frames).mean(axis=2) for each in (mel, fault.mel(mel))]
    hertz = librosa.mel_frequencies(n_mels=len(mel) + 2, fmax=SAMPLE_RATE / 2)[1:-1]
    return Inputs(pictures[0], pictures[1], tuple(float(each) for each in hertz))


@dataclass(frozen=True)
class FaultResult:
    """What a fault did to one clip.

    `right`: the transcript without the fault, with the same options. `faulty` is None where the
    faulty run failed; `error` then says how. Both are of the whole clip, without its features.
    `layers`: PyTorch's encoder (the baseline), MAX's, and MAX's with the fault, over the clip's
    first window. `inputs`: what the encoder was given, where the fault changes that.
    """

    fault: Fault
    audio_seconds: float
    right: Transcript
    faulty: Transcript | None
    error: str | None
    layers: LayerComparison
    inputs: Inputs | None = None

    @property
    def right_encoder(self) -> Half:
        """MAX's encoder without the fault."""
        return self.layers.halves[1]

    @property
    def faulty_encoder(self) -> Half:
        """MAX's encoder with the fault."""
        return self.layers.halves[2]

    @property
    def first_stage(self) -> str | None:
        """The first stage that the fault moves past the bound, or None."""
        return self.layers.first_past(self.faulty_encoder.name)


def run_fault(
    fault: Fault,
    model: str,
    clip: Clip,
    language: str | None = None,
    listener: Listener = SILENT,
) -> FaultResult:
    """Transcribe the clip without and with a fault, then compare every stage of its first window.

    Raises `EngineUnavailable` without MAX, `Stopped`, and other `EngineError`s; an error that the
    fault itself causes is kept in the result.
    """
    if reason := why_no_max():
        raise EngineUnavailable(f"Faults are put into MAX’s encoder, and {reason}.")
    from engines import checkpoints
    from engines.analysis import layers

    listener.report("loading")
    checkpoint = checkpoints.load(model, listener)
    # Greedy without fallback: what comes out follows from the encoder's output alone. It is shown
    # too where the decoder takes the broken features for silence.
    options = Options(language=language, temperatures=(0.0,), no_speech_threshold=None)
    engine = registry.get(ENGINE, model)
    engine.prepare(listener)
    part = PartListener(listener, 0.05, 0.4, "transcribing without the fault")
    right = engine.transcribe(clip, options, part).without_features()
    part = PartListener(listener, 0.4, 0.75, "transcribing with the fault")
    broken = make_engine(fault, model)
    faulty, error = None, None
    try:
        faulty = broken.transcribe(clip, options, part)
        faulty = keep_first_window(faulty) if fault.first_window_only else faulty
        faulty = faulty.without_features()
    except Stopped:
        raise
    except Exception as raised:  # showing what a fault breaks is the purpose
        error = describe_error(raised)
    finally:
        broken.close()
    part = PartListener(listener, 0.75, 1.0)
    part.report("comparing", 0.0, 1.0, "opening the encoders")
    baseline = layers.open_half("encoder", registry.BASELINE, checkpoint, part)
    sound = replace(layers.open_max(checkpoint), name=ENGINE, label="MAX")
    changed = layers.open_max(checkpoint, change=fault.weights)
    stages = partial(fault.run_stages, changed.stages)
    changed = replace(changed, name=broken.key, label="MAX with the fault", stages=stages)
    mel = layers.cut_window(clip, checkpoint.dims.n_mels)
    encoders = (baseline, sound, changed)
    compared = layers.compare_encoders(encoders, checkpoint, mel, clip.name, listener=part)
    return FaultResult(fault, clip.seconds, right, faulty, error, compared, show_inputs(fault, mel))


def make_engine(fault: Fault, model: str) -> Engine:
    """Return `max_hybrid` with a fault, for one clip.

    The type of the weights is the sound checkpoint's, so weights rounded to int8 steps are kept in
    float16 on a CPU, which moves them by 2 ** -12 of their size at most.
    """
    from engines.max_graph.weights import encoder_weights
    from engines.max_whisper import EncoderModule, HybridWhisper, MaxHybridEngine, load_max_encoder

    class FaultyEngine(MaxHybridEngine):
        def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
            weights = fault.weights(encoder_weights(checkpoint.state, checkpoint.dims))
            encoder, seconds = load_max_encoder(checkpoint, listener, weights=weights)

            def encode(mel: FloatArray) -> FloatArray:
                *_, (_, features) = fault.run_stages(encoder.stages, mel)
                return features

            whisper = checkpoint.build(HybridWhisper)
            whisper.encoder = EncoderModule(encode)
            return whisper.to(self.device), seconds

    row = registry.row(ENGINE)
    key, label = f"{row.key} with {fault.key}", f"{row.label}, {fault.title}"
    return FaultyEngine(replace(row, key=key, label=label), model, "float32")


def keep_first_window(transcript: Transcript) -> Transcript:
    """Return the transcript as it stood after its first window."""
    ends = transcript.window_starts[1:2] or (transcript.audio_seconds,)
    segments = tuple(each for each in transcript.segments if each.start < ends[0])
    return replace(
        transcript,
        text="".join(each.text for each in segments),
        segments=segments,
        tokens=tuple(token for each in segments for token in each.tokens),
    )
