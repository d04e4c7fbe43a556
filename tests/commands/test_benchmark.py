"""Benchmarks: engines take turns, what fails or is interrupted loses nothing that was finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from engines.base import Clip, EngineError, Listener, Options, Transcript, Window
from engines.benchmark import machine
from tests import fakes
from tests.commands.conftest import LIMITS, Command

ROOT = Path(__file__).parents[2]
SHORT = "benchmark --models tiny.en --clips short,talk --repeats 2"


class TimedEngine(fakes.FakeEngine):
    """A fake whose runs take given seconds on top of its stages'; `asked` is shared by engines."""

    def __init__(self, key: str, seconds: Sequence[float], asked: list[str], **traits: Any) -> None:
        super().__init__(key, windows=2, **traits)
        self._left, self._asked = iter(seconds), asked

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """The words, in the next of the seconds; none left is a failure, 0 an interrupt."""
        assert options is not None and options.temperatures == (0.0,)
        self._asked.append(f"{self.key} {clip.name.removesuffix('.flac')} {options.beam_size}")
        spent = next(self._left, None)
        if spent is None:
            raise EngineError("It broke.")
        if not spent:
            raise KeyboardInterrupt
        found = self.write(clip, tuple(self.cut(clip.seconds, False)), spent)
        drafted = 3 if self.key == "max_hybrid" else 0
        return replace(found, windows=(Window(0.0, (), found.tokens, 0.0, drafted),))


def test_medians_ratios_and_equal_tokens(command: Command, engines: Any, clip: Path) -> None:
    asked: list[str] = []
    engines["cpu"] = TimedEngine("cpu", [99.0, 4.0, 8.0, 6.0], asked)
    engines["max_hybrid"] = TimedEngine("max_hybrid", [99.0, 3.0, 1.5, 2.0], asked)
    engines["max_full"] = TimedEngine("max_full", [6.0] * 4, asked, words="only four words here")
    done = command("benchmark --engines cpu,max_hybrid,max_full --clips short --repeats 3 --json -")
    cpu, same, other = json.loads(done.stdout)["results"]
    turn = [f"{key} short 1" for key in ("cpu", "max_hybrid", "max_full")]
    assert asked == turn * 4, "they take turns"
    rest = 0.02 + 0.1 + 0.2 + cpu["seconds"]["audio"]["median"]  # the fakes' stages; a real clip
    total = cpu["seconds"]["total"]
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
    assert (same["drafted"], other["drafted"]) == (3 / 13, 0)
    assert [each["equal_tokens"] for each in (cpu, same, other)] == [True, True, False]
    assert cpu["unlike_words"] == same["unlike_words"] == 0 < other["unlike_words"]
    for key in ("cpu", "max_full"):
        engines[key] = TimedEngine(key, [1.0], asked)
    options = "--engines cpu,max_full@tiny.en --baseline max_full@tiny.en --repeats 1 --warm-ups 0"
    done = command(f"benchmark {options} --clips short --json -")
    first, second = json.loads(done.stdout)["results"]
    assert (first["engine"], first["model"]) == ("max_full@tiny.en", "tiny.en")
    assert (second["engine"], second["model"]) == ("cpu", "base")
    assert first["times_faster"] == 1.0
    assert "is none of" in command("benchmark --engines cpu --baseline gpu").stderr


def test_every_model_clip_and_beam_is_run_and_warm_ups_come_once_for_each_beam(
    command: Command, engines: Any, clip: Path
) -> None:
    """Where `cpu` takes no part, the first engine is what the others are compared with."""
    asked: list[str] = []
    engines["gpu"] = TimedEngine("gpu", [2.0] * 99, asked)
    every = "--models tiny.en,base --clips short,talk --beams 1,5 --repeats 1"
    results = json.loads(command(f"benchmark --engines gpu {every} --json -").stdout)["results"]
    of_a_model = ["gpu short 1"] * 2 + ["gpu short 5"] * 2 + ["gpu talk 1", "gpu talk 5"]
    assert asked == of_a_model * 2
    combined = product(("tiny.en", "base"), ("short", "talk"), (1, 5))
    assert [(r["model"], r["clip"], r["beam"]) for r in results] == list(combined)
    assert {r["times_faster"] for r in results} == {1.0}


def test_options_of_whisper_are_those_of_every_run(
    command: Command, engines: Any, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Options] = []

    def transcribe(clip: Clip, options: Options) -> Transcript:
        asked.append(options)
        return fakes.FakeEngine().transcribe(clip, options)

    monkeypatch.setattr(engines["cpu"], "transcribe", transcribe)
    words = "benchmark --engines cpu --clips short --warm-ups 0 --repeats 1 --json -"
    done = command(f"{words} --beams 2,5 --task translate --language fr --patience 2")
    common: dict[str, Any] = {"task": "translate", "patience": 2.0, "temperatures": (0.0,)}
    assert asked == [Options("fr", beam, **common) for beam in (2, 5)]
    assert json.loads(done.stdout)["settings"]["options"]["patience"] == 2.0
    command(f"{words} --temperature 0.4,0.8 --word-timestamps")
    assert asked[-1] == Options(None, 1, True, temperatures=(0.4, 0.8))
    assert "patience 2 needs a beam search" in command(f"{words} --beams 1,5 --patience 2").stderr


def test_a_failed_engine_is_a_result_and_the_rest_go_on(
    command: Command, engines: Any, clip: Path
) -> None:
    """One can't be made, one breaks in its second counted run."""
    engines["max_full"] = TimedEngine("max_full", [2.0] * 2, [])
    del engines["max_hybrid"]
    words = "benchmark --engines cpu,max_hybrid,max_full --clips short"
    done = command(f"{words} --repeats 3 --json -")
    assert done.exit_code == 1
    cpu, absent, dies = json.loads(done.stdout)["results"]
    assert absent["error"].startswith("KeyError") and "seconds" not in absent
    assert dies["error"] == "It broke." and len(dies["seconds"]["total"]["samples"]) == 1
    assert cpu["error"] is None and len(cpu["seconds"]["total"]["samples"]) == 3
    engines["max_full"] = TimedEngine("max_full", [], [])
    last = command(words).stdout.splitlines()[-2:]
    assert last[0].startswith("max_hybrid failed: ") and last[1] == "max_full failed: It broke."


def test_a_record_and_its_tables(
    command: Command, engines: Any, clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "record.json"
    engines["gpu"] = fakes.FakeEngine("gpu", dtype="float16")
    done = command(f"{SHORT} --engines max_hybrid,cpu,gpu --beams 1,2 --json", path)
    assert done.exit_code == 0, done.output
    record = json.loads(path.read_text())
    assert record["interrupted"] is False and record["limits"] == LIMITS and record["run"]
    assert record["settings"]["engines"] == ["cpu", "max_hybrid", "gpu"]
    assert record["settings"]["baseline"] == "cpu" and record["settings"]["repeats"] == 2
    assert set(record["machine"]) >= {"cpu", "threads", "versions", "load_average"}
    assert len(record["results"]) == 12
    assert os.listdir(path.parent) == ["record.json"]
    shown = command("benchmark --markdown --show", path).stdout
    assert shown == done.stdout
    assert "plain read 200 GB/s (100 to 300) · multiply-add loop 200 GFLOP/s" in shown
    exact, reduced = shown.split("## Whole runs in other types")
    counts = [part.count("| tiny.en | short |") for part in (exact, *reduced.split("## Parts"))]
    assert counts == [4, 2, 6]


@pytest.mark.parametrize("machine", ["", "-amx"])
def test_the_committed_records_are_what_the_pages_show(machine: str, command: Command) -> None:
    shown = command("benchmark --markdown --show", ROOT / "docs" / f"benchmark{machine}.json")
    written = (ROOT / "docs" / f"benchmarks{machine}.md").read_text()
    assert shown.exit_code == 0 and shown.stdout == written
    assert "| max_full " in written


def test_an_interrupt_leaves_what_was_finished(
    command: Command, engines: Any, clip: Path, tmp_path: Path
) -> None:
    """The first run is a warm-up."""
    engines["cpu"] = TimedEngine("cpu", [1, 1, 1, 1, 0], [])
    done = command(f"{SHORT} --engines cpu --json", tmp_path / "record.json")
    assert done.exit_code == 130 and "Interrupted" in done.stderr
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["interrupted"] is True
    samples = {r["clip"]: len(r["seconds"]["total"]["samples"]) for r in record["results"]}
    assert samples == {"short": 2, "talk": 1}


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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 1 False", "1 1", "1 1"]


def test_threads_that_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        with pytest.raises(EngineError, match=r"--threads 4096: only .* may be used here"):
            machine.limit_threads(4096)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(EngineError, match="--threads needs Linux"):
        machine.limit_threads(2)
    assert machine.limit_threads() == len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_the_limits_are_measured_in_a_process_of_their_own() -> None:
    found = machine.measure_limits()
    for rates in found.values():
        assert len(rates["samples"]) == machine.LIMIT_RUNS
        assert 0 < rates["min"] <= rates["median"] <= rates["max"]
