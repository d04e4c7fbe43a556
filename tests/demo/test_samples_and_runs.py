"""The list of samples, and whose Stop stops what."""

from __future__ import annotations

from pathlib import Path

from demo.compare import Run
from demo.runs import Runs
from demo.samples import list_samples
from demo.snapshot import Settings
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
    runs.enter("me", mine)
    runs.enter("you", yours)
    assert not runs.stop("me")
    assert mine._stop.is_set()
    assert not yours._stop.is_set()


def test_a_run_stopped_in_the_queue_never_starts() -> None:
    runs = Runs()
    first = runs.draw_ticket("me")
    assert runs.stop("me")
    second = runs.draw_ticket("me")
    assert not runs.take_turn("me", first)
    assert runs.take_turn("me", second)


def test_a_run_that_left_is_not_stopped_again() -> None:
    runs, run = Runs(), make_run()
    runs.enter("me", run)
    runs.leave("me", run)
    runs.stop("me")
    assert not run._stop.is_set()


def test_others_are_counted_while_they_run_or_wait() -> None:
    runs, run = Runs(), make_run()
    runs.enter("you", run)
    ticket = runs.draw_ticket("she")
    assert runs.count_others("me") == 2
    assert runs.count_others("you") == 1
    runs.leave("you", run)
    assert runs.count_others("me") == 1
    runs.take_turn("she", ticket)
    assert runs.count_others("me") == 0
