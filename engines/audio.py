"""Any audio file → mono float32 at 16 kHz, or one sentence that says what to do.

FFmpeg's libraries, bundled with PyAV, decode and resample, so no `ffmpeg` program is needed. The
resampler is asked for what `whisper.load_audio` (20250625) asks of that program: signed 16-bit,
mono, 16 kHz, then a division by 32768. The engines therefore get the samples that Whisper itself
would get, bit for bit where the file is 16-bit mono at 16 kHz already.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.stream import Disposition

from engines.base import SAMPLE_RATE, SILENT, AudioError, Clip, FloatArray, Listener
from engines.clip_source import Source
from engines.demuxing import (
    SUGGESTION,
    UNKNOWN_CODING,
    TrackReader,
    describe_tracks,
    open_container,
    read_length,
)

SAMPLES = Path(__file__).resolve().parents[1] / "audio_samples"

MAX_BYTES = 100 * 2**20
"""Largest file taken, in bytes."""


def find_clip(name: str) -> Path:
    """Return a sample's file, or the path itself."""
    sample = SAMPLES / f"{name}.flac"
    return sample if sample.is_file() else Path(name)


def load_clip(
    path: str | os.PathLike[str],
    listener: Listener = SILENT,
    *,
    max_seconds: float = 1800.0,
    track: int = 0,
    channel: int = 0,
) -> Clip:
    """Decode an audio track of a file to mono float32 `(n,)` at 16 kHz.

    `track`: its number, from 1; 0 is the one that players choose. `channel`: the one to take alone,
    from 1; 0 mixes all of them. The content decides which container it is, not the extension, and
    the header's duration is not believed: decoding ends as soon as `max_seconds` of sound have come
    out, so that memory stays bounded. A file that breaks off in the middle gives what comes before
    the break, and `Clip.source.broke_off` says so. `Clip.decode_seconds` is the wall time of it.

    Raises `AudioError`, one sentence with its remedy, for anything that is not a clip within the
    limits (no such file, a folder, a link, not audio, no samples, NaN or infinite samples, no such
    track or channel), and `Stopped` between two packets.
    """
    started = perf_counter()
    name = printable(Path(path).name or os.fspath(path))
    with _open(path, name) as file:
        samples, source = _decode(file, name, max_seconds, listener, track, channel)
    return Clip(samples, name, perf_counter() - started, source)


def describe_clip(path: str | os.PathLike[str], *, track: int = 0, channel: int = 0) -> Source:
    """Return what a clip's header tells of it; raise `AudioError` as `load_clip` does."""
    name = printable(Path(path).name or os.fspath(path))
    with _open(path, name) as file, open_container(file) as container:
        return _choose(container, name, track, channel)


def write_flac(samples: FloatArray, path: str | os.PathLike[str]) -> None:
    """Write samples of a clip as a file that every browser plays."""
    with av.open(os.fspath(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        for at in range(0, len(samples), SAMPLE_RATE):
            part = np.round(samples[None, at : at + SAMPLE_RATE] * 32768.0)
            values = np.clip(part, -32768, 32767).astype(np.int16)
            frame = AudioFrame.from_ndarray(values, format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, at
            frame.time_base = Fraction(1, SAMPLE_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@contextmanager
def _open(path: str | os.PathLike[str], name: str) -> Iterator[BinaryIO]:
    """Open a clip's file; turn what goes wrong with it into an `AudioError`."""
    _check_file(path, name)
    try:
        with open(path, "rb") as file:
            try:
                yield file
            except (av.FFmpegError, ValueError) as error:
                file.seek(0)
                raise AudioError(explain_failure(file, name)) from error
    except OSError as error:
        raise AudioError(
            f"{name} can't be opened ({error.strerror}): check that you may read it."
        ) from error


def _check_file(path: str | os.PathLike[str], name: str) -> None:
    """Refuse what need not be opened to be refused."""
    if "://" in os.fspath(path):
        raise AudioError(f"{name} is a link, and links are not followed: download the file first.")
    try:
        status = os.stat(path)
    except PermissionError as error:
        raise AudioError(f"{name} can't be opened: check that you may read it.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        where = printable(os.fspath(path), longest=300)
        raise AudioError(f"There is no file at {where}: check the path and try again.") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{name} is a folder: choose one audio file inside it.")
    if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device would never end
        raise AudioError(f"{name} is not an ordinary file: save the audio to a file first.")
    if status.st_size == 0:
        raise AudioError(f"{name} is empty (0 bytes): record or export it again.")
    if status.st_size > MAX_BYTES:
        raise AudioError(
            f"{name} is larger than {MAX_BYTES / 2**20:g} MB, the limit: shorten it, or save it "
            "as MP3 or FLAC."
        )


def _decode(
    file: BinaryIO, name: str, max_seconds: float, listener: Listener, track: int, channel: int
) -> tuple[FloatArray, Source]:
    """Decode an audio track: float32 `(n,)` within [-1, 1], and where it is from.

    One buffer takes all chunks: a file of small packets has millions of them.
    """
    with open_container(file) as container:
        source = _choose(container, name, track, channel)
        claimed, exact = read_length(container, source)
        sound, reported = bytearray(), 0.0
        reader, mixer = TrackReader(file, listener), Mixer(name, channel)
        for chunk in mixer.mix(reader.read(container, source.track)):
            sound += chunk.tobytes()
            seconds = len(sound) / (SAMPLE_RATE * np.dtype(np.int16).itemsize)
            if seconds >= reported + 60:
                listener.report("reading", seconds, claimed if claimed > seconds else 0.0)
                reported = seconds
            if seconds > max_seconds:
                raise AudioError(
                    f"{name} is longer than {_name_limit(max_seconds)}, the limit: cut it into "
                    "shorter parts."
                )
    if reader.damaged > reader.decoded:
        raise AudioError(f"{name} is damaged, so most of it can't be decoded: {SUGGESTION}.")
    if not sound:
        raise AudioError(f"{name} holds no sound (zero samples): record or export it again.")
    samples = np.frombuffer(sound, np.int16).astype(np.float32) / 32768.0
    broke_off, notes, why = "", mixer.find_oddities(samples), reader.trouble
    clock = tuple(reader.clock.pairs)
    paused = clock[-1][1] if clock else 0.0
    if not why and exact and reader.seconds + paused < min(0.98 * claimed, claimed - 1.0):
        why = f"its header says that it has {claimed:.1f} s"
    if why:
        broke_off = f"Only the first {reader.seconds:.1f} s of {name} could be read ({why})."
    elif reader.damaged:
        lost = "a packet" if reader.damaged == 1 else f"{reader.damaged} packets"
        notes = (*notes, f"{name} is damaged: {lost} of sound could not be decoded.")
    return samples, replace(source, clock=clock, broke_off=broke_off, notes=notes)


def _name_limit(seconds: float) -> str:
    in_minutes = seconds > 60 and seconds % 60 == 0
    return f"{seconds / 60:g} minutes" if in_minutes else f"{seconds:g} seconds"


def _choose(container: InputContainer, name: str, track: int, channel: int) -> Source:
    """Choose the track; raise `AudioError` for one, or a channel, that isn't there."""
    tracks = describe_tracks(container)
    if not tracks:
        raise AudioError(f"{name} holds no audio track: choose a file with sound in it.")
    listed = ", ".join(each.describe() for each in tracks)
    number = track or next(each.number for each in tracks if each.default)
    chosen = next((each for each in tracks if each.number == number), None)
    if chosen is None:
        has = "1 audio track" if len(tracks) == 1 else f"{len(tracks)} audio tracks"
        raise AudioError(f"{name} has {has}, and no number {track}: choose of {listed}.")
    if not chosen.channels:
        if chosen.codec == UNKNOWN_CODING:
            raise AudioError(f"{name} has its sound in a coding unknown here: {SUGGESTION}.")
        raise AudioError(
            f"{name} has {chosen.codec} sound without what is needed to decode it, such as the "
            f"number of channels: {SUGGESTION}."
        )
    if channel > chosen.channels:
        have = "1 channel" if chosen.channels == 1 else f"{chosen.channels} channels"
        raise AudioError(
            f"{name} has {have}, and no number {channel}: choose one up to {chosen.channels}, or "
            "mix them."
        )
    film = any(not each.disposition & Disposition.attached_pic for each in container.streams.video)
    return Source(tracks, number, channel, format=container.format.name, film=film)


class Mixer:
    """Mixes frames to mono at 16 kHz as ffmpeg does, or takes one channel; keeps levels."""

    def __init__(self, name: str, channel: int) -> None:
        self._name, self._channel = name, channel
        self._energy = np.zeros(0)
        self._count = 0

    def mix(self, frames: Iterator[AudioFrame]) -> Iterator[np.ndarray]:
        """Resample to int16 chunks `(n,)`; a track may change its rate or layout on the way.

        The samples of a float track are looked through for NaN. Planar frames can't be read as they
        are: PyAV (18.1) finds the end of a frame's planes by a null pointer, for which eight
        channels leave no room, and the process ends. So a second resampler interleaves them.
        """
        resampler: AudioResampler | None = None
        interleaver: AudioResampler | None = None
        source: tuple[str, str, int] | None = None
        for frame in frames:
            if source != (source := (frame.format.name, frame.layout.name, frame.sample_rate)):
                lowest, highest = 4_000, 384_000  # no recorder of speech is outside
                if not lowest <= frame.sample_rate <= highest:
                    raise AudioError(
                        f"{self._name} has {frame.sample_rate} samples a second, outside {lowest} "
                        f"to {highest}: convert it to 16000."
                    )
                yield from _resampled(resampler, None)
                resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
                packed = frame.format.packed.name
                look = packed in ("flt", "dbl") or frame.layout.nb_channels > 1
                interleaver = AudioResampler(format=packed.replace("64", "32")) if look else None
            frame.pts = None  # pauses are kept by `Clock`, not padded, as by whisper.load_audio
            if interleaver is None:
                yield from _resampled(resampler, frame)
                continue
            for each in interleaver.resample(frame):
                values = each.to_ndarray().reshape(-1, each.layout.nb_channels)
                self._measure(values)
                if self._channel:
                    each = take_channel(each, values, self._channel)
                    yield from _resampled(resampler, each)
            if not self._channel:
                yield from _resampled(resampler, frame)
        yield from _resampled(resampler, None)

    def _measure(self, values: np.ndarray) -> None:
        """Add the energy of a frame's channels, `(n, channels)`, and refuse what is no number."""
        if values.dtype.kind == "f":
            if not np.isfinite(values).all():
                raise AudioError(
                    f"{self._name} has samples that are not numbers (NaN or infinite): export it "
                    "again."
                )
            scaled = values.astype(np.float64)
        else:
            bits = 8 * values.dtype.itemsize
            middle = 0 if values.dtype.kind == "i" else 128
            scaled = (values.astype(np.float64) - middle) / 2.0 ** (bits - 1)
        energy = np.square(scaled).mean(axis=0) * len(values)
        if len(energy) > len(self._energy):
            self._energy = np.pad(self._energy, (0, len(energy) - len(self._energy)))
        self._energy[: len(energy)] += energy
        self._count += len(values)

    def find_oddities(self, samples: FloatArray) -> tuple[str, ...]:
        """Say so where a channel is heard that the mix has lost."""
        if self._channel or len(self._energy) < 2 or not self._count:
            return ()
        levels = np.sqrt(self._energy / self._count)
        loudest, mixed = int(np.argmax(levels)), float(np.sqrt(np.mean(np.square(samples))))
        if levels[loudest] < AUDIBLE or mixed > LOST * levels[loudest]:
            return ()
        near = np.flatnonzero(levels > levels[loudest] / 2)
        if len(near) > 1:
            why = "The channels of {} cancel each other when they are mixed"
        else:
            why = f"Channel {loudest + 1} of {{}} has no place in the mix, where it is lost"
        offered = "left, right" if len(levels) == 2 else f"channel {loudest + 1}"
        return (f"{why.format(self._name)}: choose one alone ({offered}).",)


AUDIBLE = 1e-3
"""Level of a channel in which there may be speech: -60 dB of full scale."""
LOST = 0.1
"""Share of the loudest channel's level below which the mix has lost it."""


def take_channel(frame: AudioFrame, values: np.ndarray, channel: int) -> AudioFrame:
    """Return one channel of an interleaved frame; the last one where there are fewer."""
    column = np.ascontiguousarray(values[:, min(channel, values.shape[1]) - 1])
    alone = AudioFrame.from_ndarray(column[None, :], format=frame.format.name, layout="mono")
    alone.sample_rate = frame.sample_rate
    return alone


def _resampled(resampler: AudioResampler | None, frame: AudioFrame | None) -> Iterator[np.ndarray]:
    """Flatten what the resampler has ready; a frame of None asks for what it still holds."""
    if resampler is not None:
        for ready in resampler.resample(frame):
            yield ready.to_ndarray().reshape(-1)


def printable(text: str, longest: int = 80) -> str:
    """Put a text on one line and cut it, for a sentence."""
    line = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return line if len(line) <= longest else line[: longest - 1] + "…"


def explain_failure(file: BinaryIO, name: str) -> str:
    """Say why a file that FFmpeg can't open is no clip, going by its first bytes."""
    head = file.read(4096)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if start.startswith(
        (b"#extm3u", b"ffconcat", b"v=0", b"[playlist]", b"<asx", b"<?xml", b"<mpd")
    ):
        return (
            f"{name} can't be read as audio, as it is a playlist, which only names files: choose "
            "the file itself."
        )
    if head[4:8] == b"ftyp":
        return (
            f"{name} can't be read as audio, as it lacks the index of an MP4 or MOV file, so its "
            "recording or copying broke off: record or copy it again."
        )
    if head and is_text(head):
        return f"{name} can't be read as audio, as it is a text: choose an audio file or a film."
    return (
        f"{name} can't be read as audio, so it may be damaged, incomplete or of another kind: "
        f"{SUGGESTION}."
    )


def is_text(content: bytes) -> bool:
    """Return whether bytes are those of a text in UTF-8, the last letter perhaps cut."""
    try:
        text = content[:-3].decode()
    except UnicodeDecodeError:
        return False
    return not any(ord(letter) < 32 and not letter.isspace() for letter in text)
