"""Imports go one way: no cycle, and no import from the tests into the product."""

from __future__ import annotations

from tests import structure


def test_imports_go_one_way() -> None:
    assert structure.find_cycle() == [] and structure.list_foreign_imports() == []
    for name in structure.modules():
        if name.startswith("engines"):
            assert not {m for m in structure.list_imports(name) if m.startswith("demo")}, name


def test_files_and_functions_are_short() -> None:
    assert structure.list_long_files() == []
    assert structure.list_long_functions() == []
