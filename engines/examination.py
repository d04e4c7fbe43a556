"""Several encoders looked at after every stage: the records, and the look itself.

NumPy only: what a specimen is made of is `engines.microscope`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from engines.base import SILENT, EngineError, FloatArray, Listener
from engines.metrics import (
    FeatureSimilarity,
    FeatureStatistics,
    SharedHistograms,
    bin_together,
    measure_similarity,
    summarise,
)

TOLERANCE = 1e-5
"""Largest relative error of a stage between two encoders in float32. Sums in another order give
6e-7 at tiny's dimensions and 9.5e-7 at small's; a wrong operation gives 1e-2 or more."""

OTHER_STAGES = 5
"""Those besides the blocks."""

BLOCKS = {"tiny": 4, "base": 6, "small": 12, "medium": 24, "turbo": 32, "large": 32}
"""Blocks of the encoders, by the first word of a model's name (`whisper.load_model`, 20250625)."""

Stages: TypeAlias = Iterator[tuple[str, FloatArray]]
"""Name and output of every stage, in order of depth."""


def count_stages(model: str) -> int:
    """How many stages a model's encoder has; of one that isn't known, as many as the smallest."""
    return OTHER_STAGES + BLOCKS.get(model.split(".")[0].split("-")[0], min(BLOCKS.values()))


@dataclass(frozen=True)
class Specimen:
    """An encoder that was looked into; `name`: as it is spelled, `ENGINE:TYPE`.

    `rounds_to`: the half type that its weights or products are rounded to, where they are: the
    tolerance, which is float32's, then says nothing of it.
    """

    name: str
    label: str
    device: str
    rounds_to: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class OpenSpecimen(Specimen):
    """An encoder that can be looked into.

    `stages` maps one log-mel window, float32 `(n_mels, 3000)`, to the output of every stage.
    """

    stages: Callable[[FloatArray], Stages] = field(repr=False)

    def label_only(self) -> Specimen:
        """What a record needs of it, without the encoder."""
        return Specimen(self.name, self.label, self.device, rounds_to=self.rounds_to)


@dataclass(frozen=True)
class Candidate:
    """A specimen that this machine can show."""

    name: str
    label: str


@dataclass(frozen=True)
class StageReading:
    """One stage of all specimens, by their names.

    `similarity` to the baseline, whose own is left out. `histograms` and figures are None, or not
    a number, where a specimen has values that aren't finite.
    """

    name: str
    shape: tuple[int, ...]
    histograms: SharedHistograms | None = field(repr=False)
    statistics: Mapping[str, FeatureStatistics | None]
    similarity: Mapping[str, FeatureSimilarity | None]

    def error(self, specimen: str) -> float:
        """Relative error, ‖found − baseline‖ / ‖baseline‖; infinite where it can't be told."""
        figures = self.similarity[specimen]
        if figures is not None and figures.max_abs == 0:
            return 0.0
        if figures is None or not np.isfinite(figures.relative_l2):
            return float("inf")
        return figures.relative_l2


@dataclass(frozen=True)
class Examination:
    """Several encoders after every stage of one window; the first specimen is the baseline.

    `start`: seconds from the clip's start to the window's. `tolerance`: the largest relative error
    that counts as the same in float32.
    """

    model: str
    clip: str
    start: float
    specimens: tuple[Specimen, ...]
    stages: tuple[StageReading, ...]
    tolerance: float = TOLERANCE

    @property
    def baseline(self) -> Specimen:
        """The specimen that the others are measured against."""
        return self.specimens[0]

    @property
    def others(self) -> tuple[Specimen, ...]:
        """All but the baseline."""
        return self.specimens[1:]

    def first_past(self, specimen: str) -> str | None:
        """The first stage whose relative error is above the tolerance; None where none is."""
        past = (stage.name for stage in self.stages if stage.error(specimen) > self.tolerance)
        return next(past, None)


def examine(
    specimens: Sequence[OpenSpecimen],
    mel: FloatArray,
    model: str = "",
    clip: str = "",
    start: float = 0.0,
    listener: Listener = SILENT,
    layers: int = 4,
) -> Examination:
    """Run all specimens over one window in step, so that only one stage is held at a time.

    `layers`: how many blocks to expect, for the listener. Raises `Stopped`, and `EngineError` when
    the specimens have different stages.
    """
    if len({specimen.name for specimen in specimens}) < len(specimens):
        raise EngineError("Name each encoder once: there is nothing to compare one with itself.")
    readings: list[StageReading] = []
    runs = [specimen.stages(mel) for specimen in specimens]
    while True:
        share = min(len(readings) / (OTHER_STAGES + layers), 1.0)
        listener.report("comparing", share, 1.0, f"looking at stage {len(readings) + 1}")
        step = [next(run, None) for run in runs]
        found = [each for each in step if each is not None]
        if not found:
            seen = tuple(specimen.label_only() for specimen in specimens)
            return Examination(model, clip, start, seen, tuple(readings))
        if len(found) < len(step) or len({name for name, _ in found}) > 1:
            raise EngineError("These encoders have different stages and can't be compared.")
        outputs = {s.name: output for s, (_, output) in zip(specimens, found, strict=True)}
        readings.append(read_stage(found[0][0], outputs))


def read_stage(name: str, outputs: Mapping[str, FloatArray]) -> StageReading:
    """The figures of one stage; the first output is the baseline's."""
    baseline = next(iter(outputs))
    finite = {key: bool(np.isfinite(output).all()) for key, output in outputs.items()}
    return StageReading(
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
    )
