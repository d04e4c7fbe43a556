"""Commands about one clip and about this machine; what an error and a signal mean for all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from engines import checkpoints, cli, doctor, registry, worker
from engines.analysis import faults, replay
from engines.base import EngineError, Listener, Options
from engines.checkpoints import __main__ as checkpoint_command
from engines.checkpoints import sources
from tests import fake_lab, fakes
from tests.bad_input.corpus import tone
from tests.commands.conftest import Command
from tests.processes import children, needs_proc, wait_until, workers

ROOT = Path(__file__).parents[2]


def test_json_is_one_object_with_the_documented_fields(command: Command, clip: Path) -> None:
    done = command("transcribe --json", clip)
    found = json.loads(done.stdout)
    assert list(found) == [
        *("clip", "engine", "model", "device", "dtype", "language", "language_probability", "text"),
        *("tokens", "segments", "seconds", "audio_seconds", "tracks", "track", "channel", "notes"),
    ]
    assert set(found["seconds"]) == {
        "prepare", "audio", "setup", "mel", "encode", "decode", "total",
    }  # fmt: skip
    assert found["seconds"]["prepare"] == 0.01, "as the fake says"
    assert found["audio_seconds"] == 2.0 and found["text"] == fakes.WORDS
    tokens = [token for segment in found["segments"] for token in segment["tokens"]]
    assert found["tokens"] == tokens
    assert set(found["segments"][0]) == {"start", "end", "text", "tokens"}
    timed = json.loads(command("transcribe --json --word-timestamps", clip).stdout)
    words = [word for segment in timed["segments"] for word in segment["words"]]
    assert " ".join(word["text"].strip() for word in words) == fakes.WORDS
    assert set(words[0]) == {"start", "end", "text", "probability"}


def test_a_clip_read_in_part_gives_its_words_and_then_an_error(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "call.flac"
    soundfile.write(path, np.stack([tone(6.0), -tone(6.0)], axis=1), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = command("transcribe", path)
    lines = done.stdout.splitlines()
    assert done.exit_code == 1 and len(lines) == 3 and "loading …\n" in done.stderr
    assert all(line.startswith("[") and "→" in line for line in lines)
    assert "note: The channels of call.flac cancel each other" in done.stderr
    assert "error: Only the first " in done.stderr.splitlines()[-1]
    alone = command("transcribe --json --channel right", path)
    assert json.loads(alone.stdout)["channel"] == 2
    assert "no number 3" in command("transcribe --channel 3", path).stderr
    assert command("transcribe --channel middle", path).exit_code == 2


def test_options_reach_the_engine(
    command: Command, engines: dict[str, Any], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def get(*name: str) -> Any:
        asked.append(name)
        return engines["cpu"]

    def transcribe(clip: Any, options: Options, listener: Any) -> Any:
        asked.append(options)
        return fakes.FakeEngine().transcribe(clip, options)

    monkeypatch.setattr(worker, "get_engine", get)
    monkeypatch.setattr(engines["cpu"], "transcribe", transcribe)
    options = "--language fr --beam-size 2 --word-timestamps --dtype float16 --task translate"
    options += " --temperature 0.5 --temperature-increment-on-fallback 0.25 --best-of 3"
    options += " --no-condition-on-previous-text --logprob-threshold none --clip-timestamps 1,1.5"
    done = command(f"transcribe --engine gpu --model small {options}", clip)
    assert done.stdout == ""
    expected = Options(
        language="fr",
        beam_size=2,
        word_timestamps=True,
        task="translate",
        temperatures=(0.5, 0.75, 1.0),
        best_of=3,
        condition_on_previous_text=False,
        logprob_threshold=None,
        clip_timestamps=(1.0, 1.5),
    )
    assert asked == [("gpu", "small", "float16"), expected]


def test_the_documented_module_runs_the_command() -> None:
    words = [sys.executable, "-m", "engines.transcribe", "none.wav", "--json"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: There is no file at ")


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ("transcribe none.wav", 1, "error: There is no file at none.wav"),
        ("compare jfk --engines abacus", 1, "error: There is no engine 'abacus'"),
        ("evaluate /none", 1, "error: There is no folder or list of clips at /none"),
        ("benchmark --json /proc/none/x", 1, "error: /proc/none/x can't be written"),
        ("benchmark --show /none.json", 1, "error: /none.json holds no record"),
        ("benchmark --beams 1,two", 2, "'1,two' are not numbers from 1 up"),
        ("transcribe x --best-of 99", 2, "must be a whole number from 1 to 10, or nothing, not 99"),
        ("transcribe x --patience 2", 1, "error: patience 2 needs a beam search"),
        ("compare --temperature-increment-on-fallback 0", 2, "no number from 0.05 to 1, nor none"),
        ("layers cpu abacus --clip none.wav", 1, "error: "),
        ("faults no_such_fault", 1, "error: "),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_status(
    command: Command, words: str, status: int, sentence: str
) -> None:
    done = command(words)
    assert done.exit_code == status and sentence in done.stderr
    assert status == 2 or len(done.stderr.splitlines()) == 1
    assert not done.stdout


HELD = """
import ctypes, sys
from engines import cli, process

def hold(self, *_, **__):
    self.start()
    ctypes.PyDLL(None).sleep(600)  # a PyDLL's functions keep Python's lock

if "held" in sys.argv:
    process.Worker.ask = hold
    sys.argv.remove("held")
cli.main(sys.argv[1:])
"""


@needs_proc
@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (signal.SIGINT, 130, "evaluate list --engines cpu --model tiny.en --out out"),
        (signal.SIGTERM, -signal.SIGTERM, "held evaluate list --engines cpu --out out"),
        (signal.SIGTERM, -signal.SIGTERM, "held benchmark --engines cpu"),
        (signal.SIGTERM, -signal.SIGTERM, "held transcribe jfk"),
    ],
)
def test_a_signal_ends_a_command_and_its_engine_at_once(
    sent: signal.Signals, status: int, words: str, tmp_path: Path
) -> None:
    """Whatever it is at: the talk takes an engine seconds, and native code may hold Python's lock.

    Nothing that it started is left then. The bound is for a busy machine.
    """
    (tmp_path / "list").write_text(str(ROOT / "audio_samples" / "columbia.flac"))
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, *words.split()],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(Path.home()), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        wait_until(lambda: bool(children(process.pid)), "a worker")
        (group,) = children(process.pid)
        process.send_signal(sent)
        _, said = process.communicate(timeout=5)
    finally:
        process.kill()
    assert process.returncode == status and "Traceback" not in said
    wait_until(lambda: not workers(group), "the end of the worker", seconds=3)


def test_texts_stand_under_one_another_with_differences_marked(
    command: Command, clip: Path
) -> None:
    done = command("compare --engines max_full,cpu,max_hybrid", clip)
    shown = " ".join(done.stdout.split())
    places = [shown.index(part) for part in ("the words spoken", "cpu,", "max_full,", "max_hyb")]
    assert done.exit_code == 0 and places == sorted(places), "the baseline comes first"
    assert "turns [-a-] {+the+} graph into" in shown and "1 word unlike the words spoken" in shown
    assert "every chip {+twice+}" in shown and "1 word unlike cpu" in shown
    assert "the same words as cpu" in shown
    # Of 11 words one is another, or one is another and one too many.
    assert "word error rate 9.1%" in shown and "word error rate 18.2%" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ("--engines cpu,max_full --strict", 2),
        ("--engines cpu,max_hybrid@tiny.en --baseline max_hybrid@tiny.en --strict", 0),
        ("--engines cpu,max_hybrid --strict", 0),
        ("--engines cpu,max_full", 0),
        ("--engines gpu,max_hybrid --strict", 1),
    ],
)
def test_compare_s_exit_status_says_whether_an_engine_failed_or_words_differ(
    command: Command, clip: Path, options: str, status: int
) -> None:
    done = command(f"compare {options}", clip)
    assert done.exit_code == status
    assert ("failed: It broke." in done.stdout) == (status == 1)


def test_the_list_has_every_engine(command: Command) -> None:
    lines = command("engines").stdout.splitlines()
    objects = [json.loads(line) for line in command("engines --json").stdout.splitlines()]
    for status, line, found in zip(registry.statuses(), lines, objects, strict=True):
        assert line.split()[0] == found["key"] == status.key
        assert (status.reason or "available") in line
        assert found["available"] is status.available and found["reason"] == status.reason


@pytest.mark.parametrize(("broken", "status"), [("gpu", 0), ("max", 1), ("layers", 1)])
def test_doctor_fails_where_max_fails(
    command: Command, broken: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(name: str) -> str:
        if name == broken:
            raise EngineError(f"{name} is broken")
        return f"{name} is well"

    monkeypatch.setattr(doctor, "check_torch_gpu", lambda: check("gpu"))
    monkeypatch.setattr(doctor, "check_max", lambda on_gpu=False: check("max"))
    monkeypatch.setattr(doctor, "check_encoders", lambda model: check("layers"))
    done = command("doctor")
    assert done.exit_code == status and f"no: {broken} is broken" in done.stdout
    gpus = command("doctor --gpu")
    assert gpus.exit_code == int(broken != "layers") and "is well" in gpus.stdout


def test_a_gpu_that_is_not_there_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "max.engine", None)
    done = command("doctor --gpu")
    assert done.exit_code == 1 and "finds no CUDA device" in done.stdout
    assert "the package max can't be imported" in done.stdout


def test_doctor_refuses_a_device_that_computes_wrongly() -> None:
    doctor.check_sum(lambda a, b: a * b + a)
    with pytest.raises(EngineError, match="numbers is off by"):
        doctor.check_sum(lambda a, b: a * b + a + 1e-2)


def test_a_download_is_a_bar_with_megabytes_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(name: str, listener: Listener) -> None:
        if name != "tiny.en":
            raise EngineError("No source has it.")
        transfer = sources.Transfer(name, "OpenAI's server", listener)
        transfer.total = 75_000_000
        time.sleep(0.5)
        transfer.add(25_000_000)

    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(checkpoints, "load", load)
    monkeypatch.setattr(sys, "argv", ["engines.checkpoints", "tiny.en", "base"])
    assert checkpoint_command.main() == 1
    said = capsys.readouterr()
    assert said.out == "tiny.en is here.\n" and "error: No source has it." in said.err
    assert "━" in said.err and "from OpenAI's server: 25 of 75 MB, 1 s left" in said.err


@pytest.mark.slow
@pytest.mark.max
def test_doctor_for_real() -> None:
    """A compile, and the MAX encoders' stages beside PyTorch's."""
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "compiled two operations in" in done.stdout
    assert "after every stage" in done.stdout.splitlines()[-1]


@pytest.mark.max
def test_layers_for_real(command: Command) -> None:
    text = command("layers cpu max_hybrid --model tiny.en")
    assert text.exit_code == 0, text.output
    assert "baseline: PyTorch CPU, float32 (cpu)" in text.stdout
    assert "| ln_post " in text.stdout and "every stage is within 8 times" in text.stdout


def test_faults_are_run_in_turn(
    command: Command, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_fault(fault: faults.Fault, model: str, clip: Any, language: str | None) -> Any:
        assert (model, language) == ("tiny.en", "fr")
        return replace(fake_lab.make_fault_result("early"), fault=fault)

    monkeypatch.setattr(faults, "run_fault", run_fault)
    options = "--model tiny.en --language fr --clip"
    first, second = faults.FAULTS[:2]
    lines = command(f"faults {second.key} {first.key} {options}", clip).stdout.splitlines()
    assert [line for line in lines if line[0] != " "] == [
        f"{each.key}: {each.title}" for each in (second, first)
    ]
    assert "  first shows  conv1" in lines and f"  with fault   {fake_lab.WRONG_WORDS}" in lines
    every = command(f"faults {options}", clip).stdout
    assert all(f"{fault.key}: " in every for fault in faults.FAULTS)


def test_why_says_where_engines_part_and_fails_past_the_margin(
    command: Command, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def explain_clip(keys: Any, model: str, clip: Any, options: Options) -> Any:
        asked.append((keys, model, options))
        return fake_lab.make_divergence(*keys)

    monkeypatch.setattr(replay, "explain_clip", explain_clip)
    done = command("why --model tiny.en --beam-size 2", clip, "cpu", "max_full")
    options = Options(beam_size=2, temperatures=(0.0,))
    assert done.exit_code == 1 and asked == [(("cpu", "max_full"), "tiny.en", options)]
    lines = done.stdout.splitlines()
    assert lines[1:4] == [
        "They part at 0.5 s: PyTorch CPU chose “turns”, MAX full “turned”.",
        "The encoders part them: the choice is the same with either decoder.",
        "PyTorch CPU is right: PyTorch in float64 prefers “turns” by 0.2500.",
    ]
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")][2:]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["cpu", "cpu", "-0.5000", "-0.7500", "0.2500"],
        ["cpu", "max_full", "-0.5000", "-0.7500", "0.2500"],
        ["max_full", "cpu", "-0.5000", "-0.3750", "-0.1250"],
        ["max_full", "max_full", "-0.5000", "-0.3750", "-0.1250"],
        ["float64", "float64", "-0.5000", "-0.7500", "0.2500"],
    ]
    assert command("why --margin 0.25", clip, "cpu", "max_full").exit_code == 0
    assert command("why --margin 0.24", clip, "cpu", "max_full").exit_code == 1
