"""What a visit finds again, how long, and what is dropped first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from demo import visits
from demo.snapshot import Comparison, Settings
from demo.visits import Saved, SavedResults

DRAWN = {"layers": "x" * 10_000}


def make_run(name: str, **traits: Any) -> Saved:
    return Saved({"model": "base"}, Comparison(Settings(), (), run=name), DRAWN, True, **traits)


def list_names(saved: SavedResults, visit: str = "mine") -> list[str]:
    return [each.run for each in saved.list_runs(visit, "comparison")]


def test_a_visit_finds_its_own_results_until_it_did_nothing_for_an_hour() -> None:
    saved, mine = SavedResults(), make_run("a")
    saved.save("mine", "comparison", mine)
    saved.save("", "comparison", mine)
    assert saved.find("mine", "comparison") is mine and saved.find("mine", "faults") is None
    assert saved.find("yours", "comparison") is None and saved.find("", "comparison") is None
    saved.forget(3600)
    assert saved.find("mine", "comparison")
    saved.forget(0)
    assert saved.find("mine", "comparison") is None
    for number in range(visits.MOST_VISITS + 10):
        saved.save(f"visit {number}", "comparison", mine)
    assert saved.find("visit 9", "comparison") is None
    assert saved.find("visit 10", "comparison") is mine


def test_runs_are_listed_newest_first_and_one_of_them_is_shown() -> None:
    saved = SavedResults()
    for name in "abc":
        saved.save("mine", "comparison", replace(make_run(name), drawn={}, finished=False))
        assert name not in list_names(saved)
        saved.save("mine", "comparison", make_run(name))
    assert list_names(saved) == ["c", "b", "a"]
    assert saved.show("mine", "comparison", "gone") is None
    shown = saved.show("mine", "comparison", "a")
    assert shown is not None and saved.find("mine", "comparison") is shown
    assert list_names(saved) == ["c", "b", "a"]
    for number in range(visits.MOST_RUNS - 2):
        saved.save("mine", "comparison", make_run(f"{number}"))
    assert list_names(saved)[-2:] == ["c", "b"]
    saved.pin("mine", "comparison", "b")
    saved.save("mine", "comparison", make_run("last"))
    assert list_names(saved)[-2:] == ["0", "b"], "a pinned run stays longest"


def test_short_of_room_what_was_drawn_goes_first_then_the_visits_of_long_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved = SavedResults()
    monkeypatch.setattr(visits, "MOST_BYTES", 4 * make_run("a").bytes - 10_000)
    saved.save("old", "comparison", make_run("o"))
    saved.save("mine", "comparison", make_run("a", pinned=True))
    for name in "bc":
        saved.save("mine", "comparison", make_run(name))
    kept = {each.run: bool(each.drawn) for each in saved.list_runs("mine", "comparison")}
    assert kept == {"a": True, "b": False, "c": True}
    monkeypatch.setattr(visits, "MOST_BYTES", 2 * make_run("a").bytes)
    saved.save("mine", "comparison", make_run("d"))
    assert list_names(saved, "old") == [] and list_names(saved) == ["d", "c", "b", "a"]
