"""Make the sample clips from their texts: `python -m audio_samples.make`.

Needs Debian's libflite1. Each sentence is spoken on its own, with silence between sentences; the
same texts give the same samples every time.
"""

from pathlib import Path

import numpy as np
import soundfile

from assets.nano.recipe import flite
from assets.nano.recipe.speech import trimmed
from assets.nano.recipe.text import split_sentences

RATE = 16000
HERE = Path(__file__).parent
LEVEL = 0.1  # root mean square of the speech, full scale 1
SENTENCE_GAP, PARAGRAPH_GAP, EDGE = 0.45, 0.9, 0.3  # seconds
TALK_SECONDS = 161.5
NOISE_DECIBELS = 10.0  # speech above noise in short_noisy


def paragraphs(name: str) -> list[list[str]]:
    """The text of a clip: paragraphs of sentences."""
    text = (HERE / f"{name}.txt").read_text("utf-8")
    return [[s.strip() for s in split_sentences(p)] for p in text.split("\n\n")]


def spoken(sentence: str, voice: str, stretch: float) -> np.ndarray:
    """One sentence as float32 samples in -1..1."""
    speech = flite.speak(sentence, voice, stretch)
    if speech is None:
        raise ValueError(f"{voice} has no alignment for: {sentence}")
    return trimmed(speech).samples.astype(np.float32) / 32768


def pauses(texts: list[list[str]]) -> list[float]:
    """Relative silence before each sentence: none before the first, more at a paragraph."""
    found = []
    for sentences in texts:
        found += [PARAGRAPH_GAP] + [SENTENCE_GAP] * (len(sentences) - 1)
    return [0.0, *found[1:]]


def assemble(name: str, voice: str, stretch: float, seconds: float | None = None) -> np.ndarray:
    """Speak a whole text; with `seconds`, the pauses are scaled so that it lasts exactly that."""
    texts = paragraphs(name)
    parts = [spoken(s, voice, stretch) for sentences in texts for s in sentences]
    gaps = np.array(pauses(texts))
    if seconds is not None:
        free = seconds - 2 * EDGE - sum(map(len, parts)) / RATE
        gaps *= free / gaps.sum()
    edge, pieces = np.zeros(round(EDGE * RATE), np.float32), []
    for gap, part in zip(gaps, parts, strict=True):
        pieces += [np.zeros(round(gap * RATE), np.float32), part]
    samples = np.concatenate([edge, *pieces, edge])
    if seconds is not None:
        count = round(seconds * RATE)
        samples = np.pad(samples, (0, max(0, count - len(samples))))[:count]
    return samples * (LEVEL / np.sqrt(np.mean(samples[np.abs(samples) > 0.003] ** 2)))


def with_noise(samples: np.ndarray, decibels: float) -> np.ndarray:
    """White noise over the whole clip, `decibels` below the clip's mean power."""
    noise = np.random.default_rng(10).standard_normal(len(samples)).astype(np.float32)
    power = np.mean(samples**2)
    return samples + noise * np.sqrt(power / np.mean(noise**2) * 10 ** (-decibels / 10))


def write(name: str, samples: np.ndarray) -> None:
    """Write `NAME.flac`, 16 bits, mono."""
    soundfile.write(HERE / f"{name}.flac", np.clip(samples, -1, 1), RATE, subtype="PCM_16")
    print(f"{name}.flac {len(samples) / RATE:.2f} s")


def main() -> None:
    """Make all five clips."""
    short = assemble("short", "slt", 1.05)
    write("short", short)
    write("short_noisy", with_noise(short, NOISE_DECIBELS))
    write("half_minute", assemble("half_minute", "rms", 1.05))
    write("talk", assemble("talk", "slt", 1.0, TALK_SECONDS))
    write("silence", np.zeros(6 * RATE, np.float32))


if __name__ == "__main__":
    main()
