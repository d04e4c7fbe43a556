"""What a person looks at in a clip: mel spectrogram, loudness, silences, and notes in words.

Librosa computes it; nothing here is fed to an engine, whose log-mel is Whisper's own. Librosa takes
seconds to import, so only the functions do, in the process that analyses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

import numpy as np
import numpy.typing as npt

from engines.base import SAMPLE_RATE, Clip, FloatArray

BANDS, HIGHEST_HZ = 96, 8_000.0
FFT_SAMPLES = 1024
HOPS = 160, 512
"""Samples from one frame of the spectrogram to the next: in a short clip, and in a long one."""
MOST_COLUMNS = 1_200
"""Columns of a spectrogram and points of a loudness curve: more than a screen shows."""
BLOCK_COLUMNS = 200
"""Columns computed at a time, so that half an hour takes no more memory than half a minute."""
FLOOR_DB = -80.0
"""The quietest of a spectrogram, in dB below its loudest."""

SILENT_DBFS = -60.0
"""RMS of a clip in which nothing is heard."""
QUIET_DBFS = -35.0
"""RMS of the parts that aren't silent below which a clip is very quiet: speech that was recorded
well has -15 to -28 dB."""
SILENCE_DB, LEAST_SILENCE = 30.0, 0.3
"""What is so far below the clip's loudest moment, for so many seconds, is silence."""
LONG_SILENCE = 5.0
"""Seconds of a silence in which Whisper is known to invent words."""
FULL_SCALE, LEAST_CLIPPED = 0.99, 10
"""So many samples of that size or more are more than a peak that just reaches full scale."""
LOWEST_DBFS = -100.0

Levels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SoundView:
    """What a clip sounds like, in the detail that a screen shows.

    `mel`: `(BANDS, columns)`, 0 where a band is `FLOOR_DB` below the loudest or less, 254 at the
    loudest; `hertz`: the middle of each band. `column_seconds`: from the middle of one column to
    the next, the first being half of that into the clip. `loudness`: RMS in dB of full scale, one
    value for each of equal parts of the clip. `silences`: start and end in seconds. `level`: RMS of
    all that isn't silence, and `peak`, in dB of full scale. `notes`: sentences; none where all is
    well.
    """

    seconds: float
    mel: Levels = field(repr=False)
    hertz: tuple[float, ...] = field(repr=False)
    column_seconds: float
    loudness: tuple[float, ...] = field(repr=False)
    silences: tuple[tuple[float, float], ...]
    level: float
    peak: float
    notes: tuple[str, ...]


def describe_sound(clip: Clip) -> SoundView:
    """Compute what a clip sounds like; seconds, and for the first clip some more to import."""
    samples = np.asarray(clip.samples, np.float32)
    if not samples.size:
        samples = np.zeros(1, np.float32)
    loudness = measure_loudness(samples)
    heard = find_heard(samples)
    level = measure_level(samples, heard)
    silences = find_silences(heard, len(samples))
    peak = float(np.abs(samples).max())
    mel, hertz, column_seconds = compute_mel(samples)
    return SoundView(
        seconds=clip.seconds,
        mel=mel,
        hertz=hertz,
        column_seconds=column_seconds,
        loudness=loudness,
        silences=silences,
        level=level,
        peak=to_decibels(peak),
        notes=write_notes(samples, level, silences),
    )


def compute_mel(samples: FloatArray) -> tuple[Levels, tuple[float, ...], float]:
    """Return levels `(BANDS, columns)`, the bands' middles in Hz, and the seconds of a column.

    A column of a long clip is the mean power of several frames.
    """
    import librosa

    hop = int(np.clip(len(samples) // MOST_COLUMNS, *HOPS))
    frames = ceil(len(samples) / hop)
    together = ceil(frames / MOST_COLUMNS)  # frames in a column
    columns = ceil(frames / together)
    whole = (columns * together - 1) * hop + FFT_SAMPLES
    margin = (FFT_SAMPLES - hop) // 2  # a frame's middle is the middle of its hop
    padded = np.pad(samples, (margin, max(whole - margin - len(samples), 0)))
    power = np.empty((BANDS, columns), np.float32)
    for first in range(0, columns, BLOCK_COLUMNS):
        count = min(BLOCK_COLUMNS, columns - first)
        start = first * together * hop
        part = padded[start : start + (count * together - 1) * hop + FFT_SAMPLES]
        energy = librosa.feature.melspectrogram(
            y=part,
            sr=SAMPLE_RATE,
            n_fft=FFT_SAMPLES,
            hop_length=hop,
            center=False,
            n_mels=BANDS,
            fmax=HIGHEST_HZ,
        )
        power[:, first : first + count] = energy.reshape(BANDS, count, together).mean(axis=2)
    decibels = librosa.power_to_db(power, ref=max(float(power.max()), 1e-10), top_db=-FLOOR_DB)
    levels = np.round(254 * (1 - np.clip(decibels, FLOOR_DB, 0) / FLOOR_DB)).astype(np.uint8)
    if not power.any():
        levels[:] = 0
    middles = librosa.mel_frequencies(n_mels=BANDS + 2, fmax=HIGHEST_HZ)[1:-1]
    return levels, tuple(float(hertz) for hertz in middles), together * hop / SAMPLE_RATE


def measure_loudness(samples: FloatArray) -> tuple[float, ...]:
    """Return the RMS in dB of full scale of each of equal parts, the last one filled with zeros."""
    import librosa

    length = max(HOPS[0] * 4, ceil(len(samples) / MOST_COLUMNS))
    padded = np.pad(samples, (0, -len(samples) % length))
    levels = librosa.feature.rms(y=padded, frame_length=length, hop_length=length, center=False)[0]
    return tuple(round(to_decibels(float(rms)), 1) for rms in levels)


def find_heard(samples: FloatArray) -> npt.NDArray[np.int64]:
    """Return first and last sample `(parts, 2)` of what isn't silence."""
    from librosa.effects import split

    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    if to_decibels(rms) < SILENT_DBFS:  # else the loudest of the hiss would count as heard
        return np.zeros((0, 2), np.int64)
    heard: npt.NDArray[np.int64] = split(
        samples, top_db=SILENCE_DB, frame_length=FFT_SAMPLES, hop_length=FFT_SAMPLES // 2
    )
    return heard


def find_silences(heard: npt.NDArray[np.int64], n_samples: int) -> tuple[tuple[float, float], ...]:
    """Return the seconds between what is heard, where they are long enough to be a silence."""
    edges = np.concatenate([[0], heard.ravel(), [n_samples]]) / SAMPLE_RATE
    return tuple(
        (round(float(start), 2), round(float(end), 2))
        for start, end in edges.reshape(-1, 2)
        if end - start >= LEAST_SILENCE
    )


def measure_level(samples: FloatArray, heard: npt.NDArray[np.int64]) -> float:
    """Return the RMS of what is heard, else of everything, in dB of full scale."""
    parts = [samples[start:end] for start, end in heard] or [samples]
    total = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)
    return to_decibels((total / max(sum(map(len, parts)), 1)) ** 0.5)


def to_decibels(amplitude: float) -> float:
    """Return an amplitude in dB of full scale, `LOWEST_DBFS` at least."""
    return max(20 * float(np.log10(max(amplitude, 1e-10))), LOWEST_DBFS)


def write_notes(
    samples: FloatArray, level: float, silences: tuple[tuple[float, float], ...]
) -> tuple[str, ...]:
    """Return a sentence for each thing about the sound that may make the words wrong."""
    notes, seconds = [], len(samples) / SAMPLE_RATE
    quiet = sum(end - start for start, end in silences)
    if quiet >= seconds - LEAST_SILENCE:
        return (f"Nothing is heard: {-level:.0f} dB below full scale.",)
    if level < QUIET_DBFS:
        notes.append(f"Very quiet: {-level:.0f} dB below full scale.")
    clipped = int(np.count_nonzero(np.abs(samples) >= FULL_SCALE))
    if clipped >= LEAST_CLIPPED:
        notes.append(f"Clipped: {clipped:,} samples at full scale.")
    long = [(start, end) for start, end in silences if end - start >= LONG_SILENCE]
    if long:
        start, end = max(long, key=lambda each: each[1] - each[0])
        where = f"at {int(start) // 60}:{int(start) % 60:02d}"
        what = "A long silence" if len(long) == 1 else f"{len(long)} long silences"
        which = where if len(long) == 1 else f"the longest {where}"
        notes.append(
            f"{what}, {which} for {end - start:.0f} s: Whisper may invent words in a silence."
        )
    return tuple(notes)
