"""Compile graphs and cache the compiled modules on disk.

A compiled module is exported to one file in the cache folder, which `MAX_WHISPER_CACHE` can move.
The file's name is a digest of everything the compiled code depends on: MAX's version, processor,
device, sizes and the sources of graphs and kernels. The file starts with a digest of its content,
so a damaged one is compiled again and never handed to native code.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from engines.base import Dtype, Listener
from engines.checkpoints import Checkpoint

CACHE_VARIABLE = "MAX_WHISPER_CACHE"
DIGEST_BYTES = 32


def cache_folder() -> Path:
    """Return the folder of compiled graphs, after trying to create it."""
    if configured := os.environ.get(CACHE_VARIABLE):
        folder = Path(configured).expanduser()
    else:
        caches = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        folder = Path(caches) / "max-whisper"
    with suppress(OSError):  # a disk that is full or read-only: everything is compiled anew
        folder.mkdir(parents=True, exist_ok=True)
    return folder


if os.environ.get(CACHE_VARIABLE):
    # MAX keeps caches of its own; whoever moves ours expects both in one place. It reads this
    # variable when it is first imported, which is why it stands before the imports below.
    os.environ.setdefault("MODULAR_CACHE_DIR", str(cache_folder() / "modular"))

from max._mlir_context import ensure_default_mlir_context  # noqa: E402
from max.driver import CPU, Accelerator, Device, accelerator_count  # noqa: E402
from max.dtype import DType  # noqa: E402
from max.engine import CompiledModel, InferenceSession, Model, read  # noqa: E402
from max.graph import Graph, Module  # noqa: E402
from whisper.model import ModelDimensions  # noqa: E402

from engines.max_graph import accelerator_decoder, decoder, encoder, operations  # noqa: E402
from engines.max_graph.weights import matrix_dtype  # noqa: E402

_compile_lock = threading.Lock()


def pick_device() -> Device:
    """Return the accelerator where there is one, else the CPU."""
    return Accelerator() if accelerator_count() > 0 else CPU()


def pick_weight(checkpoint: Checkpoint, device: Device, dtype: Dtype) -> DType:
    """Return the type to keep matrices in.

    On a CPU float16 where that is exact, because the kernels widen it before they compute; on an
    accelerator the type asked for, because the built-in products compute in it.
    """
    return matrix_dtype(checkpoint) if device.label == "cpu" else DType[dtype]


@cache
def session(device_label: str) -> InferenceSession:
    """Return this process's session for `cpu` or `gpu`, created on first use."""
    return InferenceSession(devices=[CPU()] if device_label == "cpu" else [Accelerator()])


def load_encoder(
    dims: ModelDimensions, device: Device, weight: DType, listener: Listener
) -> tuple[dict[str, Model], operations.Operations]:
    """Return the encoder's compiled graphs for `device`, from the cache or compiled now.

    `weight`: the type of the matrices; see `pick_weight`.
    """
    op, key = _target(device, weight, dims)
    if isinstance(op, operations.CpuOperations):
        return _load_both(key, op, device, listener), op
    sizes = encoder.Sizes.of(dims)
    return _load("encoder", key, device, lambda m: encoder.build(m, op, sizes), listener), op


def load_decoder(
    dims: ModelDimensions, device: Device, weight: DType, listener: Listener
) -> tuple[dict[str, Model], operations.Operations]:
    """Return the decoder's compiled graphs, as `load_encoder` does the encoder's."""
    op, key = _target(device, weight, dims)
    if isinstance(op, operations.CpuOperations):
        return _load_both(key, op, device, listener), op
    return _load(
        "decoder", key, device, lambda m: accelerator_decoder.build(m, op, dims), listener
    ), op


def _load_both(
    key: str, op: operations.CpuOperations, device: Device, listener: Listener
) -> dict[str, Model]:
    """Load both halves' graphs for a CPU from one module.

    A module has a fixed cost of compilation, about half of what either half takes alone.
    """

    def build(module: Module) -> Graph:
        encoder.build(module, op, encoder.Sizes.symbolic())
        return decoder.build(module, op)

    return _load("whisper", key, device, build, listener)


def _target(
    device: Device, weight: DType, dims: ModelDimensions
) -> tuple[operations.Operations, str]:
    """Return the operations for `device` and the cache key of graphs made of them."""
    if device.label == "cpu":
        return operations.CpuOperations(weight), entry_key("cpu", weight.name)
    name = f"{device.api}-{device.architecture_name}"
    return operations.AcceleratorOperations(weight), entry_key(name, f"{weight.name} {dims}")


def _load(
    name: str,
    key: str,
    device: Device,
    build: Callable[[Module], Graph],
    listener: Listener,
) -> dict[str, Model]:
    running = session(device.label)
    path = cache_folder() / f"{name}-{key}.mef"
    if path not in _compiled:
        _compiled[path] = load_compiled(
            path, lambda: running.compile(build_anywhere(lambda: build(Module()))), listener
        )
    return running.init_all(_compiled[path])


_compiled: dict[Path, CompiledModel] = {}
"""Modules loaded by this process, so that a cache that can't be written costs one compile only."""


def build_anywhere(build: Callable[[], Graph]) -> Graph:
    """Build graphs on any thread.

    MAX 26.7 allows an empty `Module` only on the thread that first imported `max.graph`. A `Graph`
    handles this itself, but here several graphs share a module.
    """
    with ensure_default_mlir_context():
        return build()


def load_compiled(
    path: Path, compile_module: Callable[[], CompiledModel], listener: Listener
) -> CompiledModel:
    """Read `path`, or compile and write it; only one thread of one process compiles an entry."""
    compiled = read_entry(path)
    if compiled is not None:
        return compiled
    listener.report("compiling")
    with _compile_lock, _file_lock(path.with_suffix(".lock")):
        compiled = read_entry(path)
        if compiled is None:
            compiled = compile_module()
            write_entry(path, compiled)
        return compiled


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes; none where the file system has no locks or no room."""
    with ExitStack() as held:
        with suppress(OSError, NotImplementedError):
            held.enter_context(FileLock(path, fallback_to_soft=False))
        yield


def read_entry(path: Path) -> CompiledModel | None:
    """Return the compiled module in `path`; None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        return None
    try:
        return read(io.BytesIO(body))
    except RuntimeError:  # intact, but not a module of this version of MAX
        return None


def write_entry(path: Path, compiled: CompiledModel) -> None:
    """Write the entry atomically; a cache that can't be written is ignored."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            exported = Path(folder) / "module.mef"
            compiled.export_mef(exported)
            body = exported.read_bytes()
            exported.write_bytes(hashlib.sha256(body).digest() + body)
            exported.replace(path)
    except OSError:
        pass


def entry_key(target: str, variant: str) -> str:
    """Return a digest of everything an entry depends on; `variant`: sizes and types."""
    parts = [version("max"), processor(), target, variant, sources_digest()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


@cache
def processor() -> str:
    """Return the processor's model and instruction sets, which compiled code targets."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return f"{platform.machine()} {kept}"


@cache
def sources_digest() -> str:
    """Return a digest of the graph builders and kernels."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.py"), *folder.glob("kernels/*.mojo")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
