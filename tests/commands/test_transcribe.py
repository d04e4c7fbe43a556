"""`transcribe`: several clips, folders, files of transcripts, and what a terminal shows."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from engines import printing
from engines.base import Progress, Segment
from tests import fakes
from tests.commands.conftest import Command


def test_clips_and_folders_become_files_and_one_that_fails_leaves_the_others(
    command: Command, clip: Path, tmp_path: Path
) -> None:
    folder, out = clip.parent, tmp_path / "new" / "out"
    (folder / "broken.wav").write_text("no sound")
    (folder / ".hidden.wav").touch()
    (alike := tmp_path / "short.wav").write_bytes(clip.read_bytes())
    done = command("transcribe --output_dir", out, folder, "talk", alike, "--max_line_width=20")
    assert (
        done.exit_code == 1 and done.stderr.count("error: broken.wav can't be read as audio") == 1
    )
    heads = [line for line in done.stdout.splitlines() if line.endswith(":")]
    assert heads == ["short.flac:", "talk.flac:", "short.wav:"]
    names = {path.stem for path in out.iterdir()}
    assert names == {"short", "talk", "short.wav"} and len(list(out.iterdir())) == 15
    assert json.loads((out / "talk.json").read_text())["text"] == fakes.WORDS
    lines = (out / "talk.srt").read_text().splitlines()
    assert "The compiler turns" in lines and max(map(len, lines)) < 30
    assert command("transcribe -f srt --track 1 -o", out / "one", clip).exit_code == 0
    assert [path.name for path in (out / "one").iterdir()] == ["short.track-1.srt"]
    (empty := tmp_path / "empty").mkdir()
    assert "has no clip" in command("transcribe", empty).stderr


def test_a_stream_that_is_not_utf_8_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    printing.escape_unencodable()
    segment = Segment(0.0, 1.0, " Déjà 你好", (), 0.0)
    printing.PrintSegments(fakes.make_clip()).segment(segment)
    printing.print_json({"text": "你好 😀"})
    stream.flush()
    line, found = written.getvalue().decode("cp1252").splitlines()
    assert line == "[   0.00 ->    1.00] Déjà \\u4f60\\u597d"
    assert json.loads(found) == {"text": "你好 😀"}


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with printing.PrintSegments(fakes.make_clip(6.0)) as shown:
        shown.progress(Progress("decoding", 3.0, 6.0))
    assert "50%" in terminal.getvalue()
