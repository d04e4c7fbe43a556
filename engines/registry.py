"""Which engines this machine can run, and why not the others.

`python -m engines.registry` prints the list. A new engine is one file and one row in `ROWS`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from engines.base import Dtype, Engine, EngineError, Stopped
from engines.checkpoints import DEFAULT_MODEL
from engines.max_full import MaxFullEngine, make_max_full
from engines.max_hybrid import MaxHybridEngine, make_max_hybrid, why_no_max
from engines.whisper_torch import TorchEngine, make_cpu, make_gpu, why_no_cuda

BASELINE = "cpu"


@dataclass(frozen=True)
class Row:
    """How to make one engine, and how to tell whether this machine can run it."""

    key: str
    label: str
    encoder: str
    decoder: str
    make: Callable[[str, Dtype], Engine]
    why_not: Callable[[], str | None]


@dataclass(frozen=True)
class EngineStatus:
    """One engine on this machine; `reason` says why it is not available, else None."""

    key: str
    label: str
    encoder: str
    decoder: str
    reason: str | None

    @property
    def available(self) -> bool:
        """Whether `get` will give it."""
        return self.reason is None


ROWS = (
    Row("cpu", "PyTorch CPU", TorchEngine.encoder, TorchEngine.decoder, make_cpu, lambda: None),
    Row("gpu", "PyTorch GPU", TorchEngine.encoder, TorchEngine.decoder, make_gpu, why_no_cuda),
    Row(
        MaxHybridEngine.key,
        MaxHybridEngine.label,
        MaxHybridEngine.encoder,
        MaxHybridEngine.decoder,
        make_max_hybrid,
        why_no_max,
    ),
    Row(
        MaxFullEngine.key,
        MaxFullEngine.label,
        MaxFullEngine.encoder,
        MaxFullEngine.decoder,
        make_max_full,
        why_no_max,
    ),
)

_engines: dict[tuple[str, str, str], Engine] = {}
_lock = threading.Lock()


def all_keys() -> tuple[str, ...]:
    """Every engine's key, the baseline first, whether this machine has it or not."""
    return tuple(row.key for row in ROWS)


def statuses() -> list[EngineStatus]:
    """Every engine, with the reason where this machine can't run it."""
    return [
        EngineStatus(row.key, row.label, row.encoder, row.decoder, row.why_not()) for row in ROWS
    ]


def available() -> tuple[str, ...]:
    """Keys of the engines that this machine can run."""
    return tuple(status.key for status in statuses() if status.available)


def row(key: str) -> Row:
    """How to make the engine `key`; raises `EngineError` for an unknown one."""
    found = next((row for row in ROWS if row.key == key), None)
    if found is None:
        raise EngineError(f"There is no engine {key!r}: pick one of {', '.join(all_keys())}.")
    return found


def get(key: str, model: str = DEFAULT_MODEL, dtype: Dtype = "float32") -> Engine:
    """The engine `key` for `model`, the same object each time; nothing is loaded yet.

    Raises `EngineUnavailable` with the reason, or `EngineError` for an unknown key.
    """
    make = row(key).make
    with _lock:
        name = (key, model, dtype)
        if name not in _engines:
            _engines[name] = make(model, dtype)
        return _engines[name]


def release(model: str) -> None:
    """Close every engine that holds `model` and forget it."""
    with _lock:
        for name in [name for name in _engines if name[1] == model]:
            _engines.pop(name).close()


def warm(
    engine_keys: Iterable[str],
    model: str = DEFAULT_MODEL,
    get_engine: Callable[[str, str], Engine] = get,
) -> threading.Thread:
    """Prepare engines in the background; a failure shows when the engine is used.

    Somebody who stops while he waits for one of them wants the processor free: the rest is left
    until it is asked for.
    """

    def prepare() -> None:
        for key in engine_keys:
            if was_stopped(partial(get_engine, key, model)):
                return

    thread = threading.Thread(target=prepare, name="warm engines", daemon=True)
    thread.start()
    return thread


def was_stopped(get_engine: Callable[[], Engine]) -> bool:
    """Prepare an engine; whether somebody stopped that."""
    try:
        get_engine().prepare()
    except EngineError as error:
        return isinstance(error, Stopped)
    return False


def main() -> None:
    """Print the engines of this machine."""
    for status in statuses():
        state = "available" if status.available else f"not available: {status.reason}"
        halves = f"encoder {status.encoder}, decoder {status.decoder}"
        print(f"{status.key:<12}{status.label:<14}{halves:<42}{state}")


if __name__ == "__main__":
    main()
