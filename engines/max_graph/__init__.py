"""Whisper as MAX graphs: builders, weights, kernels, and the cache of what was compiled."""

import os
from pathlib import Path

if folder := os.environ.get("MAX_WHISPER_CACHE"):
    # MAX keeps caches of its own; whoever moves ours expects both in one place. It reads this
    # variable when it is first imported, and what imports it stands in this package.
    os.environ.setdefault("MODULAR_CACHE_DIR", str(Path(folder).expanduser() / "modular"))
