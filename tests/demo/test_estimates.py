"""The time left, from past runs of this machine, and the file that holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from demo.analysis_task import AnalysisTask
from demo.analysis_task import make_task as make_analysis
from demo.estimates import PastRuns, add_time_left, name_run
from demo.limits import format_left
from demo.snapshot import Comparison, Expected, Settings, new_comparison
from engines.base import Clip, PrepareSeconds, Span
from tests import fakes
from tests.fake_page import make_backend, make_task

SETTINGS = Settings(engines=("cpu", "max_hybrid"), repeats=3)


def start(**known: float) -> Comparison:
    """A comparison of two engines that were just asked for, of which so much is known."""
    blank = replace(new_comparison(SETTINGS, fakes.STATUSES, "waiting"), audio_seconds=20.0)
    return blank.map_lanes(lambda lane: replace(lane, expected=Expected(**known)))


def test_the_slowest_of_the_race_and_then_every_run_alone_are_counted() -> None:
    assert add_time_left(start(load=1.0, compile=2.0, race=4.0)).left is None
    first = start(load=1.0, compile=2.0, race=4.0, alone=2.0)
    assert add_time_left(first).left == 1 + 4 + 2 * 3 * 2
    cpu, hybrid = first.lanes
    ready = Span("prepare", 0.0, 3.0)
    cpu = replace(cpu, ready=ready).enter("encoding", 0.0)
    hybrid = hybrid.enter("compiling", 0.0)
    going = add_time_left(replace(first, lanes=(cpu, hybrid)).at(1.0))
    assert [lane.left for lane in going.lanes] == [3.0, 5.0] and going.left == 5 + 12
    slow = cpu.at(6.0).enter("decoding", 6.0, audio_done=5.0)  # a quarter, which says more
    lane = add_time_left(replace(first, lanes=(slow, hybrid)).at(7.0)).lanes[0]
    assert lane.left == pytest.approx(24 - 7)
    late = add_time_left(replace(first, lanes=(cpu, hybrid)).at(9.0)).lanes
    assert [format_left(lane.left) for lane in late] == ["longer than last time", "about 5 s left"]


def test_a_finished_comparison_tells_the_next_one_what_to_expect(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "past-runs.json"
    engines = fakes.FakeEngine(compile_seconds=0.1), fakes.fake_max(compile_seconds=0.1)
    task = make_task(*engines, past_runs=PastRuns(path))
    *_, end = task.snapshots()
    cpu, _ = end.lanes
    assert cpu.race is not None and cpu.transcript is not None
    asked = replace(end.settings, schedule="one at a time")
    blank = replace(new_comparison(asked, fakes.STATUSES, "waiting"), audio_seconds=6.0)
    expected = [x.transcript.seconds.total - 0.003 for x in end.lanes if x.transcript]
    again = PastRuns(path).add_expected(blank)
    assert again.lanes[1].expected.compile == 0.1 and again.left is not None
    assert again.left == pytest.approx(sum(expected) + 2 * 0.01)
    assert [x.name for x in path.parent.iterdir()] == [path.name]


def test_an_analysis_says_how_long_it_may_still_take(sample_folder: Path) -> None:
    """Not the first one; then going by the last one, whose encoders are open."""
    told: list[float | None] = []

    def work(clip: Clip, task: AnalysisTask) -> None:
        told.append(task.snapshot.at(task.snapshot.start).left)

    held = {"sample": "jfk", "audio": None, "model": "tiny.en", "language": ""}
    backend = make_backend(sample_folder)
    for _ in range(3):
        before = backend.past_runs.find("layers tiny.en again")
        *_, last = make_analysis(backend, "layers", held, work, False).snapshots()
        assert last.complete
    assert told == [None, None, before] and before is not None


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', '{"a": [[1, -1]]}'])
def test_a_damaged_file_is_ignored_and_replaced(content: str, tmp_path: Path) -> None:
    path = tmp_path / "past-runs.json"
    path.write_text(content)
    past, name = PastRuns(path), name_run("cpu", SETTINGS, beside=True)
    assert past.find(name, 10.0) is None
    past.note(name, 10.0, 4.0)
    past.note_prepared("cpu", SETTINGS, PrepareSeconds(1.0, 0.0), waited=0.0)
    assert PastRuns(path).find(name, 30.0) == 8.0  # twice as long, each with the fixed part
    assert PastRuns(tmp_path / "past-runs.json" / "x").find(name) is None
