"""ZeroGPU over a stand-in for `spaces`: one wrapped generator, and a worker in each call."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engines import registry, worker, zero_gpu
from engines.base import EngineError, EngineUnavailable, Stopped
from engines.worker import RemoteEngine, ZeroGpuEngine
from tests.fake_handlers import ENGINE
from tests.fakes import WORDS, make_clip
from tests.processes import PATIENCE, Recorder, Waiter, children, is_living, wait_until

MakeEngine = Callable[[str], ZeroGpuEngine]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Spaces are Linux")

FORK = multiprocessing.get_context("fork")
DEVICE = "GPU-of-this-call"


class Error(Exception):
    """Stands in for `gradio.Error`."""

    def __init__(self, message: str) -> None:
        self.message = message


class FakeSpaces:
    """Stands in for the package: a wrapped generator runs in a forked process.

    As `spaces` 0.51 has it: arguments and results travel pickled, a closed generator is closed in
    the fork before its next result, and what goes wrong there arrives as an error with a title.
    `refusal` is what the next call is told in place of getting a GPU.
    """

    def __init__(self) -> None:
        self.wrapped: list[tuple[Callable[..., Any], int]] = []
        self.forks: list[int] = []
        self.refusal: str | None = None

    def GPU(self, duration: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """The decorator."""

        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            self.wrapped.append((function, duration))
            return lambda *arguments: self._call(function, arguments)

        return wrap

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Iterator[Any]:
        if self.refusal is not None:
            raise Error(self.refusal)
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=serve, args=(function, arguments, ours, theirs))
        process.start()
        self.forks.append(process.pid or 0)
        theirs.close()
        try:
            while (result := ours.recv()) is not StopIteration:
                yield result
        except EOFError:
            raise Error("GPU task aborted") from None
        finally:
            ours.close()
            process.join()


def serve(function: Callable[..., Any], arguments: tuple[Any, ...], ours: Any, theirs: Any) -> None:
    """What the forked process does, until nobody listens any more."""
    ours.close()
    os.environ["CUDA_VISIBLE_DEVICES"] = DEVICE
    generator = function(*arguments)
    try:
        for value in generator:
            theirs.send(value)
        theirs.send(StopIteration)
    except BrokenPipeError:
        generator.close()


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSpaces]:
    """A Space with ZeroGPU."""
    fake = FakeSpaces()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", fake)
    zero_gpu.load_spaces.cache_clear()
    zero_gpu.register.cache_clear()
    yield fake
    zero_gpu.load_spaces.cache_clear()
    zero_gpu.register.cache_clear()
    worker.close_engines()


@pytest.fixture
def make_engine(spaces: FakeSpaces) -> MakeEngine:
    """Makes an engine whose model names its fault."""
    return lambda fault: ZeroGpuEngine("gpu", fault, handler=ENGINE)


def test_a_run_is_a_call_that_has_the_gpu(make_engine: MakeEngine, spaces: FakeSpaces) -> None:
    engine, heard = make_engine("sound"), Recorder()
    for calls in (1, 2):
        transcript = engine.transcribe(make_clip(2.0), listener=heard)
        assert transcript.text.split() == WORDS.split()
        assert transcript.device == engine.device == DEVICE, "the worker was started in the call"
        assert len(spaces.forks) == calls
    assert [s.text for s in heard.segments] == 2 * [s.text for s in transcript.segments]
    assert not any(is_living(fork) for fork in spaces.forks)


def test_one_generator_is_wrapped_for_all_engines(spaces: FakeSpaces) -> None:
    made = [worker.get_engine(key) for key in registry.available() if key != "cpu"]
    assert all(isinstance(engine, ZeroGpuEngine) for engine in made)
    assert not isinstance(worker.get_engine("cpu"), ZeroGpuEngine)
    zero_gpu.register()
    zero_gpu.register()
    ((function, seconds),) = spaces.wrapped
    assert inspect.isgeneratorfunction(function) and seconds == zero_gpu.CALL_SECONDS


def test_the_page_s_process_opens_neither_max_nor_cuda() -> None:
    """All that happens there before a fork."""
    code = (
        "import sys, torch; from engines import registry; from engines.worker import ZeroGpuEngine;"
        "[ZeroGpuEngine(row.key, 'tiny.en').prepare() for row in registry.ENGINES];"
        "print(torch.cuda.is_initialized(), 'max.engine' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_call_that_is_stopped_or_loses_the_gpu_ends_with_its_worker(
    make_engine: MakeEngine, spaces: FakeSpaces, taken_back: bool
) -> None:
    engine = make_engine("deaf")
    visitor = Waiter(lambda listener: engine.transcribe(make_clip(1.0), listener=listener))
    wait_until(lambda: bool(spaces.forks and children(spaces.forks[0])), "the call's worker")
    (process,) = children(spaces.forks[0])
    if taken_back:
        os.kill(spaces.forks[0], signal.SIGKILL)
        visitor.thread.join(PATIENCE)
        assert "took it back: GPU task aborted" in str(visitor.outcome)
    else:
        visitor.leave()
        assert isinstance(visitor.outcome, Stopped)
    wait_until(lambda: not is_living(process), "the end of the worker")


def test_what_goes_wrong_in_a_call_or_before_it_is_told(
    make_engine: MakeEngine, spaces: FakeSpaces
) -> None:
    with pytest.raises(EngineError, match="GPU has not"):
        make_engine("gpu memory").transcribe(make_clip(1.0))
    engine = make_engine("sound")
    spaces.refusal = "You have exceeded your <b>GPU</b> quota (120s requested vs. 30s left)."
    with pytest.raises(EngineError, match=r"no GPU.*: You have exceeded your GPU quota"):
        engine.transcribe(make_clip(1.0))
    spaces.refusal = None
    assert engine.transcribe(make_clip(1.0)).text.split() == WORDS.split()


def test_without_the_package_the_reason_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    zero_gpu.load_spaces.cache_clear()
    try:
        with pytest.raises(EngineUnavailable, match="needs the package spaces"):
            worker.get_engine("gpu")
        assert type(worker.get_engine("cpu")) is RemoteEngine
        assert worker.pick_class("max_full") is RemoteEngine, "on the processor, as it says"
    finally:
        zero_gpu.load_spaces.cache_clear()
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert worker.pick_class("gpu") is RemoteEngine and zero_gpu.why_not() is None
