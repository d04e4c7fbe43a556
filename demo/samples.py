"""The clips that come with the project, and the words really spoken in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TITLES = {
    "jfk": "Kennedy, 11 s",
    "librivox-sense": "Audiobook, 25 s",
    "columbia": "Address, 3:19",
    "jfk-noisy": "Kennedy with noise",
    "french-prompt": "French prompt",
    "silence": "Silence",
}
"""Nice names in the order to show them; a clip without one is shown by its file's name."""


@dataclass(frozen=True)
class Sample:
    """One clip; `reference` is None where no text of the same name lies beside it."""

    key: str
    title: str
    path: Path
    reference: str | None


def list_samples(folder: Path) -> tuple[Sample, ...]:
    """Every FLAC in a folder, the titled ones first."""
    order = {key: place for place, key in enumerate(TITLES)}
    paths = sorted(folder.glob("*.flac"), key=lambda p: (order.get(p.stem, len(order)), p.stem))
    return tuple(
        Sample(
            key=path.stem,
            title=TITLES.get(path.stem, path.stem.replace("_", " ").capitalize()),
            path=path,
            reference=read_reference(path.with_suffix(".txt")),
        )
        for path in paths
    )


def read_reference(path: Path) -> str | None:
    """The text of a reference file, or None where there is none; an empty file is silence."""
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None
