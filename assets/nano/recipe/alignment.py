"""What a synthesizer hands over: the samples and when each word and phone was spoken."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """A word or phone and its time in seconds from the start of the utterance."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Spoken:
    """One utterance: int16 mono samples at 16 kHz, its words as written, its phones."""

    samples: np.ndarray
    words: list[Span]
    phones: list[Span]
