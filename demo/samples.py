"""The clips that come with the project."""

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
"""Names of samples in the order to show them; one without is shown by its file's name."""


@dataclass(frozen=True)
class Sample:
    """One clip that comes with the project, or a visitor's own.

    `reference`: the words really spoken; None where they are not known, "" for silence. `seconds`:
    its length; 0 where it is not known.
    """

    key: str
    title: str
    path: Path
    reference: str | None = None
    seconds: float = 0.0


def list_samples(folder: Path) -> tuple[Sample, ...]:
    """List every FLAC of a folder, titled ones first, with the text of the same name beside it."""
    order = {key: place for place, key in enumerate(TITLES)}
    paths = sorted(folder.glob("*.flac"), key=lambda p: (order.get(p.stem, len(order)), p.stem))
    samples = []
    for path in paths:
        title = TITLES.get(path.stem, path.stem.replace("_", " ").capitalize())
        text = path.with_suffix(".txt")
        reference = text.read_text(encoding="utf-8").strip() if text.is_file() else None
        samples.append(Sample(path.stem, title, path, reference, read_length(path)))
    return tuple(samples)


def read_length(flac: Path) -> float:
    """Return the seconds of audio that a FLAC file's first block of metadata tells, else 0."""
    with flac.open("rb") as file:
        head = file.read(26)
    numbers = int.from_bytes(head[18:26], "big")  # 20 bits the rate, the last 36 how many samples
    rate, samples = numbers >> 44, numbers & (2**36 - 1)
    return samples / rate if head.startswith(b"fLaC") and rate else 0.0
