"""Clips read in a process of their own: whatever one does to its reader, the next one is read."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engines import audio, worker
from engines.base import AudioError, Clip, EngineError, Listener, Stopped
from engines.process import Worker, WorkerProcess
from tests.fake_handlers import CLIPS
from tests.processes import PATIENCE, is_gone, wait_until

SAMPLE = "audio_samples/jfk.flac"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A reader that a clip's name breaks, in place of the program's."""
    made = Worker("the clip reader", partial(WorkerProcess, "the clip reader", CLIPS))
    monkeypatch.setattr(worker, "_reader", made)
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def end_real_reader() -> Iterator[None]:
    yield
    worker._reader.close()


def stored() -> list[str]:
    """The samples that this process keeps."""
    return [name for name in os.listdir(worker._clip_folder()) if name.endswith(".npy")]


def refusal(name: str) -> str:
    """What a visitor reads in place of a transcript: one line, one full stop at its end."""
    with pytest.raises(AudioError) as caught:
        worker.load_clip(f"{name}.wav")
    said = str(caught.value)
    assert said.endswith(".") and said.isprintable() and len(said) < 300
    return said


def test_a_clip_is_what_it_is_without_the_process() -> None:
    clip, expected = worker.load_clip(SAMPLE), audio.load_clip(SAMPLE)
    process = worker._reader.process.pid
    with pytest.raises(AudioError, match="There is no file"):
        worker.load_clip("absent.wav")
    with pytest.raises(AudioError, match="links are not followed"):
        worker.load_clip("https://example.org/clip.wav")
    assert worker._reader.process.pid == process, "a refusal costs no process"
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
    with pytest.raises(AudioError):
        worker.load_clip("segfault.wav")
    del clip
    assert len(stored()) == before


def test_a_folder_that_was_tidied_away_is_made_anew(reader: Worker) -> None:
    shutil.rmtree(worker._clip_folder())
    assert worker.load_clip("sound.wav").seconds == 1.0


def test_samples_that_are_gone_are_an_answer(reader: Worker, tmp_path: Path) -> None:
    """A clip whose file was removed before the worker opened it costs no process."""
    worker.load_clip("sound.wav")
    process = reader.process.pid
    np.save(tmp_path / "samples.npy", np.zeros(8, np.float32))
    from engines.base import open_clip

    clip: Clip = open_clip(str(tmp_path / "samples.npy"), "clip", 0.0)
    (tmp_path / "samples.npy").unlink()
    with pytest.raises(EngineError, match="FileNotFoundError"):
        reader.ask("read", clip)
    assert reader.process.pid == process


@pytest.mark.parametrize("fault", ["segfault", "killed", "raises"])
def test_what_breaks_the_reader_costs_its_clip_a_sentence(reader: Worker, fault: str) -> None:
    assert refusal(fault).startswith(f"{fault}.wav broke the program that reads clips: ")
    assert worker.load_clip("sound.wav").seconds == 1.0


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit on address space")
def test_a_clip_may_take_so_much_memory_and_disk(reader: Worker) -> None:
    assert "large.wav takes more memory than reading a clip may" in refusal("large")
    assert "disk.wav can't be stored: the disk is full" in refusal("disk")
    assert worker.load_clip("sound.wav").seconds == 1.0


def test_a_clip_may_take_so_long(reader: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.load_clip("sound.wav")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "READ_SECONDS", 1.0)
        assert refusal("deaf").startswith("deaf.wav takes longer than 1 s to read: ")
    assert reader.process is None
    assert worker.load_clip("sound.wav").seconds == 1.0


def test_stop_ends_a_reader_that_goes_on(reader: Worker) -> None:
    worker.load_clip("sound.wav")
    process, stop, outcomes = reader.process.pid, threading.Event(), []
    listener = Listener()
    listener.stopped = stop.is_set  # type: ignore[method-assign]

    def read() -> None:
        try:
            worker.load_clip("deaf.wav", listener)
        except Stopped:
            outcomes.append("stopped")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    wait_until(lambda: bool(reader._waiting), "reading")
    stop.set()
    thread.join(PATIENCE)
    assert outcomes == ["stopped"] and is_gone(process)


def test_a_reader_that_cannot_be_started_is_told(
    reader: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(EngineError, match="could not be started: there was not enough memory"):
        worker.load_clip("sound.wav")


def test_the_reader_starts_without_pytorch() -> None:
    program = (
        "import sys, engines.worker_process, engines.worker_handlers as handlers;"
        "handlers.ClipHandler(); sys.exit('torch' in sys.modules or 'max' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


KEEP = """
import sys, threading
from engines import worker
clip = worker.load_clip(sys.argv[1])
print(clip.file, flush=True)
if len(sys.argv) > 2: threading.Event().wait()
"""


def test_a_killed_program_s_samples_are_removed_at_the_next_start(tmp_path: Path) -> None:
    """And those of a program that ended by itself at its end; a living one's stay."""
    (tmp_path / "max-whisper-clips-file").touch()
    (tmp_path / "max-whisper-clips-link").symlink_to(ROOT)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", KEEP, SAMPLE]

    def start_keeping() -> tuple[subprocess.Popen[str], Path]:
        kept = subprocess.Popen(
            [*command, "wait"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert kept.stdout is not None
        return kept, Path(kept.stdout.readline().strip())

    living, its_file = start_keeping()
    killed, lost = start_keeping()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert lost.exists() and oct(lost.parent.stat().st_mode).endswith("700")
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert its_file.exists() and not lost.parent.exists() and (ROOT / "app.py").exists()
    folders = [path for path in tmp_path.glob("max-whisper-*") if path.is_dir()]
    assert sorted(folders) == sorted([its_file.parent, tmp_path / "max-whisper-clips-link"])
    living.terminate()
    living.communicate()
