"""The microscope's panel: every stage there, the scale right, and words for what is seen."""

from __future__ import annotations

import math
import re
import sys
import types
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from demo import layers
from demo.lab import summarise_look
from demo.layers import Scale, colour, find_scale, judge, name_power, render_layers, say, sign
from engines import microscope, registry
from engines.examination import Examination, examine
from tests.fake_lab import NAMES, make_examination, make_specimen


def test_every_stage_is_a_choice_with_its_histograms() -> None:
    html = render_layers(make_examination(), "stage")
    assert re.findall(r'<span class="name">([^<]*)</span>', html) == list(NAMES)
    assert html.count('class="chooser"') == len(NAMES)
    assert html.count('class="slide"') == len(NAMES)
    assert html.count("<figure") == 4 * len(NAMES)
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r' for="([^"]*)"', html)) == set(ids)


def test_the_last_stage_is_open_unless_another_is_asked_for() -> None:
    def opened(html: str) -> list[str]:
        return re.findall(r'class="chooser" name="stage" id="stage-(\d)"[^>]* checked', html)

    assert opened(render_layers(make_examination(), "stage")) == [str(len(NAMES) - 1)]
    assert opened(render_layers(make_examination(), "stage", chosen="conv2")) == ["2"]
    assert opened(render_layers(make_examination(), "stage", chosen="none")) == ["6"]


def test_a_mark_stands_further_right_the_larger_the_error() -> None:
    place = Scale(-8, 1).place
    places = [place(value) for value in (0.0, 1e-8, 1e-6, 1e-5, 0.1, 10.0, math.inf)]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    assert place(1e-5) - place(1e-6) == pytest.approx(place(1e-3) - place(1e-4))
    assert (places[0], places[-1]) == (layers.ZERO_PLACE, 100.0)


def test_the_scale_holds_every_figure() -> None:
    assert find_scale(make_examination(noise=1e-7), "error") == Scale(-8, 1)
    assert find_scale(make_examination(noise=1e-10), "error").lowest <= -10
    assert find_scale(make_examination(noise=50.0), "error") == Scale(-8, 2)
    assert find_scale(make_examination(noise=0.0), "cosine").lowest <= -15


def test_powers_are_written_as_people_write_them() -> None:
    assert [name_power(power) for power in (0, -2, -12, 1)] == ["1", "10⁻²", "10⁻¹²", "10¹"]
    assert [say(value) for value in (0, 9.42e-7, 0.276, 3.21, math.inf)] == [
        "0",
        "9.4e-07",
        "0.28",
        "3.2",
        "not finite",
    ]


def test_words_say_where_an_encoder_leaves_the_baseline() -> None:
    examination = make_examination("positions")
    sound, faulty = examination.others
    assert judge(examination, faulty) == (
        "MAX with the fault: leaves PyTorch CPU, float32 at positions, by 0.5."
    )
    assert judge(examination, sound).startswith(
        "MAX: as PyTorch CPU, float32 at every stage; the largest relative error is 1."
    )
    same = make_examination(noise=0.0)
    assert judge(same, same.others[-1]).endswith(
        "the same as PyTorch CPU, float32 in every bit, at every stage."
    )


DEEP = ("log-mel", "conv1", "conv2", "positions", *(f"blocks.{n}" for n in range(32)), "ln_post")
"""The stages of `large`."""


def make_crowd(names: Sequence[str] = NAMES) -> Examination:
    """All six specimens that a machine with everything has, three of which round."""
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


def test_specimens_differ_by_shape_as_well_as_by_colour() -> None:
    crowd = make_crowd()
    assert len({colour(crowd, specimen) for specimen in crowd.specimens}) == 6
    signs = [sign(crowd, specimen) for specimen in crowd.others]
    assert all(signs) and len(set(signs)) == 5
    html = render_layers(crowd)
    stages = len(crowd.stages)
    for specimen, mark in zip(crowd.others, signs, strict=True):
        marks = f'--engine:{colour(crowd, specimen)}">{mark}</i>'
        assert html.count(marks) == 2 * stages, specimen.name


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
    said = [judge(crowd, specimen) for specimen in crowd.others]
    assert "as cpu:float32 at every stage" in said[0]
    assert said[1].startswith("gpu:float16: rounds to float16; relative error 5.3e-04 at most, at ")
    assert said[4].startswith("max_hybrid:bfloat16: rounds to bfloat16; relative error 4.2e-03")
    assert "leaves" not in " ".join(said)
    assert summarise_look(crowd) == "7 stages looked at: in float32 all are as they should be."
    assert "In float32, up to 1e-05" in render_layers(crowd)
    assert "rounds" not in render_layers(make_examination())


def test_what_rounds_to_nothing_finite_is_told() -> None:
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
        "gpu:float16: leaves cpu:float32 at conv1, not finite."
    )
    assert summarise_look(broken) == "7 stages looked at: gpu:float16 differs."


def test_values_that_are_not_finite_are_said_in_words() -> None:
    examination = make_examination("conv1")
    stage = examination.stages[1]
    blank = replace(
        stage,
        histograms=None,
        statistics={**stage.statistics, examination.others[1].name: None},
        similarity={**stage.similarity, examination.others[1].name: None},
    )
    broken = replace(examination, stages=(examination.stages[0], blank, *examination.stages[2:]))
    html = render_layers(broken)
    assert "Some values are not finite" in html
    assert judge(broken, broken.others[1]).endswith("at conv1, not finite.")
    assert not re.search(r"\b(nan|inf)\b", html)


def test_the_payload_is_light_even_for_the_deepest_model() -> None:
    """`large` has 32 blocks, so 37 stages; the panel travels once, and weighs less than 1 MB."""
    deep = make_crowd(DEEP)
    assert len(deep.stages) == 37
    assert len({stage.error("gpu:float16") for stage in deep.stages}) == 37
    assert 500_000 < len(render_layers(deep).encode()) < 1_000_000
