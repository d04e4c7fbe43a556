"""What a process for an engine costs: `python -m engines.measure.isolation [ENGINE] [CLIP]`.

The same engine in this process and in one of its own, with nano, in turn: seconds to get ready,
median seconds of a run from outside, and the memory that the other process shares with nobody.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from statistics import median

from engines import isolation, registry
from engines.audio import load_clip
from engines.measure.turns import timed

SAMPLES = Path(__file__).parents[2] / "audio_samples"
REPEATS = 7


def main(key: str = "max_full", clip_name: str = "half_minute") -> None:
    """Print the figures."""
    clip = load_clip(str(SAMPLES / f"{clip_name}.flac"))
    here, apart = registry.get(key), isolation.get(key)
    ready = [timed(engine.prepare)[0] for engine in (here, apart)]
    seconds: dict[str, list[float]] = {"here": [], "apart": []}
    tokens = set()
    for lap in range(REPEATS + 1):
        for where, engine in (("here", here), ("apart", apart)):
            took, transcript = timed(partial(engine.transcribe, clip))
            tokens.add(transcript.tokens)
            if lap:
                seconds[where].append(took)
    if len(tokens) > 1:
        sys.exit("the tokens differ")
    here_median, apart_median = (median(each) for each in seconds.values())
    assert isinstance(apart, isolation.IsolatedEngine)
    print(f"{key}, {clip_name}, {REPEATS} runs in turn after a warm-up")
    print(f"ready in    {ready[0]:.2f} s here, {ready[1]:.2f} s apart")
    print(f"a run takes {here_median:.3f} s here, {apart_median:.3f} s apart")
    print(f"its own memory: {apart.private_bytes() / 1e6:.0f} MB")
    isolation.close_all()


if __name__ == "__main__":
    main(*sys.argv[1:3])
