"""Training text: random sentences over a closed vocabulary, and what is kept out of them.

Two thirds of the sentences come from templates, so that they read like everyday and technical
English; the rest are runs of evenly drawn words. The second kind makes no sense on purpose: a
decoder that can guess the next word from the grammar does not learn to listen. Two more kinds have
speech of their own (`speech.sentences_of`): runs with many small words, and sentences in which the
company of a word tells which one it is of those that sound alike.
"""

import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path

from . import words as lists

CLIPS = Path(__file__).resolve().parents[3] / "audio_samples"
HELD_OUT_SEED = 7_000_001
HELD_OUT_COUNT = 120
MIXED = 0.33  # share of sentences that are runs of evenly drawn words

_PHRASES = {
    "NP": [
        "the [thing]", "the [adj] [thing]", "a [adj] [tech]", "the [tech]", "my [person]",
        "the [adj] [tech]", "our [plural]", "every [thing]", "[num] [plural]", "the [ord] [tech]",
        "their [adj] [plural]", "the [adj] [person]", "this [tech]", "her [thing]", "his [thing]",
        "another [thing]", "some [plural]", "the [tech] of the [tech]",
        "the [thing] and the [tech]",
    ],
    "SUBJ": [
        "the [person]", "my [person]", "the [tech]", "the [adj] [tech]", "[name]", "he", "she",
        "our [person]", "the [adj] [person]", "nobody", "everybody", "somebody", "this [tech]",
        "the [thing]", "each [tech]", "it",
    ],
    "SUBJS": [
        "the [plural]", "we", "they", "you", "I", "most [plural]", "[num] [plural]",
        "all of them", "the [adj] [plural]", "two [adj] [plural]", "[name] and [name]", "people",
    ],
    "PP": [
        "[prep] the [thing]", "[prep] the [tech]", "[prep] a [adj] [thing]", "in the [tech]",
        "[prep] my [thing]", "[prep] the [plural]", "at the end of the [tech]", "on the [thing]",
        "from one [thing] to the next", "before [num] [plural]", "in less than [num] minutes",
    ],
}  # fmt: skip

_TEMPLATES = [
    "[SUBJ] [vd] [NP] [PP].", "[SUBJ] [vd] [NP].", "[SUBJS] [vb] [NP].", "[SUBJ] [vs] [NP] [PP].",
    "[SUBJ] [ivd] [PP].", "[SUBJS] [ivb] [PP].", "[SUBJ] [ivs] [adv].", "[SUBJ] is [degree] [adj].",
    "[SUBJS] are [adj] and [adj].", "[SUBJ] was [adj], but [NP] was [adj].",
    "[SUBJS] were [vg] [NP] [PP].", "[SUBJ] is [vg] [NP].", "Did [SUBJ] [vb] [NP]?",
    "Do [SUBJS] [vb] [NP]?", "Who [vd] [NP] [PP]?", "Where is [NP]?", "Why did [SUBJ] [vb] [NP]?",
    "How [adj] is [NP]?", "What is the [adj] [tech]?", "When will [SUBJ] [vb] [NP]?",
    "Please [vb] [NP] [PP].", "[vb] the [tech], [vb] the [tech], and [vb] the [tech].",
    "If [SUBJ] [vs] [NP], [SUBJS] [vb] [NP].", "When [SUBJ] [vd] [NP], [SUBJ] [ivd] [PP].",
    "[SUBJ] must [vb] [NP] before [SUBJS] [vb] [NP].", "[SUBJS] can not [vb] [NP].",
    "[SUBJ] has [num] [plural] and [num] [plural].", "There are [num] [plural] [PP].",
    "[adv], [SUBJ] [vd] [NP].", "[adv] [SUBJS] will [vb] [NP].", "[SUBJS] [adv] [vb] [NP].",
    "[SUBJ] [vs] [NP], so [SUBJS] [ivb] [adv].", "[NP] is more [adj] than [NP].",
    "[SUBJ] [vd] [NP], and [SUBJ] [vd] [NP].", "In the [tech], [SUBJ] [vd] [NP].",
    "[SUBJS] want to [vb] [NP] and [vb] [NP].", "It is [adj], because [SUBJ] [vd] [NP].",
    "[SUBJ] says that [NP] is [degree] [adj].", "[SUBJS] know how [NP] was [vd].",
    "[ord], [vb] [NP].", "Not every [tech] needs [num] [plural].", "[SUBJ] [vs] [num] [plural].",
    "Thank you for the [adj] [thing].", "The [tech] takes [num] seconds.", "[SUBJ] is not [adj].",
    "A [tech] is a [adj] [tech].", "One [tech], [num] [adj] [plural].", "Show me [NP].",
    "The [adj] [tech] is the one that [SUBJS] [vb].", "Let us [vb] [NP].",
    "[SUBJS] have [vd] [NP].",
    "[SUBJ] would [vb] [NP], but [SUBJS] could [vb] [NP] [PP].", "We [vb] [NP] only once.",
    "Then [SUBJ] [vd] [NP] [PP].", "So [SUBJS] [vb] [NP].", "But [SUBJ] [vd] [NP].",
    "And [SUBJ] [vd] [NP].", "[SUBJ] came [PP], [vd] [NP], and [ivd] [PP].", "I [vd] [NP] [adv].",
    "On [NP], [SUBJ] [vd] [NP], and [SUBJS] [ivd] until [SUBJ] [vd] [NP].",
    "[SUBJ] never [vs] [NP], but [SUBJ] always [vs] [NP].", "Yes, [SUBJS] [vb] [NP].",
    "No, [SUBJ] did not [vb] [NP].", "Most of them [ivb] [PP].", "[SUBJS] had [vd] [NP].",
    "It [vs] [NP] from [NP] to [NP].", "My [person] and her [person] [vd] [NP].",
    "Good [tech], [name].", "Every [tech] has a [tech], and each [tech] [vs] a [tech].",
    "We can [vb] it, and we can [vb] it again.", "How much [tech] do we need?", "I put it [PP].",
    "He put the [thing] [PP] and [ivd].", "The question is how [adv] we can [vb] [NP].",
    "The first [tech] is easy, the second is [adj], and the third is [adj].",
    "[vg] is cheap, but [vg] is expensive.", "If you [vb] it once, you will [vb] it again.",
    "What did you [vb], and what did you [vb]?", "You [vb] the [tech], and it [vs] you.",
    "There is a [adj] [thing] in every [thing].", "There was nobody [PP].", "It was a [adj] day.",
    "It was a [adj] [thing], but I still [vb] it.", "Some of them [ivd], and some of them [ivd].",
    "Many [plural] [vb] [NP], and few of them [vb] it well.", "That is why we [vb] [NP].",
    "That is the one thing that nobody [vd].", "Nothing is as [adj] as a [adj] [tech].",
    "[SUBJ] gave me [num] [plural] and a [thing].", "She asked for more [plural].",
    "They came over with [plural] and [plural].", "He says what to [vb], but not how to [vb] it.",
    "This is the [adj] part of the [tech].", "Now it is a [adj] [tech].", "We are almost there.",
    "One of the [plural] was [adj], the other was [adj].", "Look at [NP], and then [vb] it.",
    "We do not [vb] it, so we [vb] it.", "Let me [vb] you [NP].", "Can you [vb] [NP] for me?",
    "Could we [vb] it with a [adj] [tech]?", "Would you like some [thing]?",
    "I would like to [vb].",
    "At first it [vs] [NP], and later it [vs] [NP].", "At every [tech] we [vb] the [tech].",
    "For many years, [SUBJS] [vd] [NP].", "In the [thing] we [vd] the old [thing].",
    "Later, our [plural] [ivd] [PP].", "Next comes the [tech].", "Last, [vb] the [tech].",
    "The [tech] looks back at the [tech] and [vs] the next [tech].", "We only [vb] what we [vb].",
    "The more you [vb], the less you [vb].", "It fits into the [tech] of a [adj] [tech].",
    "Thousands of [plural] [vb] the same [tech].", "Each of them takes [num] [plural].",
    "As soon as it [ivs], we [vb] it.", "Until then, [SUBJS] [vb] [NP].", "But be [adj].",
    "A small [tech] can [vb] a large [tech].", "An early [tech] is better than a late [tech].",
    "Do you know who [vd] it?", "I know where you [vd] it.", "Tell me when it [ivs].",
    "Good evening, and welcome to our [tech].", "Good morning, my [adj] [plural].",
    "Thank you for [vg] with us.", "Thank you very much, [name].", "Today we [vb] about [NP].",
    "I want to [vb] about [NP] and about [NP].", "Here is an example.", "Here comes [NP].",
    "By the end of the [tech], all of us were [adj].", "It takes [num] [plural] to [vb] [NP].",
    "My [person] was born in nineteen [num].", "The answer is [num] point [num].",
    "It costs [num] hundred dollars.", "We need about [num] thousand [plural].",
    "It ran [num] times faster than before.", "Half of the [plural] were [adj].",
    "Only [num] percent of the [plural] [ivd].", "The [tech] has [num] [plural] of memory.",
    "[vb] it, or [vb] it.", "Not yet, but [adv].", "Of course you can [vb] it.", "Nobody [ivd].",
    "[SUBJ] [vd] [NP] and [vd] it [away].", "[SUBJ] [ivd] to the [thing] and [vd] it [away].",
    "[SUBJ] [vd] it [away].", "[SUBJS] [vb] it [away].", "[SUBJ] [vd] them [away].",
    "They [vd] it and [vd] it again.", "[SUBJ] came [away] and [vd] [him] [PP].",
    "[SUBJ] [vd] the [thing] and put it [PP].", "[SUBJ] put the [thing] of [thing] [PP].",
    "[SUBJ] gave [him] a [adj] [thing].", "[SUBJ] told [him] about [NP].", "Give [him] [NP].",
    "[SUBJ] told [him] a [adj] [thing] about a [person] and his [thing].", "Tell [him] [NP].",
    "[SUBJ] was in a [adj] [thing].", "[SUBJS] were in the [thing].", "She was in the [thing].",
    "We [ivb] in the [time].", "In the [time] [SUBJ] [vd] a [thing].", "It was late [time].",
    "[SUBJ] ran [away] and [vd] [NP].", "Do not [vb] it [away].", "Why did you [vb] it [away]?",
    "[SUBJ] has to [vb] [NP].", "[SUBJS] have to [vb] it.", "It has to [ivb] by the [time].",
    "A [thing] is a [thing].", "A [person] can [vb] a [thing].", "Some of it was [adj].",
    "He is too [adj] to [vb] it.", "She was [adj] enough to [vb] [him].", "It is [adj] enough.",
    "One of us will [vb] it.", "Some of us [vd] it, and some of us [vd] [him].", "I [vd] it.",
    "What does it [vb]?", "Who [vd] it [away]?", "Where did she [vb] it?", "How did he [vb] it?",
    "Every [time] [SUBJ] [vd] a [adj] [thing].", "It [vs] [him] every [time].", "It is [time].",
    "Two of the [plural] [ivd] [away].", "[SUBJ] [ivd] [away] before the [time].", "Is it [adj]?",
    "[SUBJ] knows that it is [adj].", "[SUBJ] knew who [vd] it.", "They say it is [adj].",
]  # fmt: skip

_COMPANY = [
    "[SUBJ] wrote it down.", "[SUBJ] wrote a [thing] to [name].", "[SUBJS] write it down.",
    "[SUBJ] writes it down [adv].", "[SUBJ] wrote down the [num] [plural].",
    "I wrote [him] a letter.", "[SUBJ] [vd] the [thing] and wrote it down.",
    "[name] wrote her [person] a [adj] book.", "[SUBJ] rode a horse to the [thing].",
    "[name] rode the [adj] bicycle [away].", "[SUBJ] rode the bus to the [thing].",
    "The [adj] road goes to the [thing].", "[SUBJS] spend their time [vg] [NP].",
    "They [vb] their [plural].", "They took their [thing].", "There is no [tech] without a [tech].",
    "There are [num] [plural] there.", "[SUBJ] is too [adj] to [vb] it.",
    "It takes [num] seconds to read it.", "[SUBJS] have to read [num] books.",
    "Two of them want to [vb] it, too.", "It is too late to [vb] [NP].",
    "[SUBJ] read the red book.", "They read it to [him].", "Can you hear [NP] from here?",
    "I hear you.", "Come here and [vb] it.", "We are here.", "[SUBJ] knows the new [tech].",
    "[SUBJ] knew nothing.", "I know that there is no [thing].", "Turn right at the [thing].",
    "Write the right [tech].", "It is the right [tech].", "It was a week ago.",
    "The [adj] week is over.", "[SUBJ] is weak.", "Wait for [him] at the gate.",
    "This is the way to the [thing].", "The [thing] is on its way.", "It lost its way.",
    "The weight of the [thing] is [num] pounds.", "[SUBJ] made the [thing] by noon.",
    "[SUBJS] buy [num] [plural].", "By the time it [ivs], we [ivb].", "It is for you.",
    "Four [plural] are for [him].", "It takes an hour.", "Our [tech] is [adj].",
    "The whole [thing] was [adj].", "It was a whole week.", "I see it.",
    "Which one of them is one of ours?", "The main [tech] is [adj].", "Of course we can [vb] it.",
    "[SUBJ] went past the [thing].", "The path goes past the [thing].", "Where were you?",
    "We would [vb] it if we knew how.", "It can [vb] its [tech].", "The sun was [adj].",
    "A lot of patience is what you need.", "[SUBJ] has a lot of [plural].", "His cat is [adj].",
    "The data stays close to the [tech].", "Close the door.", "Give him his [thing].",
    "[SUBJ] can [vb] two numbers.", "We can [vb] two [plural] at a time.", "It is not a [thing].",
]  # fmt: skip


def _number(rng: random.Random) -> str:
    """A number in words: mostly small, sometimes in the twenties to nineties."""
    if rng.random() < 0.7:
        return rng.choice(lists.NUMBERS)
    return f"{rng.choice(lists.TENS)} {rng.choice(lists.ONES)}"


def _fill(tag: str, rng: random.Random) -> str:
    if tag in _PHRASES:
        return _expand(rng.choice(_PHRASES[tag]), rng)
    if tag == "num":
        return _number(rng)
    if tag[0] == "v" or tag[:2] == "iv":
        verbs = lists.VERBS if tag[0] == "v" else lists.INTRANSITIVES
        return rng.choice(verbs)["bsdg".index(tag[-1])]
    choices = {
        "thing": lists.THINGS, "tech": lists.TECH, "plural": lists.PLURALS, "adj": lists.ADJECTIVES,
        "adv": lists.ADVERBS, "degree": lists.DEGREES, "prep": lists.PREPOSITIONS,
        "ord": lists.ORDINALS, "person": lists.PERSONS, "name": lists.NAMES,
        "away": lists.PARTICLES, "him": lists.OBJECTS, "time": lists.TIMES,
    }  # fmt: skip
    return rng.choice(choices[tag])


def _expand(template: str, rng: random.Random) -> str:
    return re.sub(r"\[(\w+)\]", lambda match: _fill(match[1], rng), template)


def vocabulary() -> list[str]:
    """All surface words (as written inside a sentence), sorted."""
    found = set(lists.NAMES + lists.PEOPLE + lists.THINGS + lists.TECH + lists.PLURALS)
    found |= set(lists.ADJECTIVES + lists.ADVERBS + lists.DEGREES + lists.PREPOSITIONS)
    found |= set(lists.NUMBERS + lists.ORDINALS + lists.SMALL)
    for forms in lists.VERBS + lists.INTRANSITIVES:
        found |= set(forms)
    return sorted(found)


def _mixed(rng: random.Random, words: list[str]) -> str:
    """A run of 3 to 14 evenly drawn words that sound like no other, a comma now and then."""
    heard = (w for w in iter(lambda: rng.choice(words), None) if w not in lists.ALIKE)
    chosen = list(itertools.islice(heard, rng.randint(3, 14)))
    chosen = [w + "," if rng.random() < 0.08 else w for w in chosen]
    return " ".join(chosen).rstrip(",") + rng.choice("....?")


def _linked(rng: random.Random, words: list[str]) -> str:
    """A run of 5 to 20 words: one to three small ones before each evenly drawn one.

    Small words are most of what people say, and the hardest to hear; neither the templates nor the
    evenly drawn runs have many of them side by side.
    """
    heard = [w for w in words if w not in lists.ALIKE and w not in lists.LINKS]
    chosen: list[str] = []
    length = rng.randint(5, 20)
    while len(chosen) < length:
        chosen += [rng.choice(lists.LINKS) for _ in range(rng.randint(1, 3))]
        chosen.append(rng.choice(heard))
    chosen = [w + "," if rng.random() < 0.06 else w for w in chosen[:length]]
    return " ".join(chosen).rstrip(",") + rng.choice("....?")


def sentence(rng: random.Random, words: list[str], kind: str = "plain") -> str:
    """One sentence with a capital, words separated by single spaces, and final punctuation.

    `kind`: `linked`, a run with many small words; `company`, one that tells words apart which sound
    alike; else a template or a run of evenly drawn words.
    """
    if kind == "linked":
        text = _linked(rng, words)
    elif kind == "company":
        text = _expand(rng.choice(_COMPANY), rng)
    elif rng.random() < MIXED:
        text = _mixed(rng, words)
    else:
        text = _expand(rng.choice(_TEMPLATES), rng)
    text = re.sub(r"\ba (?=[aeio])", "an ", text)
    return text[0].upper() + text[1:]


def normalized(text: str) -> str:
    """Lower case, letters and spaces only: the form in which two sentences count as the same."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def split_sentences(text: str) -> list[str]:
    """Split running text after each full stop or question mark."""
    return re.findall(r"[^.?!]+[.?!]", " ".join(text.split()))


def clip_sentences() -> list[str]:
    """The sentences of all sample clips, which training must never see."""
    found = []
    for path in sorted(CLIPS.glob("*.txt")):
        found += [s.strip() for s in split_sentences(path.read_text("utf-8"))]
    return found


def held_out_sentences(count: int = HELD_OUT_COUNT) -> list[str]:
    """Sentences for evaluation only: the same generator with a seed training never uses."""
    rng, words = random.Random(HELD_OUT_SEED), vocabulary()
    return [sentence(rng, words) for _ in range(count)]


def excluded() -> set[str]:
    """Normalised sentences that the training generator must skip."""
    return {normalized(s) for s in clip_sentences() + held_out_sentences()}


def training_sentences(seed: int, kind: str = "plain") -> Iterator[str]:
    """Endless training sentences; the clips' and the held-out ones are left out."""
    if seed == HELD_OUT_SEED:
        raise ValueError("this seed is kept for the evaluation")
    rng, words, skip = random.Random(seed), vocabulary(), excluded()
    while True:
        text = sentence(rng, words, kind)
        if normalized(text) not in skip and 2 <= len(text.split()) <= 24:
            yield text
