"""Other projects to measure against: modules outside the runtime, found by name where present.

A peer module has

- `KEYS`: the keys of its engines;
- `engine(key, model)`: an `Engine` for one of its keys, None for any other;
- `WRITERS`: the keys of its writers, which may be none;
- `writers(checkpoint, threads)`: `{key: how to make a Writer}` (`engines.measure.step`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType

from engines import registry
from engines.base import Engine

NAMES = ("tests.peers.ctranslate2_whisper", "tests.peers.faster_whisper_itself")


def present(names: Sequence[str] = NAMES) -> list[ModuleType]:
    """The peers whose packages are installed here."""
    found: list[ModuleType] = []
    for name in names:
        with suppress(ImportError):
            found.append(import_module(name))
    return found


def keys(names: Sequence[str] = NAMES) -> tuple[str, ...]:
    """The keys of the peers' engines that this machine can run."""
    return tuple(key for peer in present(names) for key in peer.KEYS)


def writer_keys(names: Sequence[str] = NAMES) -> tuple[str, ...]:
    """The keys of the peers' writers that this machine can run."""
    return tuple(key for peer in present(names) for key in peer.WRITERS)


def get(key: str, model: str, names: Sequence[str] = NAMES) -> Engine:
    """A peer's engine, else one of ours; raises as `registry.get` does.

    No more peers are brought into memory than it takes to find the engine, since that is measured.
    """
    for name in names if key not in registry.all_keys() else ():
        for peer in present([name]):
            if (engine := peer.engine(key, model)) is not None:
                return engine
    return registry.get(key, model)
