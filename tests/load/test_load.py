"""Fifty visitors at once, and memory over many comparisons, over engines that need no model.

`make load-check` does the same with the real page, the real engines and three hundred comparisons.
"""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from demo import jobs, server
from demo.limits import Limits
from engines import audio
from engines.base import Clip, Transcript
from tests import fakes
from tests.fake_page import FakePage
from tests.load.check import cut_clips, visit_at_once, visit_once
from tests.processes import wait_until

Serve = Callable[..., FakePage]

VISITORS = 50
LAP = 2

MOST_GROWN = 50_000
"""Bytes that a visit may leave; 6,000 were measured, most of them Gradio's, which keeps a queue for
each of its sessions, and 200,000 while the page remembers as many visits as come."""
BOTH = ("cpu", "max_hybrid")


class Echo(fakes.FakeEngine):
    """Writes which clip it heard."""

    def transcribe(self, clip: Clip, *rest: Any) -> Transcript:
        words = f"This is {clip.name}"
        heard = fakes.FakeEngine(
            self.key, self.label, words, last_word=self.last_word, shape=(20, 8)
        )
        return heard.transcribe(clip, *rest)


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """One for each visitor."""
    import soundfile

    soundfile.write(tmp_path / "sample.flac", fakes.make_clip(4.0).samples, 16_000)
    return cut_clips(tmp_path / "sample.flac", tmp_path, VISITORS)


def serve_echoes(fake: FakePage, gate: threading.Event | None = None) -> str:
    """A page that reads clips; its address. `gate`: what the engines wait for."""
    fake.load_clip = lambda path, listener: audio.load_clip(path)
    fake.use(cpu=Echo(last_word=gate), max_hybrid=Echo("max_hybrid", "MAX hybrid", last_word=gate))
    return fake.url


def test_fifty_visitors_at_once_get_each_their_own(
    serve_fakes: Serve, clips: list[Path], uploads: Path
) -> None:
    visits = visit_at_once(serve_echoes(serve_fakes()), clips, BOTH)
    assert visits == [f"This is {clip.name}" for clip in clips]
    # The page's clips stay for an hour, the endpoint's went with their calls.
    left = sorted(path.name for path in uploads.rglob("visitor-*"))
    assert left == [clip.name for clip in clips[1::2]]


def test_visitors_past_the_limit_are_refused_in_a_sentence(
    serve_fakes: Serve, clips: list[Path]
) -> None:
    """The first run is held until the queue is full and everybody else has come back."""
    gate, fake = threading.Event(), serve_fakes(limits=Limits(waiting=3))
    url, refused = serve_echoes(fake, gate), []
    waiting = threading.Thread(target=lambda: refused.extend(visit_at_once(url, clips[:4], BOTH)))
    waiting.start()
    wait_until(lambda: fake.queue.count()["waiting"] == 3, "a full queue")
    late = visit_at_once(url, clips[4:10], BOTH)
    gate.set()
    waiting.join(60)
    assert all("The queue is full, 3 waiting: try again in" in str(each) for each in late), late
    assert refused == [f"This is {clip.name}" for clip in clips[:4]]


def test_memory_is_flat_over_many_comparisons(
    serve_fakes: Serve, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python holds after each lap of visitors, with room for the last few of them."""
    monkeypatch.setattr(jobs, "MOST_SAVED", 1)
    monkeypatch.setattr(server, "MOST_SESSIONS", 1)
    monkeypatch.setenv("GRADIO_ANALYTICS_MAX_EVENTS", "2")
    url = serve_echoes(serve_fakes())

    def go_round() -> int:
        visits = [visit_once(url, clip, BOTH, at) for at, clip in enumerate(clips[:LAP])]
        assert visits == [f"This is {clip.name}" for clip in clips[:LAP]]
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    for _ in range(2):  # fills pools and caches
        go_round()
    tracemalloc.start()
    try:
        sizes = [go_round() for _ in range(3)]
    finally:
        tracemalloc.stop()
    grown = min(after - before for before, after in pairwise(sizes)) / LAP
    assert grown < MOST_GROWN, f"each visit leaves {grown:.0f} bytes: {sizes}"
