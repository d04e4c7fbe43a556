"""What a reload finds again, and whose it is."""

from __future__ import annotations

from demo.keepsakes import MOST_VISITS, Keepsakes, Kept
from tests.demo.reading import compare


def test_a_visit_finds_its_own() -> None:
    keepsakes = Keepsakes()
    keepsakes.keep("mine", Kept(("short",), values=(1, 2)))
    found = keepsakes.find("mine")
    assert found is not None
    assert found.controls == ("short",)
    assert found.values == (1, 2)
    assert keepsakes.find("yours") is None
    assert keepsakes.find("") is None


def test_nothing_is_kept_without_a_name() -> None:
    keepsakes = Keepsakes()
    keepsakes.keep("", Kept(()))
    assert keepsakes.find("") is None


def test_the_oldest_is_forgotten_first() -> None:
    keepsakes = Keepsakes()
    for number in range(MOST_VISITS + 1):
        keepsakes.keep(f"visit {number}", Kept(()))
    assert keepsakes.find("visit 0") is None
    assert keepsakes.find("visit 1") is not None


def test_panels_are_kept_beside_the_comparison() -> None:
    keepsakes = Keepsakes()
    keepsakes.keep_panel("mine", "microscope", (1,))
    keepsakes.keep_panel("mine", "fault lab", (2,))
    keepsakes.keep("mine", Kept(("short",)))
    keepsakes.keep_panel("", "microscope", (3,))
    assert keepsakes.find_panel("mine", "microscope") == (1,)
    assert keepsakes.find_panel("mine", "fault lab") == (2,)
    assert keepsakes.find_panel("yours", "microscope") is None
    assert keepsakes.find_panel("", "microscope") is None
    keepsakes.forget(0)
    assert keepsakes.find_panel("mine", "microscope") is None
    assert keepsakes.find("mine") is None


def test_features_are_not_kept() -> None:
    keepsakes = Keepsakes()
    keepsakes.keep("mine", Kept((), comparison=compare()))
    found = keepsakes.find("mine")
    assert found is not None and found.comparison is not None
    lane = found.comparison.lanes[0]
    assert lane.transcript is not None
    assert lane.transcript.features.size == 0
    assert lane.transcript.text
