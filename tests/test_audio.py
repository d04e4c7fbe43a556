"""Every kind of clip becomes the same mono 16 kHz sound, or one sentence that names the remedy.

The clips are tones made here: what must survive is their frequency, level and length.
"""

from __future__ import annotations

import http.server
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import soundfile
from av.audio.frame import AudioFrame

from engines.audio import load_clip
from engines.base import SAMPLE_RATE, AudioError, Stopped
from tests.bad_input.corpus import wav
from tests.processes import Recorder

TONE_HZ = 440.0
LEVEL = 0.25
"""Root mean square of the tone before it is written to a file."""


class Kind(NamedTuple):
    """How to write one kind of file; `sample_format` is what FFmpeg's encoder wants."""

    extension: str
    codec: str
    sample_format: str
    rate: int = 44_100
    layout: str = "stereo"


WAV = Kind("wav", "pcm_s16le", "s16")
KINDS = [
    Kind("wav", "pcm_u8", "u8"),
    Kind("wav", "pcm_s16le", "s16"),
    Kind("wav", "pcm_s24le", "s32"),
    Kind("wav", "pcm_f32le", "flt"),
    Kind("wav", "pcm_s16le", "s16", rate=8_000, layout="mono"),
    Kind("wav", "pcm_s16le", "s16", rate=48_000, layout="7.1"),
    Kind("wav", "pcm_mulaw", "s16", rate=8_000, layout="mono"),
    Kind("flac", "flac", "s16"),
    Kind("flac", "flac", "s32", rate=96_000, layout="5.1"),
    Kind("aiff", "pcm_s16be", "s16"),
    Kind("mp3", "libmp3lame", "fltp"),
    Kind("m4a", "aac", "fltp", rate=48_000),
    Kind("m4a", "alac", "s16p"),
    Kind("ogg", "vorbis", "fltp"),
    Kind("opus", "libopus", "s16", rate=48_000),
    Kind("webm", "libopus", "s16", rate=48_000, layout="mono"),
    Kind("mkv", "ac3", "fltp", rate=48_000, layout="5.1"),
]


def tone(seconds: float, rate: int) -> np.ndarray:
    """A sine of `TONE_HZ`, float64 `(n,)`, root mean square `LEVEL`."""
    times = np.arange(round(seconds * rate)) / rate
    return LEVEL * np.sqrt(2) * np.sin(2 * np.pi * TONE_HZ * times)


def write_sound(path: Path, kind: Kind, mono: np.ndarray) -> Path:
    """Write the same samples to every channel of a file of this kind."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=kind.rate, options={"strict": "-2"})
        assert isinstance(stream, av.AudioStream)
        stream.layout = kind.layout
        stream.format = kind.sample_format
        channels = stream.layout.nb_channels
        samples = np.repeat(mono.astype(np.float32), channels)[None, :]
        frame = AudioFrame.from_ndarray(samples, format="flt", layout=kind.layout)
        frame.sample_rate = kind.rate
        resampler = av.AudioResampler(kind.sample_format, kind.layout, kind.rate, stream.frame_size)
        for ready in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(ready))
        container.mux(stream.encode(None))
    return path


def write_tone(path: Path, kind: Kind = WAV, seconds: float = 1.0) -> Path:
    """A tone in a file of this kind: 16-bit stereo WAV at 44.1 kHz unless told otherwise."""
    return write_sound(path, kind, tone(seconds, kind.rate))


def loudest_hz(samples: np.ndarray) -> float:
    """The frequency with the most energy."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(samples))


def refusal(path: str | os.PathLike[str], **limits: Any) -> str:
    """The sentence with which a clip is refused; it must be one sentence, on one line."""
    with pytest.raises(AudioError) as caught:
        load_clip(path, **limits)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    assert ". " not in sentence, f"more than one sentence: {sentence}"
    return sentence


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))
def test_a_tone_survives_every_format_and_half_of_it_a_file_that_breaks_off(
    kind: Kind, tmp_path: Path
) -> None:
    sound = tone(6.0, kind.rate)
    sound += np.random.default_rng(3).normal(scale=0.02, size=len(sound))  # gives codecs some work
    path = write_sound(tmp_path / f"tone.{kind.extension}", kind, sound)
    clip = load_clip(path)
    assert clip.samples.dtype == np.float32 and clip.samples.ndim == 1
    assert np.isfinite(clip.samples).all() and np.abs(clip.samples).max() <= 1.0
    # Codecs with a frame length pad the end: at most 0.045 s was seen (AAC).
    assert clip.seconds == pytest.approx(6.0, abs=0.06)
    middle = clip.samples[1600:-1600]
    assert loudest_hz(middle) == pytest.approx(TONE_HZ, abs=2.0)
    level_db = 20 * np.log10(np.sqrt(np.mean(middle**2)) / LEVEL)
    # The widest seen was 0.45 dB (MP3); a channel lost in the mix would be 1 dB or more.
    assert abs(level_db) < 0.6
    assert clip.decode_seconds > 0 and clip.name == f"tone.{kind.extension}"

    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    if kind.extension in ("m4a", "mp4"):  # their index is at the end, and is gone
        assert "try again" in refusal(path)
        return
    clip = load_clip(path)
    assert 1.0 < clip.seconds < 5.0
    assert loudest_hz(clip.samples) == pytest.approx(TONE_HZ, abs=2.0)


def test_sixteen_bit_mono_at_16_khz_arrives_bit_for_bit(tmp_path: Path) -> None:
    written = np.random.default_rng(0).integers(-32768, 32768, 20_000)
    (tmp_path / "noise.wav").write_bytes(wav(written.astype("<i2").tobytes()))
    clip = load_clip(tmp_path / "noise.wav")
    assert np.array_equal(clip.samples, (written / 32768).astype(np.float32))


def test_both_sides_are_heard_silence_is_a_clip_and_loud_sound_is_clipped(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.stack([tone(1.0, 16_000), np.zeros(16_000)], axis=1), 16_000)
    middle = load_clip(path).samples[1600:-1600]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(LEVEL / 2, rel=0.02)
    path.write_bytes(wav(bytes(32_000)))
    assert len(load_clip(path).samples) == SAMPLE_RATE and not load_clip(path).samples.any()
    path.write_bytes(wav(np.full(99, 3.0, "<f4").tobytes(), form=3, bits=32))
    assert load_clip(path).samples.min() > 0.99  # not wrapped around


def test_tags_in_an_old_alphabet_do_no_harm(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "tone.wav")
    text = "Café ".encode("latin-1")
    info = b"INFOIART" + len(text).to_bytes(4, "little") + text + b"\0" * (len(text) % 2)
    path.write_bytes(path.read_bytes() + b"LIST" + len(info).to_bytes(4, "little") + info)
    assert load_clip(path).seconds == pytest.approx(1.0)


def test_a_damaged_middle_does_not_hide_the_rest_and_ffmpeg_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kind = Kind("flac", "flac", "s16")
    path = write_tone(tmp_path / "tone.flac", kind, seconds=3.0)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    path.write_bytes(content)
    assert 2.0 < load_clip(path).seconds < 3.1
    assert capfd.readouterr() == ("", "")


def test_only_the_first_audio_track_of_a_film_is_taken(tmp_path: Path) -> None:
    for name, sounds in (("film.mkv", (tone(0.2, 16_000), np.zeros(3_200))), ("mute.mkv", ())):
        with av.open(str(tmp_path / name), "w") as container:
            picture = container.add_stream("mpeg4", rate=10, width=64, height=48)
            tracks = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in sounds]
            container.mux(picture.encode(av.VideoFrame(64, 48, "yuv420p")))
            for track, values in zip(tracks, sounds, strict=True):
                samples = (values * 32767).astype(np.int16)[None, :]
                frame = AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                frame.sample_rate = 16_000
                container.mux(track.encode(frame))
            container.mux(picture.encode(None))
            for track in tracks:
                container.mux(track.encode(None))
    assert np.abs(load_clip(tmp_path / "film.mkv").samples).max() > LEVEL
    assert "choose a file with sound" in refusal(tmp_path / "mute.mkv")


def test_what_is_no_clip_gets_a_sentence_with_a_remedy(tmp_path: Path) -> None:
    strange = tmp_path / "two\nlines\x1b[31m.wav"
    for empty in (tmp_path / "empty.wav", strange):
        empty.touch()
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear all, the recording follows in my next letter.\n" * 99)
    (tmp_path / "nothing.wav").write_bytes(wav(b""))
    os.mkfifo(tmp_path / "pipe.wav")
    with (tmp_path / "large.wav").open("wb") as file:
        file.truncate(100 * 2**20 + 1)  # a sparse file: no room is taken
    odd: dict[str, tuple[float, dict[str, int]]] = {
        "form.wav": (0.0, {"form": 0x9999}),
        "slow.wav": (0.0, {"rate": 50}),
        "fast.wav": (0.0, {"rate": 1_000_000}),
        "infinite.wav": (-np.inf, {}),
    }
    for name, (last, fields) in odd.items():
        samples = np.r_[tone(0.3, 16_000), last].astype("<f4").tobytes()
        (tmp_path / name).write_bytes(wav(samples, **{"form": 3, "bits": 32, **fields}))
    refusals: dict[str | Path, str] = {
        tmp_path / "form.wav": "unknown here",
        tmp_path / "slow.wav": "convert it to 16000",
        tmp_path / "fast.wav": "convert it to 16000",
        tmp_path / "infinite.wav": "not numbers (NaN or infinite): export it",
        letter: "letter.wav can't be read as audio, so it may be damaged, incomplete or of another "
        "kind: save it as WAV, FLAC, MP3, M4A or Ogg and try again",
        tmp_path / "nothing.wav": "no sound (zero samples): record or export it again",
        tmp_path / "empty.wav": "empty (0 bytes): record or export it again",
        strange: "two\N{REPLACEMENT CHARACTER}lines",
        tmp_path / "gone.wav": f"{tmp_path / 'gone.wav'}: check the path",
        "nul\0byte.wav": "check the path",
        tmp_path: "choose one audio file",
        tmp_path / "pipe.wav": "save the audio to a file first",
        tmp_path / "large.wav": "larger than 100 MB, the limit: shorten it",
        "https://example.org/clip.mp3": "download the file first",
    }
    for path, sentence in refusals.items():
        assert sentence in refusal(path)


class Counter(Recorder):
    """Counts the packets, and wants to stop at one of them."""

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__()
        self.packets, self.stop_at = 0, stop_at

    def stopped(self) -> bool:
        self.packets += 1
        return self.packets == self.stop_at


def test_decoding_ends_at_the_length_limit_or_a_stop_and_reports(tmp_path: Path) -> None:
    kind = Kind("flac", "flac", "s16", rate=8_000, layout="mono")
    path = write_sound(tmp_path / "long.flac", kind, np.zeros(8_000 * 200))
    whole, cut, stopped = Counter(), Counter(), Counter(stop_at=3)
    assert load_clip(path, whole, max_seconds=200.0).seconds == 200
    assert whole.stages == 3 * ["reading"]
    assert all(0 < each.done < each.total == 200 for each in whole.sent)
    assert "longer than 10 seconds" in refusal(path, listener=cut, max_seconds=10.0)
    assert cut.packets < whole.packets / 10, "what comes after the limit is not decoded"
    sentence = refusal(path, max_seconds=120.0)
    assert "longer than 2 minutes, the limit: cut it into shorter parts." in sentence
    with pytest.raises(Stopped):
        load_clip(path, stopped)
    assert stopped.packets == 3


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nu={}\nm=audio 9 RTP/AVP 0\n",
    "list.mpd": "<?xml version='1.0'?><MPD><BaseURL>{}</BaseURL></MPD>",
}
"""Files that ask a player to open another file or host."""


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    secret = write_tone(tmp_path / "secret.wav")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/clip.wav"
        for name, content in PLAYLISTS.items():
            for target in (address, str(secret), secret.as_uri()):
                (tmp_path / name).write_text(content.format(target))
                assert "save it as WAV" in refusal(tmp_path / name)
        server.shutdown()
    assert not asked
