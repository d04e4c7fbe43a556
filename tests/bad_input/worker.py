"""Reads clips named on standard input, one JSON line for each: what came of it.

In a process of its own, so that a clip that ends the process, or hangs it, is told from the others.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np

from engines.audio import load_clip
from engines.base import SAMPLE_RATE, AudioError


def main() -> None:
    """Answer until standard input ends; a limit on memory comes as the only argument, in bytes."""
    most = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for line in sys.stdin:
        print(json.dumps(read(json.loads(line))), flush=True)


def read(path: str) -> dict[str, Any]:
    """What the loader made of a file."""
    started = time.perf_counter()
    try:
        clip = load_clip(path)
    except AudioError as error:
        outcome: dict[str, Any] = {"sentence": str(error)}
    except BaseException as error:
        outcome = {"fault": f"{type(error).__name__}: {error}"}
    else:
        outcome = {
            "seconds": clip.seconds,
            "hertz": loudest(clip.samples),
            "sound": is_sound(clip.samples),
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**outcome, "took": time.perf_counter() - started, "peak_bytes": peak}


def loudest(samples: np.ndarray) -> float:
    """The frequency with the most energy in the clip's first ten seconds."""
    head = samples[: 10 * SAMPLE_RATE]
    spectrum = np.abs(np.fft.rfft(head * np.hanning(len(head))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(head))


def is_sound(samples: np.ndarray) -> bool:
    """Whether they are what every engine takes: float32, one axis, finite, within [-1, 1]."""
    right = samples.dtype == np.float32 and samples.ndim == 1 and len(samples) > 0
    return bool(right and np.isfinite(samples).all() and np.abs(samples).max() <= 1.0)


if __name__ == "__main__":
    main()
