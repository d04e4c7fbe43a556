"""Windows of audio with everything the losses need: tokens, times, words and phones.

A window is what `whisper.transcribe` would hand to the model: log-mel frames of at most 30 s of
real content, then zeros *in mel space* up to the window's length. Shorter windows stand for a
part of a full one, at a random offset of the encoder's positions, so that most of the training
does not pay for 30 s at each step.
"""

import random
from dataclasses import dataclass, field

import numpy as np
import torch
from whisper.audio import log_mel_spectrogram

from . import tokens as vocab
from .alignment import Span
from .speech import RATE, Utterance

POSITIONS = 1500  # encoder frames of 20 ms in a full window
FRAME = 0.02
IGNORE = -100
VOICE_WEIGHTS = {"slt": 2.5, "rms": 2.5, "awb": 2.0, "kal16": 1.5}  # drawn more often than made
TEXT_STEP = 16  # lengths of text are multiples of it: few shapes, for each costs a preparation
QUIET_MARKS = 0.15  # share of the windows without speech that begin with a timestamp
LAST_MARK = 0.3  # seconds that a mark at the end of all speech lasts


@dataclass
class Window:
    """One training example; times are seconds from the start of the window's audio."""

    mel: torch.Tensor  # (80, 2 * frames) float32
    offset: int  # encoder position of the first frame
    position: int = 0  # decoder position of the first input
    inputs: list[int] = field(default_factory=list)  # full token ids
    targets: list[int] = field(default_factory=list)  # full token ids or IGNORE
    spans: list[tuple[float, float] | None] = field(default_factory=list)  # a target's time
    words: list[Span] = field(default_factory=list)
    phones: list[Span] = field(default_factory=list)

    def push(self, target: int, span: tuple[float, float] | None, following: int | None) -> None:
        """Add a target; `following` is the next input (None after the last target)."""
        self.targets.append(target)
        self.spans.append(span)
        if following is not None:
            self.inputs.append(following)


@dataclass(frozen=True)
class Shares:
    """Which share of the windows has no speech, a prompt before it, noise, and so on."""

    quiet: float = 0.05
    prompts: float = 0.2
    noise: float = 0.65
    warped: float = 0.0  # spoken faster and higher, or slower and lower: other throats
    rooms: float = 0.0
    telephones: float = 0.0
    late: float = 0.0  # decoder positions that start later, as if a prompt had stood there
    full_prompts: float = 0.0  # share of the prompts that fill all the room there is


@dataclass
class Sentence:
    """A sentence placed in a window; `cut` tells that the window's end runs through it."""

    words: list[Span]
    start: float
    end: float
    cut: bool


class Library:
    """All utterances, grouped by voice, so that a window keeps to one voice."""

    def __init__(self, utterances: list[Utterance]):
        self.by_voice: dict[str, list[Utterance]] = {}
        for utterance in utterances:
            self.by_voice.setdefault(utterance.voice, []).append(utterance)
        self.voices = list(self.by_voice)
        self.weigh(VOICE_WEIGHTS, 1.0)
        names = {p.name for u in utterances for p in u.phones}
        self.phone_classes = {name: i + 1 for i, name in enumerate(sorted(names))}

    def weigh(self, weights: dict[str, float], others: float) -> None:
        """Draw each voice in proportion to its utterances times its weight."""
        self.weights = [weights.get(v, others) * len(self.by_voice[v]) for v in self.voices]

    def voice(self, rng: random.Random) -> list[Utterance]:
        return self.by_voice[rng.choices(self.voices, self.weights)[0]]


def _moved(spans: list[Span], shift: float) -> list[Span]:
    return [Span(n, a + shift, b + shift) for n, a, b in spans]


def _gap(rng: random.Random) -> float:
    return rng.choice((rng.uniform(0.02, 0.3), rng.uniform(0.1, 0.7), rng.uniform(0.3, 1.4)))


def _without_head(u: Utterance, first: int) -> Utterance:
    """The utterance from its word `first` on."""
    begin = u.words[first].start
    words = _moved(u.words[first:], -begin)
    phones = _moved([p for p in u.phones if p.start >= begin - 0.01], -begin)
    text = " ".join(w.name for w in words)
    return Utterance(u.samples[round(begin * RATE) :], text, u.voice, words, phones)


def _warped(u: Utterance, factor: float) -> Utterance:
    """The utterance played `factor` times as fast, and so as high."""
    count = round(len(u.samples) / factor)
    samples = np.interp(np.arange(count) * factor, np.arange(len(u.samples)), u.samples)
    words = [Span(n, a / factor, b / factor) for n, a, b in u.words]
    phones = [Span(n, a / factor, b / factor) for n, a, b in u.phones]
    return Utterance(samples, u.text, u.voice, words, phones)


def _fitting(utterance: Utterance, seconds: float) -> Utterance:
    """The utterance, or as much of its end as fits into `seconds`."""
    over = len(utterance.samples) / RATE - seconds
    if over <= 0:
        return utterance
    later = [i for i, word in enumerate(utterance.words) if word.start > over + 0.02]
    return _without_head(utterance, later[0] if later else len(utterance.words) - 1)


def place(
    library: Library, rng: random.Random, seconds: float, fill: float, cut: bool, warp: float = 1.0
) -> tuple[np.ndarray, list[Sentence], list[Span]]:
    """Lay utterances of one voice end to end with gaps.

    Returns `(samples float32, sentences, phones)`. `fill` is the share of the window after which
    no further sentence starts; with `cut`, the last sentence may run over the window's end. `warp`
    is how many times as fast the voice plays.
    """
    pool, samples = library.voice(rng), np.zeros(round(seconds * RATE), dtype=np.float32)
    sentences: list[Sentence] = []
    phones: list[Span] = []
    time = rng.choice((0.0, rng.uniform(0, 0.3), rng.uniform(0, 0.95)))
    headless = cut and rng.random() < 0.15
    for _ in range(40):
        utterance = rng.choice(pool)
        if warp != 1.0:
            utterance = _warped(utterance, warp)
        if not sentences and headless and len(utterance.words) > 3:
            utterance, time = _without_head(utterance, rng.randrange(1, len(utterance.words))), 0.0
        if not sentences and not cut:
            utterance = _fitting(utterance, seconds - time)
        wave, words, sounds = utterance.samples, utterance.words, utterance.phones
        length = len(wave) / RATE
        if not cut and time + length > seconds:
            continue
        place_at = round(time * RATE)
        part = np.asarray(wave[: len(samples) - place_at], dtype=np.float32) / 32768
        samples[place_at : place_at + len(part)] += part
        words, over = _moved(words, time), time + length > seconds
        sentences.append(Sentence(words, words[0].start, words[-1].end, over))
        phones += _moved(sounds, time)
        time += length + _gap(rng)
        if over or time > seconds * fill or time > seconds - 0.3:
            break
    return samples, sentences, phones


def _noise(rng: random.Random, count: int) -> np.ndarray:
    """Unit-power noise: white, or tilted towards low frequencies; float32 (count,)."""
    generator = np.random.default_rng(rng.getrandbits(63))
    wave = generator.standard_normal(count, dtype=np.float32)
    if rng.random() < 0.5:
        spectrum = np.fft.rfft(wave)
        spectrum /= np.maximum(np.arange(len(spectrum)), 20.0) ** rng.uniform(0.3, 1.0)
        wave = np.fft.irfft(spectrum, count).astype(np.float32)
    return wave / (np.sqrt(np.mean(wave**2)) + 1e-9)


def _filtered(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The samples through a real response over their spectrum's bins, or an impulse response."""
    spectrum = np.fft.rfft(samples)
    gain = response if len(response) == len(spectrum) else np.fft.rfft(response, len(samples))
    return np.fft.irfft(spectrum * gain, len(samples)).astype(np.float32)


def _in_room(samples: np.ndarray, rng: random.Random) -> np.ndarray:
    """Echoes that die away within 0.1 to 0.5 s, 3 to 20 dB below the voice."""
    seconds = rng.uniform(0.1, 0.5)
    count = min(round(seconds * RATE), len(samples))
    generator = np.random.default_rng(rng.getrandbits(63))
    tail = generator.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    tail[: min(40, count)] = 0
    tail *= 10 ** (-rng.uniform(3, 20) / 20) / (np.sqrt((tail**2).sum()) + 1e-9)
    tail[0] = 1.0
    return _filtered(samples, tail)


def _by_telephone(samples: np.ndarray, rng: random.Random) -> np.ndarray:
    """Only the band of a telephone."""
    low, high = rng.uniform(200, 350), rng.uniform(3200, 3800)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    return _filtered(samples, ((frequencies > low) & (frequencies < high)).astype(np.float32))


def roughen(samples: np.ndarray, rng: random.Random, shares: Shares) -> np.ndarray:
    """Random level and, with their probabilities, room, telephone, and noise 5 to 60 dB below."""
    if rng.random() < shares.rooms:
        samples = _in_room(samples, rng)
    if rng.random() < shares.telephones:
        samples = _by_telephone(samples, rng)
    noise = shares.noise
    power = np.sqrt(np.mean(samples[np.abs(samples) > 0.003] ** 2)) if samples.any() else 0.05
    if rng.random() < noise:
        decibels = rng.choice((rng.uniform(5, 15), rng.uniform(10, 30), rng.uniform(25, 60)))
        samples = samples + _noise(rng, len(samples)) * power * 10 ** (-decibels / 20)
    peak = np.abs(samples).max() + 1e-6
    return samples * min(10 ** (rng.uniform(-20, 3) / 20), 1 / peak)


def mel_of(samples: np.ndarray, frames: int) -> torch.Tensor:
    """Log-mel of the content as `transcribe` makes it, zeros after it; (80, frames) float32."""
    content = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    mel = log_mel_spectrogram(content, 80, padding=480000 if len(samples) < 4800 else 800)
    mel = mel[:, : min(len(samples) // 160, frames)]
    return torch.nn.functional.pad(mel, (0, frames - mel.shape[1]))


def _token_spans(span: Span, following: float) -> list[tuple[int, tuple[float, float]]]:
    """Tokens of one word, its time shared among them by their letters.

    A mark lasts through the pause, until the word at `following`: whisper's word times then begin
    where the next word does, not somewhere in the silence before it.
    """
    ids = vocab.word_tokens(span.name)
    sizes = [sum(c.isalnum() for c in vocab.tokenizer().decode([i])) for i in ids]
    edges = np.cumsum([0, *sizes]) / max(sum(sizes), 1)
    edges = span.start + edges * (span.end - span.start)
    ends = [b if size else following for b, size in zip(edges[1:], sizes, strict=True)]
    return [(i, (a, max(b, a + FRAME))) for i, a, b in zip(ids, edges, ends, strict=False)]


def _events(
    sentences: list[Sentence], stamps: bool, shift: float, partial: bool, seconds: float
) -> list[tuple[int, tuple[float, float]]]:
    """(target, span) for the text: with timestamps, or the words alone."""
    events = []
    for index, s in enumerate(sentences):
        start = s.start + shift
        if index == 0 and shift == 0:
            start = min(start, 1.0)
        near_start, near_end = (s.start - 0.2, s.start + 0.3), (s.end - 0.3, s.end + 0.2)
        if s.cut and stamps:
            if s.start < seconds - 0.1 and sentences[:index]:
                events.append((vocab.timestamp(start), near_start))
            break
        words = [w for w in s.words if w.end < seconds] if s.cut and partial else s.words
        if s.cut and not partial:
            break
        if stamps:
            events.append((vocab.timestamp(start), near_start))
        after = sentences[index + 1].start if sentences[index + 1 :] else s.end + LAST_MARK
        starts = [word.start for word in s.words[1:]] + [after]
        for word, following in zip(words, starts, strict=False):
            events += _token_spans(word, following)
        if stamps:
            events.append((vocab.timestamp(s.end + shift), near_end))
    return events


def _prompt(library: Library, rng: random.Random, limit: int, full: float) -> list[int]:
    """Text of the windows before this one, as `transcribe` would feed it back."""
    t, time = vocab.tokenizer(), rng.uniform(0, 1)
    ids: list[int] = []
    if rng.random() < full:
        sentences, kept = limit, limit
    else:
        sentences, kept = rng.randint(1, 16 if limit > 100 else 4), rng.randint(limit // 2, limit)
    for _ in range(sentences):
        if len(ids) > limit:
            break
        utterance = rng.choice(library.voice(rng))
        ids.append(vocab.timestamp(time))
        ids += [i for word in utterance.text.split() for i in vocab.word_tokens(word)]
        time = (time + len(utterance.samples) / RATE) % 30
        ids.append(vocab.timestamp(time))
    if rng.random() < 0.1:
        ids = [i for i in ids if i < t.timestamp_begin]
    return [t.sot_prev, *ids[-kept:]]


def _speech(window: Window, sentences: list[Sentence], rng: random.Random, seconds: float) -> None:
    """Fill in the tokens of a window with speech."""
    t, shift = vocab.tokenizer(), window.offset * FRAME
    stamps, partial = rng.random() < 0.75, rng.random() < 0.5
    events = _events(sentences, stamps, shift, partial, seconds)
    whole = [s for s in sentences if not s.cut] or sentences
    end = whole[-1].end if stamps or not partial else min(sentences[-1].end, seconds)
    unsure = not stamps and not partial and sentences[-1].cut
    events.append((IGNORE if unsure else t.eot, (end - 0.3, end + 0.3)))
    window.inputs.append(t.sot)
    if not stamps:
        window.push(IGNORE, None, t.no_timestamps)
    following = [target for target, _ in events[:-1]] + [None]
    for (target, span), after in zip(events, following, strict=True):
        window.push(target, span, after)


def speech_window(library: Library, rng: random.Random, frames: int, shares: Shares) -> Window:
    """A window of `frames` encoder frames with speech; full ones are as `transcribe` cuts them."""
    full, seconds = frames == POSITIONS, frames * FRAME
    dense = rng.random() < (0.6 if full else 0.85)
    fill = 1.0 if dense else rng.uniform(0.02, 0.9 if full else 0.5)
    warp = rng.uniform(0.88, 1.14) if rng.random() < shares.warped else 1.0
    samples, sentences, phones = place(library, rng, seconds, fill, full and dense, warp)
    samples = roughen(samples, rng, shares)
    last = sentences[-1].end
    if last < seconds and rng.random() < 0.7:  # the file ends here: zeros in mel space follow
        samples = samples[: round(min(seconds, last + _gap(rng)) * RATE)]
    offset = 0 if full else rng.choice((0, rng.randint(0, POSITIONS - frames)))
    window = Window(mel_of(samples, 2 * frames), offset, phones=phones)
    window.words = [w for s in sentences for w in s.words if w.start < seconds - 0.02]
    if rng.random() < shares.prompts:
        prompt = _prompt(library, rng, 223 if full else 40, shares.full_prompts)
        window.inputs += prompt
        window.targets += [IGNORE] * len(prompt)
        window.spans += [None] * len(prompt)
    elif full and rng.random() < shares.late:
        window.position = rng.randint(1, 224)
    _speech(window, sentences, rng, seconds)
    return window


def quiet_window(library: Library, rng: random.Random, frames: int, shares: Shares) -> Window:
    """A window without speech: nothing, noise, a hum or a chord; ends in `<|nospeech|>`.

    `transcribe` doesn't let that token be written, and takes the likeliest timestamp instead; any
    but 0.00 would send it back to that place in the window. So 0.00 comes second.
    """
    t, count = vocab.tokenizer(), round(rng.uniform(0.5, frames * FRAME) * RATE)
    samples, kind = np.zeros(count, dtype=np.float32), rng.random()
    if 0.25 < kind < 0.7:
        samples += _noise(rng, count)
    if kind > 0.6:
        clock = np.arange(count, dtype=np.float32) / RATE
        for _ in range(rng.randint(1, 4)):
            pitch = rng.uniform(50, 2000)
            for partial in range(1, rng.randint(2, 5)):
                samples += np.sin(6.2832 * pitch * partial * clock).astype(np.float32) / partial
        if rng.random() < 0.6:
            samples *= 0.6 + 0.4 * np.sin(6.2832 * rng.uniform(0.1, 5) * clock)
    samples *= 10 ** (rng.uniform(-70, -10) / 20)
    window = Window(mel_of(samples, 2 * frames), rng.randint(0, POSITIONS - frames))
    if rng.random() < shares.prompts:
        window.inputs += _prompt(library, rng, 223 if frames == POSITIONS else 40, 0.0)
    window.targets += [IGNORE] * len(window.inputs)
    window.inputs += [t.sot, rng.choice((t.no_timestamps, vocab.timestamp(0)))]
    first = vocab.timestamp(0) if rng.random() < QUIET_MARKS else t.no_speech
    window.targets += [first, t.eot]
    window.spans = [None] * len(window.targets)
    return window


def window_batch(
    library: Library, rng: random.Random, size: int, frames: int, shares: Shares
) -> list[Window]:
    """`size` windows of one length."""
    makers = [quiet_window if rng.random() < shares.quiet else speech_window for _ in range(size)]
    return [make(library, rng, frames, shares) for make in makers]


def _labels(spans: list[Span], classes: dict[str, int], frames: int) -> torch.Tensor:
    """The class spoken in each encoder frame, int64 (frames,); 0 where there is none."""
    labels = torch.zeros(frames, dtype=torch.long)
    for name, start, end in spans:
        labels[max(0, round(start / FRAME)) : max(0, round(end / FRAME))] = classes.get(name, 0)
    return labels


def collate(windows: list[Window], library: Library) -> dict[str, torch.Tensor]:
    """Stack windows: mel (B, 80, 2L), first positions in encoder and decoder (B,), tokens and
    targets (B, T) compact, spans (B, T, 2) frames, word and phone labels (B, L), letters (sum of
    lengths,) with `letter_counts` (B,)."""
    index, frames = vocab.compact_index(), windows[0].mel.shape[1] // 2
    longest = -(-max(len(w.inputs) for w in windows) // TEXT_STEP) * TEXT_STEP
    shape = (len(windows), longest)
    inputs = torch.full(shape, int(index[vocab.tokenizer().eot]))
    targets, spans = torch.full(shape, IGNORE), torch.full((*shape, 2), -1.0)
    words, phones, letters = [], [], []
    for row, w in enumerate(windows):
        inputs[row, : len(w.inputs)] = torch.from_numpy(index[w.inputs])
        known = [IGNORE if i == IGNORE else int(index[i]) for i in w.targets]
        targets[row, : len(known)] = torch.tensor(known)
        for column, span in enumerate(w.spans):
            if span:
                spans[row, column] = torch.tensor(span) / FRAME
        plain = [Span(n.lower().strip(".,?"), a, b) for n, a, b in w.words]
        words.append(_labels(plain, vocab.word_classes(), frames))
        phones.append(_labels(w.phones, library.phone_classes, frames))
        inside = [s for s in plain if s.end <= frames * FRAME]
        letters.append([c for s in inside for c in (1, *vocab.spell(s.name))][1:])
    return {
        "mel": torch.stack([w.mel for w in windows]),
        "offset": torch.tensor([w.offset for w in windows]),
        "position": torch.tensor([w.position for w in windows]),
        "inputs": inputs, "targets": targets, "spans": spans,
        "words": torch.stack(words), "phones": torch.stack(phones),
        "letters": torch.tensor([c for row in letters for c in row], dtype=torch.long),
        "letter_counts": torch.tensor([len(row) for row in letters]),
    }  # fmt: skip


def garbled(inputs: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """Decoder inputs (B, T) with a share of the text tokens replaced by random ones.

    In use the decoder reads its own mistakes; it must find the place in the audio all the same.
    """
    generator = torch.Generator().manual_seed(seed)
    text = int(vocab.compact_index()[vocab.tokenizer().eot])  # rows below are text
    hit = (torch.rand(inputs.shape, generator=generator) < share) & (inputs < text)
    return torch.where(hit, torch.randint(text, inputs.shape, generator=generator), inputs)
