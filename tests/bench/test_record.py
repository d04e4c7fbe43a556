"""The record and the tables: medians, ratios, lines of JSON, and the documented schema."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from engines import bench
from engines.measure import machine, record, tables
from engines.measure.questions import Benchmark
from engines.measure.record import Record, Result
from tests.bench.stand_ins import SCHEMA, assert_documented, silent


def test_medians_and_ratios() -> None:
    results = [
        Result("encoder", {}, "torch", {"encode": (4.0, 9.0, 2.0)}),
        Result("encoder", {}, "max", {"encode": (1.0, 3.0)}),
        Result("encoder", {}, "none"),
    ]
    found = record.with_ratios(results, "encode", "torch")
    assert [result.median("encode") for result in found] == [4.0, 2.0, None]
    assert [result.figures["times_faster"] for result in found] == [1.0, 2.0, None]
    assert record.summary((4.0, 9.0, 2.0)) == {
        "samples": [4.0, 9.0, 2.0],
        "median": 4.0,
        "min": 2.0,
        "max": 9.0,
    }


def test_no_ratio_without_the_baseline() -> None:
    results = [Result("clips", {}, "max_hybrid", {"total": (1.0,)})]
    assert record.with_ratios(results, "total", "cpu")[0].figures["times_faster"] is None


def fake_benchmark(measure: Callable[[], Iterator[Result]]) -> Benchmark:
    columns = (tables.of_case("size"), tables.contender("encoder"), tables.seconds("encode"))
    return Benchmark("encoder", {"repeats": 1}, lambda say: measure(), columns)


def test_an_interrupted_benchmark_prints_and_writes_what_was_finished(tmp_path: Path) -> None:
    def measure() -> Iterator[Result]:
        yield Result("encoder", {"size": "tiny.en"}, "torch", {"encode": (1.5,)})
        raise KeyboardInterrupt

    def after() -> Iterator[Result]:
        yield Result("encoder", {"size": "never"}, "torch")

    benchmarks = [fake_benchmark(measure), fake_benchmark(after)]
    done = bench.run(benchmarks, ["encoder"], silent)
    assert done.interrupted and len(done.results) == 1
    printed = bench.render(done, benchmarks[:1])
    assert "| nano | torch   |     1.50 |" in printed
    assert "Interrupted" in printed
    record.write(done, tmp_path / "record.json")
    assert_documented(json.loads((tmp_path / "record.json").read_text()))
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_tables_are_aligned_markdown() -> None:
    results = [
        Result("encoder", {"size": "tiny.en"}, "torch", {"encode": (1.0,)}),
        Result("encoder", {"size": "a longer one"}, "max", {}, error="It broke."),
    ]
    done = Record("", "", (), machine.describe(), {"encoder": {}}, tuple(results))
    table = tables.render(fake_benchmark(lambda: iter(())).columns, done.results)
    lines = table.splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[1].endswith("-: |")
    assert lines[-1] == "max failed: It broke."


def test_tables_on_a_terminal_mark_the_fastest_and_the_failed() -> None:
    results = [
        Result("encoder", {"size": "tiny.en"}, "slow", {"encode": (2.0,)}, {"times_faster": 1.0}),
        Result("encoder", {"size": "tiny.en"}, "fast", {"encode": (1.0,)}, {"times_faster": 2.0}),
        Result("encoder", {"size": "tiny.en"}, "broken", {}, error="It [b]broke[/b]."),
    ]
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, color_system="standard")
    console.print(tables.draw(fake_benchmark(lambda: iter(())).columns, results))
    lines = shown.getvalue().splitlines()
    green, red = "\x1b[32m", "\x1b[31m"
    of = {name: [line for line in lines if name in line] for name in ("slow", "fast", "broken")}
    assert green in of["fast"][0] and green not in of["slow"][0]
    assert all(red in line for line in of["broken"])
    assert "It [b]broke[/b]." in of["broken"][-1]


def test_results_are_lines_as_soon_as_they_are_there() -> None:
    stream = io.StringIO()
    seen: list[int] = []

    def measure() -> Iterator[Result]:
        for size in ("tiny.en", "tiny"):
            seen.append(len(stream.getvalue().splitlines()))
            yield Result("encoder", {"size": size}, "torch", {"encode": (1.5,)})

    done = bench.run([fake_benchmark(measure)], ["encoder"], silent, [record.Lines(stream)])
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in lines:
        assert_documented(line, "line")
    assert seen == [1, 2]
    assert [line["kind"] for line in lines] == ["run", "result", "result", "end"]
    assert {line["run"] for line in lines} == {done.run}
    assert lines[-1] == {"kind": "end", "run": done.run, "interrupted": False, "results": 2}


def find_room() -> Iterator[Result]:
    """There is none."""
    raise OSError("no space left")


def test_a_question_that_breaks_is_a_record_and_the_next_one_is_asked() -> None:
    def measure() -> Iterator[Result]:
        yield from find_room()

    def after() -> Iterator[Result]:
        yield Result("encoder", {"size": "tiny.en"}, "torch", {"encode": (1.0,)})

    benchmarks = [fake_benchmark(measure), fake_benchmark(after)]
    broken, fine = bench.run(benchmarks, [], silent).results
    assert broken.error == "OSError: no space left" and fine.error is None


def test_what_is_not_finite_is_an_error_and_the_rest_goes_on() -> None:
    def measure() -> Iterator[Result]:
        nan = float("nan")
        yield Result("encoder", {}, "max", {"encode": (1.0,)}, {"relative_error": nan, "tokens": 3})
        yield Result("encoder", {}, "late", {"encode": (1.0, float("inf"))})
        yield Result("encoder", {}, "torch", {"encode": (1.0,)}, {"times_faster": None})

    stream = io.StringIO()
    bench.run([fake_benchmark(measure)], [], silent, [record.Lines(stream)])
    _, ours, late, torch, end = (json.loads(line) for line in stream.getvalue().splitlines())
    assert ours["error"] == "Not finite: relative_error." and ours["figures"] == {"tokens": 3}
    assert late["error"] == "Not finite: encode." and late["seconds"] == {}
    assert torch["error"] is None and end["results"] == 3


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"schema": 1}, "schema"),
        ({"results": [{"benchmark": "encoder"}]}, "results"),
        ({"machine": {}}, "machine"),
        ({"more": 1}, "more"),
        ({"run": "x"}, "run"),
    ],
)
def test_the_schema_refuses_what_is_not_documented(wrong: dict[str, object], where: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    done = bench.run([fake_benchmark(lambda: iter(()))], [], silent).as_json()
    assert_documented(done)
    with pytest.raises(jsonschema.ValidationError) as refused:
        assert_documented({**done, **wrong})
    assert where in str(refused.value)


def test_the_schema_and_the_docstring_name_the_same_fields() -> None:
    text = record.__doc__ or ""
    for field in SCHEMA["$defs"]["record"]["required"]:
        assert f"    {field} " in text, field
    for field in SCHEMA["$defs"]["result"]["required"]:
        assert f"        {field} " in text, field
