"""Layers and faults: every stage there, the scale right, and words for what is seen."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from demo.panels import faults, layers
from demo.panels.layers import Scale, find_scale, render, summarise
from engines.analysis.records import LayerComparison
from tests import fakes
from tests.demo.reading import Element, list_figures, read
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
    curves, histograms = list_figures(page)
    assert curves["data"][0]["x"] == list(NAMES)
    options = [option.text.split(":")[0] for option in page.all("select")[1].all("option")]
    assert options == list(NAMES)
    first, *_, last = read_options(page, "stage-stage")[1]
    assert len(first["traces"]["y"]) == len(histograms["data"]) == 3 + 2
    assert first["traces"]["y"] != last["traces"]["y"]
    marked = read_options(page, "stage-stage")[0][1]["layout"]
    assert marked == {"shapes.0.x0": 0.5, "shapes.0.x1": 1.5}
    assert len(page.all("details")[0].all("tr")) == 1 + 3 * len(NAMES)
    names = [each.attributes["name"] for each in page.all("input")]
    assert len(set(names)) == 3, "no two rows of choices share their buttons"


def read_options(page: Element, control: str) -> list[list[dict[str, Any]]]:
    """The options of every control of a name."""
    found = page.all("div", "choice", **{"data-control": control})
    return [json.loads(each.attributes["data-options"]) for each in found]


def test_a_mark_stands_higher_the_larger_the_error() -> None:
    place = Scale(-8, 1).place
    places = [place(value) for value in (0.0, 1e-8, 1e-6, 1e-5, 0.1, math.inf)]
    assert places == sorted(set(places))
    ticks = Scale(-12, 1).ticks
    assert ticks["ticktext"] == ["0", "1", "10⁻⁴", "10⁻⁸", "10⁻¹²"]
    assert ticks["tickvals"] == [place(0) / 1e4, 1.0, 1e-4, 1e-8, 1e-12]
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
    curves, _ = list_figures(page)
    symbols = [each["marker"]["symbol"] for each in curves["data"] if "marker" in each]
    assert len(set(symbols)) == 5 and [symbols.count(each) for each in symbols] == [2] * 10
    assert [each.text for each in page.all("span", "sign")] == list(layers.SIGNS[1:6])
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
    page = read(render(broken))
    text = page.text
    assert "gpu:float16: differs from cpu:float32 at conv1, not finite." in text
    _, option = read_options(page, "stage-stage")[1][:2]
    (shown,) = option["layout"]
    note = list_figures(page)[1]["layout"]["annotations"][int(shown.split(".")[1])]
    assert note["text"] == layers.NO_HISTOGRAM and not any(option["traces"]["y"])
    assert not re.search(r"\b(nan|inf)\b", text)


def test_the_payload_is_light_even_for_the_deepest_model() -> None:
    """`large` has 32 blocks, so 37 stages; the panel travels once, and weighs less than 400 kB."""
    names = ("log-mel", "conv1", "conv2", "positions", *(f"b{n}" for n in range(32)), "ln_post")
    assert 200_000 < len(render(make_crowd(names)).encode()) < 400_000


def test_a_fault_shows_both_texts_and_the_words_that_differ() -> None:
    result = make_fault_result("early")
    page = read(faults.render(result))
    assert [each.text for each in page.all(kind="said")] == [fakes.WORDS, WRONG_WORDS]
    assert "2 words differ (2 substituted) of 11." in page.text
    assert [each.text for each in page.all("ins")] == ["+ inserted: a", "+ inserted: slow"]
    assert page.all(kind="first")[0].text.startswith("It first shows at conv1 : relative error 0.5")
    chosen = [option.text.split(":")[0] for option in page.all("option", selected="")]
    assert chosen == ["conv1"] * 2, "the stage where it first shows is open"
    assert faults.summarise(result) == "Early fault: first shows at conv1, 2 words changed."


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
    text = read(faults.render(result)).text
    assert shown in text
    assert ("choose a longer one" in text) is (key == "none" and seconds < 30)
    assert faults.summarise(result) == summary
