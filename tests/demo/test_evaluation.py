"""Many clips: what files are, what is run and gone on from, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile

from demo.clip_set import MOST_CLIPS, read_set
from demo.evaluation import draw, render_state
from demo.evaluation_task import EvaluationSnapshot, make_task
from demo.panels import evaluation
from demo.rules import RequestError
from engines.base import AudioError, Clip, EngineError, Listener, Transcript
from tests import fakes
from tests.demo.reading import EVIL, read
from tests.fake_page import make_backend

OTHER = fakes.WORDS.replace("fast", "slow")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips, whose words are known of the first, which is what one engine writes."""
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, fakes.make_clip(2.0).samples, 16_000)
    (tmp_path / "a.txt").write_text(fakes.WORDS)
    return tmp_path


class Counting(fakes.FakeEngine):
    """Counts its runs in `clips`; `hook` is called before each."""

    clips: int = 0
    hook: Callable[[], None] = staticmethod(lambda: None)

    def transcribe(self, *about: Any) -> Transcript:
        self.hook()
        self.clips += 1
        return super().transcribe(*about)


def start(
    folder: Path,
    *engines: Counting,
    files: Sequence[str] = ("a.wav", "a.txt", "b.wav"),
    earlier: EvaluationSnapshot | None = None,
    **asked: Any,
) -> Any:
    """Make a task of these engines over files of the folder."""
    by_key = {engine.key: engine for engine in engines}

    def load(path: str, listener: Listener) -> Clip:
        if "bad" in path:
            raise AudioError("It holds no sound.")
        return fakes.make_clip(2.0)

    backend = make_backend(folder, get_engine=lambda key, *_: by_key[key], load_clip=load)
    held = {"files": [str(folder / name) for name in files], "sample": "", "audio": None}
    held |= {"engines": list(by_key), "model": "tiny.en", **asked}
    return make_task(backend, held, earlier)


def finish(*about: Any, **how: Any) -> EvaluationSnapshot:
    *_, last = start(*about, **how).snapshots()
    assert isinstance(last, EvaluationSnapshot)
    return last


def test_files_are_clips_their_words_manifests_and_earlier_lines(folder: Path) -> None:
    (folder / "more").mkdir()
    files = [folder / "a.wav", folder / "a.txt", folder / "b.wav", folder / "x.txt"]
    files[-1].write_text("of no clip")
    manifest = folder / "m.csv"
    manifest.write_text("path,sentence\nfar/away/b.wav,Of the manifest\nc.wav,Not here\n")
    (folder / "old.jsonl").write_text(finish(folder, Counting()).results.write())
    found = read_set([*map(str, files), str(manifest), str(folder / "old.jsonl")], folder)
    assert [(x.name, x.reference) for x in found.clips] == [
        ("a.wav", fakes.WORDS),
        ("b.wav", "Of the manifest"),
    ]
    assert [line["clip"] for line in found.lines] == ["a.wav", "b.wav"]
    said = found.describe()
    assert said.startswith("2 clips, all with their words, and 2 lines of an earlier run.")
    assert "1 clip of the manifest" in said and "1 text" in said
    twice = read_set([str(folder / "a.wav")] * 2, folder)
    assert [x.name for x in twice.clips] == ["a.wav", "a (2).wav"]
    for wrong, sentence in (
        ([str(folder / "a.wav")] * (MOST_CLIPS + 1), f"{MOST_CLIPS} are the most"),
        (["/etc/passwd"], "uploaded here"),
        ([str(folder / "more" / "a.wav")], "uploaded here"),
    ):
        with pytest.raises(EngineError, match=sentence):
            read_set(wrong, folder)


@pytest.mark.parametrize(
    "change",
    [
        {"text": None},
        {"seconds": {"total": "1"}},
        {"seconds": []},
        {"audio_seconds": float("nan")},
        {"real_time_factor": -1},
        {"unit": EVIL},
        {"errors": None},
        {"error_rate": float("inf")},
    ],
)
def test_lines_that_no_evaluation_wrote_are_left_out(folder: Path, change: dict[str, Any]) -> None:
    line = json.loads(finish(folder, Counting()).results.write().split("\n")[0])
    lines = [line, {**line, **change}]
    (folder / "old.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    names = [str(folder / "a.wav"), str(folder / "old.jsonl")]
    assert read_set(names, folder).lines == [line]


def test_every_clip_runs_through_every_lane_and_what_fails_is_a_line(folder: Path) -> None:
    (folder / "bad.wav").write_bytes(b"RIFF")
    cpu, other = Counting(), Counting("max_hybrid", words=OTHER)
    files = ("a.wav", "a.txt", "b.wav", "bad.wav")
    last = finish(folder, cpu, other, files=files)
    results = last.results
    assert last.state == "done" and (cpu.clips, other.clips) == (2, 2)
    found = [(x["engine"], x["clip"], x["error"], x.get("errors")) for x in results.lines if x]
    broken = "It holds no sound."
    assert found == [
        ("cpu", "a.wav", None, 0),
        ("cpu", "b.wav", None, None),
        ("cpu", "bad.wav", broken, None),
        ("max_hybrid", "a.wav", None, 1),
        ("max_hybrid", "b.wav", None, None),
        ("max_hybrid", "bad.wav", broken, None),
    ]
    broken_engine = Counting("max_hybrid", error=EngineError("It broke."))
    last = finish(folder, cpu, broken_engine, earlier=last)
    assert cpu.clips == 2, "its lines are still good"
    assert [line and line["error"] for line in last.results.of_lane(1)] == [None, None], (
        "nor is the other's"
    )
    with pytest.raises(RequestError, match="no clips yet"):
        start(folder, cpu, files=())
    with pytest.raises(RequestError, match="Choose at least one engine"):
        start(folder)


def test_a_stop_leaves_its_lines_and_the_next_run_goes_on(folder: Path) -> None:
    cpu, other = Counting(), Counting("max_hybrid")
    task = start(folder, cpu, other)
    other.hook = task.stop
    *_, last = task.snapshots()
    assert last.state == "stopped" and [x is not None for x in last.results.lines][:1] == [True]
    assert "Stopped after 1 of 4 runs" in render_state(last)
    other.hook = lambda: None
    runs = cpu.clips
    assert finish(folder, cpu, other, earlier=last).state == "done"
    assert cpu.clips == runs + 1, "the clip that was done is not run again"
    finish(folder, cpu, other, earlier=last, beam_size=5)
    assert cpu.clips == runs + 3, "other options are other runs"


def test_the_table_and_the_chart(folder: Path) -> None:
    evil = "<b>&.wav"
    (folder / evil).write_bytes((folder / "a.wav").read_bytes())
    (folder / "<b>&.txt").write_text(OTHER)
    names = ("a.wav", "a.txt", "b.wav", evil, "<b>&.txt")
    last = finish(folder, Counting(), Counting("max_hybrid", words=OTHER), files=names)
    (drawn, chart) = draw(last, True)
    table = read("".join(drawn["table"]))
    rows = [[cell.text for cell in row.all("td")] for row in table.all("tr")[1:]]
    rates = [[text.split()[0] for text in row] for row in rows]
    assert rates == [["9.1%", "0.0%"], ["0.0%", "9.1%"], ["11", "1"]]
    assert all("1 differ" in row[1] for row in rows) and not table.all(kind="same")
    assert "<b>" not in "".join(drawn["table"]) and "<b>" not in chart["chart"]
    totals = [cell.text for cell in read(drawn["result"]).all("tr")[2].all("td")]
    assert totals[:5] == ["3 of 3", "4.55%", "0.00% to 9.09%", "1 of 22", "3 words in 3 clips"]
    figure = json.loads(read(chart["chart"]).all(kind="plot")[0].attributes["data-figure"])
    (dots,) = figure["data"]
    assert (dots["x"], dots["y"], dots["customdata"]) == ([9.09, 0.0], [0.0, 9.09], ["0", "1"])
    alike = finish(folder, Counting(), Counting("max_hybrid"), files=names[:3])
    assert len(read("".join(evaluation.render_table(alike.results))).all("tr", "same")) == 2
    alone = finish(folder, Counting(), files=names[:3])
    assert evaluation.NO_SCATTER in evaluation.render_scatter(alone.results)
