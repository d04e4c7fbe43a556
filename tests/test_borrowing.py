"""Engines in processes that runs borrow: one model is kept, and nobody's is taken away."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from engines import isolation, registry
from engines.isolation import IsolatedEngine
from tests.fakes import WORDS, make_clip
from tests.processes import PATIENCE, wait_until
from tests.test_isolation import COMMAND, pid


@pytest.fixture
def borrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], IsolatedEngine]]:
    """Borrows `cpu` for a model that doesn't matter, and gets it ready."""
    monkeypatch.setattr(
        isolation, "pick_kind", lambda key: partial(IsolatedEngine, command=COMMAND)
    )
    monkeypatch.setattr(isolation, "_engines", {})

    def borrow(model: str) -> IsolatedEngine:
        engine = isolation.borrow("cpu", model)
        assert isinstance(engine, IsolatedEngine)
        engine.prepare()
        return engine

    yield borrow
    isolation.close_all()


Borrow = Callable[[str], IsolatedEngine]


def test_one_model_is_kept_for_each_engine(borrow: Borrow) -> None:
    one = borrow("one")
    isolation.give_back(one)
    assert one._worker is not None, "kept for the next run"
    borrow("other")
    assert one._worker is None


def test_a_borrowed_engine_is_kept_between_getting_ready_and_running(borrow: Borrow) -> None:
    one = borrow("one")
    before, other = pid(one), borrow("other")
    registry.warm(["cpu"], "third", isolation.get).join(PATIENCE)
    assert one.transcribe(make_clip(1.0)).text.split() == WORDS.split()
    assert pid(one) == before
    isolation.give_back(one)
    assert one._worker is None, "another model was borrowed since"
    assert other._worker is not None
    assert isolation.borrow("cpu", "other") is other
    third = isolation.get("cpu", "third")
    assert isinstance(third, IsolatedEngine) and third._worker is None


def test_an_engine_whose_process_was_ended_is_not_lost(borrow: Borrow) -> None:
    """Whoever got it before it had to go may still use it, and `close_all` finds its process."""
    warmed = isolation.get("cpu", "one")
    isolation.give_back(borrow("other"))
    warmed.prepare()
    assert isinstance(warmed, IsolatedEngine)
    worker = pid(warmed)
    isolation.close_all()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_comparison_gives_back_what_it_borrowed(borrow: Borrow) -> None:
    from demo.comparison import ComparisonTask
    from demo.snapshot import Settings
    from tests import fakes

    for model in ("sound", "raises", "absent"):
        run = ComparisonTask(
            Settings(("cpu",), model),
            fakes.STATUSES,
            isolation.borrow,
            fakes.open_fake_clip,
            release_engine=isolation.give_back,
        )
        list(run.snapshots())
    engines = list(isolation._engines.values())
    wait_until(lambda: not any(engine.borrowers for engine in engines), "the last to be given back")
    assert len(engines) == 3


def test_a_busy_engine_s_process_is_left_alone(borrow: Borrow) -> None:
    one = borrow("one")
    isolation.give_back(one)
    using, done = threading.Event(), threading.Event()

    def use() -> None:
        with one._one_at_a_time:
            using.set()
            done.wait(PATIENCE)

    threading.Thread(target=use, daemon=True).start()
    using.wait(PATIENCE)
    borrow("other")
    assert one._worker is not None
    done.set()
