"""A file's audio tracks through FFmpeg's libraries, which PyAV bundles: opened, chosen, decoded.

The content decides which container it is; a name's ending counts only for those that have no mark
of their own. What a file names, other files or hosts, is never opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import ContainerFormat, Flags
from av.packet import Packet
from av.stream import Disposition

from engines.base import Listener
from engines.clip_source import Clock, Source, Track

SUGGESTION = "save it as WAV, FLAC, MP3, M4A or Ogg and try again"

PLAYLISTS = {"concat", "dash", "hls", "imf", "sdp", "webm_dash_manifest"}
"""FFmpeg's formats that name other files and hosts, which a clip must not make this machine read;
those that are devices or networks say so themselves."""


def list_demuxers() -> str:
    """List FFmpeg's containers but playlists, networks and devices, as its option takes them."""
    names = sorted(av.formats_available - PLAYLISTS)
    formats = [ContainerFormat(name) for name in names]
    return ",".join(each.name for each in formats if each.is_input and not each.no_file)


DEMUXERS = list_demuxers()

UNKNOWN_CODING = "unknown coding"
"""Stands for the name of a coding that these libraries have no decoder for."""

MOST_FAILURES = 50
"""How often in a row the next packet may not be found before reading ends."""


def open_container(file: BinaryIO) -> InputContainer:
    """Open a file of any kind; nothing else is opened on its behalf."""

    def open_nothing_else(url: str, *_: object) -> NoReturn:
        raise PermissionError(f"a clip may not open {url}")

    return av.open(
        file,
        mode="r",
        metadata_errors="replace",  # tags are not always UTF-8
        container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": ""},
        io_open=open_nothing_else,  # called when a file asks for another one
    )


def describe_tracks(container: InputContainer) -> tuple[Track, ...]:
    """List the audio tracks; the default is ffmpeg's: that which is marked so, then that with the
    most channels, then the first."""
    streams = container.streams.audio
    if not streams:
        return ()

    def rank(stream: AudioStream) -> tuple[bool, bool, int]:
        known = stream.codec_context is not None
        marked = bool(stream.disposition & Disposition.default)
        return known, marked, count_channels(stream)

    chosen = max(streams, key=rank)  # of equals the first
    return tuple(
        Track(
            number=number,
            codec=name_codec(stream),
            channels=count_channels(stream),
            language=(stream.language or "").replace("und", ""),
            title=stream.metadata.get("title", ""),
            default=stream is chosen,
        )
        for number, stream in enumerate(streams, 1)
    )


def name_codec(stream: AudioStream) -> str:
    """Return FFmpeg's name of the coding; of one that it can't decode there is only a mark."""
    context: AudioStream | None = stream.codec_context  # type: ignore[assignment]
    return UNKNOWN_CODING if context is None else context.name or ""


def count_channels(stream: AudioStream) -> int:
    """Return the channels that a stream has by its header."""
    # Decoding a stream without a codec context, or reading it, ends the process (PyAV 17.1).
    context: AudioStream | None = stream.codec_context  # type: ignore[assignment]
    return 0 if context is None else context.channels


TELL_THEIR_LENGTH = {"aiff", "ape", "caf", "flac", "matroska", "mov", "tak", "tta", "wav", "wv"}
"""Containers whose header tells how long they are, by which one that was cut short is known."""
LONGEST_TOLD = 4 * 3600.0
"""Seconds above which the length in a header is a place kept free for it."""


def read_length(container: InputContainer, source: Source) -> tuple[float, bool]:
    """Return the seconds of sound that the header tells, 0 if none, and whether they can be held
    against what is read."""
    stream = container.streams.audio[source.track - 1]
    of_all = (container.duration or 0) / av.time_base
    known = stream.duration is not None and stream.time_base is not None
    seconds = float(stream.duration * stream.time_base) if known else of_all  # type: ignore[operator]
    tells = source.format.split(",")[0] in TELL_THEIR_LENGTH and (known or not source.film)
    return seconds, tells and seconds < LONGEST_TOLD


class Tail:
    """A file from one of its bytes on, as a file of its own."""

    def __init__(self, file: BinaryIO, base: int) -> None:
        self._file, self._base, self.name = file, base, file.name
        self.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as a file does."""
        return self._file.seek(offset + (0 if whence else self._base), whence) - self._base

    def tell(self) -> int:
        """Tell as a file does."""
        return self._file.tell() - self._base


class TrackReader:
    """Decodes one track, over damage and into what follows it.

    `seconds`: of sound so far. `decoded` frames; `damaged` packets, which are skipped as players
    do. `trouble`: FFmpeg's words for why reading ended early, or nothing.
    """

    def __init__(self, file: BinaryIO, listener: Listener) -> None:
        self._file, self._listener = file, listener
        self.seconds, self.decoded, self.damaged, self.trouble = 0.0, 0, 0, ""
        self._lost, self._place = 0, 0  # packets lost since the last frame; a packet's first byte
        self._size, self._whole = os.fstat(file.fileno()).st_size, False  # of the file; read to it

    def read(self, container: InputContainer, track: int) -> Iterator[AudioFrame]:
        """Yield a track's frames. Of chained Ogg streams, which FFmpeg leaves where their channels
        change, each is opened on its own."""
        start = (container.start_time or 0) / av.time_base
        restarts = bool(container.format.flags & Flags.ts_discont.value)  # type: ignore[operator]
        self.clock, base = Clock(start, restarts), 0
        yield from self._read_stream(container.streams.audio[track - 1])
        while self.trouble and container.format.name == "ogg":
            link = find_ogg_link(self._file, base + self._place)
            if link is None:
                break
            self.trouble, self._place, base = "", 0, link
            with open_container(Tail(self._file, base)) as part:  # type: ignore[arg-type]
                self.clock.restart()
                if part.streams.audio and part.streams.audio[0].codec_context is not None:
                    yield from self._read_stream(part.streams.audio[0])

    def _read_stream(self, stream: AudioStream) -> Iterator[AudioFrame]:
        container, failures, why = stream.container, 0, ""
        assert isinstance(container, InputContainer)
        packets = container.demux(stream)
        while True:
            self._listener.check_stopped()
            try:
                packet = next(packets, None)
            except IndexError:  # damage gave it streams that PyAV (18.1) can't flush, at the end
                packet = None
            except av.FFmpegError as error:
                if self._whole:  # Westwood's demuxer, for one, calls the end of a file an error
                    break
                failures, why = failures + 1, describe_failure(error)
                if failures < MOST_FAILURES and container.format.name != "ogg":
                    packets = container.demux(stream)  # reads on
                    continue
                packet = None
            if packet is None:
                break
            if packet.size:
                failures, self._place = 0, packet.pos or self._place
                self._whole = self._place + packet.size == self._size and not packet.is_corrupt
            if packet.size or packet.pts is None:  # NUT keeps a FLAC encoder's last, empty packet
                yield from self._decode(packet)
        self.trouble = why if failures else self.trouble

    def _decode(self, packet: Packet[AudioStream]) -> Iterator[AudioFrame]:
        """Decode a packet; one without content asks for what the decoder still holds."""
        try:
            exact = name_codec(packet.stream) == "pcm_f24le" and packet.size
            frames = [read_integers(packet)] if exact else packet.decode()
        except av.FFmpegError as error:
            self.damaged, self._lost = self.damaged + 1, self._lost + 1
            self.trouble = describe_failure(error)
            return
        for frame in frames:
            if isinstance(frame, AudioFrame) and frame.samples:
                self.decoded, self._lost, self.trouble = self.decoded + 1, 0, ""
                known = frame.pts is not None and frame.time_base is not None
                self.clock.note(frame.time if known else None, self.seconds)
                yield frame
                self.seconds += frame.samples / frame.sample_rate


def describe_failure(error: av.FFmpegError) -> str:
    """Return what FFmpeg says, without the file's name."""
    return (error.strerror or str(error)).rstrip(".").replace("\n", " ")


def read_integers(packet: Packet[AudioStream]) -> AudioFrame:
    """Make a frame of 32-bit integers of a WAV that FFmpeg takes for Audition's floats.

    Both have 24 valid bits in 32; integers leave the low byte at zero, as floats don't.
    """
    values = np.frombuffer(bytes(packet), "<i4")
    if np.any(values & 0xFF):
        return packet.decode()[0]
    frame = AudioFrame.from_ndarray(
        values.reshape(1, -1), format="s32", layout=packet.stream.layout.name
    )
    frame.sample_rate, frame.pts, frame.time_base = packet.stream.rate, packet.pts, packet.time_base
    return frame


def find_ogg_link(file: BinaryIO, after: int) -> int | None:
    """Return where the next stream of a chained Ogg file starts: at a page that is marked as a
    first one, past others that are not."""
    file.seek(after)
    content = file.read()
    at, inside = content.find(b"OggS"), False
    while at >= 0:
        first = content[at + 5 : at + 6] and content[at + 5] & 2
        if first and inside:
            return after + at
        inside = inside or not first
        at = content.find(b"OggS", at + 4)
    return None
