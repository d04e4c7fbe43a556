"""Imports go one way: no cycle, and no import from the tests into the product."""

from __future__ import annotations

from tests import structure


def test_no_import_cycle() -> None:
    assert structure.list_cycles() == []


def test_engines_know_nothing_of_the_page() -> None:
    for name in structure.modules():
        if name.startswith("engines"):
            assert not {m for m in structure.list_imports(name) if m.startswith("demo")}, name


def test_the_product_does_not_import_the_tests() -> None:
    assert structure.list_foreign_imports() == []


def test_files_and_functions_are_short() -> None:
    assert structure.list_long_files() == []
    assert structure.list_long_functions() == []
