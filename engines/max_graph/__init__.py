"""Whisper as MAX graphs: builders, weights, kernels, and the cache of what was compiled."""

import os

from engines.hardware import cache_folder

# MAX keeps caches of its own, beside ours. It reads this variable when it is first imported, and
# what imports it stands in this package. Where its folder can't be written it does without if the
# folder was named, and gives up if it wasn't (26.7).
os.environ.setdefault("MODULAR_CACHE_DIR", str(cache_folder() / "modular"))
