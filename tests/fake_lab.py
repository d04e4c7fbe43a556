"""Analyses that need no model: seeded stages, and faults that move them where they say."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from demo.comparison import Analyses
from engines import registry
from engines.analysis.divergence_records import Candidate, Divergence, Pairing
from engines.analysis.faults import Fault, FaultResult
from engines.analysis.layers import Rows, compare_stage
from engines.analysis.records import Half, HalfName, Inspection, LayerComparison, StageComparison
from engines.base import (
    SILENT,
    Clip,
    EngineError,
    FloatArray,
    Listener,
    Options,
    Stages,
    Transcript,
)
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


def make_encoder(
    name: str,
    label: str,
    noise: float = 0.0,
    place: str | None = None,
    names: Sequence[str] = NAMES,
) -> Half:
    """Seeded stages with so much noise, and half as large from `place` on."""

    def stages(mel: FloatArray) -> Stages:
        rng, at_fault = np.random.default_rng(2), False
        for stage in names:
            output = rng.normal(size=(40, 16))
            at_fault = at_fault or stage == place
            quiet = 0.0 if stage == "log-mel" else noise
            output = output * (0.5 if at_fault else 1.0) + quiet * rng.normal(size=output.shape)
            yield stage, output.astype(np.float32)

    return Half(name, label, "cpu", stages)


CPU = make_encoder("cpu:float32", "PyTorch CPU, float32")
MAX = make_encoder("max_hybrid:float16", "MAX, float16 weights", noise=1e-7)
WIDE = make_encoder("max_hybrid:float32", "MAX, float32 weights", noise=2e-7)
STAGES = ("embedding", "blocks.0.self_keys", "blocks.0.cross_attention", "blocks.0.mlp", "logits")
CANDIDATES: dict[HalfName, tuple[Half, ...]] = {
    "encoder": (CPU, MAX, WIDE),
    "decoder": (
        make_encoder(CPU.name, CPU.label, names=STAGES),
        make_encoder("max_full:float32", "MAX full, float32", 1e-7, names=STAGES),
    ),
}


def compare_encoders(
    encoders: Sequence[Half],
    model: str = "tiny.en",
    clip: str = "fake",
    start: float = 0.0,
    listener: Listener = SILENT,
    half: HalfName = "encoder",
) -> LayerComparison:
    """Compare encoders with an exact one, from which float32 is 1e-6 away."""
    mel = np.zeros((80, 3000), np.float32)
    stages: list[StageComparison] = []
    for step in zip(*(encoder.stages(mel) for encoder in encoders), strict=True):
        listener.report("comparing", len(stages) / 10, 1.0, f"comparing stage {len(stages) + 1}")
        outputs = {each.name: output for each, (_, output) in zip(encoders, step, strict=True)}
        exact = outputs[encoders[0].name].astype(np.float64)
        plain = (exact * (1 + 1e-6)).astype(np.float32)
        stages.append(compare_stage(step[0][0], exact, plain, outputs, Rows(start)))
    return LayerComparison(model, clip, start, tuple(encoders), tuple(stages), half)


def make_comparison(
    place: str | None = None, noise: float = 1e-7, listener: Listener = SILENT
) -> LayerComparison:
    """PyTorch, MAX, and MAX with a fault."""
    faulty = make_encoder("max_hybrid:float16 with a fault", "MAX with the fault", noise, place)
    return compare_encoders([CPU, replace(MAX, label="MAX"), faulty], listener=listener)


def make_fault_result(key: str, seconds: float = 6.0, listener: Listener = SILENT) -> FaultResult:
    """What each fault of `FAULTS` is said to do."""
    fault = next(fault for fault in FAULTS if fault.key == key)
    right = fakes.FakeEngine().transcribe(fakes.make_clip(seconds))
    text = right.text if key in ("none", "late") else WRONG_WORDS
    return FaultResult(
        fault=fault,
        audio_seconds=seconds,
        right=right,
        faulty=None if key == "broken" else replace(right, text=text),
        error="ValueError: the shapes don't fit" if key == "broken" else None,
        layers=make_comparison(PLACES[key], listener=listener),
    )


def make_divergence(first: str = "cpu", second: str = "max_full", **other: Any) -> Divergence:
    """Two engines that part at 0.5 s, where the first is right."""
    labels = [registry.row(key).label for key in (first, second)]
    usual = Divergence(
        engines=(first, second),
        labels=(labels[0], labels[1]),
        model="tiny.en",
        clip="fake",
        beam_size=1,
        parts="token",
        window=0,
        start=0.0,
        position=3,
        time=0.5,
        before="<|0.00|> The compiler",
        candidates=(Candidate(4962, " turns"), Candidate(2900, " turned")),
        judge=Pairing("float64", "float64", (-0.5, -0.75), 0.25),
        judge_best=((" turns", -0.5), (" turned", -0.75)),
        pairings=tuple(
            Pairing(encoder, decoder, (-0.5, -0.5 - margin), margin)
            for encoder, decoder, margin in (
                (first, first, 0.25),
                (first, second, 0.25),
                (second, first, -0.125),
                (second, second, -0.125),
            )
        ),
        cause="encoder",
        encoder_moves=0.375,
        decoder_moves=0.0,
    )
    return replace(usual, **other)


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

    def compare_halves(
        self, inspection: Inspection, clip: Clip, listener: Listener
    ) -> LayerComparison:
        self.wait(listener, "looking at stage 3")
        half, model, start = inspection.half, inspection.model, inspection.start
        if start > clip.seconds:
            raise EngineError(f"The clip has {clip.seconds:.1f} s.")
        offered = {each.name: each for each in CANDIDATES[half]}
        chosen = [offered[name] for name in inspection.names]
        return compare_encoders(chosen, model, clip.name, start, listener, half)

    def run_fault(
        self, key: str, model: str, clip: Clip, language: str | None, listener: Listener
    ) -> FaultResult:
        self.wait(listener, "transcribing with the fault")
        return make_fault_result(key, clip.seconds, listener)

    def explain(
        self,
        found: tuple[Transcript, Transcript],
        clip: Clip,
        options: Options,
        listener: Listener,
    ) -> Divergence:
        self.wait(listener, "asking PyTorch in float64")
        same = found[0].tokens == found[1].tokens
        return make_divergence(
            *(each.engine for each in found), clip=clip.name, parts="nowhere" if same else "token"
        )

    def analyses(self) -> Analyses:
        return Analyses(
            CANDIDATES.__getitem__,
            self.compare_halves,
            FAULTS,
            self.run_fault,
            lambda: self.reason,
            self.explain,
        )
