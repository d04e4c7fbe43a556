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


def note(comparison: Comparison) -> str:
    return summarise(replace(comparison, clip_name="Short sentence")).note


def test_a_ratio_is_printed_only_of_engines_that_ran_alone() -> None:
    shared, fair = compare(), compare(schedule="one at a time")
    assert speak(fair) == "MAX hybrid was 2.0× as fast as CPU."
    assert note(fair) == (
        "Every engine wrote the same 11 words · tiny.en · “Short sentence” (6 s)"
        " · each alone, a single run: repeats would give a spread."
    )
    (ratio,) = read(render_headline(summarise(fair))).all(kind="ratio")
    assert ratio.text == "2.0×"
    assert speak(shared) == "MAX hybrid finished first, in 1.00 s."
    assert "ran at once, so times aren’t comparable" in note(shared)
    twice = replace(fair, lanes=tuple(replace(x, repeats=2 * x.repeats) for x in fair.lanes))
    assert "each alone, median of 2 runs" in note(twice)
    apart = replace(change_last(shared, device="gpu"), settings=shared.settings)
    assert "2.0×" in speak(apart) and "each on a device of its own" in note(apart)
    assert speak(replace(shared, lanes=shared.lanes[:1])) == "CPU wrote 11 words in 2.00 s."


def test_different_words_and_errors_are_counted() -> None:
    done = compare(fakes.WORDS.replace("turns", "turned"), reference=fakes.WORDS.upper())
    third = replace(done.lanes[1], key="max_full", label="MAX full")
    assert note(replace(done, lanes=(*done.lanes, third))).startswith(
        "MAX hybrid differs from CPU by 1 word, MAX full by 1 word · word error rate 0.0% to 9.1% ·"
    )
    quiet = compare(words="").lanes[1]
    both = (replace(quiet, key="cpu"), quiet)
    assert note(replace(done, reference="", lanes=both)).startswith("No engine found speech ·")


BOTH = "MAX full and MAX hybrid"


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        (((1.0,), (1.04,)), "CPU and MAX hybrid were not clearly apart."),
        (((1.0,), (1.06,)), "CPU, the baseline, was 1.06× as fast as MAX hybrid."),
        (((0.9, 1.0, 1.3), (1.2, 1.4, 1.6)), "CPU and MAX hybrid were not clearly apart."),
        (((0.9, 1.0, 1.1), (1.2, 1.4, 1.6)), "CPU, the baseline, was 1.4× as fast as "),
        (((2.0,), (1.2,), (1.0,)), "MAX full was 2.0× as fast as CPU."),
        (((2.0,), (1.01,), (1.0,)), f"{BOTH} were at least 2.0× as fast as CPU."),
        (((1.08,), (1.04,), (1.0,)), f"{BOTH}, not clearly apart, were fastest."),
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
    assert speak(replace(fair, lanes=tuple(lanes))).startswith(said)


def test_failures_and_stops_are_summed_up() -> None:
    broken = fail_second(compare())
    assert summarise(broken).alert
    assert speak(broken) == "MAX hybrid failed; CPU finished."
    alone = replace(broken, lanes=broken.lanes[1:])
    assert speak(alone) == "Nothing was transcribed: no room on device"
    cpu = replace(alone.lanes[0], key="cpu", label="CPU", reason="another reason")
    assert speak(replace(alone, lanes=(cpu, *alone.lanes))).endswith("each says why.")
    stopped = change_last(broken, state="stopped")
    assert speak(stopped) == "Stopped. 1 of 2 engines had finished."


def test_before_and_during_a_run_it_changes_only_with_a_state() -> None:
    blank = new_comparison(compare().settings, fakes.STATUSES)
    assert speak(blank).startswith("The same speech")
    early, late = (
        tuple(replace(lane, state="decoding", elapsed=s, audio_done=s) for lane in blank.lanes)
        for s in (0.0, 9.0)
    )
    said = {speak(replace(blank, lanes=lanes)) for lanes in (early, late)}
    assert said == {"CPU and MAX hybrid are transcribing."}
    three = (*early, replace(early[0], key="gpu", label="GPU"))
    assert speak(replace(blank, lanes=three)) == "All 3 engines are transcribing."
    lanes = (early[0], replace(early[1], state="compiling"))
    mixed = replace(blank, lanes=lanes, left=17.2)
    assert speak(mixed) == "CPU is transcribing, MAX hybrid is compiling the graph."
    assert read(render_headline(summarise(mixed))).all(kind="left")[0].text == "about 15 s left"
    alone = replace(blank, lanes=lanes, settings=replace(blank.settings, schedule="one at a time"))
    assert speak(alone).startswith("Timed alone: CPU is transcribing")


def test_a_warning_is_no_mere_colour() -> None:
    (alert,) = read(render_headline(Headline("No clip.", alert=True))).all(role="alert")
    assert alert.text == "⚠ No clip."
    assert read(render_headline(Headline("Starting."))).all(role="status")
