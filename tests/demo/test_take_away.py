"""What is taken away: links to settings, and files of the visitor's own."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import link, take_away
from demo.keepsakes import Keepsakes, Kept
from demo.panels import encoder_output
from demo.snapshot import Comparison
from tests import fakes
from tests.demo.reading import EVIL
from tests.demo.test_report import compare, fake_max

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
    keepsakes.keep("me", Kept((), result=result, features=(encoder_output.render(result),)))
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
    assert isinstance(file, take_away.File) and file.text.startswith("WEBVTT\n\n00:00.000 --> ")


def test_what_is_kept_for_the_report_is_light_and_has_its_charts() -> None:
    end = compare(fakes.FakeEngine(), fake_max())
    kept = keep(end).find("me")
    assert kept is not None and kept.result is not None
    assert all(lane.transcript.features.size == 0 for lane in kept.result.done if lane.transcript)
    file = take_away.make_report(kept)
    assert file is not None and "<svg" in file.text and "Relative L2" in file.text
