"""What each engine keeps in memory for a checkpoint's weights.

Every run is a new process that gets an engine ready (`engines.measure.ready`) and says how many
resident bytes that added: `held_bytes`. Part of it is the same for every checkpoint (code that was
brought in, MAX's runtime). What is left without that part is `weights_bytes`: the same measurement
with the smallest checkpoint there can be is taken off, on all sides alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from whisper.model import ModelDimensions

from engines import random_checkpoints as sizes
from engines.measure import tables
from engines.measure.record import Figure, Result
from engines.measure.start import Start, start
from engines.measure.turns import Say, Turns, prefixed, take_turns

BENCHMARK = "memory"
BASELINE = "cpu"
SMALLEST = ModelDimensions(80, 1500, 64, 1, 1, sizes.VOCABULARY, 448, 64, 1, 1)
"""One layer of one head; its own weights, 7 MB in float16, are taken off on all sides."""


def settings(engines: Sequence[str], names: Sequence[str], repeats: int) -> dict[str, Any]:
    """What is equal on all sides."""
    return {
        "engines": list(engines),
        "sizes": list(names),
        "repeats": repeats,
        "stored": "float16",
        "baseline": BASELINE,
    }


def measure(
    engines: Sequence[str], names: Sequence[str], repeats: int, say: Say
) -> Iterator[Result]:
    """The smallest checkpoint first, then each size with what it takes beyond that."""
    with tempfile.TemporaryDirectory(prefix="max-whisper-memory-") as root:
        path = Path(root) / "checkpoint.pt"
        store(sizes.random_state(SMALLEST), SMALLEST, path)
        smallest = take(engines, path, repeats, prefixed(say, "smallest"))
        if smallest.interrupted:
            raise KeyboardInterrupt
        for size in names:
            checkpoint = sizes.checkpoint(size)
            store(checkpoint.state, checkpoint.dims, path)
            del checkpoint
            turns = take(engines, path, repeats, prefixed(say, size))
            yield from results(size, turns, smallest)
            if turns.interrupted:
                raise KeyboardInterrupt


def store(state: Mapping[str, Tensor], dims: ModelDimensions, path: Path) -> None:
    """Write a checkpoint in OpenAI's format and float16, as OpenAI's are."""
    halves = {name: tensor.half() for name, tensor in state.items()}
    torch.save({"dims": asdict(dims), "model_state_dict": halves}, path)


def take(engines: Sequence[str], path: Path, repeats: int, say: Say) -> Turns[Start]:
    """Every engine made ready in new processes, with graphs that an untimed one compiled."""
    cache = compiled_graphs()
    runs = {key: partial(start, key, str(path), cache) for key in engines}
    return take_turns(runs, repeats, 1, say)


def compiled_graphs() -> Path:
    """The folder of compiled graphs, wherever `MAX_WHISPER_CACHE` has it."""
    from engines.max_graph.session import cache_folder

    return cache_folder()


def held(turns: Turns[Start]) -> dict[str, float]:
    """Median resident bytes by engine, of those that told."""
    samples = {
        key: [each.memory_bytes for each in starts if each.memory_bytes is not None]
        for key, starts in turns.outcomes.items()
    }
    return {key: median(each) for key, each in samples.items() if each}


def results(size: str, turns: Turns[Start], smallest: Turns[Start]) -> list[Result]:
    """Seconds to get ready, bytes, and the share of the baseline's bytes for weights.

    `smallest`: the same with the smallest checkpoint; what failed there has failed.
    """
    bytes_held, fixed = held(turns), held(smallest)
    weights = {key: bytes_held[key] - fixed[key] for key in bytes_held if key in fixed}
    found = []
    for key, starts in turns.outcomes.items():
        figures: dict[str, Figure] = {
            "held_bytes": bytes_held.get(key),
            "weights_bytes": weights.get(key),
        }
        if key in weights and weights.get(BASELINE):
            figures["of_baseline"] = weights[key] / weights[BASELINE]
        seconds = {"prepare": tuple(each.seconds["prepare"] for each in starts)} if starts else {}
        error = turns.errors.get(key) or smallest.errors.get(key)
        found.append(Result(BENCHMARK, {"size": size}, key, seconds, figures, error))
    return found


COLUMNS = (
    tables.of_case("size"),
    tables.contender("engine"),
    tables.figure("held_bytes", "held MB", ".0f", 1e-6),
    tables.figure("weights_bytes", "weights MB", ".0f", 1e-6),
    tables.figure("of_baseline", "of cpu's", ".2f"),
    tables.seconds("prepare"),
    tables.runs("prepare"),
)
