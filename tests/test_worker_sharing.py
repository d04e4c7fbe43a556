"""Engines that runs borrow, of which one model each is kept, and the process of the analysis."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial

import pytest

from engines import process, registry, worker
from engines.analysis import layers
from engines.analysis.fault_catalogue import FAULTS as FAULT_CATALOGUE
from engines.base import EngineError, Listener, Stopped
from engines.process import Worker, WorkerProcess
from engines.worker import RemoteEngine
from tests.fake_handlers import ANALYSIS, ENGINE
from tests.fakes import make_clip
from tests.processes import PATIENCE, is_gone, wait_until
from tests.workers import Hasty, MakeEngine, Recorder, Waiter, pid, says_its_words


@pytest.fixture
def borrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeEngine]:
    """Borrows `cpu` for a model that doesn't matter, and gets it ready."""
    monkeypatch.setattr(worker, "pick_class", lambda key: partial(RemoteEngine, kind=ENGINE))
    monkeypatch.setattr(worker, "_engines", {})

    def borrow(model: str) -> RemoteEngine:
        engine = worker.borrow_engine("cpu", model)
        assert isinstance(engine, RemoteEngine)
        engine.prepare()
        return engine

    yield borrow
    worker.close_engines()


def test_one_model_is_kept_for_each_engine(borrow: MakeEngine) -> None:
    one = borrow("one")
    worker.release_engine(one)
    assert one.worker.process is not None, "kept for the next run"
    borrow("other")
    assert one.worker.process is None


def test_a_borrowed_engine_is_kept_between_getting_ready_and_running(borrow: MakeEngine) -> None:
    one = borrow("one")
    before, other = pid(one), borrow("other")
    registry.warm(["cpu"], "third", worker.get_engine).join(PATIENCE)
    assert says_its_words(one) and pid(one) == before
    worker.release_engine(one)
    assert one.worker.process is None, "another model was borrowed since"
    assert other.worker.process is not None
    assert worker.borrow_engine("cpu", "other") is other
    third = worker.get_engine("cpu", "third")
    assert isinstance(third, RemoteEngine) and third.worker.process is None


def test_an_engine_whose_process_was_ended_is_not_lost(borrow: MakeEngine) -> None:
    """Whoever got it before may still use it, and `close_engines` finds its process."""
    warmed = worker.get_engine("cpu", "one")
    worker.release_engine(borrow("other"))
    warmed.prepare()
    assert isinstance(warmed, RemoteEngine)
    before = pid(warmed)
    worker.close_engines()
    assert is_gone(before)


def test_a_busy_engine_s_process_is_left_alone(borrow: MakeEngine) -> None:
    one = borrow("deaf")
    worker.release_engine(one)
    busy = Waiter(one)
    wait_until(lambda: busy in one.worker._waiting, "a run")
    borrow("other")
    assert one.worker.process is not None
    busy.leave()


# The analysis.


def compare(analysis: Worker, model: str, listener: Listener | None = None) -> list[object]:
    found: list[object] = analysis.ask(
        "compare_layers", ("cpu",), model, make_clip(), 1.5, listener=listener or Listener()
    )
    return found


def test_the_analysis_reports_fails_in_a_sentence_and_ends_when_idle() -> None:
    start = partial(WorkerProcess, "the analysis", ANALYSIS)
    analysis, listener = Worker("the analysis", start), Recorder()
    assert compare(analysis, "tiny.en", listener)[3] == 1.5
    assert listener.stages == ["comparing"]
    with pytest.raises(EngineError, match=r"process of the analysis ended by SIGSEGV\. The next"):
        compare(analysis, "segfault")
    with pytest.raises(EngineError, match="The clip has 6"):
        compare(analysis, "refuses")
    with pytest.raises(EngineError, match=r"^The analysis failed: .*a graph did not fit"):
        compare(analysis, "raises")
    assert analysis.process is not None
    analysis.close()
    analysis = Worker("the analysis", start, idle_seconds=0.2)
    compare(analysis, "tiny.en")
    wait_until(lambda: analysis.process is None, "its end")


@pytest.mark.parametrize(("model", "ended"), [("patient", False), ("deaf", True)])
def test_stop_ends_the_analysis(model: str, ended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ended:
        monkeypatch.setattr(process, "STOP_SECONDS", PATIENCE)
    analysis = Worker("the analysis", partial(WorkerProcess, "the analysis", ANALYSIS))
    compare(analysis, "tiny.en")
    with pytest.raises(Stopped):
        compare(analysis, model, Hasty())
    assert (analysis.process is None) == ended
    analysis.close()


def test_faults_travel_as_themselves() -> None:
    for fault in FAULT_CATALOGUE:
        assert pickle.loads(pickle.dumps(fault)) is fault


@pytest.mark.max
@pytest.mark.slow
def test_real_layers_and_a_real_fault_are_as_in_this_process() -> None:
    clip = worker.load_clip("audio_samples/jfk.flac")
    names = ["cpu:float32", "max_hybrid:float16"]
    apart = worker.compare_layers(names, "tiny.en", clip)
    found = worker.run_fault("scaled", "tiny.en", clip)
    worker._analysis.close()
    here = layers.compare_layers(names, "tiny.en", clip)
    assert [stage.statistics for stage in apart.stages] == [s.statistics for s in here.stages]
    assert found.fault is next(fault for fault in FAULT_CATALOGUE if fault.key == "scaled")
    assert found.first_stage == "ln_post"
    assert found.right.text.strip() and found.right.features.size == 0
    assert found.faulty is not None and found.faulty.features.size == 0
