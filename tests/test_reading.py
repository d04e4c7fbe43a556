"""Clips read in a process of their own: whatever one does to its reader, the next one is read."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines import audio, isolation, reading
from engines.base import AudioError, Stopped
from engines.reading import Reader
from tests.processes import PATIENCE, wait_until

SAMPLE = "audio_samples/short.flac"
FAULTY = (sys.executable, "-m", "tests.faulty_reader")


@pytest.fixture
def reader() -> Iterator[Reader]:
    """One that a clip's name breaks."""
    made = Reader(FAULTY)
    yield made
    made.close()


def refusal(reader: Reader, name: str) -> str:
    """What a visitor reads in place of a transcript: one line, one full stop at its end."""
    with pytest.raises(AudioError) as caught:
        reader.load_clip(f"{name}.wav")
    said = str(caught.value)
    assert said.endswith(".") and said.isprintable() and len(said) < 300
    return said


def pid(reader: Reader) -> int:
    assert reader._worker is not None
    return int(reader._worker.pid)


def test_a_clip_is_what_it_is_without_the_process() -> None:
    reader = Reader()
    try:
        clip, expected = reader.load_clip(SAMPLE), audio.load_clip(SAMPLE)
        process = pid(reader)
        with pytest.raises(AudioError, match="There is no file"):
            reader.load_clip("absent.wav")
        with pytest.raises(AudioError, match="links are not followed"):
            reader.load_clip("https://example.org/clip.wav")
        assert pid(reader) == process, "a refusal costs no process"
    finally:
        reader.close()
    assert np.array_equal(clip.samples, expected.samples) and clip.name == expected.name
    assert clip.decode_seconds > 0


@pytest.mark.parametrize("fault", ["segfault", "killed"])
def test_one_that_dies_costs_its_clip_a_sentence(reader: Reader, fault: str) -> None:
    assert refusal(reader, fault).startswith(f"{fault}.wav broke the program that reads clips: ")
    assert reader.load_clip("sound.wav").seconds == 6.0


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit on address space")
def test_a_clip_may_take_so_much_memory(reader: Reader) -> None:
    assert "large.wav takes more memory than reading a clip may" in refusal(reader, "large")
    assert reader.load_clip("sound.wav").seconds == 6.0


def test_a_clip_may_take_so_long(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reader.load_clip("sound.wav").seconds == 6.0
    with monkeypatch.context() as patch:
        patch.setattr(reading, "READ_SECONDS", 1.0)
        assert refusal(reader, "hangs").startswith("hangs.wav takes longer than 1 s to read: ")
    assert reader._worker is None
    assert reader.load_clip("sound.wav").seconds == 6.0


def test_stop_ends_a_reader_that_goes_on(reader: Reader) -> None:
    reader.load_clip("sound.wav")
    worker, wants_to_stop, outcomes = pid(reader), threading.Event(), []

    def read() -> None:
        try:
            reader.load_clip("hangs.wav", wants_to_stop.is_set)
        except Stopped:
            outcomes.append("stopped")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    wait_until(lambda: bool(reader._waiting), "reading")
    wants_to_stop.set()
    thread.join(PATIENCE)
    assert outcomes == ["stopped"]
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_stop_is_heard_between_packets() -> None:
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        audio.load_clip(SAMPLE, lambda: next(asked))


def test_a_reader_that_cannot_be_started_is_told(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(isolation, "start", start)
    assert "could not be started: there was not enough memory" in refusal(reader, "sound")


def test_the_reader_starts_without_pytorch() -> None:
    program = "import engines.reader, sys; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == 0
