"""Make the derived sample clips: `python -m audio_samples.make`.

`jfk-noisy.flac` is `jfk.flac` with white noise; `silence.flac` is digital silence. The same inputs
give the same samples every time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from engines.audio import load_clip
from engines.base import SAMPLE_RATE

HERE = Path(__file__).parent
SIGNAL_TO_NOISE_DECIBELS = 10.0
SILENCE_SECONDS = 6


def add_noise(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Return `samples` `(n,)` with white noise `decibels` below their mean power."""
    noise = np.random.default_rng(10).standard_normal(len(samples))  # (n,)
    gain = np.sqrt(np.mean(samples**2) / np.mean(noise**2) * 10 ** (-decibels / 10))
    return samples + gain * noise


def write(name: str, samples: np.ndarray) -> None:
    """Write `NAME.flac`, mono, 16 kHz, 16 bits."""
    clipped = np.clip(samples, -1, 1)
    soundfile.write(HERE / f"{name}.flac", clipped, SAMPLE_RATE, subtype="PCM_16")


def main() -> None:
    """Make both clips."""
    jfk = load_clip(HERE / "jfk.flac").samples
    write("jfk-noisy", add_noise(jfk, SIGNAL_TO_NOISE_DECIBELS))
    write("silence", np.zeros(SILENCE_SECONDS * SAMPLE_RATE))


if __name__ == "__main__":
    main()
