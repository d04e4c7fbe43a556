"""Which windows of several lanes hold the same audio: only those may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demo.snapshot import Lane
from engines.base import FloatArray


@dataclass(frozen=True)
class Common:
    """The windows that start at the same audio in every lane.

    `starts`: their starts in seconds. `rows`: for each lane their rows in its features.
    `everywhere`: whether no lane has any other window.
    """

    starts: tuple[float, ...]
    rows: Mapping[str, tuple[int, ...]]
    everywhere: bool

    def pick(self, lane: Lane) -> FloatArray:
        """A lane's features of these windows, float32 `(windows, n_audio_ctx, n_audio_state)`."""
        assert lane.transcript is not None
        features = lane.transcript.features
        rows = self.rows[lane.key]
        return features if len(rows) == len(features) else features[list(rows)]


def match_windows(lanes: Sequence[Lane]) -> Common:
    """The common windows of finished lanes.

    Two decodes that diverge cut the clip at other places from there on; row `i` of one is then
    another stretch of audio than row `i` of the other.
    """
    starts = {
        lane.key: [
            round(start, 3)
            for start, _ in zip(
                lane.transcript.window_starts, lane.transcript.features, strict=False
            )
        ]
        for lane in lanes
        if lane.transcript is not None
    }
    shared = set.intersection(*map(set, starts.values())) if starts else set()
    return Common(
        starts=tuple(sorted(shared)),
        rows={
            key: tuple(row for row, start in enumerate(ours) if start in shared)
            for key, ours in starts.items()
        },
        everywhere=all(len(ours) == len(shared) for ours in starts.values()),
    )
