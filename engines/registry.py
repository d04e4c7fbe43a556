"""The table of engines, and which of them this machine can run.

A new engine is one file and one row in `ENGINES`. An engine's module is imported when the engine
is first asked for; importing this one imports neither PyTorch nor MAX.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from engines import hardware
from engines.base import Dtype, Engine, EngineError, Stopped
from engines.models import DEFAULT_MODEL


@dataclass(frozen=True)
class EngineRow:
    """One engine: its names, its looks, and where its code is.

    `colour`: of its lane and its lines in charts, `#rrggbb`. `dtypes`: the types it can compute in,
    on a GPU at least. `uses_gpu`: whether it runs on a GPU where there is one.
    Functions are written `module:function`. `make(model, dtype)` returns the engine, or raises
    `EngineUnavailable`. `why_not()` returns why this machine can't run it, or None.
    `open_stages(checkpoint, dtype, listener)` opens its encoder for the layer inspection
    (`engines.analysis.layers`); engines of the same encoder name the same function, and an engine
    without one is not offered there. `offers_dtypes`: whether the page lets one choose its type.
    """

    key: str
    label: str
    encoder: str
    decoder: str
    colour: str
    dtypes: tuple[Dtype, ...]
    uses_gpu: bool
    make: str
    why_not: str | None = None
    open_stages: str | None = None
    offers_dtypes: bool = False

    def make_engine(self, model: str, dtype: Dtype) -> Engine:
        """Make the engine for a model; nothing is loaded yet."""
        engine: Engine = _load(self.make)(model, dtype)
        return engine

    def why_unavailable(self) -> str | None:
        """Return why this machine can't run the engine, or None when it can."""
        reason: str | None = _load(self.why_not)() if self.why_not else None
        return reason

    def usable_dtypes(self) -> tuple[Dtype, ...]:
        """Return the types it can compute in on this machine: without a GPU float32 alone."""
        if len(self.dtypes) > 1 and self.uses_gpu and not hardware.has_accelerator():
            return self.dtypes[:1]
        return self.dtypes

    def stages_opener(self) -> Callable[..., Any] | None:
        """Return the function that opens its encoder stage by stage, or None."""
        return _load(self.open_stages) if self.open_stages else None


ENGINES: tuple[EngineRow, ...] = (
    EngineRow(
        key="cpu",
        label="PyTorch CPU",
        encoder="PyTorch",
        decoder="PyTorch",
        colour="#0072B2",
        dtypes=("float32",),
        uses_gpu=False,
        make="engines.whisper_torch:make_cpu",
        open_stages="engines.analysis.layers:open_torch_cpu",
    ),
    EngineRow(
        key="gpu",
        label="PyTorch GPU",
        encoder="PyTorch",
        decoder="PyTorch",
        colour="#E69F00",
        dtypes=("float32", "float16"),
        uses_gpu=True,
        make="engines.whisper_torch:make_gpu",
        why_not="engines.hardware:why_no_cuda",
        offers_dtypes=True,
        open_stages="engines.analysis.layers:open_torch_gpu",
    ),
    EngineRow(
        key="max_hybrid",
        label="MAX hybrid",
        encoder="MAX graph",
        decoder="PyTorch",
        colour="#009E73",
        dtypes=("float32", "float16"),
        uses_gpu=True,
        make="engines.max_whisper:make_max_hybrid",
        why_not="engines.hardware:why_no_max",
        open_stages="engines.analysis.layers:open_max",
    ),
    EngineRow(
        key="max_full",
        label="MAX full",
        encoder="MAX graph",
        decoder="MAX graph",
        colour="#CC79A7",
        dtypes=("float32", "float16", "bfloat16"),
        uses_gpu=True,
        make="engines.max_whisper:make_max_full",
        why_not="engines.hardware:why_no_max",
        open_stages="engines.analysis.layers:open_max",
    ),
)

BASELINE = ENGINES[0].key
"""The engine that all others are compared with: openai-whisper as it is."""


@dataclass(frozen=True)
class EngineStatus:
    """One engine on this machine.

    `reason`: why it is not available, else None. `dtypes`: the types it can compute in here.
    """

    key: str
    label: str
    encoder: str
    decoder: str
    reason: str | None
    colour: str = "#56B4E9"
    dtypes: tuple[Dtype, ...] = ("float32",)
    uses_gpu: bool = False

    @property
    def available(self) -> bool:
        """Whether `get` returns it."""
        return self.reason is None


_engines: dict[tuple[str, str, str], Engine] = {}
_lock = threading.Lock()


def _load(path: str) -> Callable[..., Any]:
    """Import what `module:function` names."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def all_keys() -> tuple[str, ...]:
    """Return every engine's key, the baseline first, whether this machine can run it or not."""
    return tuple(row.key for row in ENGINES)


def statuses() -> list[EngineStatus]:
    """Return every engine, with the reason where this machine can't run it."""
    return [
        EngineStatus(
            row.key,
            row.label,
            row.encoder,
            row.decoder,
            row.why_unavailable(),
            row.colour,
            row.usable_dtypes(),
            row.uses_gpu,
        )
        for row in ENGINES
    ]


def available() -> tuple[str, ...]:
    """Return the keys of the engines that this machine can run."""
    return tuple(row.key for row in ENGINES if row.why_unavailable() is None)


def offers_dtypes(key: str) -> bool:
    """Return whether the page lets one choose the type of an engine."""
    return any(row.key == key and row.offers_dtypes for row in ENGINES)


def row(key: str) -> EngineRow:
    """Return the row of the engine `key`; raises `EngineError` for an unknown one."""
    found = next((row for row in ENGINES if row.key == key), None)
    if found is None:
        raise EngineError(f"There is no engine {key!r}: pick one of {', '.join(all_keys())}.")
    return found


def get(key: str, model: str = DEFAULT_MODEL, dtype: Dtype = "float32") -> Engine:
    """Return the engine `key` for `model`, the same object each time; nothing is loaded yet.

    Raises `EngineUnavailable` with the reason, or `EngineError` for an unknown key.
    """
    found = row(key)
    name = (key, model, dtype)
    with _lock:
        if name not in _engines:
            _engines[name] = found.make_engine(model, dtype)
        return _engines[name]


def release(model: str) -> None:
    """Close and forget every engine that holds `model`."""
    with _lock:
        for name in [name for name in _engines if name[1] == model]:
            _engines.pop(name).close()


def warm(
    engine_keys: Iterable[str],
    model: str = DEFAULT_MODEL,
    get_engine: Callable[[str, str], Engine] = get,
) -> threading.Thread:
    """Prepare engines in the background; a failure shows when the engine is used.

    A user who stops while waiting for one of them wants the processor free, so the rest is left
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
    """Prepare an engine; returns whether a user stopped that."""
    try:
        get_engine().prepare()
    except EngineError as error:
        return isinstance(error, Stopped)
    return False
