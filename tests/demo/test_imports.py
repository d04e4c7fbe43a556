"""The page is light: it starts without the libraries that compute."""

from __future__ import annotations

import subprocess
import sys


def test_the_page_and_its_server_import_nothing_that_computes() -> None:
    code = (
        "import sys, demo.page, demo.server, engines.analysis.faults, engines.cli; "
        "heavy = {'torch', 'whisper', 'max', 'ctranslate2', 'openvino', 'librosa', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
