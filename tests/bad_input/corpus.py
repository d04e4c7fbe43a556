"""A corpus of odd, broken and hostile clips, of bytes and with the program ffmpeg.

`make_quick`, `make_common` and `make_slow` write the files and return a `Case` for each. Nothing is
downloaded; everything is drawn from a fixed seed.
"""

from __future__ import annotations

import gzip
import itertools
import re
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import soundfile

Outcome = Literal["heard", "refused", "either"]

TONE_HZ = 440
SECONDS = 2.0
LONG_SECONDS = 3 * 3600


@dataclass(frozen=True)
class Case:
    """One file. `heard`: the tone of 440 Hz must come out; `refused`: one sentence must;
    `either`: one of both, as no rule says which. `seconds`: the length it must have, if heard."""

    path: Path
    outcome: Outcome
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The kind and the file's name, without control characters."""
        return f"{self.path.parent.name}, {self.path.name!r}"


def make_quick(folder: Path) -> list[Case]:
    """Write the files that need no ffmpeg into an empty folder."""
    cases: list[Case] = []
    for write in (write_liars, write_values, write_lengths, write_strangers, write_names):
        (folder / write.__name__).mkdir()
        cases += write(folder / write.__name__)
    return cases


def make_common(folder: Path) -> list[Case]:
    """Write the formats that most clips have, with ffmpeg, into an empty folder."""
    (folder / "formats").mkdir()
    return list(write_formats(folder / "formats", COMMON))


def make_slow(folder: Path) -> list[Case]:
    """Write the files that ffmpeg makes, and what is made of those, into an empty folder."""
    for name in ("formats", "broken", "bombs"):
        (folder / name).mkdir()
    cases = list(write_formats(folder / "formats", FORMATS))
    marked = [case.path for case in cases if case.path.suffix not in UNMARKED]
    sound = {path.suffix: path.read_bytes() for path in marked}
    cases += write_formats(folder / "formats", UNDECODABLE, "either")
    return [*cases, *write_broken(folder / "broken", sound), *write_bombs(folder / "bombs")]


def put(path: Path, content: bytes, outcome: Outcome, seconds: float | None = None) -> Case:
    path.write_bytes(content)
    return Case(path, outcome, seconds)


# Of bytes


def tone(seconds: float = SECONDS, rate: int = 16_000) -> np.ndarray:
    """The tone as float64 `(n,)`, a quarter of full scale."""
    return 0.25 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * rate)) / rate)


def as_bytes(values: np.ndarray) -> bytes:
    """Values within [-1, 1] as 16-bit samples."""
    return (np.clip(values, -1, 1) * 32767).astype("<i2").tobytes()


def wav(samples: bytes, **fields: int) -> bytes:
    """A WAV byte by byte, mono 16-bit at 16 kHz, every field of which may lie."""
    form, channels, bits = fields.get("form", 1), fields.get("channels", 1), fields.get("bits", 16)
    rate, align = fields.get("rate", 16_000), fields.get("align", channels * bits // 8 % 2**16)
    head = struct.pack("<HHIIHH", form, channels, rate, (rate * align) % 2**32, align, bits)
    riff, data = fields.get("riff", 36 + len(samples)), fields.get("data", len(samples))
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", data)
    return b"RIFF" + struct.pack("<I", riff) + chunks + samples


LIES: dict[str, dict[Outcome, tuple[int, ...]]] = {
    "data": {"heard": (2**32 - 1, 2**31 - 16, 63_999), "either": (0, 1)},
    "riff": {"heard": (0, 2**32 - 1)},
    "rate": {"refused": (0, 1, 50, 3_999, 400_000, 2**31 - 1, 2**32 - 1)},
    "channels": {"either": (0, 2, 3, 64, 255, 65_535)},
    "bits": {"either": (0, 1, 7, 12, 20, 33, 64, 65_535)},
    "align": {"either": (0, 1, 3, 65_535)},
    "form": {"either": (0, 2, 3, 6, 7, 17, 49, 80, 85, 255, 0xFFFE, 0xFFFF)},
}
"""Fields of a WAV's header, and values that they can't have."""


def write_liars(folder: Path) -> Iterator[Case]:
    """Headers that lie about length, rate, channels, bits and block size."""
    body = as_bytes(tone())
    for field, outcomes in LIES.items():
        for outcome, values in outcomes.items():
            for value in values:
                path = folder / f"{field}-{value}.wav"
                yield put(path, wav(body, **{field: value}), outcome)


def write_values(folder: Path) -> Iterator[Case]:
    """Samples that are no numbers, or no level anybody records at."""
    clean = tone()
    for value in (np.nan, np.inf, -np.inf):
        for at in (0, len(clean) // 2, len(clean) - 1):
            for bits in (32, 64):
                values = clean.astype(f"<f{bits // 8}")
                values[at] = value
                path = folder / f"{value}-{at}-{bits}.wav"
                yield put(path, wav(values.tobytes(), form=3, bits=bits), "refused")
    levels: dict[float, Outcome] = {1e-30: "either", 4.0: "heard", 1e4: "heard", 1e38: "either"}
    for level, outcome in levels.items():
        loud = wav((clean * level).astype("<f4").tobytes(), form=3, bits=32)
        yield put(folder / f"level-{level:g}.wav", loud, outcome)
    for level in (0.0, 1.0):
        constant = wav(as_bytes(clean * 0 + level))
        yield put(folder / f"constant-{level:g}.wav", constant, "either", SECONDS)


def write_lengths(folder: Path) -> Iterator[Case]:
    """From no sample to more than a file may have, and many packets for few samples."""
    for count in (0, 1, 2, 3, 159, 160, 399, 400, 401, 1600):
        outcome: Outcome = "either" if count else "refused"
        content = wav(as_bytes(tone())[: 2 * count])
        yield put(folder / f"{count}.wav", content, outcome, count / 16_000)
    with (folder / "large.wav").open("wb") as file:  # sparse: no room is taken
        file.write(wav(b"", data=2**31 - 100))
        file.truncate(2**31)
    yield Case(folder / "large.wav", "refused")
    path = folder / "packets.mka"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        body = as_bytes(tone())
        for at in range(0, len(body) // 2, 4):  # four samples a packet
            packet = av.Packet(body[2 * at : 2 * at + 8])
            packet.stream, packet.time_base = stream, Fraction(1, 16_000)
            packet.pts = packet.dts = at
            container.mux(packet)
    yield Case(path, "heard", SECONDS)


def write_strangers(folder: Path) -> Iterator[Case]:
    """What is no clip at all, and what asks a player to open something else."""
    random = np.random.default_rng(7)
    box = b"\x00\x00\x00\x18ftypmp42"
    strangers: dict[str, bytes] = {
        "zeros.mp3": bytes(50_000),
        "markup.wav": b"<script>alert(1)</script><!doctype html>" * 50,
        "picture.png": b"\x89PNG\r\n\x1a\n" + random.bytes(5000),
        "archive.zip": b"PK\x03\x04" + random.bytes(5000),
        "lines.srt": b"1\n00:00:00,000 --> 00:00:01,000\nHello\n",
        "pickle.pt": b"\x80\x04cos\nsystem\n(S'exit'\ntR.",
        "boxes.mp4": (box + bytes(12) + b"\x00\x00\x00\x08moov") * 200,
        "endless-box.mp4": box + bytes(12) + b"\xff\xff\xff\xffmoov",
        "big-tag.mp3": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + random.bytes(3000),
        "gzip.flac": gzip.compress(bytes(10**8), 1),
        "unpacks.mov": pack_index(2**30, bytes(10**8)),
        "any-noise.mp3": random.bytes(200_000),
        "any-magic.flac": b"fLaC" + random.bytes(3000),
        "any-magic.ogg": b"OggS" + random.bytes(3000),
        "any-magic.mkv": b"\x1a\x45\xdf\xa3" + random.bytes(3000),
        "any-magic.mp4": box + random.bytes(3000),
    }
    for name, content in strangers.items():
        yield put(folder / name, content, "either" if name.startswith("any") else "refused")


def pack_index(claimed: int, content: bytes) -> bytes:
    """A QuickTime file whose index is packed; `claimed`: the bytes that it says to unpack to."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + kind + body

    packed = box(b"cmvd", struct.pack(">I", claimed) + zlib.compress(content, 1))
    index = box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + packed))
    return box(b"ftyp", b"qt  " + bytes(4) + b"qt  ") + index


NAMES = (
    "<img src=x onerror=alert(1)>", "\"quotes\" & 'more'", "..\\..\\windows", "~root", "$(reboot)",
    "; rm -rf *", "-i", "%2e%2e%2fetc", "line\nbreak", "bell\x07escape\x1b[31m", " ", ".hidden",
    "right\u202eto left", "Größe 日本語 🎙️", "long " * 40, "file:letter", "concat:a|b", "pipe:0",
)  # fmt: skip


def write_names(folder: Path) -> Iterator[Case]:
    """A right clip under names with paths, quotes, markup and worse."""
    for name in NAMES:
        yield put(folder / f"{name}.wav", wav(as_bytes(tone())), "heard", SECONDS)


# With ffmpeg

COMMON = """
wav/pcm_u8 wav/pcm_f32le wav/pcm_mulaw:8000:1 wav/pcm_s16le:48000:8 aiff/pcm_s16be mp3/libmp3lame
mp4/aac:48000 mp4/alac ogg/libvorbis opus/libopus:48000 webm/libopus:48000:1 flac/flac:96000:6
matroska/ac3:48000:6 nut/flac
"""
FORMATS = """
wav/pcm_u8 wav/pcm_s16le wav/pcm_s24le wav/pcm_s32le wav/pcm_s64le wav/pcm_f32le wav/pcm_f64le
wav/pcm_alaw wav/pcm_mulaw wav/adpcm_ms wav/adpcm_ima_wav wav/libmp3lame wav/ac3 wav/g722:8000
wav/g726:8000 w64/pcm_s24le aiff/pcm_s8 aiff/pcm_s16be aiff/pcm_f64be au/pcm_s32be au/pcm_f32be
caf/pcm_s16le caf/alac caf/adpcm_ima_qt voc/pcm_u8:22050 matroska/flac matroska/aac matroska/eac3
matroska/tta matroska/wavpack matroska/libopus:48000 webm/libopus:48000 webm/libvorbis ogg/libvorbis
ogg/flac ogg/libspeex:16000 opus/libopus:48000 mov/pcm_s24be mov/alac mov/adpcm_ima_qt mp4/aac
mp4/alac mp4/ac3 mp4/libmp3lame mp4/flac mpegts/aac:48000 mpegts/ac3:48000 mpegts/mp2:48000
mpeg/mp2:48000 mpeg/ac3:48000 avi/pcm_s16le avi/libmp3lame avi/adpcm_ms flv/libmp3lame flv/aac
asf/wmav1 asf/wmav2 flac/flac mp3/libmp3lame adts/aac tta/tta wv/wavpack mp2/mp2 ac3/ac3:48000
eac3/eac3:48000 wav/pcm_s16le:4000 wav/pcm_s16le:11025 wav/pcm_s16le:96000 wav/pcm_s16le:384000
mp3/libmp3lame:8000 mp3/libmp3lame:22050 flac/flac:48000:1 flac/flac:48000:3 flac/flac:48000:5
flac/flac:48000:6 flac/flac:48000:8 wav/pcm_s16le:48000:3 wav/pcm_s16le:48000:16 gsm/libgsm:8000:1
g722/g722:16000:1 nut/pcm_s16le dts/dca latm/aac wtv/ac3 rm/ac3 ircam/pcm_s16le wsaud/adpcm_ima_ws
mxf_opatom/pcm_s16le:48000:1 nut/flac spdif/ac3 smjpeg/pcm_s16le adx/adpcm_adx
"""
"""Container, codec, samples a second, channels; what this ffmpeg lacks is left out."""
UNDECODABLE = "nut/adpcm_ima_wav nut/g726:8000:1 codec2/libcodec2:8000:1"
"""What PyAV's libraries (62) can't decode: NUT keeps no bits a sample, and they lack Codec 2."""


UNMARKED = {".gsm", ".g722"}
"""Containers without a mark of their own, known by the name's ending."""


def run_ffmpeg(*arguments: str) -> bool:
    """Return whether ffmpeg did it."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def decode_by_ffmpeg(path: Path) -> np.ndarray:
    """The samples `(n,)` that `whisper.load_audio` (20250625) gets of the program, float32."""
    whisper_s = ["-f", "s16le", "-ac", "1", "-acodec", "pcm_s16le", "-ar", "16000", "-"]
    command = ["ffmpeg", "-nostdin", "-threads", "0", "-i", str(path), *whisper_s]
    done = subprocess.run(command, capture_output=True, check=False)  # of the end it may complain
    return np.frombuffer(done.stdout, "<i2").astype(np.float32) / 32768


def write_formats(folder: Path, kinds: str, outcome: Outcome = "heard") -> Iterator[Case]:
    """The tone on every channel, in the containers and codecs that this ffmpeg writes."""

    def write(kind: str) -> Case | None:
        container, codec, *rest = re.split("[/:]", kind)
        rate = rest[0] if rest else "44100"
        channels = rest[1] if rest[1:] else "2"
        path = folder / f"{codec}-{rate}-{channels}ch.{container}"
        plain = folder.parent / f"{rate}-{channels}.wav"
        if not plain.exists():
            soundfile.write(plain, np.tile(tone(rate=int(rate)), (int(channels), 1)).T, int(rate))
        done = run_ffmpeg(
            "-i", str(plain), "-c:a", codec, "-strict", "-2", "-f", container, str(path)
        )
        return Case(path, outcome) if done and path.stat().st_size else None

    yield from filter(None, map(write, kinds.split()))


def write_broken(folder: Path, sound: dict[str, bytes]) -> Iterator[Case]:
    """Every format under a wrong ending, breaking off, and with bytes turned over at random."""
    random = np.random.default_rng(11)
    endings = itertools.cycle((".wav", ".mp3", ".flac", "", ".exe", ".m3u8", ".html"))
    for kind, whole in sound.items():
        yield put(folder / f"{kind[1:]}-as{next(endings)}", whole, "heard")
        for at in (1, 4, 12, 44, 100, len(whole) // 2, len(whole) - 1):
            outcome: Outcome = "refused" if at <= 12 else "either"
            yield put(folder / f"cut-at-{at}{kind}", whole[:at], outcome)
        for share in (0.0005, 0.05):
            content = np.frombuffer(whole, np.uint8).copy()
            hits = random.random(len(content)) < share
            content[hits] = random.integers(0, 256, int(hits.sum()), np.uint8)
            yield put(folder / f"damaged-{share:g}{kind}", content.tobytes(), "either")


def write_bombs(folder: Path) -> Iterator[Case]:
    """Small files that unpack to three hours of silence."""
    silence = ("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono:d=60")
    kinds = "flac/flac libopus/opus libmp3lame/mp3 aac/m4a wavpack/wv"
    for codec, ending in (kind.split("/") for kind in kinds.split()):
        path, minute = (folder / f"{name}.{ending}" for name in ("hours", "minute"))
        rate = ("-ar", "8000", "-b:a", "8k") if codec in ("libmp3lame", "aac") else ()
        again = ("-stream_loop", str(LONG_SECONDS // 60 - 1), "-i", str(minute), "-c", "copy")
        made = run_ffmpeg(*silence, "-c:a", codec, *rate, str(minute))
        if made and run_ffmpeg(*again, str(path)):
            yield Case(path, "refused")
