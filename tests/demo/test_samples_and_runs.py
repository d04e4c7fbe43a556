"""The list of samples, and whose Stop stops what."""

from __future__ import annotations

from pathlib import Path

from demo.compare import Run, Settings
from demo.runs import Runs
from demo.samples import list_samples
from tests import fakes


def make_run() -> Run:
    return Run(
        Settings(engines=("cpu",)), fakes.STATUSES, lambda *_: fakes.FakeEngine(), fakes.make_clip
    )


def test_samples_come_titled_ones_first_with_their_references(sample_folder: Path) -> None:
    (sample_folder / "a_clip.flac").touch()
    samples = list_samples(sample_folder)
    assert [sample.title for sample in samples] == ["Short sentence", "Talk, 2:41", "A clip"]
    assert samples[0].reference is not None
    assert samples[1].reference is None


def test_an_empty_folder_has_no_samples(tmp_path: Path) -> None:
    assert list_samples(tmp_path) == ()


def test_a_stop_reaches_only_its_own_visitor_s_run() -> None:
    runs, mine, yours = Runs(), make_run(), make_run()
    assert runs.admit("me", runs.draw_ticket("me"), mine)
    assert runs.admit("you", runs.draw_ticket("you"), yours)
    runs.stop("me")
    assert mine._stop.is_set()
    assert not yours._stop.is_set()


def test_a_run_stopped_in_the_queue_never_starts() -> None:
    runs = Runs()
    first = runs.draw_ticket("me")
    runs.stop("me")
    second = runs.draw_ticket("me")
    assert not runs.admit("me", first, make_run())
    assert runs.admit("me", second, make_run())


def test_a_run_that_left_is_not_stopped_again() -> None:
    runs, run = Runs(), make_run()
    runs.admit("me", runs.draw_ticket("me"), run)
    runs.leave("me", run)
    runs.stop("me")
    assert not run._stop.is_set()
