"""The training step: stages of growing context, resumable, seeded, logged.

Batches follow from the step's number alone, so a resumed run sees what an unbroken one would.
On a processor, one process for each core with a batch of its own, and the mean of their
gradients, trains 1.6 times as many windows a second as one process with as many threads.
"""

import itertools
import os
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.utils.data import DataLoader, Dataset

from . import espeak, speech
from . import tokens as vocab
from .network import LossWeights, Network, decoder_losses, encoder_losses, total
from .windows import (
    POSITIONS,
    VOICE_WEIGHTS,
    Library,
    Shares,
    Window,
    collate,
    garbled,
    window_batch,
)

EMBEDDING = "decoder.token_embedding.weight"
SEED = 20_000_000
RANK_SEED = 1_000_000_000
SAVE_SECONDS = 240
LOG_STEPS = 20


@dataclass(frozen=True)
class Mix:
    """Batches of `size` windows of `frames` encoder frames; drawn with probability `share`."""

    frames: int
    size: int
    share: float


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own context lengths and a linear learning rate."""

    name: str
    steps: int
    rates: tuple[float, float]
    mixes: tuple[Mix, ...]
    shares: Shares = field(default_factory=Shares)
    cached: int = 0  # full windows encoded once, for the decoder alone; 0 trains both
    garble: float = 0.0  # share of the decoder's input words replaced by random ones
    average: float = 0.0  # decay of the running average of the weights; 0 for none
    weights: LossWeights = field(default_factory=LossWeights)
    voices: dict[str, float] = field(default_factory=lambda: dict(VOICE_WEIGHTS))
    other_voices: float = 1.0  # weight of the voices not named
    hold_encoder: bool = False  # train all but the encoder


_NO_LETTERS = LossWeights(letters=0.0)

STAGES = (
    Stage("words", 1540, (2.2e-3, 2e-3), (Mix(150, 24, 0.5), Mix(250, 14, 0.5)),
          Shares(0.02, 0.1, 0.3)),
    Stage("sentences", 640, (2e-3, 1.5e-3),
          (Mix(200, 20, 0.3), Mix(400, 10, 0.5), Mix(1500, 3, 0.2)), Shares(0.05, 0.2, 0.45)),
    Stage("locate", 132, (2e-3, 2e-3), (Mix(1500, 16, 1.0),), Shares(0.05, 0.25, 0.3),
          cached=480),
    Stage("full", 1000, (1.6e-3, 1e-3), (Mix(400, 12, 0.55), Mix(1500, 3, 0.45)),
          Shares(0.06, 0.25, 0.3), weights=_NO_LETTERS),
    Stage("finish", 1050, (1.1e-3, 1e-5), (Mix(400, 12, 0.35), Mix(1500, 4, 0.65)),
          Shares(0.08, 0.3, 0.35), garble=0.08, average=0.99,
          weights=LossWeights(letters=0.0, guide=1.0, recall=0.3)),
    Stage("prompts", 70, (1e-3, 5e-5), (Mix(1500, 16, 1.0),), Shares(0.06, 0.7, 0.25),
          cached=320, garble=0.05, average=0.9,
          weights=LossWeights(letters=0.0, guide=1.0, recall=0.3)),
    Stage("focus", 560, (9e-4, 1e-5), (Mix(400, 12, 0.3), Mix(1500, 4, 0.7)),
          Shares(0.05, 0.35, 0.3), garble=0.08, average=0.98,
          weights=LossWeights(letters=0.0, guide=1.0, recall=0.3),
          voices={"slt": 6.0, "rms": 5.0, "awb": 0.6, "kal16": 0.5}, other_voices=0.25),
    Stage("helpers", 60, (2e-3, 2e-3), (Mix(400, 12, 1.0),), Shares(0.05, 0.45, 0.35),
          weights=LossWeights(letters=0.0, guide=1.0, recall=0.3), hold_encoder=True),
    Stage("broad", 9500, (1.8e-3, 6e-4), (Mix(400, 12, 0.5), Mix(1500, 4, 0.5)),
          Shares(0.05, 0.6, 0.4, warped=0.3, rooms=0.06, telephones=0.03, late=0.5,
                 full_prompts=0.6),
          garble=0.06, average=0.99, weights=LossWeights(letters=0.0, guide=1.0, recall=0.3),
          voices={"slt": 1.6, "rms": 1.5, "awb": 1.2, "kal16": 1.0}, other_voices=1.2),
    Stage("polish", 1450, (6e-4, 1e-5), (Mix(400, 12, 0.35), Mix(1500, 4, 0.65)),
          Shares(0.05, 0.65, 0.3, warped=0.25, rooms=0.04, telephones=0.02, late=0.5,
                 full_prompts=0.6),
          garble=0.06, average=0.99, weights=LossWeights(letters=0.0, guide=1.0, recall=0.3),
          voices={"slt": 1.9, "rms": 1.6, "awb": 1.3, "kal16": 1.0}, other_voices=1.2),
    Stage("settle", 400, (5e-4, 1e-5), (Mix(400, 12, 0.4), Mix(1500, 4, 0.6)),
          Shares(0.05, 0.6, 0.3, warped=0.25, rooms=0.04, telephones=0.02, late=0.5,
                 full_prompts=0.6),
          garble=0.06, average=0.99, weights=LossWeights(letters=0.0, guide=1.0, recall=0.3),
          voices={"slt": 1.9, "rms": 1.7, "awb": 1.4, "kal16": 1.0}
          | dict.fromkeys(espeak.VOICES, 1.6),
          other_voices=0.9),
)  # fmt: skip
SAVED = ("polish", "settle")
"""Stages whose weights at the end are kept for the export."""


def rank() -> int:
    """Which of the training's processes this is."""
    return distributed.get_rank() if distributed.is_initialized() else 0


class Batches(Dataset[dict[str, torch.Tensor]]):
    """The batch of each step of a stage: windows of one of its mixes, drawn by its number.

    All processes draw the same mix, so that none waits long for another, and windows of their own.
    """

    def __init__(self, library: Library, stage: Stage, number: int):
        self.library, self.stage, self.seed = library, stage, SEED + number * 1_000_000

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rng, mixes = random.Random(self.seed + step), self.stage.mixes
        mix = rng.choices(mixes, [m.share for m in mixes])[0]
        if rank():
            rng = random.Random(self.seed + step + RANK_SEED * rank())
        windows = window_batch(self.library, rng, mix.size, mix.frames, self.stage.shares)
        return collate(windows, self.library)


def optimizers(network: Network) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else; one learning rate serves both."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in network.named_parameters():
        (matrices if ".blocks." in name and parameter.ndim == 2 else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01),
    ]


class Training:
    """The network, its optimiser and how far it got."""

    def __init__(self, library: Library, folder: Path):
        torch.manual_seed(SEED)
        self.library, self.file = library, folder / "training.pt"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = Network(len(library.phone_classes)).to(self.device)
        self.optimizers = optimizers(self.network)
        self.stage, self.step = 0, 0
        self.cache: list[tuple[torch.Tensor, Window]] = []
        self.average: dict[str, torch.Tensor] | None = None
        if self.file.exists():
            self._resume()

    def _resume(self) -> None:
        saved = torch.load(self.file, map_location=self.device)
        self.network.load_state_dict(saved["network"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.stage, self.step, self.average = saved["stage"], saved["step"], saved["average"]

    def start_from(self, exported: Path, stage: str, stages: tuple[Stage, ...]) -> None:
        """Take an exported file's weights and go on at a stage; the helpers start anew."""
        weights = torch.load(exported, weights_only=True)["model_state_dict"]
        embedding = weights[EMBEDDING].float()
        ids = torch.from_numpy(vocab.compact_ids())
        others = torch.ones(len(embedding), dtype=torch.bool).index_fill(0, ids, False)
        weights[EMBEDDING] = torch.cat([embedding[ids], embedding[others][-1:]])
        own = self.network.state_dict()
        own |= {name: tensor.float() for name, tensor in weights.items()}
        self.network.load_state_dict(own)
        self.stage = [each.name for each in stages].index(stage)

    def save(self) -> None:
        """Write everything needed to go on, by way of a second file, so a stop harms nothing."""
        if rank():
            return
        state = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "stage": self.stage,
            "step": self.step,
            "average": self.average,
        }
        torch.save(state, self.file.with_suffix(".new"))
        self.file.with_suffix(".new").replace(self.file)

    def fill_cache(self, stage: Stage) -> None:
        """Encode the stage's windows once: float16 features beside windows without their mel."""
        self.cache = []
        for index in range(0, stage.cached, 4):
            rng = random.Random(SEED - 1_000_000 * (self.stage + 1) - index)
            windows = window_batch(self.library, rng, 4, POSITIONS, stage.shares)
            batch = self.moved(collate(windows, self.library))
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                features = self.network.encode(batch["mel"], batch["offset"]).half()
            for window, one in zip(windows, features, strict=True):
                window.mel = torch.zeros(1).expand(80, 2 * POSITIONS)
                self.cache.append((one, window))

    def cached_losses(self, stage: Stage) -> dict[str, torch.Tensor]:
        """Losses of the decoder on windows of the cache."""
        if not self.cache:
            self.fill_cache(stage)
        rng = random.Random(SEED + self.stage * 1_000_000 + self.step)
        chosen = rng.sample(self.cache, stage.mixes[0].size)
        batch = collate([window for _, window in chosen], self.library)
        batch["inputs"] = garbled(batch["inputs"], stage.garble, SEED + self.step)
        batch = self.moved(batch)
        features = torch.stack([one for one, _ in chosen]).float()
        with torch.autocast(self.device.type, torch.bfloat16):
            return decoder_losses(self.network, features, batch)

    def joint_losses(self, stage: Stage, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses of encoder and decoder on new windows."""
        batch["inputs"] = garbled(
            batch["inputs"], stage.garble, SEED + self.step + RANK_SEED * rank()
        )
        batch = self.moved(batch)
        with torch.autocast(self.device.type, torch.bfloat16):
            features = self.network.encode(batch["mel"], batch["offset"])
            losses = encoder_losses(self.network, features, batch, stage.weights)
            return losses | decoder_losses(self.network, features, batch)

    def moved(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch where the network is."""
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def batches(self, stage: Stage) -> Iterable[dict[str, torch.Tensor]]:
        """The rest of the stage's batches; beside a GPU other processes make them."""
        if stage.cached:
            return itertools.repeat({}, stage.steps - self.step)
        makers = 0 if self.device.type == "cpu" else max(1, (os.cpu_count() or 1) - 1)
        return DataLoader(
            Batches(self.library, stage, self.stage),
            batch_size=None,
            sampler=range(self.step, stage.steps),
            num_workers=makers,
        )

    def advance(self, stage: Stage, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """One optimiser step on a batch, which a cached stage makes itself; returns the losses."""
        first, last = stage.rates
        rate = first + (last - first) * self.step / stage.steps
        if self.stage == 0:
            rate *= min(1.0, (self.step + 1) / 150)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self.network.encoder.requires_grad_(not stage.hold_encoder)
        losses = self.cached_losses(stage) if stage.cached else self.joint_losses(stage, batch)
        self.network.zero_grad(set_to_none=True)
        total(losses, stage.weights).backward()
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self._follow(stage.average)
        self.step += 1
        return {name: value.item() for name, value in losses.items()}

    def _share_gradients(self) -> None:
        """The mean of all processes' gradients in each of them."""
        if not distributed.is_initialized():
            return
        found = [p.grad for p in self.network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in found])
        distributed.all_reduce(flat)
        parts = flat.div_(distributed.get_world_size()).split([g.numel() for g in found])
        for gradient, part in zip(found, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _follow(self, decay: float) -> None:
        """Keep the running average of the weights."""
        if not decay:
            self.average = None
            return
        state = {k: v.detach() for k, v in self.network.state_dict().items()}
        if self.average is None:
            self.average = {k: v.clone() for k, v in state.items()}
        for name, value in self.average.items():
            value.lerp_(state[name], 1 - decay)

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights to export: the running average where there is one."""
        return self.average or self.network.state_dict()


def train(
    data: Path,
    folder: Path,
    stages: tuple[Stage, ...] = STAGES,
    exported: Path | None = None,
    first: str = "helpers",
    processes: int = 1,
) -> None:
    """Run all stages, or the rest of them; or from an exported file on, those from `first` on.

    With several processes each step's batch is as many times as large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = (data, folder, stages, exported, first)
    if processes == 1:
        _train(*work)
        return
    meeting = folder / "processes"
    meeting.unlink(missing_ok=True)
    multiprocessing.spawn(_train_beside, (processes, meeting, work), processes)


def _train_beside(number: int, processes: int, meeting: Path, work: tuple[Any, ...]) -> None:
    """One of several processes of a training, with its share of the cores."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    distributed.init_process_group(
        "gloo", init_method=meeting.absolute().as_uri(), rank=number, world_size=processes
    )
    _train(*work)
    distributed.destroy_process_group()


def _train(
    data: Path, folder: Path, stages: tuple[Stage, ...], exported: Path | None, first: str
) -> None:
    training = Training(Library(speech.load(data)), folder)
    if exported is not None and not training.file.exists():
        training.start_from(exported, first, stages)
    if distributed.is_initialized():
        distributed.barrier()  # all have read where to begin before one writes how far it got
    saved = started = time.monotonic()
    sums: dict[str, float] = {}
    while training.stage < len(stages):
        stage = stages[training.stage]
        training.library.weigh(stage.voices, stage.other_voices)
        for batch in training.batches(stage):
            for name, value in training.advance(stage, batch).items():
                sums[name] = sums.get(name, 0.0) + value / LOG_STEPS
            if training.step % LOG_STEPS == 0 and not rank():
                figures = " ".join(f"{name} {value:.3f}" for name, value in sums.items())
                minutes = (time.monotonic() - started) / 60
                print(f"{minutes:6.1f} min {stage.name} {training.step} {figures}", flush=True)
                sums.clear()
            if time.monotonic() - saved > SAVE_SECONDS:
                training.save()
                saved = time.monotonic()
        if stage.name in SAVED and not rank():
            torch.save(training.weights(), folder / f"{stage.name}.pt")
        training.stage, training.step, training.cache = training.stage + 1, 0, []
        training.save()
