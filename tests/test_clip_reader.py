"""Clips read in a process of their own: whatever one does to its reader, the next one is read."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from engines import audio, worker
from engines.base import AudioError, EngineError, Stopped
from engines.process import Worker
from tests.fake_handlers import CLIPS
from tests.processes import Waiter, is_living, wait_until

SAMPLE = "audio_samples/jfk.flac"


@pytest.fixture(scope="module")
def fake_reader() -> Iterator[Worker]:
    made = Worker("the clip reader", CLIPS)
    yield made
    made.close()
    worker.reader.close()


@pytest.fixture
def reader(fake_reader: Worker, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A reader that a clip's name breaks, in place of the program's."""
    monkeypatch.setattr(worker, "reader", fake_reader)
    return fake_reader


def stored() -> list[str]:
    return os.listdir(worker.clip_folder().name)


def refusal(name: str) -> str:
    """What a visitor reads in place of a transcript: one line, one full stop at its end."""
    with pytest.raises(AudioError) as caught:
        worker.load_clip(f"{name}.wav")
    said = str(caught.value)
    assert said.endswith(".") and said.isprintable() and len(said) < 300
    return said


def test_a_clip_is_what_it_is_without_the_process() -> None:
    clip, expected = worker.load_clip(SAMPLE), audio.load_clip(SAMPLE)
    process = worker.reader.pid
    with pytest.raises(AudioError, match="links are not followed"):
        worker.load_clip("https://example.org/clip.wav")
    assert worker.reader.pid == process, "a refusal costs no process"
    assert np.array_equal(clip.samples, expected.samples) and clip.name == expected.name
    assert clip.decode_seconds > 0


def test_a_clip_travels_as_a_path_and_its_file_goes_with_it(reader: Worker) -> None:
    gc.collect()
    before = len(stored())
    clip = worker.load_clip("sound.wav")
    assert len(stored()) == before + 1
    content = pickle.dumps(clip)
    assert len(content) < 1000 and np.array_equal(pickle.loads(content).samples, clip.samples)
    half = replace(clip, samples=clip.samples[:8000])
    assert len(pickle.loads(pickle.dumps(half)).samples) == 8000, "not the whole file"
    del clip
    assert len(stored()) == before
    shutil.rmtree(worker.clip_folder().name)  # as whatever tidies up old temporary files does
    assert worker.load_clip("sound.wav").seconds == 1.0


linux = pytest.mark.skipif(sys.platform != "linux", reason="sets a limit on address space")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("segfault", "segfault.wav broke the program that reads clips: "),
        ("raises", "raises.wav broke the program that reads clips: "),
        pytest.param("large", "large.wav takes more memory than reading a clip may", marks=linux),
        pytest.param("disk", "disk.wav can't be stored: the disk is full", marks=linux),
    ],
)
def test_what_breaks_the_reader_costs_its_clip_a_sentence(
    reader: Worker, fault: str, sentence: str
) -> None:
    before = stored()
    assert refusal(fault).startswith(sentence)
    assert stored() == before and worker.load_clip("sound.wav").seconds == 1.0


def test_a_reader_that_was_killed_is_started_again_before_the_clip_is_blamed(
    reader: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = worker.start_reader
    killed: list[int | None] = []

    def start_and_kill() -> None:
        start()
        if not killed:
            killed.append(reader.pid)
            os.kill(reader.pid or 0, signal.SIGKILL)

    monkeypatch.setattr(worker, "start_reader", start_and_kill)
    assert worker.load_clip("sound.wav").seconds == 1.0 and reader.pid not in killed


def test_a_clip_may_take_so_long_and_stop_ends_its_reading(
    reader: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.load_clip("sound.wav")
    process = reader.pid or 0
    waiter = Waiter(partial(worker.load_clip, "deaf.wav"))
    wait_until(lambda: bool(reader._waiting), "reading")
    waiter.leave()
    assert isinstance(waiter.outcome, Stopped) and not is_living(process)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "READ_SECONDS", 1.0)
        assert refusal("deaf").startswith("deaf.wav takes longer than 1 s to read: ")
    assert reader.pid is None and worker.load_clip("sound.wav").seconds == 1.0


def test_a_reader_that_cannot_be_started_is_told(
    reader: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    reader.close()
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(EngineError, match="could not be started: there was not enough memory"):
        worker.load_clip("sound.wav")
