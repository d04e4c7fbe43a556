"""`python -m engines.max_graph.check`: does MAX import, compile and run here, and agree?

First a graph of two operations, compiled anew, so that it says what compiling costs here; then the
MAX encoder of a checkpoint beside PyTorch's on a window of noise. Prints how long each step took,
and how far apart the encoders are after every stage. Exit status 1 past the tolerance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from whisper.audio import N_FRAMES
from whisper.model import AudioEncoder, Whisper

from engines import checkpoints
from engines.base import EngineError, FloatArray
from engines.checkpoints import DEFAULT_MODEL
from engines.max_hybrid import load_max_encoder, why_no_max

TOLERANCE = 1e-5
"""Largest relative error of a stage in float32; about 6e-7 was measured at tiny's dimensions."""


def torch_stages(encoder: AudioEncoder, mel: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    """Every stage of whisper's encoder, named and shaped as in `MaxEncoder.stages`."""
    with torch.inference_mode():
        x = F.gelu(encoder.conv1(torch.from_numpy(mel)[None]))
        yield "conv1", x[0].T.numpy()
        x = F.gelu(encoder.conv2(x)).permute(0, 2, 1) + encoder.positional_embedding
        yield "conv2", x[0].numpy()
        for layer, block in enumerate(encoder.blocks):
            x = block(x)
            yield f"blocks.{layer}", x[0].numpy()
        yield "ln_post", encoder(torch.from_numpy(mel)[None])[0].numpy()


def relative_error(found: FloatArray, expected: FloatArray) -> float:
    """‖found − expected‖ / ‖expected‖."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engines.max_graph.check", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="nano, an official name, or a path")
    asked = parser.parse_args(arguments)
    if reason := why_no_max():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    try:
        return check(asked.model)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def check_small_graph() -> None:
    """Compile and run two operations; raises `EngineError` when the result is wrong."""
    from engines.max_graph.small import Sum

    add = Sum(1000)
    print(f"compile a sum     {add.seconds:8.2f} s")
    a, b = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    start = perf_counter()
    found = add(a, b)
    print(f"run it            {(perf_counter() - start) * 1e3:8.2f} ms")
    if relative_error(found, a * b + a) > 1e-6:  # float32 rounds by 6e-8 at a time
        raise EngineError("MAX compiled a small graph, but its result is wrong.")


def check(model: str) -> int:
    """Load, run and compare one model's encoders."""
    start = perf_counter()
    from engines.max_graph import session

    print(f"import            {perf_counter() - start:8.2f} s")
    check_small_graph()
    print(f"device            {session.pick_device().label}")
    checkpoint = checkpoints.load(model)
    encoder, seconds = load_max_encoder(checkpoint)
    print(f"compile or read   {seconds:8.2f} s")
    noise = np.random.default_rng(0).standard_normal((checkpoint.dims.n_mels, N_FRAMES))
    mel = noise.astype(np.float32)
    start = perf_counter()
    encoder(mel)
    print(f"encode 30 s       {perf_counter() - start:8.2f} s")
    found = dict(encoder.stages(mel))
    worst = 0.0
    print("stage         relative error to PyTorch")
    for name, expected in torch_stages(checkpoint.build(Whisper).encoder, mel):
        error = relative_error(found[name], expected)
        worst = max(worst, error)
        print(f"{name:<14}{error:.1e}")
    print("the same encoder" if worst < TOLERANCE else f"not the same: above {TOLERANCE:.0e}")
    return int(worst >= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
