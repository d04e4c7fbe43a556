"""Makes a corpus of odd, broken and hostile clips, of bytes and with the program ffmpeg.

`make_quick` and `make_slow` write the files and return a `Case` for each: what it is, and what must
come of it. Nothing is downloaded, and everything is drawn from a fixed seed.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np

Outcome = Literal["heard", "refused", "either"]

TONE_HZ = 440
SECONDS = 2.0
LONG_SECONDS = 3 * 3600


@dataclass(frozen=True)
class Case:
    """One file. `heard`: the tone of 440 Hz must come out; `refused`: one sentence must;
    `either`: one of both, as no rule says which. `seconds`: the length it must have, if heard.
    `whole`: it is well formed, so that it has the tone and its two seconds if it is heard."""

    name: str
    path: Path
    outcome: Outcome
    seconds: float | None = None
    whole: bool = False


@dataclass(frozen=True)
class Kind:
    """A container and a codec that ffmpeg writes, with what it needs besides."""

    container: str
    codec: str
    rate: int = 44_100
    channels: int = 2
    more: tuple[str, ...] = ()
    ending: str = ""

    @property
    def name(self) -> str:
        """A name for the file, with the ending that people know."""
        ending = self.ending or self.container
        return f"{self.codec}-{self.rate}-{self.channels}ch.{ending}"


PCM = (
    "pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_s64le", "pcm_f32le", "pcm_f64le",
    "pcm_alaw", "pcm_mulaw",
)  # fmt: skip
BIG = ("pcm_s8", "pcm_s16be", "pcm_s24be", "pcm_s32be", "pcm_f32be", "pcm_f64be")

KINDS = (
    *(Kind("wav", codec) for codec in PCM),
    *(Kind("w64", codec) for codec in PCM),
    *(Kind("aiff", codec) for codec in BIG),
    *(Kind("au", codec) for codec in BIG),
    *(Kind("caf", codec) for codec in (*PCM[:7], *BIG[1:], "alac", "adpcm_ima_qt")),
    *(Kind("matroska", codec, ending="mka") for codec in ("pcm_s16le", "pcm_f32le", "flac", "aac",
      "ac3", "eac3", "libmp3lame", "libvorbis", "alac", "mp2", "tta", "wavpack")),
    *(Kind("matroska", "libopus", 48_000, ending="mkv"), Kind("webm", "libopus", 48_000),
      Kind("webm", "libvorbis")),
    *(Kind("ogg", codec) for codec in ("libvorbis", "flac")),
    *(Kind("ogg", codec, 16_000, 1, ending=end) for codec, end in (("libspeex", "spx"),
      ("libopus", "opus"))),
    *(Kind("mov", codec) for codec in ("pcm_s16le", "pcm_s24be", "alac", "aac", "adpcm_ima_qt")),
    *(Kind("mp4", codec, ending="m4a") for codec in ("aac", "alac", "ac3", "libmp3lame", "flac")),
    *(Kind("mp4", "aac", more=("-movflags", "frag_keyframe+empty_moov"), ending="mp4"),),
    *(Kind("mpegts", codec, 48_000, ending="ts") for codec in ("aac", "ac3", "mp2", "libmp3lame")),
    *(Kind("mpeg", codec, 48_000, ending="mpg") for codec in ("mp2", "ac3")),
    *(Kind("avi", codec) for codec in ("pcm_s16le", "libmp3lame", "ac3", "aac", "adpcm_ms")),
    *(Kind("flv", codec) for codec in ("libmp3lame", "aac")),
    *(Kind("asf", codec, ending="wma") for codec in ("wmav1", "wmav2", "libmp3lame")),
    *(Kind("wav", codec) for codec in ("adpcm_ms", "adpcm_ima_wav", "adpcm_swf", "libmp3lame",
      "ac3")),
    *(Kind("wav", codec, 8_000, 1) for codec in ("g722", "g726", "adpcm_yamaha")),
    *(Kind(name, codec) for name, codec in (("flac", "flac"), ("mp3", "libmp3lame"),
      ("adts", "aac"), ("tta", "tta"), ("wv", "wavpack"), ("mp2", "mp2"))),
    *(Kind(name, name, 48_000) for name in ("ac3", "eac3")),
    *(Kind("voc", codec, 22_050, 1) for codec in ("pcm_u8", "pcm_s16le")),
    *(Kind("amr", codec, 8_000, 1) for codec in ("libopencore_amrnb",)),
    *(Kind("wav", "pcm_s16le", rate, 1) for rate in (4_000, 8_000, 11_025, 16_000, 22_050, 32_000,
      48_000, 88_200, 96_000, 192_000, 384_000)),
    *(Kind("flac", "flac", 48_000, count) for count in (1, 3, 4, 5, 6, 7, 8)),
    *(Kind("wav", "pcm_s16le", 48_000, count) for count in (3, 4, 6, 8, 16)),
    *(Kind("mp3", "libmp3lame", rate, 1) for rate in (8_000, 16_000, 22_050, 48_000)),
)  # fmt: skip
"""A codec that this ffmpeg lacks leaves its file out; `check` prints which those were."""


def make_quick(folder: Path) -> list[Case]:
    """Write the files that need no ffmpeg into an empty folder."""
    writers = (write_liars, write_values, write_lengths, write_strangers, write_names)
    return [case for write in writers for case in write(folder)]


def make_slow(folder: Path) -> list[Case]:
    """Write the files that ffmpeg makes, and what is made of those, into an empty folder."""
    cases = list(write_formats(folder))
    sound = {case.path.suffix: case for case in cases if case.outcome == "heard"}
    cases += write_endings(folder, sound)
    cases += write_truncations(folder, sound)
    cases += write_bombs(folder)
    cases += write_damage(folder, sound)
    return cases


def run_ffmpeg(*arguments: str) -> bool:
    """Whether ffmpeg did it."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def write_formats(folder: Path) -> Iterator[Case]:
    """The tone in every container and codec that this ffmpeg writes."""
    (folder / "formats").mkdir()
    with ThreadPoolExecutor(2) as pool:
        yield from (case for case in pool.map(lambda kind: write_kind(folder, kind), KINDS) if case)


def write_kind(folder: Path, kind: Kind) -> Case | None:
    """One of them, or None where this ffmpeg can't."""
    path = folder / "formats" / f"{kind.container}-{kind.name}"
    tone = f"sine=frequency={TONE_HZ}:sample_rate={kind.rate}:duration={SECONDS}"
    done = run_ffmpeg(
        *("-f", "lavfi", "-i", tone, "-ac", str(kind.channels), "-ar", str(kind.rate)),
        *("-c:a", kind.codec, "-strict", "-2", *kind.more, "-f", kind.container, str(path)),
    )
    if not done or not path.stat().st_size:
        return None
    outcome: Outcome = "either" if kind.container in UNKNOWN else "heard"
    return Case(f"{kind.container} of {kind.codec}", path, outcome, whole=True)


def list_missing(cases: list[Case]) -> list[str]:
    """Containers and codecs that this ffmpeg left out."""
    made = {case.path.name for case in cases if case.path.parent.name == "formats"}
    missing = [kind for kind in KINDS if f"{kind.container}-{kind.name}" not in made]
    return sorted({f"{kind.codec} in {kind.container}" for kind in missing})


UNKNOWN = ("amr",)
"""Containers that no ffmpeg here could write, so that nobody saw them heard: a sentence will do."""


def write_endings(folder: Path, sound: dict[str, Case]) -> Iterator[Case]:
    """Right content under wrong endings, and under none."""
    (folder / "endings").mkdir()
    for ending, wrong in ((".mp3", ".wav"), (".wav", ".mp3"), (".flac", ".ogg"), (".m4a", ".flac"),
                          (".opus", ".m4a"), (".webm", ""), (".mp3", ".exe"), (".wav", ".txt"),
                          (".flac", ".m3u8"), (".wav", ".html")):  # fmt: skip
        if ending in sound:
            path = folder / "endings" / f"{ending[1:]}-as{wrong}"
            path.write_bytes(sound[ending].path.read_bytes())
            yield Case(f"{ending} named {wrong or 'nothing'}", path, "heard")


def write_truncations(folder: Path, sound: dict[str, Case]) -> Iterator[Case]:
    """Files that break off: within the magic, the header, a chunk's head, and the last byte."""
    (folder / "truncated").mkdir()
    for ending in (".wav", ".flac", ".mp3", ".m4a", ".opus", ".webm", ".mka", ".aiff", ".ts"):
        if ending not in sound:
            continue
        whole = sound[ending].path.read_bytes()
        for at in (1, 3, 4, 11, 12, 36, 44, 45, 100, len(whole) // 2, len(whole) - 1):
            path = folder / "truncated" / f"{at}{ending}"
            path.write_bytes(whole[:at])
            yield Case(f"{ending} of {at} bytes", path, "refused" if at <= 36 else "either")


def wav(
    samples: bytes,
    *,
    form: int = 1,
    channels: int = 1,
    rate: int = 16_000,
    bits: int = 16,
    data: int | None = None,
    riff: int | None = None,
    align: int | None = None,
) -> bytes:
    """A WAV byte by byte, every field of which may lie."""
    block = channels * bits // 8 % 2**16 if align is None else align
    head = struct.pack("<HHIIHH", form, channels, rate, (rate * block) % 2**32, block, bits)
    claimed = len(samples) if data is None else data
    size = 36 + len(samples) if riff is None else riff
    return (
        b"RIFF" + struct.pack("<I", size) + b"WAVEfmt " + struct.pack("<I", 16) + head
        + b"data" + struct.pack("<I", claimed) + samples
    )  # fmt: skip


def tone(seconds: float = SECONDS, rate: int = 16_000) -> np.ndarray:
    """The tone as float64 `(n,)`, a quarter of full scale."""
    return 0.25 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * rate)) / rate)


def as_bytes(values: np.ndarray) -> bytes:
    """Values within [-1, 1] as 16-bit samples."""
    return (np.clip(values, -1, 1) * 32767).astype("<i2").tobytes()


def write_liars(folder: Path) -> Iterator[Case]:
    """Headers that lie about length, rate, channels, bits and block size."""
    (folder / "liars").mkdir()
    body = as_bytes(tone())
    liars: dict[str, tuple[bytes, Outcome]] = {
        "data-4GB": (wav(body, data=0xFFFFFFFF), "heard"),
        "data-2GB": (wav(body, data=0x7FFFFFFF), "heard"),
        "data-0": (wav(body, data=0), "either"),
        "data-1": (wav(body, data=1), "either"),
        "data-odd": (wav(body, data=len(body) - 1), "heard"),
        "riff-0": (wav(body, riff=0), "heard"),
        "riff-4GB": (wav(body, riff=0xFFFFFFFF), "heard"),
        **{f"rate-{rate}": (wav(body, rate=rate), "refused") for rate in (1, 50, 3999, 400_000,
           2**31 - 1, 2**32 - 1)},
        "rate-0": (wav(body, rate=0), "refused"),
        **{f"channels-{count}": (wav(body, channels=count), "either") for count in (0, 2, 3, 64,
           255, 65_535)},
        **{f"bits-{bits}": (wav(body, bits=bits), "either") for bits in (0, 1, 7, 12, 20, 33, 64,
           65_535)},
        **{f"align-{size}": (wav(body, align=size), "either") for size in (0, 1, 3, 65_535)},
        **{f"format-{form}": (wav(body, form=form), "either") for form in (0, 2, 3, 6, 7, 17, 49,
           80, 85, 255, 0xFFFE, 0xFFFF)},
    }  # fmt: skip
    for name, (content, outcome) in liars.items():
        path = folder / "liars" / f"{name}.wav"
        path.write_bytes(content)
        yield Case(f"WAV, {name}", path, outcome)


def write_values(folder: Path) -> Iterator[Case]:
    """Samples that are no numbers, or no level anybody records at."""
    (folder / "values").mkdir()
    clean = tone()
    spots = {"first": 0, "middle": len(clean) // 2, "last": len(clean) - 1}
    for kind, value in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        for place, at in spots.items():
            for bits in (32, 64):
                values = clean.copy()
                values[at] = value
                path = folder / "values" / f"{kind}-{place}-{bits}.wav"
                path.write_bytes(wav(values.astype(f"<f{bits // 8}").tobytes(), form=3, bits=bits))
                yield Case(f"{kind} in the {place} of {bits}-bit floats", path, "refused")
    levels: dict[float, Outcome] = {1e-30: "either", 4.0: "heard", 1e4: "heard", 1e38: "either"}
    for level, outcome in levels.items():
        path = folder / "values" / f"level-{level:g}.wav"
        path.write_bytes(wav((clean * level).astype("<f4").tobytes(), form=3, bits=32))
        yield Case(f"a level of {level:g}", path, outcome)
    for name, values in (("silence", clean * 0), ("offset", clean * 0 + 1.0)):
        path = folder / "values" / f"{name}.wav"
        path.write_bytes(wav(as_bytes(values)))
        yield Case(name, path, "either", SECONDS)


BOMBS = {"flac": "flac", "libopus": "opus", "libmp3lame": "mp3", "aac": "m4a", "wavpack": "wv"}
"""Codecs that pack silence small."""


def write_packets(path: Path) -> None:
    """The tone in Matroska, each sample in a packet of its own."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        body = as_bytes(tone())
        for at in range(0, len(body), 2):
            packet = av.Packet(body[at : at + 2])
            packet.stream, packet.time_base = stream, Fraction(1, 16_000)
            packet.pts = packet.dts = at // 2
            container.mux(packet)


def write_lengths(folder: Path) -> Iterator[Case]:
    """From no sample to three hours."""
    (folder / "lengths").mkdir()
    write_packets(folder / "lengths" / "packets.mka")
    yield Case("packets of one sample", folder / "lengths" / "packets.mka", "heard", SECONDS)
    for count in (0, 1, 2, 3, 159, 160, 399, 400, 401, 1600):
        path = folder / "lengths" / f"{count}.wav"
        path.write_bytes(wav(as_bytes(tone())[: 2 * count]))
        outcome: Outcome = "either" if count else "refused"
        yield Case(f"{count} samples", path, outcome, count / 16_000 if count else None)
    path = folder / "lengths" / "hours.wav"
    with path.open("wb") as file:  # sparse: no room is taken
        file.write(wav(b"", rate=8000, bits=8, data=8000 * LONG_SECONDS))
        file.truncate(44 + 8000 * LONG_SECONDS)
    yield Case("three hours in a WAV", path, "refused")
    path = folder / "lengths" / "large.wav"
    with path.open("wb") as file:
        file.write(wav(b"", data=2**31 - 100))
        file.truncate(2**31)
    yield Case("a file of 2 GB", path, "refused")


def write_bombs(folder: Path) -> Iterator[Case]:
    """Small files that unpack to three hours of silence."""
    (folder / "bombs").mkdir()
    silence = ("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono:d=60")
    for codec, ending in BOMBS.items():
        path, minute = (folder / "bombs" / f"{name}.{ending}" for name in ("hours", "minute"))
        rate = ("-ar", "8000", "-b:a", "8k") if codec in ("libmp3lame", "aac") else ()
        again = ("-stream_loop", str(LONG_SECONDS // 60 - 1), "-i", str(minute), "-c", "copy")
        made = run_ffmpeg(*silence, "-c:a", codec, *rate, str(minute))
        if made and run_ffmpeg(*again, str(path)):
            yield Case(f"three hours of silence in {codec}", path, "refused")


def write_strangers(folder: Path) -> Iterator[Case]:
    """What is no clip at all, and what asks a player to open something else."""
    (folder / "strangers").mkdir()
    random = np.random.default_rng(7)
    strangers: dict[str, bytes] = {
        "empty.wav": b"",
        "zeros.mp3": bytes(50_000),
        "noise.mp3": random.bytes(200_000),
        "letter.wav": b"Dear all, the recording follows.\n" * 200,
        "markup.wav": b"<script>alert(1)</script><!doctype html>" * 50,
        "picture.png": b"\x89PNG\r\n\x1a\n" + random.bytes(5000),
        "archive.zip": b"PK\x03\x04" + random.bytes(5000),
        "program.exe": b"MZ" + random.bytes(5000),
        "shell.wav": b"#!/bin/sh\nexit 1\n",
        "json.wav": json.dumps({"path": "/etc/passwd"}).encode(),
        "list.m3u8": b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "list.m3u": b"/etc/passwd\n",
        "list.ffconcat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        "list.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=audio 9 RTP/AVP 0\n",
        "list.mpd": b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1/</BaseURL></MPD>",
        "list.pls": b"[playlist]\nFile1=http://127.0.0.1/x\n",
        "lines.srt": b"1\n00:00:00,000 --> 00:00:01,000\nHello\n",
        "pickle.pt": b"\x80\x04cos\nsystem\n(S'exit'\ntR.",
        "magic.flac": b"fLaC" + random.bytes(3000),
        "magic.ogg": b"OggS" + random.bytes(3000),
        "magic.mkv": b"\x1a\x45\xdf\xa3" + random.bytes(3000),
        "magic.mp4": b"\x00\x00\x00\x18ftypmp42" + random.bytes(3000),
        "boxes.mp4": (b"\x00\x00\x00\x18ftypmp42" + bytes(12) + b"\x00\x00\x00\x08moov") * 200,
        "endless-box.mp4": b"\x00\x00\x00\x18ftypmp42" + bytes(12) + b"\xff\xff\xff\xffmoov",
        "big-tag.mp3": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + random.bytes(3000),
    }
    for name, content in strangers.items():
        path = folder / "strangers" / name
        path.write_bytes(content)
        yield Case(name, path, "refused" if not name.startswith(("magic", "noise")) else "either")


NAMES = (
    "<img src=x onerror=alert(1)>.wav",
    "\"quotes\" & 'more'.wav",
    "..\\..\\windows.wav",
    "~root.wav",
    "$(reboot).wav",
    "; rm -rf *.wav",
    "-i.wav",
    "%2e%2e%2fetc.wav",
    "line\nbreak.wav",
    "bell\x07escape\x1b[31m.wav",
    "right\u202eto left.wav",
    "Größe 日本語 🎙️.wav",
    "long " * 40 + ".wav",
    ".hidden.wav",
    "file:letter.wav",
    "concat:a|b.wav",
    "pipe:0.wav",
    " .wav",
)


def write_names(folder: Path) -> Iterator[Case]:
    """A right clip under names with paths, quotes, markup and worse."""
    (folder / "names").mkdir()
    content = wav(as_bytes(tone()))
    for name in NAMES:
        path = folder / "names" / name
        path.write_bytes(content)
        yield Case(f"a clip named {name!r}", path, "heard", SECONDS)


def write_damage(folder: Path, sound: dict[str, Case]) -> Iterator[Case]:
    """Every format once with bytes turned over at random."""
    (folder / "damaged").mkdir()
    random = np.random.default_rng(11)
    for ending, case in sound.items():
        for share in (0.0005, 0.05):
            content = np.frombuffer(case.path.read_bytes(), np.uint8).copy()
            hits = random.random(len(content)) < share
            content[hits] = random.integers(0, 256, int(hits.sum()), np.uint8)
            path = folder / "damaged" / f"{share:g}{ending}"
            path.write_bytes(content.tobytes())
            yield Case(f"{ending} with {share:.2%} of its bytes turned over", path, "either")
