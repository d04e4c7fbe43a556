"""Whole commands, in processes of their own: killed engines, signals, pipes and wrong arguments."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engines import bench, figures
from engines.base import EngineError
from engines.max_hybrid import why_no_max
from engines.measure import machine
from engines.measure.worker import EngineDied, EngineProcess, answer
from tests.bench.stand_ins import ENVIRONMENT, ROOT, assert_documented, command, run_command

PEERS = ("--peers", "tests.bench.fake_peer")


def lines_of(text: str) -> list[dict[str, Any]]:
    """Every line, which is as documented."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert_documented(line, "line")
    return lines


def test_killing_an_engine_in_the_middle_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    """The kernel kills `doomed` in its second counted run, before the first clip is done."""
    path = tmp_path / "record.json"
    engines = ["--engines", "steady,doomed", "--clips", "short,silence", "--repeats", "3"]
    done = run_command(*engines, *PEERS, "--lines", "--json", str(path))
    assert done.returncode == 1, done.stderr
    head, *results, end = lines_of(done.stdout)
    assert (head["kind"], end["kind"], end["results"]) == ("run", "end", 4)
    assert end["interrupted"] is False
    first, killed, second, gone = results
    assert len(first["seconds"]["total"]["samples"]) == 3
    assert len(killed["seconds"]["total"]["samples"]) == 1
    assert "signal 9, SIGKILL" in killed["error"] and killed["figures"]["tokens"] == 11
    assert second["case"]["clip"] == "silence" and second["error"] is None
    assert len(second["seconds"]["total"]["samples"]) == 3
    assert gone["seconds"] == {} and "SIGKILL" in gone["error"]
    written = json.loads(path.read_text())
    assert_documented(written)
    assert [r["error"] for r in written["results"]] == [r["error"] for r in results]
    assert f'"run": "{head["run"]}"' in done.stdout.splitlines()[-1]


def start(*arguments: str, path: Path) -> subprocess.Popen[str]:
    """A benchmark whose second clip takes a minute."""
    engines = ["--engines", "slow", "--clips", "short,silence", "--repeats", "1"]
    return subprocess.Popen(
        command(*engines, *PEERS, "--lines", "--json", str(path), *arguments),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )


def hear_interrupts() -> None:
    """As on a terminal: what a shell starts in the background is born deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def read_first_result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for it; the benchmark is then in its second clip."""
    assert process.stdout is not None
    head, result = process.stdout.readline(), process.stdout.readline()
    assert head and result, process.communicate()[1]
    return lines_of(head + result)[1]


def test_ctrl_c_leaves_what_was_finished(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    process = start(path=path)
    read_first_result(process)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=120)
    assert process.returncode == bench.INTERRUPTED
    assert "Traceback" not in said
    (end,) = lines_of(out)
    assert end["interrupted"] is True and end["results"] == 1
    written = json.loads(path.read_text())
    assert_documented(written)
    assert written["interrupted"] is True and len(written["results"]) == 1


def test_killing_the_benchmark_itself_leaves_what_was_finished(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    process = start(path=path)
    read_first_result(process)
    process.kill()
    process.communicate(timeout=120)
    written = json.loads(path.read_text())
    assert_documented(written)
    assert written["interrupted"] is True and len(written["results"]) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_a_table_for_people_and_nothing_but_it_in_a_pipe() -> None:
    engines = ["--engines", "steady,no_such", "--clips", "short", "--repeats", "2"]
    done = run_command(*engines, *PEERS, "--threads", "1")
    assert done.returncode == 1
    (logged,) = done.stderr.splitlines()  # no bar in a pipe, and no log below a warning
    assert "failed" in logged and "engine=no_such" in logged and "\x1b" not in logged
    assert "clips: engines steady no_such, models nano, clips short, beams 1" in done.stdout
    assert "1 used by every side" in done.stdout
    assert "no_such failed: There is no engine 'no_such'" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_bar_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    engines = ["--engines", "steady", "--clips", "short", "--repeats", "1"]
    process = subprocess.Popen(
        command(*engines, *PEERS),
        cwd=ROOT,
        env={**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert b"0/1" in shown and b"nano, short, beam 1, steady" in shown
    assert "0/1" not in out


def test_clips_for_real(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    engines = ["--engines", "cpu", "--clips", "short", "--beams", "1", "--repeats", "1"]
    done = run_command("clips", *engines, "--threads", "1", "--json", str(path))
    assert done.returncode == 0, done.stderr
    written = json.loads(path.read_text())
    assert_documented(written)
    assert written["machine"]["threads"] == written["settings"]["clips"]["threads"] == 1
    (cpu,) = written["results"]
    assert cpu["error"] is None and cpu["figures"]["equal_tokens"] is True
    assert set(cpu["seconds"]) == {"prepare", "audio", "mel", "encode", "decode", "total"}
    assert cpu["figures"]["peak_memory_bytes"] > 50 * 2**20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder", "--sizes", "huge"], "there is no size 'huge'"),
        (["clips", "--repeats", "0"], "not a number from 1 up"),
        (["--beams", "one"], "not a number from 1 up"),
        (["step", "--tokens", "441"], "pick from 1 to 440"),
        (["kv-cache", "--tokens", "441"], "pick from 1 to 440"),
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


# The processes of engines.


def test_a_process_answers_with_the_engine_s_own_sentence() -> None:
    with EngineProcess(1, ["tests.bench.fake_peer"]) as process:
        assert process.prepare("steady", "tiny.en").load == 0.01
        with pytest.raises(EngineError, match="no engine 'absent'"):
            process.prepare("absent", "tiny.en")
        pid = process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_threads_are_handed_on_only_where_there_is_a_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Elsewhere than on Linux a process refuses the option, whoever chose the number."""
    commands: list[list[str]] = []

    def note(command: list[str], **_: Any) -> Any:
        commands.append(command)

    monkeypatch.setattr(subprocess, "Popen", note)
    EngineProcess(2, ["a.peer"])
    monkeypatch.setattr(sys, "platform", "darwin")
    EngineProcess(2, ["a.peer"])
    assert ["--threads" in command for command in commands] == [True, False]
    assert [command[-2:] for command in commands] == [["--peers", "a.peer"]] * 2
    assert machine.share_threads() == torch.get_num_threads()
    with pytest.raises(EngineError, match="--threads needs Linux"):
        machine.share_threads(2)


def test_a_process_that_cannot_start_says_why() -> None:
    with EngineProcess(4096) as process, pytest.raises(EngineDied, match="processors may be used"):
        process.prepare("cpu", "tiny.en")


def test_whatever_goes_wrong_is_an_answer() -> None:
    def get(key: str, model: str) -> Any:
        raise MemoryError("all of it\nis gone")

    assert answer({"engine": "cpu", "model": "tiny.en"}, get) == {
        "error": "MemoryError: all of it is gone"
    }


def test_an_idle_process_ends_with_the_one_who_asked() -> None:
    """Its requests end, so it does; nothing is left over after a kill."""
    done = subprocess.run(
        [sys.executable, "-m", "engines.measure.worker"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_record_and_its_log_share_an_id() -> None:
    done = run_command(
        *("--engines", "steady", "--clips", "short", "--repeats", "1", *PEERS, "--lines"),
        environment={"LOG_FORMAT": "json"},
    )
    head, result, _ = lines_of(done.stdout)
    (logged,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert logged["run"] == head["run"] and logged["event"] == "measured"
    assert logged["engine"] == "steady" and logged["clip"] == "short"
    total = result["seconds"]["total"]["median"]
    assert logged["total"] == pytest.approx(total, abs=1e-4)


def test_all_of_it_goes_through_and_makes_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `make benchmark-save` and `make figures` do, but once, for one engine and in a copy."""
    (tmp_path / "docs").mkdir()
    path = tmp_path / figures.RECORD
    run_command("all", "--quick", "--engines", "cpu", "--peers", "none", "--json", str(path))
    written = json.loads(path.read_text())
    assert_documented(written)
    assert written["interrupted"] is False
    assert {result["benchmark"] for result in written["results"]} == set(written["settings"])
    errors = {result["error"] for result in written["results"]} - {None}
    assert errors == {why_no_max()} - {None}, "max_full is one of the decoders"
    for name in ("README.md", "docs/benchmarks.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    assert figures.main([]) == int(bool(errors))
    if errors:
        pytest.skip(f"{errors}: a record with failures makes no figures")
    for name in ("README.md", "docs/benchmarks.md"):
        text = (tmp_path / name).read_text()
        made = " ".join(text.split(figures.BEGIN)[1].split(figures.END)[0].split())
        assert f"on {written['started'][:10]}" in made and "| nano |" in made
