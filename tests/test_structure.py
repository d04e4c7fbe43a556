"""Imports go one way and are light, files and functions are short."""

from __future__ import annotations

import subprocess
import sys

from tests import structure


def test_imports_go_one_way() -> None:
    assert structure.find_cycle() == [] and structure.list_foreign_imports() == []
    for name in structure.modules():
        if name.startswith("engines"):
            assert not {m for m in structure.list_imports(name) if m.startswith("demo")}, name


def test_files_and_functions_are_short() -> None:
    assert structure.list_long_files() == []
    assert structure.list_long_functions() == []


def test_the_page_and_its_server_import_nothing_that_computes() -> None:
    code = (
        "import sys, demo.page, demo.server, engines.analysis.faults, engines.cli; "
        "heavy = {'torch', 'whisper', 'max', 'ctranslate2', 'openvino', 'librosa', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
