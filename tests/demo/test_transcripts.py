"""Words with times: known ones as they are, others spread over their segment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo import transcripts
from demo.snapshot import Settings, lay_out
from engines.base import Options, Segment
from tests import fakes


def cut(timed: bool) -> tuple[Segment, ...]:
    options = Options(word_timestamps=timed)
    return fakes.FakeEngine().transcribe(fakes.make_clip(), options).segments


def test_known_times_are_kept() -> None:
    segment = cut(timed=True)[0]
    assert segment.words is not None
    assert transcripts.time_words(segment) == [(w.text.strip(), w.start) for w in segment.words]


def test_other_times_are_spread_by_length_within_the_segment() -> None:
    spread = transcripts.spread_words(["a", "three", "of"], 2.0, 4.2)
    assert spread == [("a", 2.0), ("three", pytest.approx(2.4)), ("of", pytest.approx(3.6))]
    assert transcripts.spread_words([], 1.0, 2.0) == []


def test_every_word_says_when_it_is_heard_and_segments_can_be_played_from_the_keyboard() -> None:
    html = transcripts.render_segment(cut(timed=True)[0])
    assert '<span data-t="0.55">compiler</span>' in html
    assert '<button type="button" class="from" data-t="0.00" aria-label="Play from 0:00">' in html


def test_estimates_are_called_estimates() -> None:
    assert "estimate" in transcripts.SPREAD_TIMES
    assert "estimate" not in transcripts.KNOWN_TIMES


def test_nothing_said_becomes_markup() -> None:
    segment = replace(cut(timed=False)[0], text=" <b>bold</b> & more")
    html = transcripts.render_segment(segment)
    assert "<b>" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html


def test_empty_boxes_say_why() -> None:
    lane = lay_out(Settings(engines=("cpu",)), fakes.STATUSES).lanes[0]
    assert "appear here" in transcripts.list_rows(lane)[0]
    assert "Stopped before" in transcripts.list_rows(replace(lane, state="stopped"))[0]
    broken = replace(lane, state="failed", reason="no <room>")
    assert "no &lt;room&gt;" in transcripts.list_rows(broken)[0]
