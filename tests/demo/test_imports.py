"""The page is light: it starts without the libraries that compute."""

from __future__ import annotations

import subprocess
import sys


def test_the_page_and_its_server_import_neither_torch_nor_whisper() -> None:
    code = (
        "import sys, demo.page, demo.server, engines.analysis.faults, engines.cli; "
        "print(sorted({'torch', 'whisper', 'max', 'ctranslate2', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
