"""The headline: true in every state, a ratio only where it was measured fairly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.panels.headline import Headline, render_headline, summarise
from demo.snapshot import Comparison, Repeat, new_comparison
from tests import fakes
from tests.demo.reading import change_last, compare, fail_second, read


def speak(comparison: Comparison) -> str:
    return summarise(replace(comparison, clip_name="Short sentence")).sentence


def test_a_ratio_is_printed_only_of_engines_that_ran_alone() -> None:
    place = "on “Short sentence” (6 s) with tiny.en; every engine wrote the same 11 words."
    shared, fair = compare(), compare(schedule="one at a time")
    assert speak(fair) == f"MAX hybrid was fastest, 2.00× as fast as CPU, {place}"
    assert speak(shared) == f"MAX hybrid took the least time, 1.00 s, {place}"
    assert "shared the processor" in summarise(shared).note
    several = replace(fair, settings=replace(fair.settings, repeats=3))
    assert "medians of 3 runs" in summarise(several).note
    assert speak(replace(shared, lanes=shared.lanes[:1])) == (
        "CPU wrote 11 words in 2.00 s: “Short sentence” (6 s) with tiny.en."
    )


def test_different_words_are_counted() -> None:
    done = compare(fakes.WORDS.replace("turns", "turned"))
    third = replace(done.lanes[1], key="max_full", label="MAX full")
    assert speak(replace(done, lanes=(*done.lanes, third))).endswith(
        "MAX hybrid differs from the baseline by 1 word, MAX full by 1 word."
    )
    quiet = compare(words="").lanes[1]
    both = (replace(quiet, key="cpu"), quiet)
    assert speak(replace(done, lanes=both)).endswith("no engine found speech.")


BOTH = "MAX full and MAX hybrid, not clearly apart, were"


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        (((1.0,), (1.04,)), "CPU and MAX hybrid were not clearly apart on “"),
        (((1.0,), (1.06,)), "CPU, the baseline, was fastest, 1.06× as fast as MAX hybrid,"),
        (((0.9, 1.0, 1.3), (1.2, 1.4, 1.6)), "CPU and MAX hybrid were not clearly apart on “"),
        (((0.9, 1.0, 1.1), (1.2, 1.4, 1.6)), "CPU, the baseline, was fastest, 1.40× as fast as "),
        (((2.0,), (1.2,), (1.0,)), "MAX full was fastest, 2.00× as fast as CPU, on “"),
        (((2.0,), (1.01,), (1.0,)), f"{BOTH} both at least 1.98× as fast as CPU, on “"),
        (((1.08,), (1.04,), (1.0,)), f"{BOTH} fastest on “"),
    ],
)
def test_fastest_is_said_only_of_one_that_is_apart_from_the_next(
    totals: tuple[tuple[float, ...], ...], said: str
) -> None:
    fair = compare(schedule="one at a time")
    transcript, lanes = fair.lanes[0].transcript, []
    assert transcript is not None
    third = replace(fair.lanes[1], key="max_full", label="MAX full")
    for lane, times in zip((*fair.lanes, third), totals, strict=False):
        seconds = [replace(transcript.seconds, audio=0, mel=0, encode=0, decode=t) for t in times]
        median = replace(transcript, seconds=seconds[len(seconds) // 2])
        lanes.append(replace(lane, repeats=tuple(map(Repeat, seconds)), transcript=median))
    sentence = speak(replace(fair, lanes=tuple(lanes)))
    assert sentence.startswith(said)
    assert len(sentence) < 190, "the back row reads four lines"


def test_failures_and_stops_are_summed_up() -> None:
    broken = fail_second(compare())
    assert summarise(broken).alert
    assert speak(broken) == "MAX hybrid failed; CPU finished."
    alone = replace(broken, lanes=broken.lanes[1:])
    assert speak(alone) == "Nothing was transcribed: every engine failed; each says why."
    stopped = change_last(broken, state="stopped")
    assert speak(stopped) == "Stopped. 1 of 2 engines had finished."


def test_before_and_during_a_run_it_changes_only_with_a_state() -> None:
    blank = new_comparison(compare().settings, fakes.STATUSES)
    assert speak(blank).startswith("Press Compare")
    early, late = (
        tuple(replace(lane, state="decoding", elapsed=s, audio_done=s) for lane in blank.lanes)
        for s in (0.0, 9.0)
    )
    said = {speak(replace(blank, lanes=lanes)) for lanes in (early, late)}
    assert said == {"CPU running; MAX hybrid running."}


def test_a_warning_is_no_mere_colour() -> None:
    (alert,) = read(render_headline(Headline("No clip.", alert=True))).all(role="alert")
    assert alert.text == "⚠ No clip."
    assert read(render_headline(Headline("Starting."))).all(role="status")
