"""Comparisons over fake engines: independent lanes, immutable snapshots, a quick and clean stop."""

from __future__ import annotations

import threading
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from demo.comparison import ComparisonTask
from demo.snapshot import Comparison, Schedule, Settings, new_comparison
from engines.base import AudioError, CheckpointError, Clip
from tests import fakes
from tests.fake_page import make_task

SCHEDULES = pytest.mark.parametrize("schedule", ["parallel", "one at a time"])


def last(task: ComparisonTask) -> Comparison:
    return list(task.snapshots())[-1]


def states(comparison: Comparison) -> list[str]:
    return [lane.state for lane in comparison.lanes]


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


def test_segments_arrive_before_the_end_and_a_snapshot_never_changes() -> None:
    snapshots, seen = [], []
    for snapshot in make_task(fakes.FakeEngine(pace=0.3), fakes.fake_max()).snapshots():
        snapshots.append(snapshot)
        seen.append(repr(snapshot))
    assert [repr(snapshot) for snapshot in snapshots] == seen
    growing = [len(each.lanes[0].segments) for each in snapshots if each.lanes[0].running]
    assert growing == sorted(growing) and 0 < max(growing) <= 3
    with pytest.raises(FrozenInstanceError):
        snapshots[0].lanes[0].state = "done"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("the graph broke"), "ValueError: the graph broke"),
        (CheckpointError("There is no such model."), "There is no such model."),
    ],
)
@SCHEDULES
def test_a_failing_lane_says_why_and_leaves_the_other_alone(
    schedule: Schedule, error: Exception, reason: str
) -> None:
    broken = fakes.FakeEngine(error=error)
    end = last(make_task(broken, fakes.fake_max(), schedule=schedule, repeats=3))
    assert states(end) == ["failed", "done"] and end.lanes[0].reason == reason
    assert [len(lane.repeats) for lane in end.lanes] == [0, 3]


def test_an_engine_this_machine_lacks_says_why() -> None:
    end = last(make_task(fakes.FakeEngine(), engines=("cpu", "gpu")))
    assert states(end) == ["done", "failed"]
    assert end.lanes[1].reason == "no CUDA device was found"


def test_a_slow_compile_holds_up_no_other_lane_and_is_on_the_comparison_s_clock() -> None:
    task = make_task(fakes.FakeEngine(), fakes.fake_max(compile_seconds=0.5))
    seen = list(task.snapshots())
    assert ["done", "compiling"] in map(states, seen) and states(seen[-1]) == ["done", "done"]
    ready = seen[-1].lanes[1].ready
    assert ready is not None and ready.stage == "prepare"
    assert ready.start >= seen[-1].start and ready.seconds >= 0.5


def test_in_turn_no_lane_runs_while_another_compiles_or_runs() -> None:
    engines = fakes.FakeEngine(pace=0.08), fakes.fake_max(pace=0.08, compile_seconds=0.3)
    at_work = {"mel", "encoding", "decoding", "compiling"}
    for snapshot in make_task(*engines, schedule="one at a time", repeats=2).snapshots():
        assert sum(lane.state in at_work for lane in snapshot.lanes) <= 1
        cpu, hybrid = (len(lane.repeats) for lane in snapshot.lanes)
        assert hybrid <= cpu <= hybrid + 1


@pytest.mark.parametrize("deaf", [False, True])
def test_a_stop_leaves_every_lane_clean_at_once(deaf: bool) -> None:
    """Neither engine comes back before its gate opens, which nobody does."""
    never = threading.Event()
    talking, compiling = (
        fakes.FakeEngine(deaf=deaf, last_word=never),
        fakes.fake_max(compiled=never),
    )
    task, snapshots = make_task(talking, compiling, fakes.FakeEngine("gpu")), []
    for snapshot in task.snapshots():
        snapshots.append(snapshot)
        if all(state in ("decoding", "compiling", "failed") for state in states(snapshot)):
            task.stop()
    assert snapshots[-1].finished and not never.is_set()
    assert states(snapshots[-1]) == ["stopped", "failed", "stopped"]
    never.set()


def test_a_stop_keeps_what_was_finished_and_leaving_is_a_stop() -> None:
    task = make_task(fakes.FakeEngine(), fakes.fake_max(pace=5))
    threading.Timer(0.5, task.stop).start()
    assert states(last(task)) == ["done", "stopped"]
    task = make_task(fakes.FakeEngine(pace=5))
    snapshots = task.snapshots()
    next(snapshots)
    snapshots.close()  # type: ignore[attr-defined]
    assert task.stopped()


def test_a_refused_clip_runs_no_lane() -> None:
    def refuse(path: str, listener: Any) -> Clip:
        raise AudioError("notes.txt holds no audio that can be read.")

    end = last(make_task(fakes.FakeEngine(), load_clip=refuse))
    assert end.refusal == "notes.txt holds no audio that can be read."
    assert states(end) == ["idle"]


def test_the_clock_starts_anew_with_each_phase() -> None:
    settings = Settings(engines=("cpu",))
    (waiting,) = new_comparison(settings, fakes.STATUSES, "waiting").lanes
    compiling = waiting.enter("compiling", 10.0)
    assert compiling.at(14.0).elapsed == 4.0
    decoding = compiling.enter("encoding", 20.0).enter("decoding", 22.0, audio_done=3.0)
    assert (decoding.at(25.0).elapsed, decoding.audio_done) == (5.0, 3.0)
    assert decoding.enter("failed", 26.0).at(99.0).elapsed == 6.0


def test_the_cpu_is_the_baseline_wherever_it_takes_part() -> None:
    both = new_comparison(Settings(engines=("cpu", "max_hybrid")), fakes.STATUSES)
    alone = new_comparison(Settings(engines=("max_hybrid",)), fakes.STATUSES)
    assert both.baseline is both.lanes[0]
    assert alone.baseline is alone.lanes[0]
    assert new_comparison(Settings(), fakes.STATUSES).baseline is None


def test_only_the_gpu_takes_another_type() -> None:
    settings = Settings(gpu_dtype="float16")
    assert (settings.dtype_for("gpu"), settings.dtype_for("cpu")) == ("float16", "float32")


def test_runs_that_write_different_tokens_are_told() -> None:
    (lane,) = new_comparison(Settings(engines=("cpu",)), fakes.STATUSES, "waiting").lanes
    first = fakes.FakeEngine().transcribe(fakes.make_clip())
    other = replace(first, tokens=(*first.tokens, 7))
    once = lane.finish_repeat(first, last=False, now=1.0)
    assert once.running and once.finish_repeat(first, last=True, now=2.0).steady
    assert not once.finish_repeat(other, last=True, now=2.0).steady
