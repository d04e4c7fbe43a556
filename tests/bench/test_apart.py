"""Each question of `all` in a process of its own: what ends it takes nobody along."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import bench
from engines.measure import tables
from engines.measure.command_line import parse
from engines.measure.questions import Benchmark, plan_all, plan_here, plan_step, put_apart
from engines.measure.record import Result
from tests.bench.stand_ins import ENVIRONMENT, ROOT, assert_documented, command, silent

PEER = "tests.bench.crashing_peer"


def after() -> Iterator[Result]:
    """The next question's result."""
    yield Result("encoder", {"size": "tiny.en"}, "torch", {"encode": (1.0,)})


def test_a_crash_ends_its_question_and_the_next_one_is_asked() -> None:
    asked = parse(["step", "--sizes", "tiny.en", "--tokens", "2", "--repeats", "1"])
    asked.peers = (PEER,)
    (benchmark,) = plan_step(asked, 1)
    crashing = put_apart(benchmark, 1, asked.peers)
    fine = Benchmark("encoder", {}, lambda say: after(), (tables.contender("encoder"),))
    done = bench.run([crashing, fine], [], silent)
    crashed, torch = done.results
    assert (crashed.benchmark, crashed.contender) == ("step", "benchmark")
    assert crashed.error == "The process of this question ended (signal 11, SIGSEGV)."
    assert torch.error is None and not done.interrupted
    assert_documented(json.loads(json.dumps(done.as_json())))


def test_what_was_finished_before_a_crash_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that prints a result, half of another one, and is gone."""
    result = json.dumps({"result": next(after()).as_json()})
    pretend(monkeypatch, f"echo '{result}'; printf '{result[:20]}'; kill -9 $$")
    benchmark = put_apart(Benchmark("encoder", {}, lambda say: after(), ()), 1, [])
    kept, crashed = bench.guarded(benchmark, silent)
    assert kept == next(after())
    assert crashed.error == "The process of this question ended (signal 9, SIGKILL)."


def test_a_process_that_can_t_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "echo 'no room' >&2; exit 3")
    benchmark = put_apart(Benchmark("encoder", {}, lambda say: after(), ()), 1, [])
    (result,) = bench.guarded(benchmark, silent)
    assert result.error == "The process of this question ended (no room)."


def pretend(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Run a shell's script in place of a question's process."""
    begin = subprocess.Popen

    def popen(command: list[str], **options: Any) -> subprocess.Popen[str]:
        return begin(["sh", "-c", script], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)


@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_the_process_is_asked_the_same_question(quick: list[str]) -> None:
    asked = parse(["all", *quick, "--engines", "cpu,max_full", "--peers", "none"])
    asked.peers = ()
    for benchmark in plan_here(asked, 2):
        there = parse([*benchmark.arguments, "--peers", "none"])
        (same,) = there.plan(there, 2)
        assert (same.name, same.settings) == (benchmark.name, benchmark.settings)
        assert same.expected == benchmark.expected
    assert [each.name for each in plan_all(asked, 2)] == [each.name for each in plan_here(asked, 2)]


def test_ctrl_c_is_handed_on_and_leaves_what_was_finished(tmp_path: Path) -> None:
    """`slow` needs a minute for the second clip of `all --quick`."""
    path = tmp_path / "record.json"
    options = ["--engines", "slow", "--peers", "tests.bench.fake_peer", "--json", str(path)]
    process = subprocess.Popen(
        command("all", "--quick", "--lines", *options),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    assert json.loads(process.stdout.readline())["error"] is None
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=120)
    assert process.returncode == bench.INTERRUPTED and "Traceback" not in said
    written = json.loads(path.read_text())
    assert_documented(written)
    assert written["interrupted"] is True and len(written["results"]) == 1
    assert json.loads(out)["kind"] == "end"
