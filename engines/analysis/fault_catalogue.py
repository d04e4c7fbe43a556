"""The faults that can be put into MAX's encoder, each with a sentence about its effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import EngineError, FloatArray, Stages

if TYPE_CHECKING:
    from engines.max_graph.weights import EncoderWeights, Weights

SCALE = 0.276
"""What the 2025 attempt multiplied its features by."""


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Fault:
    """A mistake that can be put into MAX's encoder.

    `story`: one sentence for the page. `weights` changes the weights before they are laid out,
    `mel` the encoder's input `(n_mels, 3000)`, `stages` the outputs of its stages as they come.
    `first_window_only` makes whisper's loop skip all windows but the first.
    """

    key: str
    title: str
    story: str
    weights: Callable[[EncoderWeights], EncoderWeights] = field(default=_unchanged, repr=False)
    mel: Callable[[FloatArray], FloatArray] = field(default=_unchanged, repr=False)
    stages: Callable[[Stages], Stages] = field(default=_unchanged, repr=False)
    first_window_only: bool = False

    def __reduce__(self) -> tuple[Callable[[str], Fault], tuple[str]]:
        """Pickle a fault as its key, because closures can't be pickled."""
        return get_fault, (self.key,)


# What each fault changes.


def leave_out_ln_post(stages: Stages) -> Stages:
    """Return the last block's output in place of the last norm's."""
    before = np.zeros((0, 0), np.float32)
    for name, output in stages:
        before = before if name == "ln_post" else output
        yield name, before


def scale_output(stages: Stages) -> Stages:
    """Multiply the encoder's output by `SCALE`."""
    for name, output in stages:
        yield name, output * np.float32(SCALE) if name == "ln_post" else output


def to_decibels(mel: FloatArray) -> FloatArray:
    """Convert a window `(n_mels, 3000)` to what `librosa.power_to_db` makes with its defaults.

    Whisper takes log10 of a power of at least 1e-10, lifts what is more than 8 decades below the
    clip's maximum, and maps x to (x + 4) / 4. `power_to_db` (librosa 0.11: ref 1, amin 1e-10,
    top_db 80) takes 10 * log10 of the same and lifts what is more than 80 dB below the maximum, so
    it is exactly 40 times whisper's value less 40. The zeros that fill up a short window are put in
    after either, so they stay zeros.
    """
    columns = np.flatnonzero(mel.any(axis=0))
    sound = int(columns[-1]) + 1 if columns.size else 0
    decibels = np.zeros_like(mel)
    decibels[:, :sound] = 40 * mel[:, :sound] - 40
    return decibels


def misread_convolutions(weights: EncoderWeights) -> EncoderWeights:
    """Read PyTorch's `(n_out, n_in, 3)` as if it lay in memory as `(n_out, 3, n_in)`."""

    def misread(taps: FloatArray) -> FloatArray:
        n_out, depth = taps.shape
        laid = taps.reshape(n_out, 3, depth // 3).transpose(0, 2, 1)
        return np.ascontiguousarray(laid).reshape(n_out, depth)

    return replace(weights, convolutions=_map_matrices(weights.convolutions, misread))


def zero_positions(weights: EncoderWeights) -> EncoderWeights:
    """Zero the positional embedding."""
    return replace(weights, positions=np.zeros_like(weights.positions))


def skip_block(weights: EncoderWeights) -> EncoderWeights:
    """Skip the middle block by zeroing its last matrices and biases.

    A block adds its attention and its MLP to what comes in, so adding zeros is skipping it.
    """
    blocks = list(weights.blocks)
    middle = len(blocks) // 2
    blocks[middle] = [
        np.zeros_like(weight) if index in _OUTPUTS else weight
        for index, weight in enumerate(blocks[middle])
    ]
    return replace(weights, blocks=tuple(blocks))


_OUTPUTS = (4, 5, 10, 11)
"""Indices in a block's weights of matrix and bias of attention's output and of the MLP's."""


def round_to_int8(matrix: FloatArray) -> FloatArray:
    """Round each row to 255 even steps, as symmetric int8 weights with a scale per row do."""
    scale = np.abs(matrix).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    return (np.round(matrix / scale) * scale).astype(np.float32)


def round_to_bfloat16(matrix: FloatArray) -> FloatArray:
    """Round each value to the nearest bfloat16, ties to even."""
    bits = matrix.astype(np.float32).view(np.uint32)
    rounded: FloatArray = (bits + 0x7FFF + ((bits >> 16) & 1) & 0xFFFF0000).view(np.float32)
    return rounded


def _round_all(
    rounded: Callable[[FloatArray], FloatArray],
) -> Callable[[EncoderWeights], EncoderWeights]:
    """Round every matrix; biases, norms and positions stay, as is usual."""

    def change(weights: EncoderWeights) -> EncoderWeights:
        return replace(
            weights,
            convolutions=_map_matrices(weights.convolutions, rounded),
            blocks=tuple(_map_matrices(block, rounded) for block in weights.blocks),
        )

    return change


def _map_matrices(weights: Weights, change: Callable[[FloatArray], FloatArray]) -> Weights:
    return [change(each) if each.ndim == 2 else each for each in weights]


FAULTS = (
    Fault(
        "ln_post",
        "ln_post left out",
        "The 2025 attempt left out the last layer norm: its features had a mean of 0.692 where "
        "0.002 was due, and the decoder repeated the token <|ml|>.",
        stages=leave_out_ln_post,
    ),
    Fault(
        "conv_layout",
        "Convolution weights in the wrong layout",
        "The 2025 attempt read the convolutions’ weights in another order: the spread looked "
        "plausible, 1.708 beside 1.448, but the cosine was −0.038 and the text nonsense.",
        weights=misread_convolutions,
    ),
    Fault(
        "power_to_db",
        "power_to_db in place of Whisper’s log-mel",
        "The 2025 attempt fed the encoder decibels from librosa, where Whisper was trained on a "
        "log-mel of its own scale: a poor cosine, and nonsense.",
        mel=to_decibels,
    ),
    Fault(
        "scaled",
        "Output scaled by 0.276",
        "The 2025 attempt multiplied its features by 0.276 so that their spread became 0.40, and "
        "got coherent but empty English, such as “I’m sorry.”",
        stages=scale_output,
    ),
    Fault(
        "first_window",
        "Only the first window decoded",
        "The 2025 attempt stopped after the first 30 seconds of a longer talk: 838 of 2035 "
        "characters came out, 41.2 %.",
        first_window_only=True,
    ),
    Fault(
        "positions",
        "Positions zeroed",
        "Without its positions the encoder hears the same sounds but cannot tell when each of "
        "them was.",
        weights=zero_positions,
    ),
    Fault(
        "block",
        "One block skipped",
        "The middle block adds nothing to what passes through it, as if the loop over the layers "
        "had missed one.",
        weights=skip_block,
    ),
    Fault(
        "int8",
        "Weights rounded to int8",
        "Every matrix is rounded to 255 steps a row, which many engines do to save memory; this "
        "one is a price and no mistake.",
        weights=_round_all(round_to_int8),
    ),
    Fault(
        "bfloat16",
        "Weights rounded to bf16",
        "Every matrix keeps 8 significant bits, the type that most accelerators multiply in; this "
        "one is a price and no mistake.",
        weights=_round_all(round_to_bfloat16),
    ),
)


def get_fault(key: str) -> Fault:
    """Return the fault of that key; raises `EngineError` when there is none."""
    for fault in FAULTS:
        if fault.key == key:
            return fault
    known = ", ".join(fault.key for fault in FAULTS)
    raise EngineError(f"There is no fault {key!r}: pick one of {known}.")
