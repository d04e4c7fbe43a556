"""What is exported: files of the visitor's own last comparison, named in plain letters."""

from __future__ import annotations

import json
import re
from functools import partial

from demo import exports
from demo.jobs import Saved, SavedResults
from demo.panels import encoder_output
from demo.snapshot import Comparison
from tests import fakes
from tests.demo.reading import EVIL
from tests.demo.test_report import compare, fake_max


def save(result: Comparison) -> SavedResults:
    """A visit that ended with this comparison."""
    saved = SavedResults()
    drawn = {"features": encoder_output.render(result)}
    saved.save("me", "comparison", Saved({}, result.to_save(), drawn))
    return saved


def test_files_are_the_visitor_s_own_and_named_in_plain_letters() -> None:
    saved = save(compare(fakes.FakeEngine(), name=f"../{EVIL}/Größe 1.wav"))
    parcel, note = exports.hand_over(saved, exports.make_record, "me")
    file = json.loads(parcel)
    assert re.fullmatch(r"[a-z0-9-]{1,40}-[0-9a-f]{12}\.json", file["name"])
    assert json.loads(file["text"])["lanes"][0]["text"] == fakes.WORDS
    assert file["name"] in note
    for stranger in ("", "you"):
        parcel, note = exports.hand_over(saved, exports.make_record, stranger)
        assert parcel == "" and "press Compare" in note


def test_an_engine_that_failed_has_no_subtitles() -> None:
    saved = save(compare(fakes.FakeEngine(), fake_max(error=ValueError("broken"))))
    for key, label in (("max_hybrid", "MAX hybrid"), ("gpu", "GPU")):
        make = partial(exports.make_subtitles, key, label, "srt")
        parcel, note = exports.hand_over(saved, make, "me")
        assert parcel == "" and f"{label} wrote nothing in this comparison." in note
    parcel, _ = exports.hand_over(saved, partial(exports.make_subtitles, "cpu", "CPU", "vtt"), "me")
    assert json.loads(parcel)["text"].startswith("WEBVTT\n\n00:00.000 --> ")


def test_what_is_saved_is_light_and_its_report_has_the_charts() -> None:
    saved = save(compare(fakes.FakeEngine(), fake_max()))
    found = saved.find("me", "comparison")
    assert found is not None
    lanes = found.snapshot.done
    assert lanes and all(lane.transcript.features.size == 0 for lane in lanes)
    text = exports.make_report(found).text
    assert "<svg" in text and "Relative L2" in text
