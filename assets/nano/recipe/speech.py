"""The speech step: sentences to shards of utterances with the times of words and phones.

A shard is `NAME.npy` (int16 samples of all its utterances, end to end) and `NAME.json` (one record
an utterance). A shard depends only on its index, so several processes can each make some, and a
run that was stopped goes on where it left off.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import accents, espeak, flite
from .alignment import Span, Spoken
from .text import training_sentences

RATE = 16000
LEAD, TAIL = 0.06, 0.10  # seconds kept before the first word and after the last
SHARD_SIZE = 500
PLAIN_SHARDS = 84
"""Later ones have the sentences with many small words."""
KNOWN_ACCENTS_SHARDS = 108
"""Later ones are spoken in accents of our own, too."""
FIRST_ACCENTS_SHARDS = 140
"""Later ones have the later accents."""
LATER_ACCENTS_SHARDS = 188
"""Later ones are spoken in known voices, of words that only their company tells apart."""
VOICE_SHARES = {"slt": 0.17, "rms": 0.17, "awb": 0.13, "kal16": 0.13, "espeak": 0.40}
ACCENT_SHARES = {"slt": 0.06, "rms": 0.06, "awb": 0.05, "kal16": 0.05, "accents": 0.78}
ACCENT_VOICES = 12
"""Of a shard: enough utterances of each to fill a window with one voice."""


@dataclass(frozen=True)
class Utterance:
    """One utterance: int16 samples at 16 kHz (perhaps a memory map), its text and its spans."""

    samples: np.ndarray
    text: str
    voice: str
    words: list[Span]
    phones: list[Span]


def trimmed(spoken: Spoken) -> Spoken:
    """Cut the synthesizer's own silence to `LEAD` and `TAIL`, and move the times along."""
    first = max(0, round((spoken.words[0].start - LEAD) * RATE))
    last = round((spoken.words[-1].end + TAIL) * RATE)
    shift = first / RATE

    def moved(spans: list[Span]) -> list[Span]:
        return [Span(s.name, float(s.start) - shift, float(s.end) - shift) for s in spans]

    return Spoken(spoken.samples[first:last], moved(spoken.words), moved(spoken.phones))


def random_voice(rng: random.Random, shares: dict[str, float], own: list[str]) -> str:
    kind = rng.choices(list(shares), list(shares.values()))[0]
    several = {"espeak": espeak.VOICES, "accents": own}
    return rng.choice(several[kind]) if kind in several else kind


def speak(text: str, voice: str, rng: random.Random) -> Spoken | None:
    """Say one sentence with a random rate and pitch; None where the alignment is not to be had."""
    if voice in flite.VOICES:
        spoken = flite.speak(text, voice, rng.uniform(0.85, 1.15), rng.uniform(0.9, 1.1))
    else:
        spoken = espeak.speak(text, voice, rng.randint(135, 190), rng.randint(30, 70))
    return trimmed(spoken) if spoken else None


def sentences_of(index: int) -> Iterator[str]:
    """What the utterances of a shard say."""
    if index > LATER_ACCENTS_SHARDS:
        return training_sentences(index, "company")
    return training_sentences(index, "linked" if index > PLAIN_SHARDS else "plain")


def shares_of(index: int) -> dict[str, float]:
    """Who speaks in a shard."""
    with_accents = KNOWN_ACCENTS_SHARDS < index <= LATER_ACCENTS_SHARDS
    return ACCENT_SHARES if with_accents else VOICE_SHARES


def make_shard(folder: Path, index: int) -> None:
    """Write shard `index` (its sentences and voices follow from the index alone)."""
    target = folder / f"shard-{index:03d}.json"
    if target.exists():
        return
    rng = random.Random(index)
    sentences, shares = sentences_of(index), shares_of(index)
    pool = accents.LATER_VOICES if index > FIRST_ACCENTS_SHARDS else accents.FIRST_VOICES
    own = random.Random(index).sample(pool, ACCENT_VOICES)
    records: list[dict] = []
    chunks, offset = [], 0
    while len(records) < SHARD_SIZE:
        text, voice = next(sentences), random_voice(rng, shares, own)
        spoken = speak(text, voice, rng)
        if spoken is None or len(spoken.samples) > 14 * RATE:
            continue
        count = len(spoken.samples)
        record = {"text": text, "voice": voice, "offset": offset, "count": count}
        for kind in ("words", "phones"):
            record[kind] = [(n, round(a, 3), round(b, 3)) for n, a, b in getattr(spoken, kind)]
        records.append(record)
        chunks.append(spoken.samples)
        offset += count
    np.save(target.with_suffix(".npy"), np.concatenate(chunks))
    target.write_text(json.dumps(records))


def make_speech(folder: Path, shards: range) -> None:
    """Make the shards of the range that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in shards:
        make_shard(folder, index)
        print(f"speech: shard {index} of {shards.start}..{shards.stop - 1}", flush=True)


def load(folder: Path) -> list[Utterance]:
    """All utterances of the finished shards, their samples as memory maps."""
    found = []
    for path in sorted(folder.glob("shard-*.json")):
        samples = np.load(path.with_suffix(".npy"), mmap_mode="r")
        for r in json.loads(path.read_text()):
            words, phones = ([Span(*s) for s in r[kind]] for kind in ("words", "phones"))
            part = samples[r["offset"] : r["offset"] + r["count"]]
            found.append(Utterance(part, r["text"], r["voice"], words, phones))
    return found
