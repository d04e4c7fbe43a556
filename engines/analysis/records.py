"""The halves to inspect and the results of the layer inspection; importable without PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any, Literal

from engines import hardware, registry
from engines.base import SILENT, Clip, FloatArray, Listener, Stages
from engines.feature_statistics import FeatureSimilarity, FeatureStatistics, SharedHistograms

FACTOR = 8.0
"""How many times PyTorch's own float32 error an encoder's error may be at any stage.

Both errors are relative L2 errors against the same encoder in float64, so the bound follows the
checkpoint: one with outlier channels, such as `base`, magnifies every rounding alike. See
`engines.analysis.layers` for the measurements.
"""


HalfName = Literal["encoder", "decoder"]


def not_open(given: Any) -> Stages:
    """Stand in for the stages of a half that is not open."""
    raise ValueError("this half is not open")


@dataclass(frozen=True)
class DecoderInput:
    """What decoders are given: a window's features `(n_audio_ctx, n_state)`, and tokens."""

    features: FloatArray
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Half:
    """An encoder or a decoder of this machine; `name` is spelled `ENGINE:DTYPE`.

    `rounds_to`: the half type that its weights or products are rounded to, or "". The bound, which
    is float32's, does not apply to it then. `stages`, once it is open, maps what it is given to the
    output of every stage: an encoder one log-mel window, float32 `(n_mels, 3000)`, a decoder a
    `DecoderInput`.
    """

    name: str
    label: str
    device: str = ""
    stages: Callable[[Any], Stages] = field(default=not_open, repr=False, compare=False)
    rounds_to: str = ""


def candidates(half: HalfName = "encoder") -> tuple[Half, ...]:
    """Return every encoder or decoder that this machine can open, the baseline first.

    Engines that share one, and so name the same function to open it, are offered once.
    """
    found, offered = [], set()
    no_cuda = hardware.why_no_cuda()
    for row in registry.ENGINES:
        place = row.find_stages(half)
        if place in offered or not place or row.why_unavailable():
            continue
        offered.add(place)
        here = [dtype for dtype in row.dtypes if dtype != "bfloat16" or not no_cuda]
        found += [Half(f"{row.key}:{dtype}", f"{row.label}, {dtype}") for dtype in here]
    return tuple(found)


@dataclass(frozen=True)
class WorstElement:
    """The element of a stage that is farthest from float64's.

    `row`: of a token or of a frame, as `axis` says; `unit`: its place in that row. `gap`: how far
    it is off, infinite where it is not finite; `exact`: what it should be. `time`: in seconds of
    the clip, None where a token is not said. `token`: its text.
    """

    axis: Literal["token", "frame"]
    row: int
    unit: int
    gap: float
    exact: float
    time: float | None
    token: str = ""

    def __str__(self) -> str:
        said = f" {quote(self.token)}" if self.token else ""
        when = "" if self.time is None else f" at {self.time:.2f} s"
        return f"unit {self.unit} of {self.axis} {self.row}{said}{when}"


@dataclass(frozen=True)
class StageComparison:
    """One stage of all halves, by name.

    `similarity` is to the baseline, which has no entry. `errors`: relative L2 error against
    float64, infinite where values are not finite or have another shape. `float32_error`: the same
    error of PyTorch in float32 on the CPU. `histograms`, `statistics` and `similarity` are None
    where a half's values are not finite, `worst` where they have another shape.
    """

    name: str
    shape: tuple[int, ...]
    histograms: SharedHistograms | None = field(repr=False)
    statistics: Mapping[str, FeatureStatistics | None]
    similarity: Mapping[str, FeatureSimilarity | None]
    errors: Mapping[str, float]
    float32_error: float
    worst: Mapping[str, WorstElement | None]


@dataclass(frozen=True)
class LayerComparison:
    """Several encoders or decoders after every stage of one window; the first is the baseline.

    `start`: seconds from the clip's start to the window's. `text`: the tokens that decoders were
    given, as text. `factor`: see `FACTOR`.
    """

    model: str
    clip: str
    start: float
    halves: tuple[Half, ...]
    stages: tuple[StageComparison, ...]
    half: HalfName = "encoder"
    text: str = ""
    factor: float = FACTOR

    @property
    def baseline(self) -> Half:
        """The half that the others are compared with."""
        return self.halves[0]

    @property
    def others(self) -> tuple[Half, ...]:
        """All halves but the baseline."""
        return self.halves[1:]

    def bound(self, stage: StageComparison) -> float:
        """Return the largest error of a stage that counts as the same in float32."""
        return self.factor * stage.float32_error

    def first_past(self, name: str) -> str | None:
        """Return the first stage at which a half's error is above the bound, or None."""
        past = (stage.name for stage in self.stages if stage.errors[name] > self.bound(stage))
        return next(past, None)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison without histograms, for JSON: what is not finite is None."""

        def tell(stage: StageComparison, name: str) -> dict[str, Any]:
            worst, near = stage.worst[name], stage.similarity.get(name)
            element = worst and {**vars(worst), "gap": finite(worst.gap)}
            told = {"error": finite(stage.errors[name]), "worst": element}
            return (
                told
                if near is None
                else {**told, "max_abs": finite(near.max_abs), "cosine": finite(near.cosine)}
            )

        return {
            "model": self.model,
            "clip": self.clip,
            "start": self.start,
            "part": self.half,
            "text": self.text,
            "baseline": self.baseline.name,
            "past_the_limit": {each.name: self.first_past(each.name) for each in self.others},
            "stages": [
                {
                    "name": stage.name,
                    "shape": stage.shape,
                    "limit": self.bound(stage),
                    "halves": {each.name: tell(stage, each.name) for each in self.halves},
                }
                for stage in self.stages
            ],
        }

    def find_worst(self, name: str) -> StageComparison:
        """Return the stage at which a half's error is largest."""
        return max(self.stages, key=lambda stage: stage.errors[name])


def finite(value: float) -> float | None:
    """Return a number, None for one that is not finite: JSON has no infinity."""
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class Inspection:
    """Which encoders or decoders to compare, the first being the baseline, and in which window.

    `names`: spelled `ENGINE` or `ENGINE:DTYPE`. `start`: seconds from the clip's start to the
    window's. `language`: in which decoders write; detected where it is None.
    """

    half: HalfName
    names: tuple[str, ...]
    model: str
    start: float = 0.0
    language: str | None = None


COMPARISONS: Mapping[HalfName, str] = {
    "encoder": "engines.analysis.layers:compare_layers",
    "decoder": "engines.analysis.decoder_layers:compare_decoders",
}


def compare_halves(
    inspection: Inspection, clip: Clip, listener: Listener = SILENT
) -> LayerComparison:
    """Open encoders or decoders and compare them over a window of a clip.

    Raises any `EngineError`, `Stopped` among them.
    """
    return resolve_name(COMPARISONS[inspection.half])(inspection, clip, listener)


def quote(token: str) -> str:
    """Quote a token's text for a sentence, without the space that most words begin with."""
    return f"“{token.strip() or token}”"
