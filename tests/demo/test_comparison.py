"""Comparisons over fake engines: lanes are independent, snapshots immutable, a stop is quick and clean."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import pytest

from demo.comparison import ComparisonTask
from demo.snapshot import (
    Changed,
    Comparison,
    Finished,
    Refused,
    Schedule,
    Settings,
    advance,
    lay_out,
    tick,
)
from engines.base import AudioError, CheckpointError, Clip, Engine, Options
from tests import fakes


def make_task(
    *engines: fakes.FakeEngine,
    schedule: Schedule = "parallel",
    chosen: tuple[str, ...] = (),
    open_clip: Callable[..., Clip] = fakes.open_fake_clip,
    reference: str | None = None,
    repeats: int = 1,
) -> ComparisonTask:
    by_key: dict[str, Engine] = {engine.key: engine for engine in engines}
    settings = Settings(engines=chosen or tuple(by_key), schedule=schedule, repeats=repeats)
    return ComparisonTask(
        settings,
        fakes.STATUSES,
        lambda key, model, dtype: by_key[key],
        open_clip,
        reference=reference,
    )


def last(task: ComparisonTask) -> Comparison:
    return list(task.snapshots())[-1]


@pytest.mark.parametrize("schedule", ["parallel", "one at a time"])
def test_both_lanes_finish_with_their_words(schedule: Schedule) -> None:
    end = last(make_task(fakes.FakeEngine(), fakes.fake_max(), schedule=schedule))
    assert end.finished
    assert [lane.state for lane in end.lanes] == ["done", "done"]
    assert [lane.transcript.text for lane in end.done if lane.transcript] == [fakes.WORDS] * 2
    assert end.audio_seconds == 6.0


def test_segments_arrive_before_the_end() -> None:
    snapshots = list(make_task(fakes.FakeEngine(pace=0.3)).snapshots())
    growing = [len(s.lanes[0].segments) for s in snapshots if s.lanes[0].running]
    assert growing == sorted(growing)
    assert 0 < max(growing) <= 3
    assert len(snapshots[-1].lanes[0].segments) == 3


def test_a_snapshot_keeps_what_it_said() -> None:
    snapshots = []
    seen = []
    for snapshot in make_task(fakes.FakeEngine(pace=0.2), fakes.fake_max()).snapshots():
        snapshots.append(snapshot)
        seen.append(repr(snapshot))
    assert [repr(snapshot) for snapshot in snapshots] == seen
    with pytest.raises(FrozenInstanceError):
        snapshots[0].lanes[0].state = "done"  # type: ignore[misc]


def test_a_failing_lane_leaves_the_other_alone() -> None:
    broken = fakes.fake_max(error=ValueError("the graph broke"))
    end = last(make_task(fakes.FakeEngine(pace=0.05), broken))
    cpu, hybrid = end.lanes
    assert cpu.state == "done"
    assert hybrid.state == "failed"
    assert hybrid.reason == "ValueError: the graph broke"


def test_an_engine_error_is_shown_as_its_sentence() -> None:
    end = last(make_task(fakes.FakeEngine(error=CheckpointError("There is no such model."))))
    assert end.lanes[0].reason == "There is no such model."


def test_a_failed_lane_does_not_end_a_run_in_turn() -> None:
    broken = fakes.FakeEngine(error=ValueError("broken"))
    end = last(make_task(broken, fakes.fake_max(), schedule="one at a time"))
    assert [lane.state for lane in end.lanes] == ["failed", "done"]


def test_a_slow_compile_does_not_hold_up_the_other_lane() -> None:
    states = [
        [lane.state for lane in snapshot.lanes]
        for snapshot in make_task(
            fakes.FakeEngine(), fakes.fake_max(compile_seconds=0.7)
        ).snapshots()
    ]
    assert ["done", "compiling"] in states
    assert states[-1] == ["done", "done"]


def test_in_turn_no_lane_runs_while_another_compiles_or_runs() -> None:
    task = make_task(
        fakes.FakeEngine(pace=0.15),
        fakes.fake_max(pace=0.15, compile_seconds=0.5),
        schedule="one at a time",
    )
    at_work = {"mel", "encoding", "decoding", "compiling"}
    for snapshot in task.snapshots():
        assert sum(lane.state in at_work for lane in snapshot.lanes) <= 1


def test_an_engine_this_machine_lacks_says_why() -> None:
    end = last(make_task(fakes.FakeEngine(), chosen=("cpu", "gpu")))
    assert [lane.state for lane in end.lanes] == ["done", "failed"]
    assert end.lanes[1].reason == "no CUDA device was found"


def test_an_engine_nobody_chose_is_told_apart() -> None:
    end = last(make_task(fakes.FakeEngine()))
    assert [status.key for status in end.absent] == ["gpu"]


@pytest.mark.parametrize("deaf", [False, True])
def test_a_stop_leaves_every_lane_clean_at_once(deaf: bool) -> None:
    """Neither engine comes back before its gate opens, which nobody does."""
    never = threading.Event()
    talking = fakes.FakeEngine(deaf=deaf, last_word=never)
    task = make_task(talking, fakes.fake_max(compiled=never), fakes.FakeEngine("gpu"))
    snapshots = []
    for snapshot in task.snapshots():
        snapshots.append(snapshot)
        if all(lane.state in ("decoding", "compiling", "failed") for lane in snapshot.lanes):
            task.stop()
    end = snapshots[-1]
    assert end.finished and not never.is_set()
    assert [lane.state for lane in end.lanes] == ["stopped", "failed", "stopped"]
    never.set()


def test_a_stop_keeps_what_was_finished() -> None:
    task = make_task(fakes.FakeEngine(), fakes.fake_max(pace=5))
    threading.Timer(0.5, task.stop).start()
    assert [lane.state for lane in last(task).lanes] == ["done", "stopped"]


def test_leaving_the_snapshots_stops_the_engines() -> None:
    engine = fakes.FakeEngine(pace=5)
    task = make_task(engine)
    snapshots = task.snapshots()
    next(snapshots)
    snapshots.close()  # type: ignore[attr-defined]
    assert task._stop.is_set()


def test_a_refused_clip_runs_no_lane() -> None:
    def refuse(listener: object) -> Clip:
        raise AudioError("notes.txt holds no audio that can be read.")

    end = last(make_task(fakes.FakeEngine(), open_clip=refuse))
    assert end.refusal == "notes.txt holds no audio that can be read."
    assert [lane.state for lane in end.lanes] == ["idle"]


def test_a_clip_that_breaks_the_reader_is_refused_in_a_sentence() -> None:
    def burst(listener: object) -> Clip:
        raise RuntimeError("unforeseen")

    assert last(make_task(fakes.FakeEngine(), open_clip=burst)).refusal == (
        "This clip could not be read."
    )


def test_the_clock_starts_anew_with_each_phase() -> None:
    blank = lay_out(Settings(engines=("cpu",)), fakes.STATUSES, "waiting")
    compiling = tick(advance(blank, Changed("cpu", "compiling"), 10.0), 14.0)
    assert compiling.lanes[0].elapsed == 4.0
    encoding = advance(compiling, Changed("cpu", "encoding"), 20.0)
    decoding = tick(advance(encoding, Changed("cpu", "decoding", audio_done=3.0), 22.0), 25.0)
    assert decoding.lanes[0].elapsed == 5.0
    assert decoding.lanes[0].audio_done == 3.0


def test_an_event_changes_no_other_lane() -> None:
    blank = lay_out(Settings(engines=("cpu", "max_hybrid")), fakes.STATUSES, "waiting")
    after = advance(blank, Changed("cpu", "loading"), 1.0)
    assert after.lanes[1] is blank.lanes[1]
    assert blank.lanes[0].state == "waiting"


def test_the_cpu_is_the_baseline_wherever_it_takes_part() -> None:
    both = lay_out(Settings(engines=("cpu", "max_hybrid")), fakes.STATUSES)
    alone = lay_out(Settings(engines=("max_hybrid",)), fakes.STATUSES)
    assert both.baseline is both.lanes[0]
    assert alone.baseline is alone.lanes[0]
    assert lay_out(Settings(), fakes.STATUSES).baseline is None


def test_only_the_gpu_takes_another_type() -> None:
    settings = Settings(gpu_dtype="float16", options=Options())
    assert settings.dtype_for("gpu") == "float16"
    assert settings.dtype_for("cpu") == "float32"


def test_a_refusal_is_no_lane_event() -> None:
    blank = lay_out(Settings(engines=("cpu",)), fakes.STATUSES, "waiting")
    refused = advance(blank, Refused("no"), 1.0)
    assert refused.finished
    assert refused.refusal == "no"


@pytest.mark.parametrize("schedule", ["parallel", "one at a time"])
def test_repeats_keep_the_first_words_and_the_median_times(schedule: Schedule) -> None:
    task = make_task(fakes.FakeEngine(), fakes.fake_max(pace=0.05), schedule=schedule, repeats=3)
    snapshots = list(task.snapshots())
    for lane in snapshots[-1].lanes:
        assert lane.state == "done"
        assert len(lane.laps) == 3
        assert len(lane.segments) == 3
        assert lane.transcript is not None
        totals = sorted(lap.seconds.total for lap in lane.laps)
        assert lane.transcript.seconds.total == totals[1]
    for snapshot in snapshots:
        assert all(len(lane.segments) <= 3 for lane in snapshot.lanes)


def test_repeats_take_turns() -> None:
    task = make_task(
        fakes.FakeEngine(pace=0.05), fakes.fake_max(pace=0.05), schedule="one at a time", repeats=3
    )
    for snapshot in task.snapshots():
        cpu, hybrid = (len(lane.laps) for lane in snapshot.lanes)
        assert hybrid <= cpu <= hybrid + 1


def test_a_lane_that_fails_is_not_run_again() -> None:
    broken = fakes.FakeEngine(error=ValueError("broken"))
    end = last(make_task(broken, fakes.fake_max(), schedule="one at a time", repeats=3))
    assert [lane.state for lane in end.lanes] == ["failed", "done"]
    assert [len(lane.laps) for lane in end.lanes] == [0, 3]


def test_getting_ready_and_running_are_on_the_comparison_s_clock() -> None:
    end = last(make_task(fakes.FakeEngine(), fakes.fake_max(compile_seconds=0.3)))
    ready = end.lanes[1].ready
    assert ready is not None and ready.stage == "prepare"
    assert ready.start >= end.start
    assert ready.seconds >= 0.3


def test_runs_that_write_different_tokens_are_told() -> None:
    blank = lay_out(Settings(engines=("cpu",), repeats=2), fakes.STATUSES, "waiting")
    first = fakes.FakeEngine().transcribe(fakes.make_clip())
    other = replace(first, tokens=(*first.tokens, 7))
    once = advance(blank, Finished("cpu", first, last=False), 1.0)
    assert once.lanes[0].running
    assert advance(once, Finished("cpu", first), 2.0).lanes[0].steady
    assert not advance(once, Finished("cpu", other), 2.0).lanes[0].steady
