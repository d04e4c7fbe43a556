"""The layers panel: every stage there, the scale right, and words for what is seen."""

from __future__ import annotations

import math
import re
import sys
import types
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from demo.panels import layers
from demo.panels.layers import Scale, find_scale, judge, mark, name_power, render, say, summarise
from engines import microscope, registry
from engines.examination import Examination, examine
from tests.demo.reading import read
from tests.fake_lab import NAMES, make_layers, make_specimen


def test_every_stage_is_a_choice_with_its_histograms_and_figures() -> None:
    page = read(render(make_layers()))
    assert [each.text for each in page.all(kind="name")] == list(NAMES)
    assert len(page.all(kind="chooser")) == len(page.all(kind="slide")) == len(NAMES)
    assert all(len(slide.all("figure")) == 4 for slide in page.all(kind="slide"))
    assert len(page.all("details")[0].all("tr")) == 1 + 3 * len(NAMES)
    figures = [row.all("th")[0].text for row in page.all(kind="readings")[0].all("tr")[1:]]
    assert figures == list(layers.FIGURES)
    ids = {each.attributes["id"] for each in page.all("input")}
    assert {each.attributes["for"] for each in page.all("label")} == ids


@pytest.mark.parametrize(("chosen", "opened"), [("", -1), ("conv2", 2), ("none", -1)])
def test_the_last_stage_is_open_unless_another_is_asked_for(chosen: str, opened: int) -> None:
    page = read(render(make_layers(), "stage", chosen))
    (found,) = page.all("input", "chooser", checked="")
    assert found is page.all("input", "chooser")[opened]


def test_a_mark_stands_further_right_the_larger_the_error() -> None:
    place = Scale(-8, 1).place
    places = [place(value) for value in (0.0, 1e-8, 1e-6, 1e-5, 0.1, 10.0, math.inf)]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    assert place(1e-5) - place(1e-6) == pytest.approx(place(1e-3) - place(1e-4))
    assert (places[0], places[-1]) == (layers.ZERO_PLACE, 100.0)


def test_the_scale_holds_every_figure() -> None:
    assert find_scale(make_layers(noise=1e-7), "error") == Scale(-8, 1)
    assert find_scale(make_layers(noise=1e-10), "error").lowest <= -10
    assert find_scale(make_layers(noise=50.0), "error") == Scale(-8, 2)
    assert find_scale(make_layers(noise=0.0), "cosine").lowest <= -15


def test_numbers_are_written_as_people_write_them() -> None:
    assert [name_power(power) for power in (0, -2, -12, 1)] == ["1", "10⁻²", "10⁻¹²", "10¹"]
    said = [say(value) for value in (0, 9.42e-7, 0.276, 3.21, math.inf)]
    assert said == ["0", "9.4e-07", "0.28", "3.2", "not finite"]


def test_words_say_where_an_encoder_differs_from_the_baseline() -> None:
    result = make_layers("positions")
    sound, faulty = result.others
    assert judge(result, faulty) == (
        "MAX with the fault: differs from PyTorch CPU, float32 at positions, by 0.5."
    )
    assert judge(result, sound).startswith(
        "MAX: matches PyTorch CPU, float32 at every stage; the largest relative error is 1."
    )
    assert summarise(result) == "7 stages compared: MAX with the fault differs."
    same = make_layers(noise=0.0)
    assert judge(same, same.others[-1]).endswith(
        "the same as PyTorch CPU, float32 in every bit, at every stage."
    )
    assert summarise(same) == "7 stages compared: all match."


def make_crowd(names: Sequence[str] = NAMES) -> Examination:
    """All six encoders that a machine with everything has, three of which round."""
    crowd = [
        replace(make_specimen(name, name, noise, names=names), rounds_to=half)
        for name, noise, half in (
            ("cpu:float32", 0.0, ""),
            ("gpu:float32", 1e-7, ""),
            ("gpu:float16", 5e-4, "float16"),
            ("max_hybrid:float32", 2e-7, ""),
            ("max_hybrid:float16", 6e-4, "float16"),
            ("max_hybrid:bfloat16", 4e-3, "bfloat16"),
        )
    ]
    return examine(crowd, np.zeros((80, 3000), np.float32), "tiny.en", "fake")


def test_encoders_differ_by_shape_as_well_as_by_colour() -> None:
    crowd = make_crowd()
    colours, signs = zip(*(mark(crowd, each) for each in crowd.specimens), strict=True)
    assert len(set(colours)) == len(set(signs)) == 6
    assert all(signs[1:])
    drawn = [each.text for each in read(render(crowd)).all("i")]
    assert all(drawn.count(sign) == 2 * len(crowd.stages) for sign in signs[1:])


@pytest.mark.parametrize("accelerators", [0, 1])
def test_no_machine_has_more_encoders_than_there_are_signs(
    monkeypatch: pytest.MonkeyPatch, accelerators: int
) -> None:
    driver = types.SimpleNamespace(accelerator_count=lambda: accelerators)
    monkeypatch.setitem(sys.modules, "max.driver", driver)
    monkeypatch.setattr(registry, "available", registry.all_keys)
    found = microscope.candidates()
    assert len(found) == 5 + accelerators
    assert len(found) <= len(layers.SIGNS) == len(layers.COLOURS)


def test_what_rounds_is_not_judged_as_float32() -> None:
    crowd = make_crowd()
    said = [judge(crowd, each) for each in crowd.others]
    assert "matches cpu:float32 at every stage" in said[0]
    assert said[1].startswith("gpu:float16: rounds to float16; relative error 5.3e-04 at most, at ")
    assert said[4].startswith("max_hybrid:bfloat16: rounds to bfloat16; relative error 4.2e-03")
    assert "differs" not in " ".join(said)
    assert summarise(crowd) == "7 stages compared: in float32 all match."
    assert "In float32, up to 1e-05" in read(render(crowd)).text
    assert "round" in read(render(crowd)).all("p", "caption")[-1].text
    assert "half type" not in read(render(make_layers())).text


def test_values_that_are_not_finite_are_said_in_words() -> None:
    crowd = make_crowd()
    stage, name = crowd.stages[1], "gpu:float16"
    blank = replace(
        stage,
        histograms=None,
        statistics={**stage.statistics, name: None},
        similarity={**stage.similarity, name: None},
    )
    broken = replace(crowd, stages=(crowd.stages[0], blank, *crowd.stages[2:]))
    assert judge(broken, broken.specimens[2]) == (
        "gpu:float16: differs from cpu:float32 at conv1, not finite."
    )
    assert summarise(broken) == "7 stages compared: gpu:float16 differs."
    text = read(render(broken)).text
    assert "Some values are not finite" in text
    assert not re.search(r"\b(nan|inf)\b", text)


def test_the_payload_is_light_even_for_the_deepest_model() -> None:
    """`large` has 32 blocks, so 37 stages; the panel travels once, and weighs less than 1 MB."""
    names = ("log-mel", "conv1", "conv2", "positions", *(f"b{n}" for n in range(32)), "ln_post")
    deep = make_crowd(names)
    assert len({stage.error("gpu:float16") for stage in deep.stages}) == 37
    assert 500_000 < len(render(deep).encode()) < 1_000_000
