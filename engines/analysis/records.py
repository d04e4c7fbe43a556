"""Encoders and their comparison after every stage; NumPy only, importable without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engines import registry
from engines.base import FloatArray, Stages
from engines.metrics import FeatureSimilarity, FeatureStatistics, SharedHistograms

FACTOR = 8.0
"""How many times PyTorch's own float32 error an encoder's error may be at any stage.

Both errors are relative L2 errors against the same encoder in float64, so the bound follows the
checkpoint: one with outlier channels, such as `base`, magnifies every rounding alike. See
`engines.analysis.layers` for the measurements.
"""


def not_open(mel: FloatArray) -> Stages:
    """Stand in for the stages of an encoder that is not open."""
    raise ValueError("this encoder is not open")


@dataclass(frozen=True)
class Encoder:
    """An encoder of this machine; `name` is spelled `ENGINE:DTYPE`.

    `rounds_to`: the half type that its weights or products are rounded to, or "". The bound, which
    is float32's, does not apply to such an encoder. `stages`, once it is open, maps one log-mel
    window, float32 `(n_mels, 3000)`, to the output of every stage.
    """

    name: str
    label: str
    device: str = ""
    stages: Callable[[FloatArray], Stages] = field(default=not_open, repr=False, compare=False)
    rounds_to: str = ""


def candidates() -> tuple[Encoder, ...]:
    """Return every encoder that this machine can open, the baseline first.

    Engines that share an encoder, and so name the same `open_stages`, are offered once.
    """
    found, offered = [], set()
    for row in registry.ENGINES:
        if row.open_stages in offered or not row.open_stages or row.why_unavailable():
            continue
        offered.add(row.open_stages)
        found += [Encoder(f"{row.key}:{dtype}", f"{row.label}, {dtype}") for dtype in row.dtypes]
    return tuple(found)


@dataclass(frozen=True)
class StageComparison:
    """One stage of all encoders, by name.

    `similarity` is to the baseline, which has no entry. `errors`: relative L2 error against the
    float64 encoder, infinite where values are not finite or have another shape. `float32_error`:
    the same error of PyTorch in float32 on the CPU. `histograms`, `statistics` and `similarity`
    are None where an encoder's values are not finite.
    """

    name: str
    shape: tuple[int, ...]
    histograms: SharedHistograms | None = field(repr=False)
    statistics: Mapping[str, FeatureStatistics | None]
    similarity: Mapping[str, FeatureSimilarity | None]
    errors: Mapping[str, float]
    float32_error: float


@dataclass(frozen=True)
class LayerComparison:
    """Several encoders after every stage of one window; the first encoder is the baseline.

    `start`: seconds from the clip's start to the window's. `factor`: see `FACTOR`.
    """

    model: str
    clip: str
    start: float
    encoders: tuple[Encoder, ...]
    stages: tuple[StageComparison, ...]
    factor: float = FACTOR

    @property
    def baseline(self) -> Encoder:
        """The encoder that the others are compared with."""
        return self.encoders[0]

    @property
    def others(self) -> tuple[Encoder, ...]:
        """All encoders but the baseline."""
        return self.encoders[1:]

    def bound(self, stage: StageComparison) -> float:
        """Return the largest error of a stage that counts as the same in float32."""
        return self.factor * stage.float32_error

    def first_past(self, name: str) -> str | None:
        """Return the first stage at which an encoder's error is above the bound, or None."""
        past = (stage.name for stage in self.stages if stage.errors[name] > self.bound(stage))
        return next(past, None)
