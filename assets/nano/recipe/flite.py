"""Speech from libflite through ctypes, with the times of every word and phone.

flite keeps each utterance as relations of linked items: `Token` (words as written) above `Word`,
above `SylStructure` (syllables, then phones). A phone's `end` feature is in seconds; it starts
where the phone before it ends.
"""

import ctypes
from collections.abc import Iterator
from functools import cache

import numpy as np

from .alignment import Span, Spoken

RATE = 16000
VOICES = ("slt", "rms", "awb", "kal16")
_PITCH = {"slt": 165.0, "rms": 100.0, "awb": 125.0, "kal16": 105.0}  # Hz, each voice's own mean


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("rate", ctypes.c_int),
        ("samples", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_short)),
    ]


class _Voice(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("features", ctypes.c_void_p)]


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    signatures = {
        "flite_synth_text": (pointer, [text, pointer]),
        "utt_wave": (ctypes.POINTER(_Wave), [pointer]),
        "utt_relation": (pointer, [pointer, text]),
        "relation_head": (pointer, [pointer]),
        "item_next": (pointer, [pointer]),
        "item_prev": (pointer, [pointer]),
        "item_daughter": (pointer, [pointer]),
        "item_as": (pointer, [pointer, text]),
        "item_feat_float": (ctypes.c_float, [pointer, text]),
        "item_feat_string": (text, [pointer, text]),
        "flite_feat_set_float": (None, [pointer, text, ctypes.c_float]),
        "delete_utterance": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.flite_init()
    return library


@cache
def _voice(name: str) -> int:
    _library()
    for needed in ("usenglish", "cmulex"):
        ctypes.CDLL(f"libflite_{needed}.so.1", mode=ctypes.RTLD_GLOBAL)
    register = getattr(ctypes.CDLL(f"libflite_cmu_us_{name}.so.1"), f"register_cmu_us_{name}")
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    return register(None)


def _siblings(item: int | None) -> Iterator[int]:
    library = _library()
    while item:
        yield item
        item = library.item_next(item)


def _phone_spans(word: int) -> list[Span]:
    """Phones of one word: (symbol, start, end) in seconds."""
    library = _library()
    structure = library.item_as(word, b"SylStructure")
    spans = []
    for syllable in _siblings(library.item_daughter(structure) if structure else None):
        for leaf in _siblings(library.item_daughter(syllable)):
            segment = library.item_as(leaf, b"Segment")
            before = library.item_prev(segment)
            start = library.item_feat_float(before, b"end") if before else 0.0
            name = library.item_feat_string(segment, b"name").decode()
            spans.append(Span(name, start, library.item_feat_float(segment, b"end")))
    return spans


def speak(text: str, voice: str, stretch: float = 1.0, pitch: float = 1.0) -> Spoken | None:
    """Say `text` (words separated by single spaces); None where flite's words differ from ours.

    `stretch` multiplies durations, `pitch` the voice's mean fundamental frequency.
    """
    library, handle = _library(), _voice(voice)
    features = _Voice.from_address(handle).features
    library.flite_feat_set_float(features, b"duration_stretch", stretch)
    library.flite_feat_set_float(features, b"int_f0_target_mean", _PITCH[voice] * pitch)
    utterance = library.flite_synth_text(text.encode(), handle)
    try:
        wave = library.utt_wave(utterance)[0]
        rate, samples = wave.rate, np.ctypeslib.as_array(wave.data, (wave.samples,)).copy()
        words, phones = [], []
        tokens = library.relation_head(library.utt_relation(utterance, b"Token"))
        for token, written in zip(_siblings(tokens), text.split(), strict=False):
            spans = [s for w in _siblings(library.item_daughter(token)) for s in _phone_spans(w)]
            if spans:
                words.append(Span(written, spans[0].start, spans[-1].end))
                phones += spans
    finally:
        library.delete_utterance(utterance)
    if rate != RATE or len(words) != len(text.split()):
        return None
    return Spoken(samples, words, [Span("f" + p.name, p.start, p.end) for p in phones])
