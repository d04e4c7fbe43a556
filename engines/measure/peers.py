"""Other projects to measure against: modules outside the runtime, found by name where present.

A peer module has

- `KEYS`: the keys of its engines;
- `engine(key, model)`: an `Engine` for one of its keys, None for any other;
- `WRITERS`: the keys of its writers, which may be none;
- `writers(checkpoint, threads)`: `{key: how to make a Writer}` (`engines.measure.step`).

A peer whose package is not installed takes no part. One that fails in any other way does, under its
module's name, so that a record has its error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn, Protocol

from engines import registry
from engines.base import Engine, EngineError
from engines.checkpoints import Checkpoint
from engines.measure.turns import in_words

NAMES = ("tests.peers.ctranslate2_whisper", "tests.peers.faster_whisper_itself")


class Peer(Protocol):
    """What a peer's module has."""

    KEYS: Sequence[str]
    WRITERS: Sequence[str]

    def engine(self, key: str, model: str) -> Engine | None:
        """The engine of one of its keys."""
        ...

    def writers(self, checkpoint: Checkpoint, threads: int) -> Mapping[str, Callable[[], Any]]:
        """How to make each writer."""
        ...


class Broken:
    """Stands in for a peer that can't be used, under its module's name: it says why."""

    def __init__(self, name: str, error: Exception) -> None:
        self.KEYS: Sequence[str] = (name.rpartition(".")[2],)
        self.WRITERS: Sequence[str] = self.KEYS
        self._sentence = f"The peer {name} can't be used: {in_words(error)}"

    def engine(self, key: str, model: str) -> NoReturn:
        """None can be made."""
        self.say_why()

    def writers(self, checkpoint: Checkpoint, threads: int) -> Mapping[str, Callable[[], Any]]:
        """None can be made."""
        return dict.fromkeys(self.WRITERS, self.say_why)

    def say_why(self) -> NoReturn:
        """Raise `EngineError`."""
        raise EngineError(self._sentence)


def present(names: Sequence[str] = NAMES) -> list[Peer]:
    """The peers whose packages are installed here; raises `EngineError` for no module's name."""
    check(names)
    found: list[Peer] = []
    for name in names:
        try:
            found.append(bring(name))
        except ModuleNotFoundError as error:  # noqa: PERF203 (one peer must not hide the others)
            if is_ours(error.name or "", name):
                found.append(Broken(name, error))
        except Exception as error:  # whatever it raises
            found.append(Broken(name, error))
    return found


def check(names: Sequence[str]) -> None:
    """Raise `EngineError` where a name is no module's; the default peers may be absent."""
    for name in names:
        if name not in NAMES and not exists(name):
            raise EngineError(
                f"There is no module {name!r}: --peers takes names of Python modules, or none."
            )


def bring(name: str) -> Peer:
    """The module, with all that a peer has."""
    peer: Any = import_module(name)
    lacking = [each for each in ("KEYS", "WRITERS", "engine", "writers") if not hasattr(peer, each)]
    if lacking:
        raise EngineError(f"it has no {' and no '.join(lacking)}.")
    whole: Peer = peer
    return whole


def exists(name: str) -> bool:
    """Whether there is such a module; the packages around it are brought in."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def is_ours(missing: str, peer: str) -> bool:
    """Whether a missing module is of the peer's own project or of this one, not a third one's.

    The default peers live among the tests, which need not be there.
    """
    if peer in NAMES and (missing == "tests" or peer.startswith(missing)):
        return False
    return missing.partition(".")[0] in ("engines", "tests", peer.partition(".")[0])


def writers_of(
    names: Sequence[str], checkpoint: Checkpoint, threads: int
) -> dict[str, Callable[[], Any]]:
    """How to make each writer of the peers that are present."""
    makers: dict[str, Callable[[], Any]] = {}
    for peer in present(names):
        try:
            makers |= peer.writers(checkpoint, threads)
        except Exception as error:  # noqa: PERF203 (a peer that fails must not end the others)
            makers |= dict.fromkeys(peer.WRITERS, partial(_fail, error))
    return makers


def _fail(error: Exception) -> NoReturn:
    raise error


def keys(names: Sequence[str] = NAMES) -> tuple[str, ...]:
    """The keys of the peers' engines that this machine can run."""
    return tuple(key for peer in present(names) for key in peer.KEYS)


def writer_keys(names: Sequence[str] = NAMES) -> tuple[str, ...]:
    """The keys of the peers' writers that this machine can run."""
    return tuple(key for peer in present(names) for key in peer.WRITERS)


def get(key: str, model: str, names: Sequence[str] = NAMES) -> Engine:
    """A peer's engine, else one of ours; raises as `registry.get` does, or a broken peer's error.

    No more peers are brought into memory than it takes to find the engine, since that is measured.
    """
    if key in registry.all_keys():
        return registry.get(key, model)
    broken = None
    for name in names:
        for peer in present([name]):
            if isinstance(peer, Broken):
                broken = broken or peer
            elif (engine := peer.engine(key, model)) is not None:
                return engine
    if broken is not None:
        broken.say_why()
    return registry.get(key, model)
