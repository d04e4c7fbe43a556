"""Engines that break in a comparison: their lane says so, the others finish, the next run works.

`test_isolation.py` has what one engine's process does; here whole comparisons go through it.
"""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from demo.comparison import ComparisonTask
from demo.snapshot import Comparison, Settings
from engines import registry
from engines.audio import load_clip
from engines.base import Clip, EngineError
from engines.checkpoints import NANO_PATH
from engines.isolation import IsolatedEngine
from tests import fakes
from tests.faulty_worker import ONCE
from tests.test_isolation import COMMAND

Make = Callable[..., IsolatedEngine]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes an engine in a process of its own."""
    made: list[IsolatedEngine] = []

    def make_engine(key: str, model: str, *command: str) -> IsolatedEngine:
        words = (command,) if command else ()
        made.append(IsolatedEngine(key, model, "float32", registry.row(key), *words))
        return made[-1]

    yield make_engine
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def sound() -> Iterator[IsolatedEngine]:
    """The engine beside, with which nothing is wrong."""
    engine = IsolatedEngine("cpu", "sound", "float32", registry.row("cpu"), COMMAND)
    yield engine
    engine.close()


def compare(
    engines: dict[str, IsolatedEngine], open_clip: Callable[..., Clip] = fakes.open_fake_clip
) -> Comparison:
    """The last snapshot of a comparison of two engines."""
    settings = Settings(engines=tuple(engines), model="tiny.en", schedule="parallel")
    run = ComparisonTask(settings, fakes.STATUSES, lambda key, *_: engines[key], open_clip)
    *_, last = run.snapshots()
    return last


def read_fault(comparison: Comparison) -> str:
    """The sentence of the lane that failed, the other being done."""
    sound, broken = comparison.lanes
    assert (sound.state, broken.state) == ("done", "failed")
    said = str(broken.reason)
    assert "\n" not in said and said.endswith(".") and len(said) < 320
    return said


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("segfault", "ended by SIGSEGV"),
        ("killed", "it was killed"),
        ("memory", "not enough memory"),
        ("gpu memory", "the GPU has not enough memory"),
        ("disk", "the disk is full"),
        ("raises", "a graph did not fit"),
        ("pages", "one thing after another"),
    ],
)
def test_one_lane_says_so_the_other_finishes_the_next_run_works(
    fault: str, sentence: str, sound: IsolatedEngine, make: Make, tmp_path: Path
) -> None:
    broken = make("max_hybrid", f"{fault}{ONCE}{tmp_path / 'broken'}", *COMMAND)
    engines = {"cpu": sound, "max_hybrid": broken}
    assert sentence in read_fault(compare(engines))
    assert [lane.state for lane in compare(engines).lanes] == ["done", "done"]


def test_a_model_s_file_that_is_lost_half_way(
    sound: IsolatedEngine, make: Make, tmp_path: Path
) -> None:
    """A run goes on without it; getting ready says what is wrong, and works once it is back."""
    file = Path(shutil.copy(NANO_PATH, tmp_path / "mine.pt"))
    engines = {"cpu": sound, "max_hybrid": make("cpu", str(file))}
    mine = engines["max_hybrid"]

    def lose_file_and_open_clip(stopped: object) -> Clip:
        mine.prepare()
        file.unlink()
        return load_clip("audio_samples/jfk.flac")

    assert [lane.state for lane in compare(engines, lose_file_and_open_clip).lanes] == 2 * ["done"]
    mine.close()
    assert "There is no model" in read_fault(compare(engines))
    content = NANO_PATH.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "mine.pt is not a Whisper checkpoint" in read_fault(compare(engines))
    file.write_bytes(content)
    assert [lane.state for lane in compare(engines).lanes] == ["done", "done"]


def test_memory_that_runs_out_while_loading_is_told_as_that(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a file that is no checkpoint."""

    def load(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("torch.load", load)
    registry.release("tiny.en")
    with pytest.raises(EngineError, match="there was not enough memory"):
        registry.get("cpu").prepare()
    monkeypatch.undo()
    assert registry.get("cpu").prepare().load > 0


def test_a_disk_that_is_full_refuses_a_clip_in_a_sentence(
    serve_fakes: Callable[..., str],
) -> None:
    """Full while the clip comes in; what was there before it is looked at first."""
    url = serve_fakes(cpu=fakes.FakeEngine(), max_hybrid=fakes.FakeEngine("max_hybrid"))
    clip = {"files": ("clip.wav", b"RIFF" + bytes(3 * 2**20))}
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        answer = httpx.post(f"{url}gradio_api/upload", files=clip, timeout=60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer.status_code == 507 and "disk for clips is full" in answer.json()["detail"]
    assert httpx.post(f"{url}gradio_api/upload", files=clip, timeout=60).status_code == 200
