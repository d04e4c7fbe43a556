"""What is exported: the record, a report that asks no host, and subtitles; only one's own."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import zipfile
from dataclasses import replace
from html import unescape
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from demo.exports import (
    COMPARISON_FILES,
    TRANSCRIPT_FILES,
    make_file,
    read_scripts,
    render_report,
    write_figures,
)
from demo.panels import PANELS
from demo.record import as_json, describe
from demo.snapshot import Comparison, Repeat
from demo.visits import Saved, SavedResults
from engines.base import Options, Segment, StageSeconds, Word
from engines.clip_source import Source, Track
from engines.transcript_files import LineBreaks, write_segments
from tests import fakes
from tests.demo.reading import EVIL, compare, fail_second, read
from tests.demo.test_panels import make_hostile

RUN = "0123456789ab"


def save(result: Comparison) -> SavedResults:
    """A visit that ended with this comparison, as the page keeps it."""
    saved = SavedResults()
    drawn = {panel.key: panel.render(result) for panel in PANELS}
    saved.save("me", "comparison", Saved({}, replace(result, run=RUN).to_save(), drawn, True))
    return saved


def test_files_are_the_visitor_s_own_and_named_in_plain_letters() -> None:
    film = Source((Track(1, "aac", 2), Track(2, "aac", 2)), 2)
    named = replace(fail_second(compare()), clip_name=f"../{EVIL}/Größe 1.wav", source=film)
    saved = save(named)
    file = json.loads(make_file(saved, "json", "me")[0])
    assert re.fullmatch(rf"[a-z0-9-]{{1,40}}-track-2-{RUN}\.json", file["name"])
    assert json.loads(file["text"])["lanes"][0]["text"] == fakes.WORDS
    for stranger in ("", "you"):
        parcel, note = make_file(saved, "json", stranger)
        assert parcel == "" and "press Compare" in note
    parcel, note = make_file(saved, "srt", "me", "max_hybrid", "MAX hybrid")
    assert parcel == "" and "MAX hybrid wrote nothing in this comparison." in note
    file = json.loads(make_file(saved, "vtt", "me", "cpu", "CPU")[0])
    assert file["text"].startswith("WEBVTT\n\n00:00.000 --> ")
    assert file["name"].endswith(f"-{RUN}.cpu.vtt") and file["type"] == "text/vtt"


def test_everything_comes_as_one_archive_whose_names_say_what_is_in_it() -> None:
    saved = save(replace(compare("=1 turned the graph"), clip_name="Talk"))
    parcel = json.loads(make_file(saved, "zip", "me")[0])
    archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(parcel["base64"])))
    folder = f"talk-{RUN}"
    whole = ["figures.csv", "report.html", "result.json"]
    words = [
        f"transcripts/{name}.{kind}" for name in ("CPU", "MAX hybrid") for kind in TRANSCRIPT_FILES
    ]
    assert sorted(archive.namelist()) == sorted(f"{folder}/{name}" for name in whole + words)
    for kind in COMPARISON_FILES:
        assert kind == "zip" or json.loads(make_file(saved, kind, "me")[0])["text"]
    text = archive.read(f"{folder}/transcripts/CPU.txt").decode()
    assert " ".join(text.split()) == fakes.WORDS and len(text.splitlines()) == 3
    table = archive.read(f"{folder}/transcripts/MAX hybrid.tsv").decode().splitlines()
    assert table == ["start\tend\ttext", "0\t6000\t\N{WORD JOINER}=1 turned the graph"]


def test_figures_have_a_row_for_each_run_and_no_formula() -> None:
    done = fail_second(compare(reference=fakes.WORDS), "=cmd|' /C calc'!A0")
    slow = Repeat(StageSeconds(0.0, mel=0.1, encode=1.0, decode=2.9))
    lanes = (replace(done.lanes[0], repeats=(*done.lanes[0].repeats, slow)), done.lanes[1])
    text = write_figures(replace(done, lanes=lanes, clip_name="+1,\n-2"))
    assert text.startswith("\N{BYTE ORDER MARK}clip,")
    first, second, failed = csv.DictReader(io.StringIO(text[1:]))
    assert (first["total_seconds"], second["total_seconds"]) == ("2", "4")
    assert (first["repeat"], second["repeat"], first["times_real_time"]) == ("1", "2", "3")
    assert first["word_error_rate_against_reference"] == "0" and first["words"] == "11"
    assert (first["run"], failed["run"]) == ("beside others", "")
    assert (failed["state"], failed["total_seconds"]) == ("failed", "")
    assert failed["reason"] == "'=cmd|' /C calc'!A0" and failed["clip"] == "'+1,\n-2"


def test_the_record_says_what_ran_where_and_what_came_of_it() -> None:
    done = compare("The compiler turned the graph", reference=fakes.WORDS.upper())
    record = json.loads(as_json(describe(done)))
    assert record["machine"]["versions"]["gradio"] and record["machine"]["cores"] >= 1
    (absent,) = record["absent"]
    assert (absent["engine"], absent["reason"]) == ("gpu", "no CUDA device was found")
    cpu, hybrid = record["lanes"]
    assert cpu["text"] == fakes.WORDS and cpu["against_baseline"] is None
    assert cpu["tokens"] == list(range(11)) and cpu["runs"] == [2.0]
    assert cpu["segments"][0]["text"] == " The compiler turns the"
    stages = {"audio": 0, "setup": 0, "mel": 0.1, "encode": 0.4, "decode": 1.5}
    assert cpu["seconds"] == {**stages, "total": 2.0}
    loud, errors = cpu["against_reference"], hybrid["against_baseline"]
    assert loud["character_error_rate"] > loud["normalised_character_error_rate"] == 0
    assert [errors[each] for each in ("substituted", "inserted", "deleted")] == [1, 0, 6]
    assert errors["word_error_rate"] == pytest.approx(7 / 11)


def test_failed_engines_and_silence_are_records_and_reports() -> None:
    quiet = fail_second(compare(reference=""))
    cpu, lane = json.loads(as_json(describe(quiet)))["lanes"]
    assert cpu["against_reference"]["word_error_rate"] is None
    assert lane["state"] == "failed" and lane["reason"] == "no room on device"
    assert lane["text"] == "" and lane["seconds"] is None
    assert "Nothing is said in this clip." in read(render_report(quiet)).text


# The report.


def test_the_report_shows_every_panel_settings_and_machine() -> None:
    done = compare("The compiler turned", reference="x", language=None)
    words = fakes.FakeEngine().transcribe(fakes.make_clip(), Options(word_timestamps=True))
    lanes = (replace(done.lanes[0], segments=words.segments), done.lanes[1])
    saved = save(replace(done, lanes=lanes, clip_name="Talk"))
    html = json.loads(make_file(saved, "html", "me")[0])["text"]
    page = read(html)
    sections = [each.attributes["id"] for each in page.all("section") if "id" in each.attributes]
    assert sections == [panel.key for panel in PANELS if panel.key != "chips"]
    named = [panel.title for panel in PANELS if panel.title]
    for expected in (*named, "turned", RUN, "tiny.en", "Python 3", "detected automatically"):
        assert expected in page.text
    assert "Relative L2" in page.text, "the page's charts, whose features are no longer kept"
    assert page.all("ruby")[1].text == "compiler 0.5"
    (transcripts,) = page.all("section", id="lanes")
    assert not transcripts.all("button"), "words are to be read, not to be clicked"
    script = page.all("script")[0].children[0]
    assert isinstance(script, str) and len(html.encode()) - len(script.encode()) < 400_000


def test_the_report_asks_no_host_and_runs_nothing_but_its_charts() -> None:
    for comparison in (compare(), *make_hostile()):
        html, script = render_report(comparison), read_scripts()
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in html
        html = html.replace(f"<script>{script}</script>", "")
        elements = list(read(html).walk())
        forbidden = {"b", "script", "link", "iframe", "object", "embed", "form", "base"}
        assert not forbidden & {each.tag for each in elements}
        attributes = [pair for each in elements for pair in each.attributes.items()]
        assert not [name for name, _ in attributes if name.startswith("on")]
        sources = [v for name, v in attributes if name in ("src", "href", "srcset", "xlink:href")]
        assert all(value.startswith(("data:image/png;base64,", "#")) for value in sources)
        assert "@import" not in html and not re.search(r"url\((?!data:|#)", html)
        assert "default-src 'none'" in html


# Subtitles.

SRT_CUE = re.compile(
    r"(\d+)\n(\d{2,}:\d\d:\d\d,\d{3}) --> (\d{2,}:\d\d:\d\d,\d{3})\n([^\n]+)\n\n", re.ASCII
)
VTT_CUE = re.compile(
    r"((?:\d{2,}:)?\d\d:\d\d\.\d{3}) --> ((?:\d{2,}:)?\d\d:\d\d\.\d{3})\n([^\n]+)\n\n", re.ASCII
)


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(start, end, text, (), 0.0)


def milliseconds(clock: str) -> int:
    *hours, minutes, seconds, rest = (int(part) for part in re.split(r"[:.,]", clock))
    return ((sum(hours) * 60 + minutes) * 60 + seconds) * 1000 + rest


def test_subtitles_are_as_players_read_them() -> None:
    cues = [segment(59.9996, 61, " One."), segment(3661.0005, 3662.25, " a <b> &amp; c --> d")]
    assert write_segments(cues, "srt") == (
        "1\n00:01:00,000 --> 00:01:01,000\nOne.\n\n"
        "2\n01:01:01,000 --> 01:01:02,250\na <\N{WORD JOINER}b> &amp; c -> d\n\n"
    )
    assert write_segments(cues, "vtt") == (
        "WEBVTT\n\n01:00.000 --> 01:01.000\nOne.\n\n"
        "01:01:01.000 --> 01:01:02.250\na &lt;b&gt; &amp;amp; c -&gt; d\n\n"
    )


@given(
    st.lists(
        st.builds(
            lambda start, length, text: segment(start, start + length, text),
            st.floats(0, 20_000),
            st.floats(-1, 60),
            st.text(),
        )
    )
)
@example([segment(0, 1, "a <i>b</i>\n\n2\n00:00:00,000 --> 00:00:01,000")])
def test_whatever_was_said_makes_well_formed_files(said: list[Segment]) -> None:
    count = sum(bool(" ".join(one.text.replace("\0", " ").split())) for one in said)
    srt, vtt = write_segments(said, "srt"), write_segments(said, "vtt")
    found = SRT_CUE.findall(srt)
    assert "".join(f"{n}\n{a} --> {b}\n{t}\n\n" for n, a, b, t in found) == srt
    assert [int(number) for number, *_ in found] == list(range(1, count + 1))
    assert srt.count("-->") == count and not re.search(r"<[a-z/]", srt)
    cues = VTT_CUE.findall(vtt)
    assert len(cues) == count
    assert "WEBVTT\n\n" + "".join(f"{a} --> {b}\n{t}\n\n" for a, b, t in cues) == vtt
    times = [(milliseconds(start), milliseconds(end)) for start, end, _ in cues]
    assert all(start < end for start, end in times)
    assert all(before[1] <= after[0] for before, after in pairwise(times)), "one after another"
    assert all("<" not in text and "-->" not in text for *_, text in cues)


CUE = re.compile(r"([\d:.]+) --> ([\d:.]+)\n((?:[^\n]+\n)+)\n", re.ASCII)


@given(
    st.lists(st.tuples(st.floats(0, 40), st.text("ab <&>-日", max_size=60)), max_size=6),
    st.integers(10, 30),
    st.integers(1, 3) | st.none(),
    st.booleans(),
)
def test_lines_are_as_long_as_was_asked_and_cues_end_with_the_clip(
    said: list[tuple[float, str]], width: int, count: int | None, timed: bool
) -> None:
    segments = []
    for start, text in sorted(said):
        words = [Word(start + i, start + i + 2, f" {w}", 1.0) for i, w in enumerate(text.split())]
        whole = Segment(start, start + 9, text, (), 0.0, tuple(words) if timed else None)
        segments.append(whole)
    written = write_segments(segments, "vtt", 30.0, LineBreaks(width, count))
    cues = CUE.findall(written)
    assert written.count("-->") == len(cues), "the file is well formed"
    lines = [unescape(line) for _, _, text in cues for line in text.splitlines()]
    assert all(len(line) <= width for line in lines)
    assert count is None or all(len(text.splitlines()) <= count for _, _, text in cues)
    spoken = "".join("".join(text.split()) for _, text in sorted(said)).replace("-->", "->")
    assert "".join("".join(line.split()) for line in lines).replace("-->", "->") == spoken
    times = [(milliseconds(start), milliseconds(end)) for start, end, _ in cues]
    assert all(start < end <= 30_000 for start, end in times)
    assert all(before[1] <= after[0] for before, after in pairwise(times))
