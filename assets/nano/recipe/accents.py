"""Accents of our own for espeak-ng: one of its accents with some of its phones replaced.

espeak-ng speaks English in few accents, and a model that hears only those takes another accent for
other words. So some of the speech is in accents drawn at random: each replaces a few phones in
ways that some English accent does (`th` as `d`, no `h`, `-ing` as `-in`, other vowels), with its
own lengths of the syllables and its own throat. A voice file of espeak-ng's says all that; see its
docs/voices.md for the lines and docs/phonemes.md for the names of the phones.
"""

import atexit
import random
import tempfile
from functools import cache
from pathlib import Path

PREFIX = "accent-"
FIRST, COUNT = 60, 180
"""The first accents came before the others, which are further from what espeak-ng speaks."""
VARIANTS = (
    "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f4", "f5", "Alex", "Andrea", "Andy", "Annie", "Hugo",
    "Mario", "Michael", "adam", "aunty", "belinda", "benjamin", "boris", "ed", "edward", "grandma",
    "gustave", "iven", "klatt", "klatt3", "klatt4", "norbert", "quincy", "steph", "steph2",
)  # fmt: skip
PHONEMES = ("en", "en-rp", "en-us", "en-us", "en-sc", "en-wm", "en-us-nyc")
CHANGED, CHANGED_MORE = 0.17, 0.25
"""Share of the phones below that one of the first accents, or of the others, replaces."""

EVERYWHERE, LAST, LAST_OR_UNSTRESSED = "00", "01", "03"
REPLACEMENTS = (
    (EVERYWHERE, "D", ("d", "z", "v")),
    (EVERYWHERE, "T", ("t", "t[", "f", "s")),
    (EVERYWHERE, "h", ("NULL",)),
    (EVERYWHERE, "r", ("R",)),
    (EVERYWHERE, "w", ("v",)),
    (LAST, "z", ("s",)),
    (LAST, "d", ("t",)),
    (LAST, "t", ("?",)),
    (LAST_OR_UNSTRESSED, "N", ("n",)),
    (LAST_OR_UNSTRESSED, "@", ("a#", "V")),
    (LAST_OR_UNSTRESSED, "3", ("a#", "V", "E")),
    (LAST_OR_UNSTRESSED, "I", ("i", "I2")),
    (EVERYWHERE, "I", ("i:",)),
    (EVERYWHERE, "eI", ("e:", "E")),
    (EVERYWHERE, "oU", ("o:", "O:")),
    (EVERYWHERE, "aI", ("aI2", "A:", "OI")),
    (EVERYWHERE, "aU", ("oU", "A:")),
    (EVERYWHERE, "V", ("U", "a")),
    (EVERYWHERE, "a", ("A:", "E", "a/")),
    (EVERYWHERE, "u:", ("U", "y:")),
    (EVERYWHERE, "i:", ("I",)),
    (EVERYWHERE, "U", ("u:",)),
    (EVERYWHERE, "A:", ("a", "O:")),
    (EVERYWHERE, "E", ("e", "I")),
    (EVERYWHERE, "3:", ("E", "e:")),
    (EVERYWHERE, "O:", ("o:", "oU")),
    (EVERYWHERE, "U@", ("o@", "u:")),
    (EVERYWHERE, "o@", ("O@",)),
)


def voice_file(number: int) -> str:
    """The voice file of an accent; it follows from the number alone."""
    rng = random.Random(number)
    lines = [f"name accent {number}", "language en", f"phonemes {rng.choice(PHONEMES)}"]
    syllables = [rng.randint(130, 185) for _ in range(4)]
    stressed = [rng.randint(190, 230) for _ in range(2)]
    lines.append("stressLength " + " ".join(map(str, [*syllables, *stressed, 250, 290])))
    lines += [f"formant {n} {rng.randint(93, 107)} 100 100" for n in (1, 2, 3)]
    changed = CHANGED if number < FIRST else CHANGED_MORE
    for where, phone, others in REPLACEMENTS:
        if rng.random() < changed:
            lines.append(f"replace {where} {phone} {rng.choice(others)}")
    return "\n".join(lines) + "\n"


@cache
def folder() -> Path:
    """A folder with the voice files of all accents, as long as the process lives.

    espeak-ng 1.51 has room for a path of 39 bytes with its variant, so it isn't `TMPDIR`.
    """
    made = tempfile.TemporaryDirectory(prefix="n", dir="/tmp")
    atexit.register(made.cleanup)
    for number in range(COUNT):
        (Path(made.name) / str(number)).write_text(voice_file(number))
    return Path(made.name)


def path(voice: str) -> Path:
    """What to hand to espeak-ng for one of `VOICES`: its file, with the variant after it."""
    return folder() / voice.removeprefix(PREFIX)


def voices(numbers: range) -> tuple[str, ...]:
    """The voices of some of the accents: each in every throat."""
    return tuple(f"{PREFIX}{number}+{variant}" for number in numbers for variant in VARIANTS)


FIRST_VOICES, LATER_VOICES = voices(range(FIRST)), voices(range(FIRST, COUNT))
VOICES = FIRST_VOICES + LATER_VOICES
