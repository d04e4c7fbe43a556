"""Results of the layer comparison and of a fault run; NumPy only, importable without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from engines import registry
from engines.base import Transcript
from engines.metrics import FeatureSimilarity, FeatureStatistics, SharedHistograms

if TYPE_CHECKING:
    from engines.analysis.fault_catalogue import Fault

FACTOR = 8.0
"""How many times PyTorch's own float32 error an encoder's error may be at any stage.

Both errors are relative L2 errors against the same encoder in float64, so the bound follows the
checkpoint: one with outlier channels, such as `base`, magnifies every rounding alike. See
`engines.analysis.layers` for the measurements.
"""


@dataclass(frozen=True)
class Candidate:
    """An encoder that this machine can open; `name` is spelled `ENGINE:DTYPE`."""

    name: str
    label: str


def candidates() -> tuple[Candidate, ...]:
    """Return every encoder that this machine can open, the baseline first.

    Engines that share an encoder, and so name the same `open_stages`, are offered once.
    """
    found, offered = [], set()
    for row in registry.ENGINES:
        if row.open_stages in offered or not row.open_stages or row.why_unavailable():
            continue
        offered.add(row.open_stages)
        found += [Candidate(f"{row.key}:{dtype}", f"{row.label}, {dtype}") for dtype in row.dtypes]
    return tuple(found)


@dataclass(frozen=True)
class EncoderInfo:
    """An encoder that was compared; `name` is spelled `ENGINE:DTYPE`.

    `rounds_to`: the half type that its weights or products are rounded to, or "". The bound, which
    is float32's, does not apply to such an encoder.
    """

    name: str
    label: str
    device: str
    rounds_to: str = field(default="", kw_only=True)


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

    def error(self, name: str) -> float:
        """Return an encoder's relative error against float64."""
        return self.errors[name]

    def bound(self, factor: float = FACTOR) -> float:
        """Return the largest error that counts as the same in float32."""
        return factor * self.float32_error


@dataclass(frozen=True)
class LayerComparison:
    """Several encoders after every stage of one window; the first encoder is the baseline.

    `start`: seconds from the clip's start to the window's. `factor`: see `FACTOR`.
    """

    model: str
    clip: str
    start: float
    encoders: tuple[EncoderInfo, ...]
    stages: tuple[StageComparison, ...]
    factor: float = FACTOR

    @property
    def baseline(self) -> EncoderInfo:
        """The encoder that the others are compared with."""
        return self.encoders[0]

    @property
    def others(self) -> tuple[EncoderInfo, ...]:
        """All encoders but the baseline."""
        return self.encoders[1:]

    def bound(self, stage: StageComparison) -> float:
        """Return the largest error of a stage that counts as the same in float32."""
        return stage.bound(self.factor)

    def first_past(self, name: str) -> str | None:
        """Return the first stage at which an encoder's error is above the bound, or None."""
        past = (stage.name for stage in self.stages if stage.error(name) > self.bound(stage))
        return next(past, None)


@dataclass(frozen=True)
class FaultResult:
    """What a fault did to one clip.

    `right`: the transcript without the fault, with the same options. `faulty` is None where the
    faulty run failed; `error` then says how. Both are of the whole clip. `layers`: PyTorch's
    encoder (the baseline), MAX's, and MAX's with the fault, over the clip's first window.
    """

    fault: Fault
    model: str
    clip: str
    audio_seconds: float
    right: Transcript
    faulty: Transcript | None
    error: str | None
    layers: LayerComparison

    def without_features(self) -> FaultResult:
        """Return the same without the encoder features of the whole clip, which may be large."""
        return replace(
            self,
            right=self.right.without_features(),
            faulty=self.faulty and self.faulty.without_features(),
        )

    @property
    def right_encoder(self) -> EncoderInfo:
        """MAX's encoder without the fault."""
        return self.layers.encoders[1]

    @property
    def faulty_encoder(self) -> EncoderInfo:
        """MAX's encoder with the fault."""
        return self.layers.encoders[2]

    @property
    def first_stage(self) -> str | None:
        """The first stage that the fault moves past the bound, or None."""
        return self.layers.first_past(self.faulty_encoder.name)


# As JSON and as text.


def as_json(result: LayerComparison) -> dict[str, Any]:
    """Return one object: `model`, `clip`, `start` in seconds, `factor`, `baseline`, `encoders`
    (`name`, `label`, `device`, and `first_past`: the first stage above the bound, or null) and
    `stages` (`name`, `shape`, `bound`, and by encoder `errors` against float64, `statistics` and
    `similarity`; null where values are not finite)."""
    return {
        "model": result.model,
        "clip": result.clip,
        "start": result.start,
        "factor": result.factor,
        "baseline": result.baseline.name,
        "encoders": [
            {
                "name": encoder.name,
                "label": encoder.label,
                "device": encoder.device,
                "first_past": result.first_past(encoder.name),
            }
            for encoder in result.encoders
        ],
        "stages": [
            {
                "name": stage.name,
                "shape": list(stage.shape),
                "bound": result.bound(stage),
                "errors": {key: _finite(error) for key, error in stage.errors.items()},
                "statistics": {key: _plain(value) for key, value in stage.statistics.items()},
                "similarity": {key: _plain(value) for key, value in stage.similarity.items()},
            }
            for stage in result.stages
        ],
    }


def _plain(figures: Any) -> dict[str, float | None] | None:
    if figures is None:
        return None
    return {key: _finite(value) for key, value in asdict(figures).items()}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


HEADINGS = ("mean", "std", "min", "max", "error", "bound", "cosine", "max |Δ|")


def format_text(result: LayerComparison) -> str:
    """Return a table for each encoder but the baseline, and a verdict below it."""
    baseline = result.baseline
    lines = [
        f"{result.model}, {result.clip}, the window at {result.start:g} s",
        f"baseline: {baseline.label} ({baseline.device}); errors are against float64",
    ]
    for encoder in result.others:
        lines += ["", f"{encoder.label} ({encoder.device})"]
        lines.append(f"{'stage':<12}" + "".join(f"{name:>13}" for name in HEADINGS))
        lines += [_format_stage(result, stage, encoder.name) for stage in result.stages]
        first = result.first_past(encoder.name)
        than = f"{result.factor:g} times PyTorch's float32 error"
        lines.append(
            f"more than {than} from {first} on" if first else f"every stage is within {than}"
        )
    return "\n".join(lines)


def _format_stage(result: LayerComparison, stage: StageComparison, name: str) -> str:
    statistics, similarity = stage.statistics[name], stage.similarity[name]
    if statistics is None:
        return f"{stage.name:<12}" + "not finite".rjust(13)
    row = [statistics.mean, statistics.std, statistics.minimum, statistics.maximum]
    cells = [f"{value:13.5f}" for value in row]
    cells += [f"{stage.error(name):13.1e}", f"{result.bound(stage):13.1e}"]
    if similarity is None:
        return f"{stage.name:<12}" + "".join(cells) + "other shape".rjust(13)
    cells += [f"{similarity.cosine:13.9f}", f"{similarity.max_abs:13.1e}"]
    return f"{stage.name:<12}" + "".join(cells)
