"""The benchmark: turns in order, medians and ratios, failures kept, records as documented.

No test looks at how fast anything is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import bench, checkpoints, sizes
from engines.base import (
    Clip,
    EngineError,
    FloatArray,
    Listener,
    Options,
    PrepareSeconds,
    StageSeconds,
    Transcript,
)
from engines.measure import clips, encoder, machine, peers, record, start, step, tables, turns
from engines.measure.record import Record, Result
from engines.measure.turns import prefixed, ready, take_turns, timed

ROOT = Path(__file__).parents[1]
SECONDS = {"samples", "median", "min", "max"}
RESULT = {"benchmark", "case", "contender", "seconds", "figures", "error"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is timed for its own sake, so nothing need settle."""
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0.0)


def silent(text: str) -> None:
    """Nobody reads what is being done."""


class FakeClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeEngine:
    """Runs of known lengths, the same tokens each time; fails from run `fails_at` on."""

    label = device = dtype = encoder = decoder = "fake"

    def __init__(
        self, key: str, totals: Sequence[float], tokens: tuple[int, ...], fails_at: int = 1000
    ) -> None:
        self.key = key
        self.model = "nano"
        self.totals = iter(totals)
        self.tokens = tokens
        self.fails_at = fails_at
        self.asked: list[Options] = []

    def prepare(self, progress: Callable[[str], None] = silent) -> PrepareSeconds:
        """Ready at once."""
        progress("loading")
        return PrepareSeconds()

    def transcribe(
        self, clip: Clip, options: Options | None = None, listener: Listener | None = None
    ) -> Transcript:
        """A transcript whose decoding took what is left of the next total."""
        assert options is not None
        self.asked.append(options)
        if len(self.asked) >= self.fails_at:
            raise RuntimeError("out of\nmemory")
        seconds = StageSeconds(audio=0.5, mel=0.25, encode=0.25, decode=next(self.totals) - 1.0)
        return Transcript(
            engine=self.key,
            model=self.model,
            device="fake",
            dtype="float32",
            language="en",
            text="",
            segments=(),
            tokens=self.tokens,
            features=np.zeros((0, 0, 0), np.float32),
            seconds=seconds,
            audio_seconds=2.0,
            peak_memory_bytes=0,
        )

    def encode(self, mel: FloatArray) -> FloatArray:
        """Not asked for."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to give back."""


def measure_fakes(engines: Sequence[FakeEngine], repeats: int) -> list[Result]:
    """The `clips` benchmark over fakes; a key that no fake has can't be prepared."""
    by_key = {engine.key: engine for engine in engines}

    def get(key: str, model: str) -> Any:
        if key not in by_key:
            raise EngineError(f"no {key} here")
        return by_key[key]

    keys = ["cpu", "absent", *(key for key in by_key if key != "cpu")]
    return list(clips.measure(keys, ["short"], [1], repeats, "nano", silent, get))


# Taking turns.


def test_contenders_take_turns_and_warm_ups_are_not_kept() -> None:
    order: list[str] = []
    numbers = count()

    def run(name: str) -> int:
        order.append(name)
        return next(numbers)

    taken = take_turns({n: (lambda n=n: run(n)) for n in "abc"}, repeats=2)  # type: ignore[misc]
    assert "".join(order) == "abcabcabc"
    assert taken.outcomes == {"a": [3, 6], "b": [4, 7], "c": [5, 8]}
    assert not taken.errors and not taken.interrupted


def test_one_that_fails_is_left_out_and_keeps_what_it_finished() -> None:
    runs = iter([1, 2])

    def run() -> int:
        return next(runs)

    said: list[str] = []
    taken = take_turns({"bad": run, "good": lambda: 7}, repeats=4, say=said.append)
    assert taken.outcomes == {"bad": [2], "good": [7, 7, 7, 7]}
    assert taken.errors == {"bad": "StopIteration"}
    assert said[:3] == ["bad: warming up", "good: warming up", "bad: run 1 of 4"]
    assert "bad: run 3 of 4" not in said


def test_an_interrupt_keeps_what_was_finished() -> None:
    numbers = count()

    def run() -> int:
        if next(numbers) == 2:
            raise KeyboardInterrupt
        return 1

    taken = take_turns({"a": run, "b": lambda: 2}, repeats=5, warm_ups=0)
    assert taken.interrupted
    assert taken.outcomes == {"a": [1, 1], "b": [2, 2]}


def test_one_that_cannot_be_made_fails_at_its_turn() -> None:
    def make() -> Callable[[], int]:
        raise EngineError("There is none.")

    taken = take_turns({"bad": ready(make), "good": ready(lambda: lambda: 1)}, repeats=1)
    assert taken.errors == {"bad": "There is none."}
    assert taken.outcomes == {"bad": [], "good": [1]}


def test_timed_reads_the_clock_around_the_call() -> None:
    clock = FakeClock()

    def run() -> str:
        clock.now += 2.5
        return "done"

    assert timed(run, clock) == (2.5, "done")


def test_what_is_measured_stands_in_front() -> None:
    said: list[str] = []
    prefixed(said.append, "tiny")("max: run 1 of 2")
    assert said == ["tiny, max: run 1 of 2"]


# Medians and ratios.


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


def test_encoders_are_timed_and_compared() -> None:
    clock = FakeClock()

    def encode(seconds: float, scale: float, mel: FloatArray) -> FloatArray:
        clock.now += seconds
        return mel * np.float32(scale)

    encoders = {
        "torch": lambda mel: encode(3.0, 1.0, mel),
        "max": lambda mel: encode(2.0, 1.5, mel),
    }
    mel = np.ones((2, 3), np.float32)
    torch, ours = encoder.results("nano", encoder.compare(encoders, mel, 2, silent, clock))
    assert torch.seconds == {"encode": (3.0, 3.0)}
    assert ours.seconds == {"encode": (2.0, 2.0)}
    assert ours.figures == {"times_faster": 1.5, "relative_error": 0.5}
    assert "relative_error" not in torch.figures


def test_a_start_is_divided_among_its_parts() -> None:
    child = {"entered": 10.5, "imported": 12.0, "ready": 20.0, "load": 1.0, "compile": 6.5}
    assert start.divide(10.0, child) == {
        "ready": 10.0,
        "python": 0.5,
        "imports": 1.5,
        "prepare": 8.0,
        "load": 1.0,
        "compile": 6.5,
    }


class FakeStepper:
    """5 s to the first token, then 2 s a token."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.tokens: list[int] = []

    def start(self, features: FloatArray, prompt: Sequence[int]) -> None:
        """A new text."""
        self.tokens = list(prompt)
        self.clock.now += 5.0

    def step(self, token: int) -> None:
        """One token more."""
        self.tokens.append(token)
        self.clock.now += 2.0

    def write(self, features: FloatArray, prompt: Sequence[int], n_tokens: int) -> int:
        """The same figures for a writer, whose first token comes with the prompt."""
        self.start(features, prompt)
        for token in range(n_tokens - 1):
            self.step(token)
        return n_tokens


def test_steppers_and_writers_are_timed_alike() -> None:
    clock = FakeClock()
    task = step.Task(np.zeros((1, 1), np.float32), (1, 2), (7, 8, 9), clock)
    nano = checkpoints.load("nano")
    stepper = FakeStepper(clock)
    expected = {"first": 5.0, "step": 2.0}
    assert step.stepping(lambda checkpoint: stepper, nano, task)() == expected
    assert stepper.tokens == [1, 2, 7, 8, 9]
    assert step.writing(lambda: stepper, task)() == expected


def test_a_writer_that_stops_early_is_refused() -> None:
    class Short(FakeStepper):
        def write(self, features: FloatArray, prompt: Sequence[int], n_tokens: int) -> int:
            return min(n_tokens, 2)

    clock = FakeClock()
    task = step.Task(np.zeros((1, 1), np.float32), (1, 2), (7, 8, 9), clock)
    with pytest.raises(EngineError, match="wrote 2 tokens in place of 4"):
        step.writing(lambda: Short(clock), task)()


# Clips.


def test_clips_have_medians_ratios_and_equal_tokens() -> None:
    cpu = FakeEngine("cpu", [99.0, 4.0, 8.0, 6.0], (1, 2, 3, 4))
    same = FakeEngine("same", [99.0, 3.0, 1.5, 2.0], (1, 2, 3, 4))
    other = FakeEngine("other", [99.0, 6.0, 6.0, 6.0], (1, 2, 3, 5))
    by_key = {result.contender: result for result in measure_fakes([cpu, same, other], 3)}
    assert by_key["cpu"].seconds["total"] == (4.0, 8.0, 6.0)
    assert by_key["cpu"].seconds["decode"] == (3.0, 7.0, 5.0)
    figures = by_key["same"].figures
    assert figures["times_faster"] == 3.0
    assert figures["real_time_factor"] == 1.0
    assert figures["tokens_per_second"] == 4.0
    assert figures["equal_tokens"] is True
    assert by_key["other"].figures["equal_tokens"] is False
    assert {o.temperatures for engine in (cpu, same) for o in engine.asked} == {(0.0,)}


def test_a_failed_engine_is_a_record_and_the_rest_go_on() -> None:
    cpu = FakeEngine("cpu", [2.0] * 4, (1,))
    dies = FakeEngine("dies", [2.0] * 4, (1,), fails_at=3)
    by_key = {result.contender: result for result in measure_fakes([cpu, dies], 3)}
    assert by_key["absent"].error == "no absent here"
    assert by_key["absent"].seconds == {}
    assert by_key["dies"].error == "RuntimeError: out of memory"
    assert by_key["dies"].seconds["total"] == (2.0,)
    assert by_key["cpu"].error is None
    assert len(by_key["cpu"].seconds["total"]) == 3
    table = tables.render(clips.columns("cpu"), by_key.values())
    assert "dies failed: RuntimeError: out of memory" in table


def test_beam_sizes_reach_the_engines() -> None:
    engine = FakeEngine("cpu", [2.0] * 9, (1,))

    def get(key: str, model: str) -> Any:
        return engine

    results = list(clips.measure(["cpu"], ["short"], [1, 5], 1, "nano", silent, get))
    assert [options.beam_size for options in engine.asked] == [None, None, 5, 5]
    assert [result.case["beam"] for result in results] == [1, 5]


# The record and the tables.


def fake_benchmark(measure: Callable[[], Iterator[Result]]) -> bench.Benchmark:
    columns = (tables.of_case("size"), tables.contender("encoder"), tables.seconds("encode"))
    return bench.Benchmark("encoder", {"repeats": 1}, lambda say: measure(), columns)


def test_an_interrupted_benchmark_prints_and_writes_what_was_finished(tmp_path: Path) -> None:
    def measure() -> Iterator[Result]:
        yield Result("encoder", {"size": "nano"}, "torch", {"encode": (1.5,)})
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


def assert_documented(written: dict[str, Any]) -> None:
    """The record has the documented fields and no others."""
    assert set(written) == {
        *("schema", "started", "arguments", "machine", "settings", "interrupted", "results")
    }
    assert written["schema"] == record.SCHEMA
    assert all(f"    {field} " in (record.__doc__ or "") for field in written)
    assert set(written["machine"]) == set(machine.Machine.__dataclass_fields__)
    assert set(written["machine"]["versions"]) == set(machine.PACKAGES)
    assert written["results"]
    for result in written["results"]:
        assert set(result) == RESULT
        assert result["benchmark"] in written["settings"]
        for seconds in result["seconds"].values():
            assert set(seconds) == SECONDS
            assert seconds["min"] <= seconds["median"] <= seconds["max"]
            assert len(seconds["samples"]) >= 1


def test_tables_are_aligned_markdown() -> None:
    results = [
        Result("encoder", {"size": "nano"}, "torch", {"encode": (1.0,)}),
        Result("encoder", {"size": "a longer one"}, "max", {}, error="It broke."),
    ]
    done = Record("", (), machine.describe(), {"encoder": {}}, tuple(results))
    table = tables.render(fake_benchmark(lambda: iter(())).columns, done.results)
    lines = table.splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[1].endswith("-: |")
    assert lines[-1] == "max failed: It broke."


# Whole commands.


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m engines.bench` in a process of its own, its output in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "engines.bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_clips_for_real(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    engines = ["--engines", "cpu,no_such", "--clips", "short", "--beams", "1"]
    done = run_command("clips", *engines, "--repeats", "1", "--threads", "1", "--json", str(path))
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "no_such failed: There is no engine 'no_such'" in done.stdout
    written = json.loads(path.read_text())
    assert_documented(written)
    assert written["machine"]["threads"] == written["settings"]["clips"]["threads"] == 1
    cpu, absent = written["results"]
    assert cpu["error"] is None and cpu["figures"]["equal_tokens"] is True
    assert set(cpu["seconds"]) == set(clips.QUANTITIES)
    assert absent["seconds"] == {}


def test_start_for_real(tmp_path: Path) -> None:
    """`cpu` only: it compiles nothing."""
    started = start.start("cpu", "nano", tmp_path)
    assert started.memory_bytes is None or started.memory_bytes > 0
    parts = started.seconds
    assert tuple(parts) == start.QUANTITIES
    sum_of_parts = parts["python"] + parts["imports"] + parts["prepare"]
    assert sum_of_parts == pytest.approx(parts["ready"])
    assert min(parts["python"], parts["imports"], parts["prepare"]) > 0


def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no engine 'no_such'"):
        start.start("no_such", "nano", tmp_path)


def test_a_cold_start_finds_an_empty_cache_and_a_warm_one_the_same_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caches: list[str] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        cache = Path(options["env"]["MAX_WHISPER_CACHE"])
        assert "MODULAR_CACHE_DIR" not in options["env"]
        if "--imports-only" in command:
            return subprocess.CompletedProcess(command, 0, "", "")
        caches.append(f"{cache.name} {'warm' if list(cache.iterdir()) else 'cold'}")
        (cache / "graph.mef").touch()
        fields = ("entered", "imported", "ready", "load", "compile", "memory_bytes")
        times = dict.fromkeys(fields, 0.0)
        return subprocess.CompletedProcess(command, 0, json.dumps(times), "")

    monkeypatch.setenv("MODULAR_CACHE_DIR", "/elsewhere")
    monkeypatch.setattr(subprocess, "run", run)
    list(start.measure(["a", "b"], "nano", 2, 1, silent))
    assert [cache.split()[1] for cache in caches] == ["cold"] * 4 + ["warm"] * 2
    folders = [cache.split()[0] for cache in caches]
    assert len(set(folders[:4])) == 4
    assert folders[4:] == folders[2:4]


def test_steps_for_real() -> None:
    """openai-whisper only, so that neither MAX nor a peer need be installed."""
    torch_only = {step.BASELINE: step.TorchStepper}
    (result,) = step.measure(["nano"], 3, 1, 1, silent, torch_only, ["no.such.peer"])
    assert result.contender == "openai-whisper" and result.error is None
    assert set(result.seconds) == {"first", "step"}


@pytest.mark.max
def test_max_full_takes_steps() -> None:
    ours = {"max_full": step.STEPPERS["max_full"]}
    (result,) = step.measure(["nano"], 3, 1, 1, silent, ours, [])
    assert result.error is None and set(result.seconds) == {"first", "step"}


@pytest.mark.max
def test_encoder_for_real() -> None:
    torch, ours = encoder.measure(["nano"], 1, silent)
    assert (torch.contender, ours.contender) == ("torch", "max")
    assert ours.error is None
    assert float(ours.figures["relative_error"] or 1) < 1e-5  # the encoder's own tests say why


def test_ctrl_c_prints_what_was_finished(tmp_path: Path) -> None:
    """A real signal, sent before the second of nine runs."""
    path = tmp_path / "record.json"
    code = (
        "import os, signal, sys\n"
        "from engines import bench\n"
        "bench.step.STEPPERS.pop('max_full')\n"
        "def say(text):\n"
        "    if 'run 2 of 9' in text:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "bench.say_on_terminal = say\n"
        "sys.exit(bench.main(sys.argv[1:]))\n"
    )
    arguments = ["step", "--sizes", "nano", "--tokens", "2", "--repeats", "9", "--json", str(path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == bench.INTERRUPTED, done.stderr
    assert "Traceback" not in done.stderr
    assert "Interrupted: above is what was finished." in done.stdout
    written = json.loads(path.read_text())
    assert_documented(written)
    assert written["interrupted"] is True
    assert len(written["results"][0]["seconds"]["step"]["samples"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder", "--sizes", "huge"], "there is no size 'huge'"),
        (["clips", "--repeats", "0"], "not a number from 1 up"),
        (["step", "--tokens", "441"], "pick from 1 to 440"),
        (["--threads", "4096"], "processors may be used here"),
        (["start", "--json", "/no/such/folder/x.json"], "can't be written"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = bench.main(arguments)
    except SystemExit as error:
        status = error.code
    assert status
    assert message in capsys.readouterr().err


def test_sizes_are_whisper_s_and_their_weights_fit_float16() -> None:
    assert sizes.names() == ("nano", "tiny", "base", "small")
    tiny = sizes.checkpoint("tiny")
    assert len(tiny.state) == 167
    assert all(bool((t == t.half().float()).all()) for t in tiny.state.values())
    with pytest.raises(EngineError, match="no size 'huge'"):
        sizes.checkpoint("huge")


# The peer.


def test_ctranslate2_has_our_weights_and_writes_what_whisper_writes() -> None:
    """Its features to 1e-5 (3.6e-7 was measured), and the same greedy tokens on speech."""
    pytest.importorskip("ctranslate2")
    import torch
    from whisper.model import Whisper

    from tests.peers.ctranslate2_whisper import CTranslate2Writer

    nano = checkpoints.load("nano")
    writer = CTranslate2Writer(nano, 1, "float32")
    features, prompt = step.encode(nano), step.prompt_of(nano)
    found = writer.encode(encoder.window(80))
    assert encoder.relative_error(found, features) < 1e-5

    model, tokens = nano.build(Whisper), list(prompt)
    end = 50256
    with torch.inference_mode():
        for _ in range(12):
            logits = model.logits(torch.tensor([tokens]), torch.from_numpy(features)[None])[0, -1]
            logits[end] = -torch.inf
            tokens.append(int(logits.argmax()))
    assert writer.tokens(features, prompt, 12) == tokens[len(prompt) :]


def test_every_peer_writes_as_many_tokens_as_it_is_asked_for() -> None:
    pytest.importorskip("ctranslate2")
    from tests.peers.ctranslate2_whisper import writers

    nano = checkpoints.load("nano")
    features, prompt = step.encode(nano), step.prompt_of(nano)
    makers = writers(nano, 1)
    assert list(makers) == ["ctranslate2_float32", "ctranslate2_int8"]
    for make in makers.values():
        writer = make()
        assert [writer.write(features, prompt, n) for n in (1, 65)] == [1, 65]


def test_a_peer_takes_part_in_whole_runs() -> None:
    """Under the same loop as ours; on the cleanest sample its float32 run writes our tokens."""
    pytest.importorskip("ctranslate2")
    keys = ["cpu", "ctranslate2_float32"]
    ours, theirs = clips.measure(keys, ["short"], [1], 1, "nano", silent)
    assert ours.error is None and theirs.error is None
    assert theirs.figures["tokens"] == ours.figures["tokens"]


def test_a_key_that_no_peer_has_is_the_registry_s() -> None:
    assert peers.get("cpu", "nano").key == "cpu"
    assert peers.present(["no.such.peer"]) == []
    with pytest.raises(EngineError, match="no engine 'no_such'"):
        peers.get("no_such", "nano")
