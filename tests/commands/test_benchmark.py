"""Benchmarks: engines take turns, what fails or is interrupted loses nothing that was finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engines.base import Clip, EngineError, Listener, Options, Transcript
from engines.benchmark import interleave, machine, speed, tables
from engines.benchmark.interleave import interleave as take_turns
from tests import fakes
from tests.commands.conftest import LIMITS, Command

ROOT = Path(__file__).parents[2]


class TimedEngine(fakes.FakeEngine):
    """A fake whose runs take given seconds on top of its stages'; it keeps what was asked."""

    def __init__(self, key: str, seconds: Sequence[float], words: str = fakes.WORDS) -> None:
        super().__init__(key, words=words, windows=2)
        self._left: Iterator[float] = iter(seconds)
        self.asked: list[tuple[str, int | None]] = []
        self.closed = False

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """The words, in the next of the seconds; none left is a failure."""
        assert options is not None and options.temperatures == (0.0,)
        self.asked.append((clip.name, options.beam_size))
        spent = next(self._left, None)
        if spent is None:
            raise EngineError("It broke.")
        return self.write(clip, tuple(self.cut(clip.seconds, False)), spent)

    def close(self) -> None:
        """Take note."""
        self.closed = True


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleave, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def clips(sample_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples, `short` and `talk`."""
    monkeypatch.setattr(speed, "SAMPLES", sample_folder)


def measure(plan: speed.Plan, engines: dict[str, TimedEngine]) -> list[speed.Result]:
    """Results over fakes; an engine that is not there can't be made."""

    def get(key: str, model: str, dtype: str) -> Any:
        if key not in engines:
            raise EngineError(f"no {key} here")
        return engines[key]

    return list(speed.measure(plan, get_engine=get))


# Turns.


def test_contenders_take_turns_and_warm_ups_are_not_kept() -> None:
    numbers, order = count(), []

    def run(name: str) -> int:
        order.append(name)
        return next(numbers)

    runs = {name: lambda name=name: run(name) for name in "abc"}
    turns = take_turns(runs, repeats=2)
    assert "".join(order) == "abcabcabc"
    assert turns.outcomes == {"a": [3, 6], "b": [4, 7], "c": [5, 8]}
    assert not turns.errors and not turns.interrupted


def test_one_that_fails_is_left_out_and_keeps_what_it_finished() -> None:
    outcomes = iter([1, 2])
    said: list[str] = []
    runs = {"bad": lambda: next(outcomes), "good": lambda: 7}
    turns = take_turns(runs, repeats=4, say=said.append)
    assert turns.outcomes == {"bad": [2], "good": [7, 7, 7, 7]}
    assert turns.errors == {"bad": "StopIteration."}
    assert said[:3] == ["bad: warming up", "good: warming up", "bad: run 1 of 4"]
    assert "bad: run 3 of 4" not in said


def test_an_interrupt_keeps_what_was_finished() -> None:
    numbers = count()

    def run() -> int:
        if next(numbers) == 2:
            raise KeyboardInterrupt
        return 1

    turns = take_turns({"a": run, "b": lambda: 2}, repeats=5, warm_ups=0)
    assert turns.interrupted and turns.outcomes == {"a": [1, 1], "b": [2, 2]}


# Results.


def test_medians_ratios_and_equal_tokens(clips: None) -> None:
    engines = {
        "cpu": TimedEngine("cpu", [99.0, 4.0, 8.0, 6.0]),
        "same": TimedEngine("same", [99.0, 3.0, 1.5, 2.0]),
        "other": TimedEngine("other", [6.0] * 4, words="only four words here"),
    }
    plan = speed.Plan(list(engines), ["tiny.en"], ["short"], repeats=3)
    cpu, same, other = measure(plan, engines)
    audio = cpu["seconds"]["audio"]["median"]  # of reading the clip, which is real
    total = cpu["seconds"]["total"]
    rest = 0.02 + 0.1 + 0.2 + audio  # the fakes' mel, encode and decode
    assert total["samples"] == pytest.approx([4 + rest, 8 + rest, 6 + rest])
    assert (total["median"], total["min"], total["max"]) == pytest.approx(
        (6 + rest, 4 + rest, 8 + rest)
    )
    assert cpu["times_faster"] == 1.0
    assert same["times_faster"] == pytest.approx((6 + rest) / (2 + rest))
    assert same["real_time_factor"] == pytest.approx((2 + rest) / 2.0)
    assert same["encode_per_window"] == pytest.approx((0.1 + 2 / 2) / 2)
    assert same["decode_per_token"] == pytest.approx((0.2 + 2 / 2) / (11 + 2))
    assert (same["load"], same["compile"], same["tokens"]) == (0.01, 0.0, 11)
    assert [each["equal_tokens"] for each in (cpu, same, other)] == [True, True, False]
    assert all(engine.closed for engine in engines.values())


def test_a_failed_engine_is_a_result_and_the_rest_go_on(clips: None) -> None:
    engines = {"cpu": TimedEngine("cpu", [2.0] * 4), "dies": TimedEngine("dies", [2.0] * 2)}
    plan = speed.Plan(["cpu", "absent", "dies"], ["tiny.en"], ["short"], repeats=3)
    cpu, absent, dies = measure(plan, engines)
    assert absent["error"] == "no absent here" and "seconds" not in absent
    assert dies["error"] == "It broke." and len(dies["seconds"]["total"]["samples"]) == 1
    assert cpu["error"] is None and len(cpu["seconds"]["total"]["samples"]) == 3


def test_every_model_clip_and_beam_is_run_and_warm_ups_come_once_for_each_beam(
    clips: None,
) -> None:
    engine = TimedEngine("cpu", [2.0] * 99)
    plan = speed.Plan(["cpu"], ["tiny.en", "base"], ["short", "talk"], [1, 5], repeats=1)
    results = measure(plan, {"cpu": engine})
    of_a_model = [
        *(("short.flac", None), ("short.flac", None), ("short.flac", 5), ("short.flac", 5)),
        *(("talk.flac", None), ("talk.flac", 5)),
    ]
    assert engine.asked == of_a_model * 2
    assert [(r["model"], r["clip"], r["beam"]) for r in results] == [
        (model, clip, beam)
        for model in ("tiny.en", "base")
        for clip in ("short", "talk")
        for beam in (1, 5)
    ]


def test_the_first_engine_is_the_baseline_where_cpu_takes_no_part() -> None:
    assert speed.Plan(["max_full", "gpu"], [], []).baseline == "max_full"
    assert speed.Plan(["max_full", "cpu"], [], []).baseline == "cpu"


# The command.

SHORT = ("benchmark", "--models", "tiny.en", "--clips", "short,talk", "--repeats", "2")


def test_a_record_and_its_tables(command: Command, clips: None, tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    done = command(*SHORT, "--engines", "max_hybrid,cpu", "--beams", "1,2", "--json", path)
    assert done.exit_code == 0, done.output
    record = json.loads(path.read_text())
    assert record["interrupted"] is False and record["limits"] == LIMITS and record["run"]
    assert record["settings"]["engines"] == ["cpu", "max_hybrid"]
    assert record["settings"]["baseline"] == "cpu" and record["settings"]["repeats"] == 2
    assert set(record["machine"]) >= {"cpu", "threads", "versions", "load_average"}
    assert len(record["results"]) == 8
    assert os.listdir(path.parent) == ["record.json"]
    shown = command("benchmark", "--show", path, "--markdown").stdout
    assert shown == done.stdout
    assert "plain read 20 GB/s" in shown and "multiply-add loop 300 GFLOP/s" in shown
    assert shown.count("| tiny.en | short |") == 8, "4 rows in each of 2 tables"
    printed = json.loads(command(*SHORT, "--engines", "cpu", "--json", "-").stdout)
    assert [result["engine"] for result in printed["results"]] == ["cpu", "cpu"]


def test_a_failure_is_said_below_the_tables(command: Command, clips: None) -> None:
    done = command(*SHORT, "--engines", "cpu,gpu")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == "gpu failed: It broke."


@pytest.mark.parametrize(
    ("to", "runs", "finished"),
    [("file", 4, {"short": 2, "talk": 1}), ("-", 4, {"short": 2, "talk": 1}), ("file", 1, {})],
)
def test_an_interrupt_leaves_and_prints_what_was_finished(
    command: Command,
    engines: Any,
    clips: None,
    tmp_path: Path,
    to: str,
    runs: int,
    finished: dict[str, int],
) -> None:
    """The first run is a warm-up."""

    class Interrupted(TimedEngine):
        def transcribe(self, *about: Any, **more: Any) -> Transcript:
            if len(self.asked) == runs:
                raise KeyboardInterrupt
            return super().transcribe(*about, **more)

    engines["cpu"] = Interrupted("cpu", [1.0] * 9)
    path = tmp_path / "record.json"
    done = command(*SHORT, "--engines", "cpu", "--json", path if to == "file" else to)
    assert done.exit_code == 130 and "Interrupted" in done.stderr
    record = json.loads(path.read_text() if to == "file" else done.stdout)
    assert record["interrupted"] is True
    samples = {r["clip"]: len(r["seconds"]["total"]["samples"]) for r in record["results"]}
    assert samples == finished


def test_a_table_is_markdown_that_is_aligned() -> None:
    columns = (tables.Column("name", str, numeric=False), tables.Column("n", lambda row: row * 3))
    assert tables.format_markdown(columns, [["ab", "abc"]]).splitlines() == [
        "| name |   n |",
        "| ---- | --: |",
        "| ab   | abc |",
    ]
    assert tables.number(None, ".1f") == "–" and tables.number(0.0123, ".1f", 1e3) == "12.3"


# The machine.


def test_threads_are_those_of_every_process_that_follows() -> None:
    """In a process of its own: it stays on the processors it was given. It needs no PyTorch."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only on Linux can a process be kept to some processors")
    code = (
        "from engines.benchmark import machine; import os, subprocess, sys\n"
        "print(machine.limit_threads(1), machine.describe().threads, 'torch' in sys.modules)\n"
        "print(len(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'], flush=True)\n"
        "child = 'import torch, os; print(torch.get_num_threads(), len(os.sched_getaffinity(0)))'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["1 1 False", "1 1", "1 1"]


def test_threads_that_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        with pytest.raises(EngineError, match=r"--threads 4096: only .* may be used here"):
            machine.limit_threads(4096)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(EngineError, match="--threads needs Linux"):
        machine.limit_threads(2)
    assert machine.limit_threads() == os.cpu_count()


def test_the_limits_are_measured_in_a_process_of_their_own() -> None:
    found = machine.measure_limits()
    for rates in found.values():
        assert len(rates["samples"]) == machine.LIMIT_RUNS
        assert 0 < rates["min"] <= rates["median"] <= rates["max"]
    assert "GFLOP/s" in machine.describe_limits(found)
