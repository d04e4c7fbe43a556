"""`python -m engines.transcribe CLIP`: the same as `python -m engines.cli transcribe CLIP`."""

from __future__ import annotations

import sys

from engines.cli import main

if __name__ == "__main__":
    main(["transcribe", *sys.argv[1:]])
