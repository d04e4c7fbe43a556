"""What the options of a command line may hold; argparse shows the sentences."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from pathlib import Path

from engines import random_checkpoints as sizes


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them, each once."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise argparse.ArgumentTypeError("at least one name is needed")
    return found


def peer_names(text: str) -> tuple[str, ...]:
    """Names of modules; `none` is no name at all."""
    return () if text == "none" else names(text)


def size_names(text: str) -> tuple[str, ...]:
    """The same, of sizes that there are."""
    for name in names(text):
        if name not in sizes.names():
            raise argparse.ArgumentTypeError(
                f"there is no size {name!r}: pick {', '.join(sizes.names())}"
            )
    return names(text)


def numbers(text: str) -> tuple[int, ...]:
    """Numbers from 1 up with commas between them."""
    return tuple(positive(number) for number in names(text))


def positive(text: str) -> int:
    """A number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def count(text: str) -> int:
    """A number from 0 up."""
    return 0 if text == "0" else positive(text)


def new_file(text: str) -> Path:
    """A file that can be written."""
    path = Path(text)
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} can't be written")
    return path


def new_file_and_folder(text: str) -> Path:
    """As `new_file`; its folder is made where it isn't there."""
    with suppress(OSError):
        Path(text).parent.mkdir(parents=True, exist_ok=True)
    return new_file(text)
