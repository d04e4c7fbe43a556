"""The list of samples."""

from __future__ import annotations

from pathlib import Path

from demo.samples import list_samples


def test_samples_come_titled_ones_first_with_their_references(sample_folder: Path) -> None:
    (sample_folder / "a_clip.flac").touch()
    samples = list_samples(sample_folder)
    assert [sample.title for sample in samples] == ["Short sentence", "Talk, 2:41", "A clip"]
    assert samples[0].reference is not None
    assert samples[1].reference is None


def test_an_empty_folder_has_no_samples(tmp_path: Path) -> None:
    assert list_samples(tmp_path) == ()
