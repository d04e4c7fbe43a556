"""Subtitles: times, escapes, and transcripts with nothing in them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.subtitles import write_srt, write_vtt
from engines.base import Segment

SRT_CUE = re.compile(
    r"(\d+)\n(\d{2,}:\d\d:\d\d,\d{3}) --> (\d{2,}:\d\d:\d\d,\d{3})\n([^\n]+)\n\n", re.ASCII
)
VTT_CUE = re.compile(
    r"((?:\d{2,}:)?\d\d:\d\d\.\d{3}) --> ((?:\d{2,}:)?\d\d:\d\d\.\d{3})\n([^\n]+)\n\n", re.ASCII
)

segments = st.lists(
    st.builds(
        lambda start, length, text: segment(start, start + length, text),
        st.floats(0, 20_000),
        st.floats(0, 60),
        st.text(),
    )
)


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(start, end, text, (), 0.0)


def milliseconds(clock: str) -> int:
    *hours, minutes, seconds, rest = (int(part) for part in re.split(r"[:.,]", clock))
    return ((sum(hours) * 60 + minutes) * 60 + seconds) * 1000 + rest


def test_srt_has_a_number_times_with_a_comma_and_a_blank_line() -> None:
    cues = [segment(0.0, 1.5, " One."), segment(3661.0005, 3662.25, " Two.")]
    assert write_srt(cues) == (
        "1\n00:00:00,000 --> 00:00:01,500\nOne.\n\n2\n01:01:01,000 --> 01:01:02,250\nTwo.\n\n"
    )


def test_vtt_has_a_head_and_times_with_a_point() -> None:
    assert write_vtt([segment(59.9996, 61.0, " One.")]) == (
        "WEBVTT\n\n01:00.000 --> 01:01.000\nOne.\n\n"
    )


def test_a_transcript_without_speech() -> None:
    for nothing in ([], [segment(0.0, 2.0, "  ")]):
        assert write_srt(nothing) == ""
        assert write_vtt(nothing) == "WEBVTT\n\n"


@pytest.mark.parametrize("end", [1.0, 0.5, 1.0001])
def test_a_cue_ends_after_its_start(end: float) -> None:
    assert "00:01.000 --> 00:01.001" in write_vtt([segment(1.0, end, "Short.")])


def test_vtt_escapes_what_it_reserves() -> None:
    assert "\na &lt;b&gt; &amp;amp; c --&gt; d\n" in write_vtt(
        [segment(0, 1, "a <b> &amp; c --> d")]
    )


def test_no_player_takes_srt_text_for_a_tag_or_for_times() -> None:
    text = write_srt([segment(0, 1, "a <i>b</i>\n\n2\n00:00:00,000 --> 00:00:01,000")])
    assert not re.search(r"<[a-z/]", text)
    assert text.count("-->") == 1 and len(SRT_CUE.findall(text)) == 1


@given(segments)
def test_whatever_was_said_makes_well_formed_files(said: list[Segment]) -> None:
    count = sum(bool(" ".join(one.text.replace("\0", " ").split())) for one in said)
    srt, vtt = write_srt(said), write_vtt(said)
    found = SRT_CUE.findall(srt)
    assert "".join(f"{n}\n{a} --> {b}\n{t}\n\n" for n, a, b, t in found) == srt
    assert [int(number) for number, *_ in found] == list(range(1, count + 1))
    cues = VTT_CUE.findall(vtt)
    assert len(cues) == count
    assert "WEBVTT\n\n" + "".join(f"{a} --> {b}\n{t}\n\n" for a, b, t in cues) == vtt
    for start, end, text in cues:
        assert milliseconds(start) < milliseconds(end)
        assert "<" not in text and "-->" not in text
