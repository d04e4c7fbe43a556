"""What is taken away: the record as JSON, the report as HTML, and links to settings."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import link, take_away
from demo.compare import Run
from demo.histograms import list_features
from demo.keepsakes import Keepsakes, Kept
from demo.record import as_json, count_errors, describe
from demo.report import write_report
from demo.snapshot import Comparison, Schedule, Settings
from engines.base import Clip, Engine, Options
from tests import fakes

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&</style>--><b>"

CHOICES = link.Choices(
    samples=("short", "talk"),
    engines=("cpu", "gpu", "max_hybrid"),
    models=("tiny.en", "tiny.en"),
    languages=("", "en", "de"),
    beams=(1, 5),
    repeats=(1, 3, 5),
)
HELD = {
    "sample": "talk",
    "engines": ["cpu", "max_hybrid"],
    "model": "tiny.en",
    "language": "",
    "beam": 5,
    "schedule": "one at a time",
    "words": True,
    "gpu_dtype": "float16",
    "repeats": 3,
}


def compare(
    *engines: fakes.FakeEngine,
    name: str = "Talk",
    reference: str | None = None,
    words: bool = False,
    schedule: Schedule = "one at a time",
) -> Comparison:
    """A finished comparison."""
    by_key: dict[str, Engine] = {engine.key: engine for engine in engines}
    settings = Settings(tuple(by_key), options=Options(word_timestamps=words), schedule=schedule)
    run = Run(
        settings,
        fakes.STATUSES,
        lambda key, model, dtype: by_key[key],
        lambda stopped: Clip(fakes.make_clip().samples, name, 0.003),
        clip_name=name,
        reference=reference,
    )
    return list(run.snapshots())[-1]


def fake_max(**traits: object) -> fakes.FakeEngine:
    return replace(fakes.FakeEngine("max_hybrid", "MAX hybrid", noise=1e-6), **traits)  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def report(comparison: Comparison) -> str:
    return write_report(comparison, describe(comparison), list_features(comparison))


def test_the_record_says_what_ran_where_and_what_came_of_it() -> None:
    end = compare(
        fakes.FakeEngine(), fake_max(words="The compiler turned the graph"), reference=fakes.WORDS
    )
    record = json.loads(as_json(describe(end)))
    assert record["run"] == end.run and re.fullmatch("[0-9a-f]{12}", end.run)
    assert record["settings"]["engines"] == ["cpu", "max_hybrid"]
    assert record["machine"]["versions"]["gradio"] and record["machine"]["cores"] >= 1
    assert record["absent"] == [
        {"engine": "gpu", "label": "GPU", "reason": "no CUDA device was found"}
    ]
    cpu, hybrid = record["lanes"]
    assert cpu["text"] == fakes.WORDS and cpu["against_baseline"] is None
    assert cpu["against_reference"]["word_error_rate"] == 0
    assert cpu["tokens"] == list(range(11)) and len(cpu["runs"]) == 1
    assert cpu["seconds"]["total"] == pytest.approx(
        sum(cpu["seconds"][stage] for stage in ("audio", "mel", "encode", "decode"))
    )
    errors = hybrid["against_baseline"]
    assert (errors["substituted"], errors["inserted"], errors["deleted"]) == (1, 0, 6)
    assert errors["word_error_rate"] == pytest.approx(7 / 11)
    assert errors["normalised_character_error_rate"] == errors["character_error_rate"] > 0
    loud = count_errors(fakes.WORDS.upper(), end.lanes[0])
    assert loud is not None and loud.character_error_rate
    assert loud.normalised_character_error_rate == 0


def test_a_failed_lane_keeps_its_reason_in_the_record() -> None:
    end = compare(fakes.FakeEngine(), fake_max(error=ValueError("the graph broke")))
    lane = json.loads(as_json(describe(end)))["lanes"][1]
    assert lane["state"] == "failed" and lane["reason"] == "ValueError: the graph broke"
    assert lane["text"] == "" and lane["seconds"] is None


def test_an_empty_transcript_is_a_record_and_a_report() -> None:
    end = compare(fakes.FakeEngine(words=""), reference="")
    record = json.loads(as_json(describe(end)))
    assert record["lanes"][0]["segments"] == []
    assert record["lanes"][0]["against_reference"]["word_error_rate"] is None
    assert "No speech was found." in read(report(end)).text


@pytest.mark.parametrize("words", [False, True])
def test_the_report_shows_words_differences_times_settings_and_machine(words: bool) -> None:
    end = compare(
        fakes.FakeEngine(), fake_max(words="The compiler turned"), reference="x", words=words
    )
    html = report(end)
    page = read(html)
    for expected in (
        "compiler",
        "turned",
        end.run,
        "Talk",
        "tiny.en",
        "Python 3",
        "Encoder",
        "Cosine",
    ):
        assert expected in page.text
    assert {"ins", "del", "svg"} <= set(page.tags)
    assert ("ruby" in page.tags) == words
    assert len(html.encode()) < 400_000


def test_the_report_asks_no_host_and_runs_nothing() -> None:
    html = report(compare(fakes.FakeEngine(), fake_max()))
    page = read(html)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [v for name, v in page.attributes if name in ("src", "href", "srcset", "xlink:href")]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in sources)
    assert "@import" not in html and not re.search(r"url\((?!data:|#)", html)
    assert "default-src 'none'" in html and "prefers-color-scheme: dark" in html


def test_nothing_from_a_file_or_a_model_becomes_markup() -> None:
    harmless = compare(fakes.FakeEngine(), fake_max(words="a b"), reference="a", words=True)
    evil = compare(
        fakes.FakeEngine(words=EVIL, label=EVIL),
        fake_max(words=f"{EVIL} b", device=EVIL),
        name=EVIL,
        reference=EVIL,
        words=True,
    )
    failed = compare(fakes.FakeEngine(error=ValueError(EVIL)), name=EVIL)
    known = set(read(report(harmless)).tags) | {"ins", "del"}
    for one in (evil, failed):
        page = read(report(one))
        assert set(page.tags) <= known
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert "<script>alert(1)</script>" in page.text


def test_a_link_brings_the_settings_back() -> None:
    query = link.write(HELD, CHOICES)
    assert link.read(f"?{query}", CHOICES) == HELD


def test_an_own_clip_and_a_path_don_t_travel() -> None:
    query = link.write({**HELD, "sample": "own", "model": "/home/me/secret.pt"}, CHOICES)
    assert "own" not in query and "secret" not in query
    found = link.read(query, CHOICES)
    assert "sample" not in found and "model" not in found and found["beam"] == 5


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?stage=1&__theme=dark",
        "?model=/etc/passwd&sample=../x&beam=99&engines=evil&language=xx&schedule=&words=2&runs=-1",
        "?model=" + "x" * 3000,
        "?model=<script>",
    ],
)
def test_a_link_can_ask_for_nothing_the_page_does_not_offer(query: str) -> None:
    assert link.read(query, CHOICES) == {}


@given(st.text() | st.dictionaries(st.sampled_from([*HELD, "runs", "gpu"]), st.text()).map(str))
def test_no_query_breaks_the_page(query: str) -> None:
    found = link.read(query, CHOICES)
    assert set(found) <= set(HELD)


def keep(result: Comparison) -> Keepsakes:
    keepsakes = Keepsakes()
    keepsakes.keep("me", Kept((), result=result, features=tuple(list_features(result))))
    return keepsakes


def test_files_are_the_visitor_s_own_and_named_in_plain_letters() -> None:
    keepsakes = keep(compare(fakes.FakeEngine(), name=f"../{EVIL}/Größe 1.wav"))
    parcel, note = take_away.hand_over(keepsakes, take_away.make_record, "me")
    file = json.loads(parcel)
    assert re.fullmatch(r"[a-z0-9-]{1,40}-[0-9a-f]{12}\.json", file["name"])
    assert json.loads(file["text"])["lanes"][0]["text"] == fakes.WORDS
    assert file["name"] in note
    for stranger in ("", "you"):
        parcel, note = take_away.hand_over(keepsakes, take_away.make_record, stranger)
        assert parcel == "" and "press Compare" in note


def test_a_lane_that_failed_has_no_subtitles() -> None:
    end = compare(fakes.FakeEngine(), fake_max(error=ValueError("broken")))
    kept = keep(end).find("me")
    assert kept is not None
    for key, label in (("max_hybrid", "MAX hybrid"), ("gpu", "GPU")):
        sentence = take_away.make_subtitles(key, label, "srt", kept)
        assert sentence == f"{label} wrote nothing in this comparison."
        make = partial(take_away.make_subtitles, key, label, "srt")
        parcel, note = take_away.hand_over(keep(end), make, "me")
        assert parcel == "" and f"{label} wrote nothing" in note
    file = take_away.make_subtitles("cpu", "CPU", "vtt", kept)
    assert isinstance(file, take_away.File) and file.text.startswith("WEBVTT\n\n00:00:00.000 --> ")


def test_what_is_kept_for_the_report_is_light_and_has_its_charts() -> None:
    end = compare(fakes.FakeEngine(), fake_max())
    kept = keep(end).find("me")
    assert kept is not None and kept.result is not None
    assert all(lane.transcript.features.size == 0 for lane in kept.result.done if lane.transcript)
    file = take_away.make_report(kept)
    assert file is not None and "<svg" in file.text and "Relative L2" in file.text
