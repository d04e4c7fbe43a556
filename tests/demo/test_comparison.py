"""Comparisons over fake engines: schedules, failures, clocks and repeats."""

from __future__ import annotations

from dataclasses import replace

import pytest

import demo.snapshot
from demo.record import describe
from demo.snapshot import Comparison, Schedule, Settings, new_comparison
from tests import fakes
from tests.fake_page import make_task

AT_WORK = {"mel", "encoding", "decoding", "compiling"}
SCHEDULES = pytest.mark.parametrize("schedule", ["both", "parallel", "one at a time"])


def states(snapshot: Comparison) -> list[str]:
    return [lane.state for lane in snapshot.lanes]


def count_at_work(snapshot: Comparison) -> int:
    return sum(lane.state in AT_WORK for lane in snapshot.lanes)


@SCHEDULES
def test_both_lanes_finish_with_their_words_and_the_median_times(schedule: Schedule) -> None:
    engines = fakes.FakeEngine(), fakes.fake_max(pace=0.05)
    snapshots = list(make_task(*engines, schedule=schedule, repeats=3).snapshots())
    end = snapshots[-1]
    assert end.finished and states(end) == ["done", "done"] and end.audio_seconds == 6.0
    assert [status.key for status in end.absent] == ["gpu"]
    for lane in end.lanes:
        assert lane.transcript is not None and lane.transcript.text == fakes.WORDS
        assert len(lane.repeats) == len(lane.segments) == 3
        totals = sorted(repeat.seconds.total for repeat in lane.repeats)
        assert lane.transcript.seconds.total == totals[1]
    for snapshot in snapshots:
        assert all(len(lane.segments) <= 3 for lane in snapshot.lanes)


@SCHEDULES
def test_a_failing_lane_says_why_and_leaves_the_others_alone(schedule: Schedule) -> None:
    """One that breaks while it runs, and one that this machine lacks."""
    engines = fakes.FakeEngine(error=ValueError("the graph broke")), fakes.fake_max()
    asked = ("cpu", "gpu", "max_hybrid")
    *_, end = make_task(*engines, engines=asked, schedule=schedule, repeats=3).snapshots()
    assert states(end) == ["failed", "failed", "done"]
    assert [lane.reason for lane in end.lanes[:2]] == [
        "ValueError: the graph broke",
        "no CUDA device was found",
    ]
    assert [len(lane.repeats) for lane in end.lanes] == [0, 0, 3]


def test_all_race_first_and_then_each_runs_alone() -> None:
    engines = fakes.FakeEngine(pace=0.15), fakes.fake_max(pace=0.15)
    seen = list(make_task(*engines, repeats=2).snapshots())
    timed = [snapshot for snapshot in seen if not snapshot.racing]
    assert any(count_at_work(snapshot) == 2 for snapshot in seen if snapshot.racing)
    assert any(lane.partial for snapshot in seen for lane in snapshot.lanes)
    for snapshot in timed:
        assert all(lane.race and lane.race_spans for lane in snapshot.lanes)
        assert count_at_work(snapshot) <= 1 and not any(lane.partial for lane in snapshot.lanes)
    end = seen[-1]
    assert not end.shared and not end.can_time
    assert [len(lane.repeats) for lane in end.lanes] == [2, 2]
    assert all(snapshot.shared for snapshot in seen if not all(x.repeats for x in snapshot.lanes))
    record = describe(end)
    assert not record.shared_processor and record.lanes[0].shared_with == ("max_hybrid",)
    raced = record.lanes[0].race_seconds
    assert raced is not None and raced != record.lanes[0].seconds and len(record.lanes[0].runs) == 2


def test_a_long_clip_only_races_and_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.snapshot, "LONGEST_TIMED", 5.0)
    *_, end = make_task(fakes.FakeEngine(), fakes.fake_max(), repeats=3).snapshots()
    assert states(end) == ["done", "done"] and end.shared and end.can_time
    assert all(lane.race and not lane.repeats for lane in end.lanes)
    *_, alone = make_task(fakes.FakeEngine()).snapshots()
    assert not alone.shared and not alone.can_time and len(alone.lanes[0].repeats) == 1


def test_engines_on_different_devices_share_nothing() -> None:
    engines = fakes.FakeEngine(), fakes.fake_max(device="cuda")
    *_, end = make_task(*engines, schedule="parallel").snapshots()
    assert not end.shared and end.sharing == () and not end.can_time


def test_a_slow_compile_holds_up_no_other_lane_and_is_on_the_comparison_s_clock() -> None:
    task = make_task(fakes.FakeEngine(), fakes.fake_max(compile_seconds=0.5), schedule="parallel")
    seen = list(task.snapshots())
    assert ["done", "compiling"] in map(states, seen) and states(seen[-1]) == ["done", "done"]
    ready = seen[-1].lanes[1].ready
    assert ready is not None and ready.stage == "prepare"
    assert ready.start >= seen[-1].start and ready.seconds >= 0.5


def test_in_turn_no_lane_runs_while_another_compiles_or_runs() -> None:
    engines = fakes.FakeEngine(pace=0.08), fakes.fake_max(pace=0.08, compile_seconds=0.3)
    for snapshot in make_task(*engines, schedule="one at a time", repeats=2).snapshots():
        assert count_at_work(snapshot) <= 1
        cpu, hybrid = (len(lane.repeats) for lane in snapshot.lanes)
        assert hybrid <= cpu <= hybrid + 1


def test_the_clock_starts_anew_with_each_phase() -> None:
    settings = Settings(engines=("cpu",))
    (waiting,) = new_comparison(settings, fakes.STATUSES, "waiting").lanes
    compiling = waiting.enter("compiling", 10.0)
    assert compiling.at(14.0).elapsed == 4.0
    decoding = compiling.enter("encoding", 20.0).enter("decoding", 22.0, audio_done=3.0)
    assert (decoding.at(25.0).elapsed, decoding.audio_done) == (5.0, 3.0)
    assert decoding.enter("failed", 26.0).at(99.0).elapsed == 6.0


def test_only_the_gpu_takes_another_type() -> None:
    settings = Settings(gpu_dtype="float16")
    assert [settings.run_of(key)[2] for key in ("gpu", "cpu")] == ["float16", "float32"]


def test_runs_that_write_different_tokens_are_told() -> None:
    (lane,) = new_comparison(Settings(engines=("cpu",)), fakes.STATUSES, "waiting").lanes
    first = fakes.FakeEngine().transcribe(fakes.make_clip())
    other = replace(first, tokens=(*first.tokens, 7))
    once = lane.finish_repeat(first, last=False, now=1.0)
    assert once.running and once.finish_repeat(first, last=True, now=2.0).steady
    assert not once.finish_repeat(other, last=True, now=2.0).steady
