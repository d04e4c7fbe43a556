"""The evaluation step: the shipped file through plain `whisper.transcribe`, default options.

Nothing evaluated here is trained on: the held-out sentences come from a seed of their own, and
the training text leaves them and the clips' sentences out. Word error rates are jiwer's, after
whisper's English normaliser.
"""

import random
import warnings
from difflib import SequenceMatcher
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import whisper
from whisper.normalizers import EnglishTextNormalizer

from . import espeak, flite, speech, text
from .alignment import Span

RATE = 16000
CLIPS = ("short", "short_noisy", "half_minute", "talk", "silence")
UNSEEN_VOICES = ("en-us+m2", "en+f3", "en-gb-x-gbclan+m1", "en-029+f2")  # espeak-ng's
NOISE_DECIBELS = 10.0
LONG_VOICES = ("slt", "awb")
STRANGE_WORDS = (
    "The archaeologist photographed a gargoyle above the monastery.",
    "Our veterinarian recommended a thermometer for the hedgehog.",
    "A trombone and a tambourine startled the congregation.",
    "The blacksmith sharpened my grandmother's old sickle.",
    "Fermented cabbage belongs in every Hungarian kitchen.",
    "Her umbrella was tangled in the scaffolding by the canal.",
    "The referee disqualified two swimmers and a cyclist.",
    "Caterpillars devoured the lettuce behind our greenhouse.",
)
"""Sentences with words that the recipe has never heard."""
EDGE = 4800
"""Samples of silence before and after a sentence: 0.3 s."""
LOOP = 2.4
"""Whisper's own bound on the compression ratio of a text that repeats itself."""

_normalizer = EnglishTextNormalizer()


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Word errors over reference words of all pairs together."""
    pairs = [(_normalizer(r), _normalizer(h)) for r, h in zip(references, hypotheses, strict=True)]
    return jiwer.wer([r for r, _ in pairs], [h for _, h in pairs])


def transcribed(model: whisper.Whisper, samples: np.ndarray, **options: object) -> dict:
    """Whisper's own `transcribe` of float32 samples at 16 kHz."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FP16 is not supported on CPU")
        return whisper.transcribe(model, samples.astype(np.float32), **options)


def say(sentence: str, voice: str, rng: random.Random) -> np.ndarray | None:
    """A sentence in a voice with 0.3 s of silence around it; float32."""
    spoken = speech.speak(sentence, voice, rng)
    return np.pad(spoken.samples.astype(np.float32) / 32768, EDGE) if spoken else None


def noisy(samples: np.ndarray, decibels: float, seed: int) -> np.ndarray:
    """White noise `decibels` below the mean power of the samples."""
    noise = np.random.default_rng(seed).standard_normal(len(samples)).astype(np.float32)
    return samples + noise * np.sqrt(np.mean(samples**2)) * 10 ** (-decibels / 20)


def sentence_set(model: whisper.Whisper, voices: tuple[str, ...], decibels: float | None) -> float:
    """Word error rate on the held-out sentences, one clip a sentence, voices in turn."""
    rng, references, hypotheses = random.Random(5), [], []
    for index, sentence in enumerate(text.held_out_sentences()):
        samples = say(sentence, voices[index % len(voices)], rng)
        if samples is None:
            continue
        if decibels is not None:
            samples = noisy(samples, decibels, index)
        references.append(sentence)
        hypotheses.append(transcribed(model, samples)["text"])
    return word_error_rate(references, hypotheses)


def long_clip(voice: str) -> tuple[np.ndarray, list[Span]]:
    """One clip of 60 held-out sentences with pauses of 0.6 to 1.6 s, and when each word is said."""
    rng, parts, words, count = random.Random(7), [], [], 0
    for sentence in text.held_out_sentences(60):
        spoken = speech.speak(sentence, voice, rng)
        if spoken is None:
            continue
        shift = (count + EDGE) / RATE
        words += [Span(w.name, w.start + shift, w.end + shift) for w in spoken.words]
        samples = np.pad(spoken.samples, (EDGE, EDGE + rng.randrange(RATE)))
        parts.append(samples.astype(np.float32) / 32768)
        count += len(samples)
    return np.concatenate(parts), words


def long_form(model: whisper.Whisper, voice: str) -> tuple[float, float]:
    """Minutes of the long clip, and its word error rate."""
    samples, words = long_clip(voice)
    heard = transcribed(model, samples)["text"]
    return len(samples) / RATE / 60, word_error_rate([" ".join(w.name for w in words)], [heard])


def strange_words(model: whisper.Whisper) -> tuple[float, int]:
    """Word error rate of sentences with unknown words, and how many came out as a loop."""
    rng, heard, loops = random.Random(8), [], 0
    for index, sentence in enumerate(STRANGE_WORDS):
        samples = say(sentence, flite.VOICES[index % 2], rng)
        if samples is None:
            raise ValueError(f"flite says this in other words: {sentence}")
        result = transcribed(model, samples)
        heard.append(result["text"])
        loops += any(s["compression_ratio"] > LOOP for s in result["segments"])
    return word_error_rate(list(STRANGE_WORDS), heard), loops


def quiet_clips() -> list[np.ndarray]:
    """Twenty clips without speech: silence, noise, tones and chords of 2 to 40 s."""
    generator, clips = np.random.default_rng(3), []
    for index in range(20):
        count = int(generator.uniform(2, 40) * RATE)
        clock, kind = np.arange(count) / RATE, index % 4
        wave = np.zeros(count)
        if kind == 1:
            wave = generator.standard_normal(count) * 10 ** generator.uniform(-3, -1)
        for _ in range({2: 1, 3: 4}.get(kind, 0)):
            pitch, beat = generator.uniform(80, 1500), generator.uniform(0.5, 4)
            swell = 1.0 if kind == 2 else 0.5 + 0.5 * np.sin(2 * np.pi * beat * clock)
            wave += 0.05 * swell * np.sin(2 * np.pi * pitch * clock)
        clips.append(wave.astype(np.float32))
    return clips


def word_time_errors(model: whisper.Whisper, samples: np.ndarray, truth: list[Span]) -> list[float]:
    """|start - truth| in seconds of every word of a clip that came out as it was said."""
    result = transcribed(model, samples, word_timestamps=True)
    words = [word for segment in result["segments"] for word in segment["words"]]
    heard = [word["word"].strip().lower() for word in words]
    matcher = SequenceMatcher(None, [w.name.lower() for w in truth], heard, autojunk=False)
    return [
        abs(words[block.b + i]["start"] - truth[block.a + i].start)
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    ]


def sentence_time_errors(model: whisper.Whisper, count: int = 40) -> list[float]:
    """The same over single sentences, a clip each.

    Whisper lets the first word of a window begin with the window, unless its segment begins more
    than half a second later: here that is 0.36 s too early for one word of each sentence.
    """
    rng, errors = random.Random(6), []
    for sentence in text.held_out_sentences(count):
        spoken = speech.speak(sentence, rng.choice(flite.VOICES), rng)
        if spoken is not None:
            samples = np.pad(spoken.samples.astype(np.float32) / 32768, EDGE)
            shift = EDGE / RATE
            truth = [Span(w.name, w.start + shift, w.end + shift) for w in spoken.words]
            errors += word_time_errors(model, samples, truth)
    return errors


def clip_results(model: whisper.Whisper) -> dict[str, tuple[str, str]]:
    """Reference and transcript of each sample clip."""
    found = {}
    for name in CLIPS:
        samples, rate = soundfile.read(text.CLIPS / f"{name}.flac", dtype="float32")
        if rate != RATE:
            raise ValueError(f"{name}.flac is at {rate} Hz, not {RATE}")
        reference = (text.CLIPS / f"{name}.txt").read_text("utf-8")
        found[name] = (reference, transcribed(model, samples)["text"])
    return found


def print_clips(model: whisper.Whisper) -> None:
    for name, (reference, heard) in clip_results(model).items():
        if reference.strip():
            print(f"{name:28} WER {word_error_rate([reference], [heard]):7.2%}")
        else:
            print(f"{name:28} words written {len(heard.split())}")


def evaluate(checkpoint: Path) -> None:
    """Print every figure for the checkpoint file."""
    model = whisper.load_model(str(checkpoint), device="cpu")
    known = (*flite.VOICES, *espeak.VOICES)
    print_clips(model)
    sets = {
        "new sentences, known voices": (known, None),
        "the same at 10 dB noise": (known, NOISE_DECIBELS),
        "new sentences, new voices": (UNSEEN_VOICES, None),
    }
    for name, (voices, decibels) in sets.items():
        print(f"{name:28} WER {sentence_set(model, voices, decibels):7.2%}", flush=True)
    for voice in LONG_VOICES:
        minutes, rate = long_form(model, voice)
        print(f"{f'{minutes:.1f} minutes, {voice}':28} WER {rate:7.2%}", flush=True)
    rate, loops = strange_words(model)
    print(f"{'unknown words':28} WER {rate:7.2%}, {loops} loops", flush=True)
    heard = [transcribed(model, clip)["text"] for clip in quiet_clips()]
    print(f"{'20 clips without speech':28} words written {sum(len(h.split()) for h in heard)}")
    clips = map(long_clip, LONG_VOICES)
    in_long_form = [e for samples, truth in clips for e in word_time_errors(model, samples, truth)]
    for name, errors in {
        "word starts within 0.2 s": in_long_form,
        "the same, single sentences": sentence_time_errors(model),
    }.items():
        near = np.mean(np.array(errors) < 0.2)
        print(f"{name:28} {near:.1%} of {len(errors)} words, median {np.median(errors):.3f} s")
