"""Fifty visitors at once, and memory over many comparisons: small, over engines that need no model.

`make load-check` does the same with the real page, the real engines and three hundred comparisons.
"""

from __future__ import annotations

import gc
import itertools
import threading
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from gradio_client.exceptions import AppError

from demo import jobs, server
from demo.limits import Limits
from engines import audio
from engines.base import Clip, Transcript
from tests import fakes
from tests.fake_page import FakePage
from tests.load import check, visitors

Serve = Callable[..., FakePage]

CLIP = visitors.Clip(Path("visitor-1.wav"), 3.0)
CRASH = (
    "The upstream Gradio app has raised an exception but has not enabled verbose error reporting. "
    "To enable, set show_error=True in launch()."
)
"""How `gradio_client` tells of any exception."""

VISITORS = 50
LAP = 6

MOST_GROWN = 50_000
"""Bytes that a visit may leave; 6,000 were measured, most of them Gradio's, which keeps a queue for
each of its sessions, and 200,000 while the page remembers as many visits as come."""
BOTH = ("cpu", "max_hybrid")


class Echo(fakes.FakeEngine):
    """Writes which clip it heard."""

    def transcribe(self, clip: Clip, *rest: Any) -> Transcript:
        words = f"This is {clip.name}"
        heard = fakes.FakeEngine(self.key, self.label, words, last_word=self.last_word)
        return heard.transcribe(clip, *rest)


@pytest.fixture
def clips(tmp_path: Path) -> list[visitors.Clip]:
    """One for each visitor."""
    import soundfile

    sample = tmp_path / "sample.flac"
    soundfile.write(sample, fakes.make_clip(4.0).samples, 16_000)
    (tmp_path / "clips").mkdir()
    return visitors.cut_clips(sample, tmp_path / "clips", VISITORS)


def echoes() -> dict[str, fakes.FakeEngine]:
    return {"cpu": Echo(), "max_hybrid": Echo("max_hybrid", "MAX hybrid")}


def serve_real_reader(fake: FakePage, **engines: Any) -> str:
    """A page that reads clips, with these engines; its address."""
    fake.load_clip = audio.load_clip
    fake.use(**engines)
    return fake.url


def list_uploads(folder: Path, sample_folder: Path) -> list[str]:
    """The files that visitors left, without the page's copy of its sample."""
    found = {path.name for path in folder.rglob("*") if path.is_file()}
    return sorted(found - {path.name for path in sample_folder.iterdir()})


def test_fifty_visitors_at_once_get_each_their_own(
    serve_fakes: Serve, clips: list[visitors.Clip], uploads: Path, sample_folder: Path
) -> None:
    url = serve_real_reader(serve_fakes(), **echoes())
    visits = visitors.visit_at_once(url, clips, BOTH)
    assert [visit.fault or visit.refusal for visit in visits if not visit.text] == []
    assert [visit.text for visit in visits] == [f"This is {clip.path.name}" for clip in clips]
    # The page's clips stay for an hour, the endpoint's went with their calls.
    assert list_uploads(uploads, sample_folder) == [clip.path.name for clip in clips[1::2]]


def test_visitors_past_the_limit_are_refused_in_a_sentence(
    serve_fakes: Serve, clips: list[visitors.Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run is held until somebody has come back from each place that there isn't."""
    gate, refusals, visit_once = threading.Event(), itertools.count(1), visitors.visit

    def visit(*arguments: Any) -> visitors.Visit:
        found = visit_once(*arguments)
        if next(refusals) == 12 - 4:
            gate.set()
        return found

    monkeypatch.setattr(visitors, "visit", visit)
    engines: dict[str, Any] = echoes()
    for fake in engines.values():
        fake.last_word = gate
    url = serve_real_reader(serve_fakes(limits=Limits(waiting=3)), **engines)
    visits = visitors.visit_at_once(url, clips[:12], BOTH)
    assert not [visit.fault for visit in visits if visit.fault]
    refused = [visit.refusal for visit in visits if visit.refusal]
    assert all(one.startswith("The queue is full, 3 waiting: try again in") for one in refused)
    assert (len(refused), len([visit for visit in visits if visit.text])) == (8, 4)


def test_memory_is_flat_over_many_comparisons(
    serve_fakes: Serve, clips: list[visitors.Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python holds after each lap of visitors, with room for the last few of them."""
    monkeypatch.setattr(jobs, "MOST_VISITS", 4)
    monkeypatch.setattr(server, "MOST_SESSIONS", 4)
    monkeypatch.setenv("GRADIO_ANALYTICS_MAX_EVENTS", "4")
    url = serve_real_reader(serve_fakes(), **echoes())

    def go_round() -> int:
        for number, clip in enumerate(clips[:LAP]):
            ask = (visitors.by_program, visitors.by_page)[number % 2]
            assert visitors.visit(ask, url, clip, BOTH).text
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        sizes = [go_round() for _ in range(4)]
    finally:
        tracemalloc.stop()
    # The first laps fill pools and caches; what leaks does so in each of them.
    grown = min(after - before for before, after in pairwise(sizes)) / LAP
    assert grown < MOST_GROWN, f"each visit leaves {grown:.0f} bytes: {sizes}"


def write_report(**changes: Any) -> check.Report:
    """A report of two visitors at once and two after them, in which all is well."""
    one, two = (visitors.Clip(Path(f"visitor-{number}.wav"), 3.0) for number in "12")
    visits = [visitors.Visit(one, 1.0, text="one"), visitors.Visit(two, 2.0, text="two")]
    memory = [check.Memory(after, 100 * 2**20, {"cpu": 2**20}) for after in (0, 1, 2)]
    well: dict[str, Any] = {"crowd": visits, "line": visits, "memory": memory, "status": 0}
    return check.Report(**well | {"queue": 50, "crowd_seconds": 2.0} | changes)


def remember(page: int, cpu: int) -> list[check.Memory]:
    """The memory at the start, after the first third, and at the end, when two parts are larger."""
    sizes = ((0, 300, 40), (1, 300, 40), (2, 300 + page, 40 + cpu))
    return [check.Memory(after, a * 2**20, {"cpu": b * 2**20}) for after, a, b in sizes]


def test_the_report_of_a_good_day_has_no_fault() -> None:
    report = write_report()
    assert report.list_faults() == []
    assert "2 visitors at once: 2 results, 0 refusals" in report.describe()
    assert "after    2:   101 MiB = page 100 MiB, cpu 1 MiB" in report.describe()
    assert report.describe().endswith("0 faults")


def full(count: int, end: str = ".") -> list[visitors.Visit]:
    """Visitors who found the queue full."""
    refusal = f"The queue is full, 1 waiting: try again later{end}"
    return [visitors.Visit(CLIP, 0.1, refusal=refusal)] * count


def heard(count: int, by_page: bool = False) -> list[visitors.Visit]:
    """Visitors who got their words."""
    return [visitors.Visit(CLIP, 0.1, text="one", by_page=by_page)] * count


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"crowd": [visitors.Visit(CLIP, 1.0, text="other")]}, "visitor-1.wav got ['one', 'other'"),
        ({"crowd": [visitors.Visit(CLIP, 1.0, fault="Wrong: another's")]}, "Wrong: another's"),
        ({"crowd": [visitors.Visit(CLIP, 1.0, refusal=CRASH)]}, "was refused: The upstream"),
        ({"crowd": [visitors.Visit(CLIP, 1.0, refusal="Wait a minute.")]}, "was refused: Wait a"),
        ({"queue": 1, "crowd": full(3)}, "3 visitors found the queue full, and 1 is the most"),
        ({"queue": 50, "crowd": full(1)}, "1 visitors found the queue full, and 0 is the most"),
        ({"queue": 1, "crowd": full(1, "!") + heard(2)}, "was refused in no sentence"),
        ({"line": [visitors.Visit(CLIP, 1.0, refusal="Wait.")]}, "was refused: Wait."),
        ({"memory": remember(page=17, cpu=0)}, "the memory of page grew from 300 MiB to 317"),
        ({"memory": remember(page=-20, cpu=17)}, "the memory of cpu grew from 40 MiB to 57"),
        ({"files": ["visitor-2.wav"]}, "left by a program's call: visitor-2.wav"),
        ({"line": heard(1, by_page=True), "files": ["visitor-1.wav"] * 2}, "left by a program's"),
        ({"left": ["process 7"]}, "left after the end: process 7"),
        ({"status": None}, "ended with status None"),
    ],
)
def test_the_report_names_each_fault(changes: dict[str, Any], fault: str) -> None:
    faults = write_report(**changes).list_faults()
    assert len(faults) == 1 and fault in faults[0]


def test_a_full_queue_s_refusal_is_no_fault() -> None:
    report = write_report(queue=1, crowd=full(1) + heard(2))
    assert not report.list_faults() and "2 results, 1 refusals" in report.describe()


def test_room_for_allocators_and_clips_of_the_page_s_are_no_fault() -> None:
    well = {"line": heard(2, by_page=True), "files": ["visitor-1.wav"] * 2}
    assert not write_report(memory=remember(page=15, cpu=15), **well).list_faults()


def test_a_crash_is_told_from_a_full_queue() -> None:
    def crash(url: str, clip: visitors.Clip, engines: Any) -> str:
        raise AppError(CRASH)

    visit = visitors.visit(crash, "", CLIP, BOTH)
    assert visit.refusal and len(write_report(queue=0, crowd=[visit] * 2).list_faults()) == 2
