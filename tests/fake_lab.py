"""A laboratory that needs no model: seeded stages, and faults that move them where they say."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from demo.analysis import Analyses
from engines.analysis.fault_catalogue import Fault
from engines.analysis.layers import compare_stage
from engines.analysis.records import Candidate, EncoderInfo, FaultResult, LayerComparison
from engines.base import SILENT, Clip, EngineError, Listener
from tests import fakes

NAMES = ("log-mel", "conv1", "conv2", "positions", "blocks.0", "blocks.1", "ln_post")
WRONG_WORDS = "The compiler turns a graph into slow code for every chip"
FAULTS = (
    Fault("late", "Late fault", "This fault sits in the last layer norm."),
    Fault("early", "Early fault", "This fault sits in the first convolution."),
    Fault("none", "Window fault", "This fault is not in the encoder.", first_window_only=True),
    Fault("broken", "Breaking fault", "This fault breaks the run."),
)
PLACES = {"late": "ln_post", "early": "conv1", "none": None, "broken": "conv1"}


@dataclass(frozen=True)
class FakeEncoder(EncoderInfo):
    """Seeded stages with so much noise, and half as large from `place` on."""

    noise: float = 0.0
    place: str | None = None

    def info(self) -> EncoderInfo:
        """Its record."""
        return EncoderInfo(self.name, self.label, self.device, rounds_to=self.rounds_to)

    def stages(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        """The output of every stage, float64."""
        rng, at_fault = np.random.default_rng(2), False
        for stage in names:
            output = rng.normal(size=(40, 16))
            at_fault = at_fault or stage == self.place
            quiet = 0.0 if stage == "log-mel" else self.noise
            noise = rng.normal(size=output.shape)
            yield output * (0.5 if at_fault else 1.0) + quiet * noise


def make_encoder(
    name: str, label: str, noise: float = 0.0, place: str | None = None, rounds_to: str = ""
) -> FakeEncoder:
    """An encoder of that name."""
    return FakeEncoder(name, label, "cpu", noise, place, rounds_to=rounds_to)


CPU = make_encoder("cpu:float32", "PyTorch CPU, float32", noise=1e-7)
MAX = make_encoder("max_hybrid:float16", "MAX, float16 weights", noise=1e-7)
WIDE = make_encoder("max_hybrid:float32", "MAX, float32 weights", noise=2e-7)


def compare_encoders(
    encoders: Sequence[FakeEncoder],
    model: str = "tiny.en",
    clip: str = "fake",
    start: float = 0.0,
    listener: Listener = SILENT,
    names: Sequence[str] = NAMES,
) -> LayerComparison:
    """The encoders after every stage."""
    exact = make_encoder("exact", "float64")
    runs = [list(each.stages(names)) for each in (exact, *encoders)]
    stages = []
    for number, name in enumerate(names):
        listener.report("comparing", number, len(names), f"comparing stage {number + 1}")
        truth, *outputs = (run[number] for run in runs)
        by_name = {
            each.name: output.astype(np.float32)
            for each, output in zip(encoders, outputs, strict=True)
        }
        stages.append(compare_stage(name, truth, by_name[encoders[0].name], by_name))
    infos = tuple(each.info() for each in encoders)
    return LayerComparison(model, clip, start, infos, tuple(stages))


def make_layers(
    place: str | None = None, noise: float = 1e-7, listener: Listener = SILENT
) -> LayerComparison:
    """PyTorch, MAX, and MAX with a fault."""
    faulty = make_encoder("max_hybrid:float16 with a fault", "MAX with the fault", noise, place)
    return compare_encoders([CPU, replace(MAX, label="MAX"), faulty], listener=listener)


def make_result(key: str, seconds: float = 6.0, listener: Listener = SILENT) -> FaultResult:
    """What each fault of `FAULTS` is said to do."""
    fault = next(fault for fault in FAULTS if fault.key == key)
    right = fakes.FakeEngine().transcribe(fakes.make_clip(seconds))
    text = right.text if key in ("none", "late") else WRONG_WORDS
    return FaultResult(
        fault=fault,
        model="tiny.en",
        clip="fake",
        audio_seconds=seconds,
        right=right,
        faulty=None if key == "broken" else replace(right, text=text),
        error="ValueError: the shapes don't fit" if key == "broken" else None,
        layers=make_layers(PLACES[key], listener=listener),
    )


@dataclass
class FakeLab:
    """Looks and runs wait at `gate`, so that a test sees them running."""

    gate: threading.Event = field(default_factory=threading.Event)
    reason: str | None = None

    def wait(self, listener: Listener, what: str) -> None:
        """Say what goes on until the gate opens or somebody wants it stopped."""
        while not self.gate.is_set():
            listener.report("comparing", 0.4, 1.0, what)
            self.gate.wait(0.02)

    def compare_layers(
        self, names: Sequence[str], model: str, clip: Clip, listener: Listener, start: float
    ) -> LayerComparison:
        """The named encoders."""
        self.wait(listener, "looking at stage 3")
        if start > clip.seconds:
            raise EngineError(f"The clip has {clip.seconds:.1f} s.")
        known = {each.name: each for each in (CPU, MAX, WIDE)}
        return compare_encoders([known[n] for n in names], model, clip.name, start, listener)

    def run_fault(
        self, key: str, model: str, clip: Clip, language: str | None, listener: Listener
    ) -> FaultResult:
        """As `make_result` has it."""
        self.wait(listener, "transcribing with the fault")
        return make_result(key, clip.seconds, listener)

    def analyses(self) -> Analyses:
        """What the page asks for."""
        candidates = tuple(Candidate(each.name, each.label) for each in (CPU, MAX, WIDE))
        return Analyses(
            lambda: candidates,
            self.compare_layers,
            FAULTS,
            self.run_fault,
            lambda: self.reason,
        )
