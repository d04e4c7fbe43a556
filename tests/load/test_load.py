"""Many visitors at once, and memory over many comparisons, over engines that need no model.

`make load-check` has fifty visitors and three hundred comparisons on the real page and engines.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from demo import server, visits
from engines import audio
from engines.base import Clip, Transcript
from tests import fakes
from tests.fake_page import FakePage
from tests.load.check import cut_clips, visit_at_once, visit_once

VISITORS = 16
LAP = 2

MOST_GROWN = 50_000
"""Bytes that a visit may leave; 6,000 were measured, most of them Gradio's, which keeps a queue for
each of its sessions, and 200,000 while the page remembers as many visits as come."""
BOTH = ("cpu", "max_hybrid")


class Echo(fakes.FakeEngine):
    """Writes which clip it heard."""

    def transcribe(self, clip: Clip, *rest: Any) -> Transcript:
        heard = fakes.FakeEngine(self.key, self.label, f"This is {clip.name}", shape=(20, 8))
        return heard.transcribe(clip, *rest)


@pytest.fixture
def clips(sample_folder: Path, tmp_path: Path) -> list[Path]:
    return cut_clips(sample_folder / "jfk.flac", tmp_path, VISITORS)


@pytest.fixture
def url(serve_fakes: Callable[..., FakePage]) -> str:
    """The address of a page that reads clips."""
    fake = serve_fakes()
    fake.load_clip = lambda path, listener: audio.load_clip(path)
    fake.use(cpu=Echo(), max_hybrid=Echo("max_hybrid", "MAX hybrid"))
    return fake.url


def test_many_visitors_at_once_get_their_own(url: str, clips: list[Path], uploads: Path) -> None:
    assert visit_at_once(url, clips, BOTH) == [f"This is {clip.name}" for clip in clips]
    # The page's clips stay for an hour, the endpoint's went with their calls.
    left = sorted(path.name for path in uploads.rglob("visitor-*"))
    assert left == [clip.name for clip in clips[1::2]]


@pytest.mark.slow
def test_memory_is_flat_over_visits(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, clips: list[Path]
) -> None:
    """What Python holds after each lap of visitors, with room for the last few of them only."""
    monkeypatch.setattr(visits, "MOST_VISITS", 1)
    monkeypatch.setattr(server, "MOST_SESSIONS", 1)
    monkeypatch.setenv("GRADIO_ANALYTICS_MAX_EVENTS", "2")
    url = request.getfixturevalue("url")

    def go_round() -> int:
        for at, clip in enumerate(clips[:LAP]):
            assert visit_once(url, clip, BOTH, at) == f"This is {clip.name}"
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    for _ in range(2):  # fills pools and caches
        go_round()
    tracemalloc.start()
    sizes = [go_round() for _ in range(3)]
    tracemalloc.stop()
    grown = min(after - before for before, after in pairwise(sizes)) / LAP
    assert grown < MOST_GROWN, f"each visit leaves {grown:.0f} bytes: {sizes}"
