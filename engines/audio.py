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
from pathlib import Path
from time import perf_counter
from typing import BinaryIO, NoReturn

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer

from engines.base import SAMPLE_RATE, SILENT, AudioError, Clip, FloatArray, Listener

SAMPLES = Path(__file__).resolve().parents[1] / "audio_samples"

MAX_BYTES = 100 * 2**20
"""Largest file taken, in bytes."""

DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,"
    "voc,w64,wav,wv"
)
"""The containers FFmpeg may recognise. Playlists (hls, dash, concat, sdp) are left out on purpose:
they name other files and hosts, which an upload must not make this machine read."""

SUGGESTION = "save it as WAV, FLAC, MP3, M4A or Ogg and try again"


def find_clip(name: str) -> Path:
    """Return a sample's file, or the path itself."""
    sample = SAMPLES / f"{name}.flac"
    return sample if sample.is_file() else Path(name)


def load_clip(
    path: str | os.PathLike[str], listener: Listener = SILENT, *, max_seconds: float = 1800.0
) -> Clip:
    """Decode the first audio track of a file to mono float32 `(n,)` at 16 kHz.

    The content decides which container it is, not the extension, and the header's duration is not
    believed: decoding ends as soon as `max_seconds` of sound have come out, so that memory stays
    bounded. A file that breaks off in the middle gives what comes before the break.
    `Clip.decode_seconds` is the wall time of all this.

    Raises `AudioError`, one sentence with its remedy, for anything that is not a clip within the
    limits (no such file, a folder, a link, not audio, no samples, NaN or infinite samples), and
    `Stopped` between two packets.
    """
    started = perf_counter()
    name = printable(Path(path).name or os.fspath(path))
    _check_file(path, name)
    try:
        with open(path, "rb") as file:
            samples = _decode(file, name, max_seconds, listener)
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name} can't be read as audio, so it may be damaged, incomplete or of another kind: "
            f"{SUGGESTION}."
        ) from error
    except OSError as error:
        raise AudioError(
            f"{name} can't be opened ({error.strerror}): check that you may read it."
        ) from error
    return Clip(samples, name=name, decode_seconds=perf_counter() - started)


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


def _decode(file: BinaryIO, name: str, max_seconds: float, listener: Listener) -> FloatArray:
    """Decode the first audio track: float32 `(n,)` within [-1, 1].

    One buffer takes all chunks: a file of small packets has millions of them.
    """

    def open_nothing_else(url: str, *_: object) -> NoReturn:
        raise PermissionError(f"a clip may not open {url}")

    with av.open(
        file,
        mode="r",
        metadata_errors="replace",  # tags are not always UTF-8
        container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": ""},
        io_open=open_nothing_else,  # called when a file asks for another one
    ) as container:
        if not container.streams.audio:
            raise AudioError(f"{name} holds no audio track: choose a file with sound in it.")
        codec: object = container.streams.audio[0].codec_context
        if codec is None:  # decoding it regardless ends the process (PyAV 17.1)
            raise AudioError(f"{name} has its sound in a coding unknown here: {SUGGESTION}.")
        claimed = (container.duration or 0) / av.time_base
        sound, reported = bytearray(), 0.0
        for chunk in _mono_16k(_frames(container, name, listener), name):
            sound += chunk.tobytes()
            seconds = len(sound) / (SAMPLE_RATE * np.dtype(np.int16).itemsize)
            if seconds >= reported + 60:
                listener.report("reading", seconds, claimed if claimed > seconds else 0.0)
                reported = seconds
            if seconds > max_seconds:
                in_minutes = max_seconds > 60 and max_seconds % 60 == 0
                limit = (
                    f"{max_seconds / 60:g} minutes" if in_minutes else f"{max_seconds:g} seconds"
                )
                raise AudioError(
                    f"{name} is longer than {limit}, the limit: cut it into shorter parts."
                )
    if not sound:
        raise AudioError(f"{name} holds no sound (zero samples): record or export it again.")
    return np.frombuffer(sound, np.int16).astype(np.float32) / 32768.0


def _frames(container: InputContainer, name: str, listener: Listener) -> Iterator[AudioFrame]:
    """Decode the first audio track, skipping damaged packets as players do.

    Refuses a file of which more packets fail than decode.
    """
    decoded = damaged = 0
    packets = container.demux(container.streams.audio[0])
    while True:
        listener.check_stopped()
        try:
            packet = next(packets, None)
        except (av.FFmpegError, IndexError):  # keep what came before
            break  # the file breaks off, or damage gave it streams that PyAV (18.1) can't flush
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            damaged += 1
            continue
        for frame in frames:
            decoded += 1
            if isinstance(frame, AudioFrame):
                yield frame
    if damaged > decoded:
        raise AudioError(f"{name} is damaged, so most of it can't be decoded: {SUGGESTION}.")


def _mono_16k(frames: Iterator[AudioFrame], name: str) -> Iterator[np.ndarray]:
    """Resample to int16 chunks `(n,)`; a track may change its rate or layout on the way.

    The samples of a float track are looked through for NaN. Planar frames can't be read as they
    are: PyAV (18.1) finds the end of a frame's planes by a null pointer, for which eight channels
    leave no room, and the process ends. So a second resampler interleaves them.
    """
    resampler: AudioResampler | None = None
    interleaver: AudioResampler | None = None
    source: tuple[str, str, int] | None = None
    for frame in frames:
        if source != (source := (frame.format.name, frame.layout.name, frame.sample_rate)):
            lowest, highest = 4_000, 384_000  # no recorder of speech is outside
            if not lowest <= frame.sample_rate <= highest:
                raise AudioError(
                    f"{name} has {frame.sample_rate} samples a second, outside {lowest} to "
                    f"{highest}: convert it to 16000."
                )
            yield from _resampled(resampler, None)
            resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            floats = frame.format.name.startswith(("flt", "dbl"))
            interleaver = AudioResampler(format=frame.format.packed) if floats else None
        frame.pts = None  # gaps in the time stamps are not padded, as whisper.load_audio does not
        if not all(np.isfinite(values).all() for values in _resampled(interleaver, frame)):
            raise AudioError(
                f"{name} has samples that are not numbers (NaN or infinite): export it again."
            )
        yield from _resampled(resampler, frame)
    yield from _resampled(resampler, None)


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
