"""Layers and faults: every stage there, the scale right, and words for what is seen."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from demo.panels import layers
from demo.panels.layers import Scale, find_scale, render, summarise
from engines.analysis.records import LayerComparison
from tests import fakes
from tests.demo.reading import read
from tests.fake_lab import (
    NAMES,
    WRONG_WORDS,
    compare_encoders,
    make_comparison,
    make_encoder,
    make_fault_result,
)


def test_every_stage_is_a_choice_with_its_histograms_and_figures() -> None:
    page = read(render(make_comparison()))
    assert [each.text for each in page.all(kind="name")] == list(NAMES)
    assert len(page.all(kind="chooser")) == len(page.all(kind="slide")) == len(NAMES)
    assert all(len(slide.all("figure")) == 4 for slide in page.all(kind="slide"))
    assert len(page.all("details")[0].all("tr")) == 1 + 3 * len(NAMES)
    ids = {each.attributes["id"] for each in page.all("input")}
    assert {each.attributes["for"] for each in page.all("label")} == ids


def test_a_mark_stands_further_right_the_larger_the_error() -> None:
    place = Scale(-8, 1).place
    places = [place(value) for value in (0.0, 1e-8, 1e-6, 1e-5, 0.1, 10.0, math.inf)]
    assert places == sorted(set(places))
    assert place(1e-5) - place(1e-6) == pytest.approx(place(1e-3) - place(1e-4))
    assert [label for _, label in Scale(-12, 1).ticks] == ["1", "10⁻⁴", "10⁻⁸", "10⁻¹²"]
    assert find_scale(make_comparison(noise=1e-10), "error").lowest <= -10
    assert find_scale(make_comparison(noise=50.0), "error") == Scale(-8, 2)


def test_words_say_where_an_encoder_differs_from_the_baseline() -> None:
    result = make_comparison("positions")
    text = read(render(result)).text
    assert "MAX with the fault: differs from PyTorch CPU, float32 at positions, by 0.5." in text
    assert (
        "MAX: matches PyTorch CPU, float32 at every stage; the largest relative error is 1." in text
    )
    assert summarise(result) == "7 stages compared: MAX with the fault differs."
    assert summarise(make_comparison(noise=0.0)) == "7 stages compared: all match."


def make_crowd(names: Sequence[str] = NAMES) -> LayerComparison:
    """All six encoders that a machine with everything has, three of which round."""
    crowd = [
        replace(make_encoder(name, name, noise, names=names), rounds_to=half)
        for name, noise, half in (
            ("cpu:float32", 0.0, ""),
            ("gpu:float32", 1e-7, ""),
            ("gpu:float16", 5e-4, "float16"),
            ("max_hybrid:float32", 2e-7, ""),
            ("max_hybrid:float16", 6e-4, "float16"),
            ("max_hybrid:bfloat16", 4e-3, "bfloat16"),
        )
    ]
    return compare_encoders(crowd)


def test_encoders_differ_by_shape_and_what_rounds_is_not_judged_as_float32() -> None:
    crowd = make_crowd()
    page = read(render(crowd))
    drawn = [each.text for each in page.all("i")]
    assert all(drawn.count(sign) == 2 * len(crowd.stages) for sign in layers.SIGNS[1:6])
    assert "gpu:float16: rounds to float16; relative error 5.3e-04 at most, at " in page.text
    assert "half type" in page.text
    assert summarise(crowd) == "7 stages compared: in float32 all match."


def test_values_that_are_not_finite_are_said_in_words() -> None:
    crowd = make_crowd()
    stage, name = crowd.stages[1], "gpu:float16"
    blank = replace(
        stage,
        histograms=None,
        statistics={**stage.statistics, name: None},
        similarity={**stage.similarity, name: None},
        errors={**stage.errors, name: math.inf},
    )
    broken = replace(crowd, stages=(crowd.stages[0], blank, *crowd.stages[2:]))
    text = read(render(broken)).text
    assert "gpu:float16: differs from cpu:float32 at conv1, not finite." in text
    assert "Some values are not finite" in text
    assert not re.search(r"\b(nan|inf)\b", text)


def test_the_payload_is_light_even_for_the_deepest_model() -> None:
    """`large` has 32 blocks, so 37 stages; the panel travels once, and weighs less than 1 MB."""
    names = ("log-mel", "conv1", "conv2", "positions", *(f"b{n}" for n in range(32)), "ln_post")
    assert 500_000 < len(render(make_crowd(names)).encode()) < 1_000_000


def test_a_fault_shows_both_texts_and_the_words_that_differ() -> None:
    result = make_fault_result("early")
    page = read(layers.render_fault(result))
    assert [each.text for each in page.all(kind="said")] == [fakes.WORDS, WRONG_WORDS]
    assert "2 words differ (2 substituted) of 11." in page.text
    assert [each.text for each in page.all("ins")] == ["+ inserted: a", "+ inserted: slow"]
    assert page.all(kind="first")[0].text.startswith("It first shows at conv1 : relative error 0.5")
    (opened,) = page.all("input", "chooser", checked="")
    assert opened.attributes["id"] == "fault-1", "the stage where it first shows is open"
    assert layers.summarise_fault(result) == "Early fault: first shows at conv1, 2 words changed."


@pytest.mark.parametrize(
    ("key", "seconds", "shown", "summary"),
    [
        ("late", 6, "The decoder got other", "Late fault: first shows at ln_post, the same words."),
        ("none", 6, "choose a longer one", "Window fault: no stage shows it, the same words."),
        ("none", 70, "nowhere in the", "Window fault: no stage shows it, the same words."),
        ("broken", 6, "The run broke: ValueError: the shapes", "Breaking fault: the run broke."),
    ],
)
def test_what_a_fault_did_is_summed_up(key: str, seconds: float, shown: str, summary: str) -> None:
    result = make_fault_result(key, seconds)
    text = read(layers.render_fault(result)).text
    assert shown in text
    assert ("choose a longer one" in text) is (key == "none" and seconds < 30)
    assert layers.summarise_fault(result) == summary
