"""What the benchmark's tests share."""

from __future__ import annotations

import pytest

from engines.measure import turns


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is timed for its own sake, so nothing need settle."""
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0.0)
