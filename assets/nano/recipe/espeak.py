"""Speech from libespeak-ng through ctypes, with the times of every word and phone.

espeak-ng hands its samples to a callback, each chunk with events: a word event carries the
character position in the text, a phone event its symbol, both the position in the audio in
milliseconds.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np

from . import accents
from .alignment import Span, Spoken

RATE = 16000
ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbcwmd", "en-us-nyc")
VARIANTS = ("m1", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f4", "f5")
VOICES = tuple(f"{accent}+{variant}" for accent in ACCENTS for variant in VARIANTS)

_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_WORD, _END, _PHONEME = 1, 5, 7
_RATE_WPM, _PITCH = 1, 3


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_chunks: list[np.ndarray] = []
_events: list[tuple[int, int, float, str]] = []


@_CALLBACK
def _receive(samples: Any, count: int, events: Any) -> int:
    if samples and count > 0:
        _chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
    index = 0
    while events[index].type != 0:
        event = events[index]
        name = event.name.decode("utf-8", "replace") if event.type == _PHONEME else ""
        _events.append((event.type, event.text_position, event.milliseconds / 1000, name))
        index += 1
    return 0


@cache
def _library() -> tuple[ctypes.CDLL, int]:
    """The library and its sample rate in Hz."""
    library = ctypes.CDLL("libespeak-ng.so.1")
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
    if rate <= 0:
        raise RuntimeError("espeak-ng did not start: is its data package installed?")
    library.espeak_SetSynthCallback(_receive)
    return library, rate


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """int16 at `rate` Hz -> int16 at 16 kHz, through the spectrum (the tail is padded)."""
    step = 441  # 22050 / 16000 = 441 / 320: a multiple of 441 becomes a whole count of samples
    count = -(-len(samples) // step) * step
    spectrum = np.fft.rfft(samples.astype(np.float64), count)
    target = round(count * RATE / rate)
    wave = np.fft.irfft(spectrum[: target // 2 + 1], target) * (target / count)
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


def _phones(end: float) -> list[Span]:
    """Phones from the collected events; pauses keep names that start with `_`."""
    found = [(time, name) for kind, _, time, name in _events if kind == _PHONEME]
    ends = [time for time, _ in found[1:]] + [end]
    return [Span(name or "_", time, stop) for (time, name), stop in zip(found, ends, strict=True)]


def _words(text: str, phones: list[Span], end: float) -> list[Span] | None:
    """Word spans; a word that espeak-ng ran into the one before shares its time by letters."""
    starts = {position: time for kind, position, time, _ in _events if kind == _WORD}
    places, cursor = [], 0
    for word in text.split():
        places.append(text.index(word, cursor))
        cursor = places[-1] + len(word)
    known = [(i, starts[p + 1]) for i, p in enumerate(places) if p + 1 in starts]
    if not known or known[0][0] != 0:
        return None
    words, spans = text.split(), []
    for (i, begin), (j, stop) in zip(known, [*known[1:], (len(words), end)], strict=True):
        pauses = [p.start for p in phones if p.name[0] == "_" and begin < p.start < stop]
        stop = min(pauses, default=stop)
        edges = np.cumsum([0] + [len(w) for w in words[i:j]]) / sum(map(len, words[i:j]))
        edges = (begin + edges * (stop - begin)).tolist()
        spans += [Span(w, a, b) for w, a, b in zip(words[i:j], edges, edges[1:], strict=False)]
    return spans


def speak(text: str, voice: str, words_per_minute: int = 160, pitch: int = 50) -> Spoken | None:
    """Say `text` (ASCII, single spaces); None where word events do not match the text."""
    library, rate = _library()
    _chunks.clear()
    _events.clear()
    own = voice.startswith(accents.PREFIX)
    choose = library.espeak_ng_SetVoiceByFile if own else library.espeak_SetVoiceByName
    if choose(str(accents.path(voice) if own else voice).encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {voice}")
    library.espeak_SetParameter(_RATE_WPM, words_per_minute, 0)
    library.espeak_SetParameter(_PITCH, pitch, 0)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
    library.espeak_Synchronize()
    if not _chunks:
        return None
    samples = _resampled(np.concatenate(_chunks), rate)
    end = len(samples) / RATE
    phones = _phones(end)
    words = _words(text, phones, end)
    if words is None:
        return None
    spoken = [Span("e" + p.name, p.start, p.end) for p in phones if p.name[0] != "_"]
    return Spoken(samples, words, spoken)
