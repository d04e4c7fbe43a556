"""Clips become mono 16 kHz sound, or one sentence that names the remedy.

Every format, and hundreds of odd files, are in `bad_input`.
"""

from __future__ import annotations

import os
import socket
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.stream import Disposition

from engines.audio import load_clip
from engines.base import SAMPLE_RATE, AudioError, Clip, Segment, Stopped, Word
from engines.clip_clock import count_seconds, fill_pauses, find_parts, set_clock
from engines.clip_source import RIGHT, Clock, Source
from tests.bad_input.corpus import TONE_HZ, as_bytes, tone, wav
from tests.processes import Recorder

LEVEL = 0.25 / np.sqrt(2)
"""Root mean square of the tone."""


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


@pytest.mark.parametrize("ending", ["wav", "aiff", "flac", "mp3", "ogg"])
def test_of_a_file_that_breaks_off_what_is_there_is_heard(ending: str, tmp_path: Path) -> None:
    sound = tone(6.0)
    sound += np.random.default_rng(3).normal(scale=0.02, size=len(sound))  # gives codecs some work
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, sound, SAMPLE_RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    clip = load_clip(path)
    assert 1.0 < clip.seconds < 5.0 and clip.decode_seconds > 0 and clip.name == path.name
    assert loudest_hz(clip.samples) == pytest.approx(TONE_HZ, abs=2.0)


def test_sixteen_bit_mono_at_16_khz_arrives_bit_for_bit(tmp_path: Path) -> None:
    written = np.random.default_rng(0).integers(-32768, 32768, 20_000)
    (tmp_path / "noise.wav").write_bytes(wav(written.astype("<i2").tobytes()))
    clip = load_clip(tmp_path / "noise.wav")
    assert np.array_equal(clip.samples, (written / 32768).astype(np.float32))


def test_both_sides_are_heard_silence_is_a_clip_and_loud_sound_is_clipped(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.stack([tone(1.0), np.zeros(16_000)], axis=1), 16_000)
    middle = load_clip(path).samples[1600:-1600]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(LEVEL / 2, rel=0.02)
    path.write_bytes(wav(bytes(32_000)))
    assert len(load_clip(path).samples) == SAMPLE_RATE and not load_clip(path).samples.any()
    path.write_bytes(wav(np.full(99, 3.0, "<f4").tobytes(), form=3, bits=32))
    assert load_clip(path).samples.min() > 0.99  # not wrapped around


def test_tags_in_an_old_alphabet_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    path.write_bytes(wav(as_bytes(tone(1.0))))
    text = "Café ".encode("latin-1")
    info = b"INFOIART" + len(text).to_bytes(4, "little") + text + b"\0" * (len(text) % 2)
    path.write_bytes(path.read_bytes() + b"LIST" + len(info).to_bytes(4, "little") + info)
    assert load_clip(path).seconds == pytest.approx(1.0)


def test_a_damaged_middle_does_not_hide_the_rest_and_ffmpeg_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, tone(3.0), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    path.write_bytes(content)
    assert 2.0 < load_clip(path).seconds < 3.1
    assert capfd.readouterr() == ("", "")


def write_film(path: Path, *tracks: np.ndarray, late: float = 0.0) -> None:
    """Write a film of two pictures with tracks of sound `(channels, n)` at 16 kHz; the last one is
    the default, and all start `late` by so many seconds."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10, width=64, height=48)
        streams: list[AudioStream] = []
        for number, sound in enumerate(tracks):
            layout = "stereo" if len(sound) == 2 else "mono"
            stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout=layout)
            last = number + 1 == len(tracks)
            stream.disposition = Disposition.default if last else Disposition.comment
            stream.metadata["title"] = f"Title {number + 1}"
            streams.append(stream)
        for at in (0, 30):
            image = av.VideoFrame(64, 48, "yuv420p")
            image.pts = at
            container.mux(picture.encode(image))
        for stream, sound in zip(streams, tracks, strict=True):
            samples = (sound.T.reshape(1, -1) * 32767).astype(np.int16)
            frame = AudioFrame.from_ndarray(samples, format="s16", layout=stream.layout.name)
            frame.sample_rate, frame.pts = SAMPLE_RATE, round(late * SAMPLE_RATE)
            frame.time_base = Fraction(1, SAMPLE_RATE)
            container.mux(stream.encode(frame))
        container.mux(picture.encode(None))
        for stream in streams:
            container.mux(stream.encode(None))


def test_of_a_film_the_default_track_is_heard_and_another_one_on_request(tmp_path: Path) -> None:
    film, sound = tmp_path / "film.mkv", tone(0.2)[None]
    write_film(film, sound * 0, sound)
    clip = load_clip(film)
    assert np.abs(clip.samples).max() > 0.2 and clip.source.track == 2 and clip.source.film
    listed = [(each.number, each.title, each.default) for each in clip.source.tracks]
    assert listed == [(1, "Title 1", False), (2, "Title 2", True)]
    assert not load_clip(film, track=1).samples.any()
    assert "no number 3: choose of 1 (Title 1" in refusal(film, track=3)
    write_film(tmp_path / "mute.mkv")
    assert "choose a file with sound" in refusal(tmp_path / "mute.mkv")


def test_sound_that_starts_late_or_pauses_keeps_the_time_of_its_film(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    write_film(film, tone(2.0)[None], late=1.5)
    clip = load_clip(film)
    assert clip.seconds == pytest.approx(2.0) and clip.source.file_time(0.5) == pytest.approx(2.0)
    segment = set_clock(Segment(0.0, 2.0, "", (), 0.0, (Word(0.5, 1.0, "", 1.0),)), clip.source)
    assert segment.words and segment.words[0].start == pytest.approx(2.0)
    assert (segment.start, segment.end) == (pytest.approx(1.5), pytest.approx(3.5))
    assert fill_pauses(clip).seconds == pytest.approx(3.5)
    assert not fill_pauses(clip).samples[: round(1.4 * SAMPLE_RATE)].any()
    clock = Clock(start=7.0, restarts=False)
    for time, heard in ((7.0, 0.0), (8.0, 1.0), (12.0, 2.0), (2.0, 3.0), (3.0, 4.0)):
        clock.note(time, heard)  # a pause of three seconds, then a clock that was set back
    assert clock.pairs == [(2.0, 3.0)]
    source = Source(clock=tuple(clock.pairs))
    assert (source.file_time(2.0, ends=True), source.file_time(2.0), source.file_time(4.0)) == (
        2.0,
        5.0,
        7.0,
    )


def test_parts_are_named_by_the_file_s_clock_and_end_with_its_last_whole_frame() -> None:
    clock = ((0.0, 3.0), (4.0, 5.0))  # sound from 3 s on, and a pause from 7 to 9 s
    clip = Clip(np.zeros(6 * SAMPLE_RATE + 100, np.float32), "film", source=Source(clock=clock))
    assert find_parts(clip, (1.0, 5.0, 8.0, 10.0)) == (0.0, 2.0, 4.0, 5.0)
    assert find_parts(clip, (9.5, 500.0)) == (4.5, 6.0), "whisper's loop has no end after that"
    assert find_parts(clip, ()) == ()
    with pytest.raises(AudioError, match=r"begins at 12 s, and film ends at 11\.01 s"):
        find_parts(clip, (12.0, 14.0))
    assert count_seconds(clip, (0.0, 2.0, 4.0)) == pytest.approx(4.00625)
    assert count_seconds(clip, ()) == clip.seconds


def test_chained_streams_are_read_to_the_end_over_a_change_of_channels(tmp_path: Path) -> None:
    whole = b""
    for channels in (1, 2, 1):
        path = tmp_path / f"{channels}.opus"
        with av.open(str(path), "w", format="ogg") as container:
            stream = container.add_stream("libopus", rate=48_000, layout=f"{channels} channels")
            samples = (np.repeat(tone(2.0, 48_000), channels)[None] * 32767).astype(np.int16)
            layout = "stereo" if channels == 2 else "mono"
            frame = AudioFrame.from_ndarray(samples, format="s16", layout=layout)
            frame.sample_rate = 48_000
            container.mux([*stream.encode(frame), *stream.encode(None)])
        whole += path.read_bytes()
    (tmp_path / "chain.opus").write_bytes(whole)
    clip = load_clip(tmp_path / "chain.opus")
    assert clip.seconds == pytest.approx(6.0, abs=0.05) and not clip.source.sentences()
    assert np.abs(clip.samples[-8_000:]).max() > 0.2


def test_a_channel_that_the_mix_loses_is_told_and_can_be_taken_alone(tmp_path: Path) -> None:
    path, sound = tmp_path / "call.wav", tone(1.0)
    soundfile.write(path, np.stack([sound, -sound], axis=1), SAMPLE_RATE)
    (note,) = load_clip(path).source.notes
    assert "cancel each other when they are mixed: choose one alone (left, right)" in note
    alone = load_clip(path, channel=RIGHT)
    assert loudest_hz(alone.samples) == pytest.approx(TONE_HZ, abs=2.0) and not alone.source.notes
    assert "2 channels, and no number 3: choose one up to 2" in refusal(path, channel=3)
    soundfile.write(path, np.stack([sound * 0, sound * 0, sound], axis=1), SAMPLE_RATE)
    (note,) = load_clip(path).source.notes
    assert "Channel 3 of call.wav has no place in the mix" in note and "(channel 3)" in note
    assert np.std(load_clip(path, channel=3).samples) == pytest.approx(LEVEL, rel=0.02)


def test_integers_of_24_bits_in_32_are_not_taken_for_floats(tmp_path: Path) -> None:
    values = (tone(1.0) * 2**23).astype("<i4") << 8
    form = struct.pack("<HHIIHH", 0xFFFE, 1, 16_000, 64_000, 4, 32)
    form += struct.pack("<HHI", 22, 24, 4) + bytes.fromhex("0100000000001000800000aa00389b71")
    chunks = b"WAVEfmt " + struct.pack("<I", 40) + form + b"data" + struct.pack("<I", 64_000)
    content = b"RIFF" + struct.pack("<I", 100_000) + chunks + values.tobytes()
    (tmp_path / "wasapi.wav").write_bytes(content)
    clip = load_clip(tmp_path / "wasapi.wav")
    assert clip.seconds == 1.0 and np.std(clip.samples) == pytest.approx(LEVEL, rel=0.01)


def test_telephones_and_laboratories_files_are_read(tmp_path: Path) -> None:
    head = b"NIST_1A\n   1024\nsample_rate -i 16000\nchannel_count -i 1\nsample_n_bytes -i 2\n"
    head += b"sample_count -i 16000\nsample_byte_format -s2 01\nsample_coding -s3 pcm\nend_head\n"
    (tmp_path / "utterance.sph").write_bytes(head.ljust(1024) + as_bytes(tone(1.0)))
    with av.open(str(tmp_path / "asterisk.g722"), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=SAMPLE_RATE, layout="mono")
        samples = (tone(1.0)[None] * 32767).astype(np.int16)
        frame = AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    for name in ("utterance.sph", "asterisk.g722"):
        clip = load_clip(tmp_path / name)
        assert clip.seconds == pytest.approx(1.0, abs=0.03)
        assert loudest_hz(clip.samples) == pytest.approx(TONE_HZ, abs=2.0)


def test_a_file_that_can_be_read_only_in_part_says_so(tmp_path: Path) -> None:
    path = tmp_path / "talk.flac"
    soundfile.write(path, tone(6.0), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xff\xf8" * (len(content) // 4)
    path.write_bytes(content)
    source = load_clip(path).source
    assert source.broke_off.startswith("Only the first 3")
    assert "of talk.flac could be read (its header says that it has 6.0 s)." in source.broke_off


def test_what_is_no_clip_gets_a_sentence_with_a_remedy(tmp_path: Path) -> None:
    strange = tmp_path / "two\nlines\x1b[31m.wav"
    for empty in (tmp_path / "empty.wav", strange):
        empty.touch()
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear all, the recording follows in my next letter.\n" * 99)
    noise, film = tmp_path / "noise.wav", tmp_path / "film.mp4"
    noise.write_bytes(b"\0" + bytes(range(250, 256)) * 99)
    film.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(12) + b"\0\0\x40\0mdat" + bytes(999))
    (tmp_path / "nothing.wav").write_bytes(wav(b""))
    (tmp_path / "slow.wav").write_bytes(wav(as_bytes(tone(1.0)), rate=50))
    infinite = np.full(999, -np.inf, "<f4").tobytes()
    (tmp_path / "infinite.wav").write_bytes(wav(infinite, form=3, bits=32))
    (tmp_path / "radio.c2").write_bytes(b"\xc0\xde\xc2\x00\x08\x04\x00" + bytes(range(1, 251)))
    with av.open(str(tmp_path / "bare.nut"), "w", format="nut") as container:
        stream = container.add_stream("adpcm_ima_wav", rate=SAMPLE_RATE, layout="mono")
        frame = AudioFrame(format="s16p", layout="mono", samples=stream.frame_size or 2041)
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    os.mkfifo(tmp_path / "pipe.wav")
    with (tmp_path / "large.wav").open("wb") as file:
        file.truncate(100 * 2**20 + 1)  # a sparse file: no room is taken
    refusals: dict[str | Path, str] = {
        tmp_path / "slow.wav": "convert it to 16000",
        tmp_path / "infinite.wav": "not numbers (NaN or infinite): export it",
        letter: "letter.wav can't be read as audio, as it is a text: choose an audio file",
        noise: "noise.wav can't be read as audio, so it may be damaged, incomplete or of another "
        "kind: save it as WAV, FLAC, MP3, M4A or Ogg and try again",
        tmp_path / "radio.c2": "a coding unknown here: save it as WAV",
        tmp_path / "bare.nut": "has adpcm_ima_wav sound without what is needed to decode it",
        film: "it lacks the index of an MP4 or MOV file",
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


def test_decoding_ends_at_the_length_limit_or_a_stop_and_reports(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(8_000 * 200), 8_000)
    whole, cut, stopped = Recorder(), Recorder(), Recorder(patience=2)
    assert load_clip(path, whole, max_seconds=200.0).seconds == 200
    assert whole.stages == 3 * ["reading"]
    assert all(0 < each.done < each.total == 200 for each in whole.sent)
    assert "longer than 10 seconds" in refusal(path, listener=cut, max_seconds=10.0)
    assert cut.asked < whole.asked / 10, "what comes after the limit is not decoded"
    sentence = refusal(path, max_seconds=120.0)
    assert "longer than 2 minutes, the limit: cut it into shorter parts." in sentence
    with pytest.raises(Stopped):
        load_clip(path, stopped)
    assert stopped.asked == 3


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nu={}\nm=audio 9 RTP/AVP 0\n",
    "list.mpd": "<?xml version='1.0'?><MPD><BaseURL>{}</BaseURL></MPD>",
}
"""Files that ask a player to open another file or host."""


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(as_bytes(tone(1.0))))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/clip.wav"
        for name, content in PLAYLISTS.items():
            for target in (address, str(secret), secret.as_uri()):
                (tmp_path / name).write_text(content.format(target))
                assert "it is a playlist" in refusal(tmp_path / name)
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()
