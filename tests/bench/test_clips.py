"""Whole runs: who runs what in which order, ratios, equal tokens, and engines that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engines.base import EngineError, Options, PrepareSeconds
from engines.measure import clips, tables
from engines.measure.record import Result
from engines.measure.worker import Run
from tests.bench.stand_ins import silent


class FakeProcess:
    """Runs of known lengths, the same tokens each time; fails from run `fails_at` on."""

    def __init__(self, totals: Sequence[float], tokens: tuple[int, ...], fails_at: int = 1000):
        self.totals = iter(totals)
        self.tokens = tokens
        self.fails_at = fails_at
        self.asked: list[tuple[str, str, Options]] = []
        self.closed = False

    def prepare(
        self, engine: str, model: str, progress: Callable[[str], None] = silent
    ) -> PrepareSeconds:
        """Ready at once."""
        progress("loading")
        return PrepareSeconds(load=0.5, compile=0.25)

    def transcribe(self, engine: str, model: str, clip: Path, options: Options) -> Run:
        """A run whose decoding took what is left of the next total."""
        self.asked.append((model, clip.stem, options))
        if len(self.asked) >= self.fails_at:
            raise RuntimeError("out of\nmemory")
        total = next(self.totals)
        stages = {"audio": 0.5, "mel": 0.25, "encode": 0.25, "decode": total - 1.0, "total": total}
        return Run("", "en", self.tokens, stages, 2.0, "cpu", "float32", peak_memory_bytes=1000)

    def close(self) -> None:
        """Note that somebody did."""
        self.closed = True


class Refusing(FakeProcess):
    """Can't be made ready."""

    def prepare(self, *_: Any) -> PrepareSeconds:
        """There is no such engine here."""
        raise EngineError("no absent here")


def measure(processes: dict[str, FakeProcess], **plan: Any) -> list[Result]:
    """The results of a plan over fakes, opened in the order of their engines."""
    waiting = list(processes.values())
    whole = {"clips": ["short"], **plan}
    made = clips.Plan(engines=list(processes), **whole)
    return list(clips.measure(made, silent, lambda: waiting.pop(0)))


def test_medians_ratios_and_equal_tokens() -> None:
    cpu = FakeProcess([99.0, 4.0, 8.0, 6.0], (1, 2, 3, 4))
    same = FakeProcess([99.0, 3.0, 1.5, 2.0], (1, 2, 3, 4))
    other = FakeProcess([99.0, 6.0, 6.0, 6.0], (1, 2, 3, 5))
    found = measure({"cpu": cpu, "same": same, "other": other})
    by_key = {result.contender: result for result in found}
    assert by_key["cpu"].seconds["total"] == (4.0, 8.0, 6.0)
    assert by_key["cpu"].seconds["decode"] == (3.0, 7.0, 5.0)
    assert by_key["cpu"].seconds["prepare"] == (0.75,)
    figures = by_key["same"].figures
    assert figures["times_faster"] == 3.0
    assert figures["real_time_factor"] == 1.0
    assert figures["tokens_per_second"] == 4.0
    assert figures["peak_memory_bytes"] == 1000
    assert figures["equal_tokens"] is True
    assert by_key["other"].figures["equal_tokens"] is False
    assert {options.temperatures for _, _, options in cpu.asked + same.asked} == {(0.0,)}
    assert cpu.closed and same.closed and other.closed


def test_a_failed_engine_is_a_record_and_the_rest_go_on() -> None:
    cpu = FakeProcess([2.0] * 4, (1,))
    dies = FakeProcess([2.0] * 4, (1,), fails_at=3)
    found = measure({"cpu": cpu, "absent": Refusing([], ()), "dies": dies})
    by_key = {result.contender: result for result in found}
    assert by_key["absent"].error == "no absent here"
    assert by_key["absent"].seconds == {}
    assert by_key["dies"].error == "RuntimeError: out of memory"
    assert by_key["dies"].seconds["total"] == (2.0,)
    assert by_key["cpu"].error is None
    assert len(by_key["cpu"].seconds["total"]) == 3
    table = tables.render(clips.columns("cpu"), found)
    assert "dies failed: RuntimeError: out of memory" in table


def test_every_model_clip_and_beam_is_run_and_warm_ups_come_once_for_each_beam() -> None:
    first, second = FakeProcess([2.0] * 9, (1,)), FakeProcess([2.0] * 9, (1,))
    waiting = [first, second]
    plan = clips.Plan(["cpu"], ["short", "talk"], ["tiny.en", "tiny"], [1, 5], 1)
    results = list(clips.measure(plan, silent, lambda: waiting.pop(0)))
    runs = [(model, clip, options.beam_size) for model, clip, options in first.asked]
    assert runs == [
        *(("tiny.en", "short", None), ("tiny.en", "short", None)),
        *(("tiny.en", "short", 5), ("tiny.en", "short", 5)),
        *(("tiny.en", "talk", None), ("tiny.en", "talk", 5)),
    ]
    assert {model for model, _, _ in second.asked} == {"tiny"}
    assert plan.results == len(results) == 8
    assert [tuple(result.case.values()) for result in results][:3] == [
        ("tiny.en", "short", 1),
        ("tiny.en", "short", 5),
        ("tiny.en", "talk", 1),
    ]
    assert first.closed and second.closed


def test_the_first_engine_is_the_baseline_where_cpu_takes_no_part() -> None:
    assert clips.Plan(["max_full", "gpu"], ["short"]).baseline == "max_full"
    assert clips.Plan(["max_full", "cpu"], ["short"]).baseline == "cpu"
