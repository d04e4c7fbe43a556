"""Decode time per token: one window, greedy, a fixed number of tokens on every side.

Two ways to take part. A `Stepper` is given each token, so that all of them decode the same text;
what is timed is the decoder up to its logits. A `Writer` picks its own tokens inside one call, end
of text forbidden; its selection is then part of the time. Both are given the same features, so no
encoder is in the figures, and both write as many tokens after the same prompt.

One more takes its turn beside `max_full`: a plain read of as many bytes as a
step of `max_full` must read (`bytes_of_step`). No step that reads them can be quicker, so its share
of the step's time says how near the step is to what the memory allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from whisper.decoding import PyTorchInference
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from engines import random_checkpoints as sizes
from engines.base import EngineError, EngineUnavailable, FloatArray
from engines.checkpoints import Checkpoint
from engines.max_full import MaxFullEngine, MaxInference, load_max_decoder
from engines.max_hybrid import why_no_max
from engines.measure import peers, tables
from engines.measure.encoder import window
from engines.measure.record import Figure, Result, with_ratios
from engines.measure.turns import Clock, Say, Turns, prefixed, ready, take_turns, timed

BENCHMARK = "step"
BASELINE = "openai-whisper"
WARM_UPS = 1
MULTILINGUAL = 51865
"""Smallest vocabulary of a multilingual checkpoint, with 99 languages (`whisper.tokenizer`)."""

PLAIN_READ = "plain read"
DEVICE = "cpu"
"""Where all decoders run, MAX's too where there is an accelerator: a step on one device is not to
be held against a step on another. Whole runs and the encoder are measured on either."""

LONGEST = 440
"""Most tokens: `n_text_ctx` is 448, and the prompt needs room."""


class Stepper(Protocol):
    """A decoder that is given its tokens one by one; it may be started again and again.

    `device` and `dtype`: where it computes, and in what.
    """

    device: str
    dtype: str

    def start(self, features: FloatArray, prompt: Sequence[int]) -> None:
        """Take in a window's features `(n_audio_ctx, n_audio_state)`, and the prompt in one pass.

        Returns once the logits that follow the prompt are there.
        """
        ...

    def step(self, token: int) -> None:
        """Append a token; returns once the logits that follow it are there."""
        ...


class Writer(Protocol):
    """A decoder that can only be asked for a text of so many tokens; as a `Stepper` otherwise."""

    device: str
    dtype: str

    def write(self, features: FloatArray, prompt: Sequence[int], n_tokens: int) -> int:
        """Decode greedily after the prompt; returns the number of tokens written."""
        ...


Steps = dict[str, float]
"""Seconds in one run. `first`: from features and prompt to the first logits. `step`: per token
after that, the mean over the run."""

Run = Callable[[], Steps]


@dataclass(frozen=True)
class Contender:
    """A run that is ready, and where and in what it computes."""

    run: Run
    device: str
    dtype: str

    def __call__(self) -> Steps:
        """One run."""
        return self.run()

    def about(self) -> dict[str, Figure]:
        """Its device and type, as figures."""
        return {"device": self.device, "dtype": self.dtype}


class TorchStepper:
    """openai-whisper's decoder with its key and value cache (`PyTorchInference`)."""

    device, dtype = DEVICE, "float32"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model = checkpoint.build(Whisper)
        self._inference: PyTorchInference | None = None

    def start(self, features: FloatArray, prompt: Sequence[int]) -> None:
        """As `Stepper.start`."""
        if self._inference is not None:
            self._inference.cleanup_caching()
        self._inference = PyTorchInference(self._model, len(prompt))
        self._features = torch.from_numpy(features)[None]
        self._tokens = torch.tensor([list(prompt)])
        self._run()

    def step(self, token: int) -> None:
        """As `Stepper.step`."""
        self._tokens = torch.cat([self._tokens, torch.tensor([[token]])], dim=-1)
        self._run()

    def _run(self) -> None:
        assert self._inference is not None, "start comes before step"
        with torch.inference_mode():
            self._inference.logits(self._tokens, self._features)


class MaxStepper:
    """`max_full`'s decoder with its cache; the graph chooses a token too, which is not used.

    Its matrices may be kept in float16; it computes in float32, on the processor as all do here.
    """

    device, dtype = DEVICE, "float32"

    def __init__(self, checkpoint: Checkpoint) -> None:
        if reason := why_no_max():
            raise EngineUnavailable(reason)
        self._inference = MaxInference(load_max_decoder(checkpoint, on_cpu=True)[0], sot_index=0)

    def start(self, features: FloatArray, prompt: Sequence[int]) -> None:
        """As `Stepper.start`."""
        self._inference.start(np.array(prompt, np.int64), torch.from_numpy(features)[None], 1)

    def step(self, token: int) -> None:
        """As `Stepper.step`."""
        self._inference.advance(np.array([token], np.int64))


STEPPERS: dict[str, Callable[[Checkpoint], Stepper]] = {
    BASELINE: TorchStepper,
    MaxFullEngine.key: MaxStepper,
}
"""By name: how to make each decoder of this project ready."""


def settings(names: Sequence[str], tokens: int, repeats: int) -> dict[str, Any]:
    """What is equal on all sides, here and in `engines.measure.cache`."""
    return {
        "sizes": list(names),
        "tokens": tokens,
        "repeats": repeats,
        "warm_ups": WARM_UPS,
        "beams": 1,
        "device": DEVICE,
        "baseline": BASELINE,
    }


def measure(
    names: Sequence[str],
    tokens: int,
    repeats: int,
    threads: int,
    say: Say,
    steppers: Mapping[str, Callable[[Checkpoint], Stepper]] = STEPPERS,
    peer_names: Sequence[str] = peers.NAMES,
    clock: Clock = perf_counter,
) -> Iterator[Result]:
    """One result for each size and decoder; ends with `KeyboardInterrupt` if interrupted."""
    for size in names:
        tell = prefixed(say, size)
        tell("loading")
        checkpoint = sizes.checkpoint(size)
        task = Task(encode(checkpoint), prompt_of(checkpoint), forced_tokens(tokens), clock)
        makers: dict[str, Callable[[], Run]] = {
            name: partial(stepping, make, checkpoint, task) for name, make in steppers.items()
        }
        for name, write in peers.writers_of(peer_names, checkpoint, threads).items():
            makers[name] = partial(writing, write, task)
        n_bytes = bytes_of_step(checkpoint, task)
        if MaxFullEngine.key in steppers and not why_no_max():
            makers[PLAIN_READ] = partial(reading, n_bytes, task)
        runs = {name: ready(make) for name, make in makers.items()}
        turns = take_turns(runs, repeats, WARM_UPS, tell)
        about = {name: run.about() for name, run in runs.items() if isinstance(run, Contender)}
        yield from results(size, turns, n_bytes, about)
        if turns.interrupted:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Task:
    """What everyone decodes: features `(n_audio_ctx, n_audio_state)`, prompt ids, forced ids."""

    features: FloatArray
    prompt: tuple[int, ...]
    forced: tuple[int, ...]
    clock: Clock = perf_counter


def encode(checkpoint: Checkpoint) -> FloatArray:
    """PyTorch's features of a window of speech, `(n_audio_ctx, n_audio_state)`."""
    with torch.inference_mode():
        mel = torch.from_numpy(window(checkpoint.dims.n_mels))
        return checkpoint.build(Whisper).encoder(mel[None])[0].numpy()


def prompt_of(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Start of transcript, and no timestamps; multilingual checkpoints: English, transcribe."""
    multilingual = checkpoint.dims.n_vocab >= MULTILINGUAL
    languages = checkpoint.dims.n_vocab - MULTILINGUAL + 99
    language = "en" if multilingual else None
    tokenizer = get_tokenizer(multilingual, num_languages=languages, language=language)
    return tokenizer.sot_sequence_including_notimestamps


def forced_tokens(n_tokens: int) -> tuple[int, ...]:
    """The same ordinary tokens each time, none of them special."""
    ids = np.random.default_rng(0).integers(0, 50_000, n_tokens)
    return tuple(int(token) for token in ids)


def stepping(
    make: Callable[[Checkpoint], Stepper], checkpoint: Checkpoint, task: Task
) -> Contender:
    """A run that hands a stepper the forced tokens."""
    stepper = make(checkpoint)

    def run() -> Steps:
        first, _ = timed(lambda: stepper.start(task.features, task.prompt), task.clock)
        start = task.clock()
        for token in task.forced:
            stepper.step(token)
        return {"first": first, "step": (task.clock() - start) / len(task.forced)}

    return Contender(run, stepper.device, stepper.dtype)


def writing(make: Callable[[], Writer], task: Task) -> Contender:
    """A run that lets a writer write one token, then one more than are counted.

    The difference is the time of the tokens after the first, as it is with a stepper.
    """
    writer = make()

    def write(n_tokens: int) -> float:
        seconds, written = timed(
            lambda: writer.write(task.features, task.prompt, n_tokens), task.clock
        )
        if written != n_tokens:
            raise EngineError(f"It wrote {written} tokens in place of {n_tokens}.")
        return seconds

    def run() -> Steps:
        first, whole = write(1), write(1 + len(task.forced))
        return {"first": first, "step": (whole - first) / len(task.forced)}

    return Contender(run, writer.device, writer.dtype)


def reading(n_bytes: int, task: Task) -> Contender:
    """A run that reads so many bytes for each forced token, with all threads, and adds them up."""
    numbers = torch.ones(n_bytes // 4)

    def run() -> Steps:
        seconds, _ = timed(lambda: [numbers.sum() for _ in task.forced], task.clock)
        return {"step": seconds / len(task.forced)}

    return Contender(run, DEVICE, "float32")


def bytes_of_step(checkpoint: Checkpoint, task: Task) -> int:
    """Bytes that a step of `max_full` must read on a processor, in the middle of the task.

    The matrices of every layer but those for cross-attention's keys and values, which are read once
    a window; the vocabulary; and the keys and values, cross-attention's for the whole window.
    """
    dims, width = checkpoint.dims, 2 if checkpoint.fits_float16 else 4
    state, layers = dims.n_text_state, dims.n_text_layer
    matrices = 14 * state**2 * layers + dims.n_vocab * state
    positions = dims.n_audio_ctx + len(task.prompt) + len(task.forced) // 2
    return width * matrices + 4 * 2 * layers * state * positions


def results(
    size: str,
    turns: Turns[Steps],
    n_bytes: int,
    about: Mapping[str, Mapping[str, Figure]] = MappingProxyType({}),
) -> list[Result]:
    """One result for each decoder, compared by the time of a step; the plain read is no decoder.

    `n_bytes`: as `bytes_of_step`, read at each step of `max_full` and by the plain read. `about`:
    by name, the device and the type.
    """
    read = [run["step"] for run in turns.outcomes.get(PLAIN_READ, [])]
    found = []
    for name, runs in turns.outcomes.items():
        seconds = {q: tuple(run[q] for run in runs) for q in runs[0]} if runs else {}
        figures: dict[str, Figure] = {**about.get(name, {})}
        if read and runs and name in (PLAIN_READ, MaxFullEngine.key):
            step = median(seconds["step"])
            figures |= {"bytes_read": n_bytes, "bytes_per_second": n_bytes / step}
            figures["of_plain_read"] = median(read) / step
        error = turns.errors.get(name)
        found.append(Result(BENCHMARK, {"size": size}, name, seconds, figures, error))
    decoders = [each for each in found if each.contender != PLAIN_READ]
    plain = [each for each in found if each.contender == PLAIN_READ]
    return [*with_ratios(decoders, "step", BASELINE), *plain]


COLUMNS = (
    tables.of_case("size"),
    tables.contender("decoder"),
    tables.figure("device", "device"),
    tables.figure("dtype", "type"),
    tables.milliseconds("first", "first token ms"),
    tables.milliseconds("step", "ms per token"),
    tables.spread("step", "ms"),
    tables.runs("step"),
    tables.times_faster(BASELINE),
    tables.figure("bytes_read", "MB read", ".0f", 1e-6),
    tables.figure("bytes_per_second", "GB/s", ".1f", 1e-9),
    tables.figure("of_plain_read", "of the plain read's speed", ".0%"),
)
