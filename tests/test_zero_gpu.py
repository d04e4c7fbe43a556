"""ZeroGPU over a stand-in for `spaces`: one wrapped generator, and a worker in each call."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo.page import render_expected
from demo.request import ComparisonRequest
from engines import process, registry, worker, zero_gpu
from engines.base import EngineError, EngineUnavailable, Stopped
from engines.worker import RemoteEngine, ZeroGpuEngine
from tests.fake_handlers import ENGINE
from tests.fake_page import make_backend
from tests.fakes import WORDS, make_clip
from tests.processes import PATIENCE, Recorder, Waiter, children, is_living, wait_until
from tests.stand_in.spaces import DEVICE, FakeSpaces

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Spaces are Linux")


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


def make_engine(fault: str) -> ZeroGpuEngine:
    """An engine whose model names its fault."""
    return ZeroGpuEngine("gpu", fault, handler=ENGINE)


def test_a_run_is_a_call_that_has_the_gpu(spaces: FakeSpaces) -> None:
    engine, heard = make_engine("sound"), Recorder()
    for calls in (1, 2):
        transcript = engine.transcribe(make_clip(2.0), listener=heard)
        assert transcript.text.split() == WORDS.split()
        assert transcript.device == engine.device == DEVICE, "the worker was started in the call"
        assert len(spaces.forks) == calls
    assert [s.text for s in heard.segments] == 2 * [s.text for s in transcript.segments]
    assert not any(is_living(fork) for fork in spaces.forks)
    for key in registry.available():
        assert isinstance(worker.get_engine(key), ZeroGpuEngine) is (key != "cpu")
    (function,) = spaces.wrapped
    assert inspect.isgeneratorfunction(function), "one for all"


def test_a_call_asks_for_the_seconds_of_its_clip_and_model(
    spaces: FakeSpaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A visitor without an account has 120 s a day."""
    engine = make_engine("sound")
    for seconds in (2.0, 400.0, 9000.0):
        engine.transcribe(make_clip(seconds))
    short, longer, longest = spaces.asked
    assert short <= 30 < longer < longest == zero_gpu.CALL_SECONDS
    monkeypatch.setenv(zero_gpu.SECONDS, "60")
    assert zero_gpu.estimate_seconds("large-v3", 1800.0, 5) == 60
    base, large = (zero_gpu.estimate_seconds(model, 11.0) for model in ("base", "large-v3"))
    assert base < large <= 60


def test_a_visitor_sees_what_a_comparison_takes_of_the_day(sample_folder: Path) -> None:
    backend = make_backend(sample_folder, is_lent_gpu=lambda key: key == "max_hybrid")
    request = ComparisonRequest.default(backend.choices())
    said = backend.describe_cost(request, 11.0)
    assert "Asks for 2 times 22 s of the GPU. A day's quota (2, 5 or 40 minutes) buys 2 of" in said
    assert "account, 6 with one, 54 with a paid one." in said
    assert said.replace("'", "&#39;") in render_expected(None, said)
    assert "buys none of these without" in zero_gpu.describe_quota(4, 60)
    assert backend.describe_cost(replace(request, engines=("cpu",)), 11.0) == ""


@pytest.mark.max
@pytest.mark.parametrize("key", ["gpu", "max_hybrid", "max_full"])
def test_graphs_are_compiled_before_the_first_call(
    key: str, spaces: FakeSpaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(self: process.Worker, method: str, *given: Any, **named: Any) -> float:
        asked.append((self.handler, self.arguments, method, given))
        return 12.0

    monkeypatch.setattr(process.Worker, "ask", ask)
    prepared = ZeroGpuEngine(key, "tiny.en").prepare()
    given = (worker.COMPILER, ("sm_120a",), "compile", (key, "tiny.en", "float32"))
    assert asked == ([] if key == "gpu" else [given]) and not spaces.forks
    assert prepared.compile == (0.0 if key == "gpu" else 12.0)


def test_the_page_s_process_opens_neither_max_nor_cuda() -> None:
    """All that happens there before a fork."""
    code = (
        "import sys, torch; from engines import registry; from engines.worker import ZeroGpuEngine;"
        "[ZeroGpuEngine(row.key, 'tiny.en').prepare() for row in registry.ENGINES];"
        "print(torch.cuda.is_initialized(), 'max.engine' in sys.modules)"
    )
    env = {**os.environ, zero_gpu.ARCHITECTURE: "none"}  # compiling takes minutes
    found = subprocess.check_output([sys.executable, "-c", code], text=True, env=env)
    assert found == "False False\n"


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_call_that_is_stopped_or_loses_the_gpu_ends_with_its_worker(
    spaces: FakeSpaces, taken_back: bool
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


def test_what_goes_wrong_in_a_call_or_before_it_is_told(spaces: FakeSpaces) -> None:
    with pytest.raises(EngineError, match="GPU has not"):
        make_engine("gpu memory").transcribe(make_clip(1.0))
    engine = make_engine("sound")
    spaces.refusal = "You have exceeded your <b>GPU</b> quota (120s requested vs. 30s left)."
    with pytest.raises(EngineError, match=r"no GPU.*: You have exceeded your GPU quota"):
        engine.transcribe(make_clip(1.0))
    spaces.refusal = None
    assert engine.transcribe(make_clip(1.0)).text.split() == WORDS.split()


@pytest.mark.usefixtures("spaces")
def test_without_the_package_the_reason_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineUnavailable, match="needs the package spaces"):
        worker.get_engine("gpu")
    assert type(worker.get_engine("cpu")) is RemoteEngine
    assert worker.pick_class("max_full") is RemoteEngine, "on the processor, as it says"
    zero_gpu.load_spaces.cache_clear()
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert worker.pick_class("gpu") is RemoteEngine and zero_gpu.why_not() is None
