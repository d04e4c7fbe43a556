"""Engines that break in a comparison: their lane says so, the others finish, the next run works."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.snapshot import Comparison
from engines.audio import load_clip
from engines.base import Clip
from engines.worker import RemoteEngine
from tests.engines.checkpoint_files import DIMENSIONS, write_checkpoint
from tests.fake_handlers import ENGINE, ONCE
from tests.fake_page import FakePage, make_task

MakeEngine = Callable[..., RemoteEngine]


@pytest.fixture
def make() -> Iterator[MakeEngine]:
    """Makes an engine in a process of its own."""
    made: list[RemoteEngine] = []

    def make_engine(key: str, model: str, *handler: str) -> RemoteEngine:
        made.append(RemoteEngine(key, model, "float32", *handler))
        return made[-1]

    yield make_engine
    for engine in made:
        engine.close()


def compare(*engines: RemoteEngine, **asked: Any) -> Comparison:
    """The last snapshot of a comparison."""
    *_, last = make_task(*engines, **asked).snapshots()
    return last


def read_fault(comparison: Comparison) -> str:
    """The sentence of the lane that failed, the other being done."""
    sound, broken = comparison.lanes
    assert (sound.state, broken.state) == ("done", "failed")
    said = str(broken.reason)
    assert "\n" not in said and said.endswith(".") and len(said) < 400
    return said


@pytest.mark.parametrize(
    ("fault", "sentence"), [("segfault", "ended by SIGSEGV"), ("raises", "a graph did not fit")]
)
def test_one_lane_says_so_the_other_finishes_the_next_run_works(
    fault: str, sentence: str, make: MakeEngine, tmp_path: Path
) -> None:
    broken = make("max_hybrid", f"{fault}{ONCE}{tmp_path / 'broken'}", ENGINE)
    engines = make("cpu", "sound", ENGINE), broken
    assert sentence in read_fault(compare(*engines))
    assert [lane.state for lane in compare(*engines).lanes] == ["done", "done"]


@pytest.mark.slow
def test_a_model_s_file_that_is_lost_half_way(make: MakeEngine, tmp_path: Path) -> None:
    """A run goes on without it; getting ready says what is wrong, and works once it is back."""
    file = tmp_path / "mine.pt"
    write_checkpoint(file, DIMENSIONS["mini"])
    content, mine = file.read_bytes(), make("cpu", str(file))
    mine.key = "max_hybrid"  # the other lane
    engines = make("cpu", "sound", ENGINE), mine

    def lose_file_and_load_clip(path: str, listener: object) -> Clip:
        mine.prepare()
        file.unlink()
        return load_clip("audio_samples/silence.flac")

    lost = compare(*engines, load_clip=lose_file_and_load_clip)
    assert [lane.state for lane in lost.lanes] == ["done", "done"]
    mine.close()
    assert "There is no model" in read_fault(compare(*engines))
    file.write_bytes(content[: len(content) // 2])
    assert "mine.pt is not a Whisper checkpoint" in read_fault(compare(*engines))
    file.write_bytes(content)
    assert [lane.state for lane in compare(*engines).lanes] == ["done", "done"]


def test_a_disk_that_is_full_refuses_a_clip_in_a_sentence(fake_page: FakePage) -> None:
    """Full while the clip comes in; what was there before it is looked at first."""
    url = fake_page.url
    clip = {"files": ("clip.wav", b"RIFF" + bytes(3 * 2**20))}
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        answer = httpx.post(f"{url}gradio_api/upload", files=clip, timeout=60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer.status_code == 507 and "disk for clips is full" in answer.text
    assert httpx.post(f"{url}gradio_api/upload", files=clip, timeout=60).status_code == 200
