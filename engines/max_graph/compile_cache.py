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
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from filelock import FileLock
from max.driver import CPU, Accelerator, Buffer, Device, accelerator_count
from max.dtype import DType
from max.engine import CompiledModel, InferenceSession, Model, read
from max.graph import Graph, Module
from whisper.model import ModelDimensions

from engines.base import Dtype, EngineError, Listener, describe_error, ran_out_of_memory
from engines.checkpoints import Checkpoint
from engines.hardware import cache_folder, coarse_timers, read_processor, request_amx
from engines.max_graph import accelerator_decoder, cpu_decoder, encoder
from engines.max_graph.operations import AcceleratorOperations, CpuOperations, Operations

DIGEST_BYTES = 32

_compile_lock = threading.Lock()
_compiled: dict[Path, CompiledModel] = {}
"""Modules loaded by this process, so that a cache that can't be written costs one compile only."""


def pick_device() -> Device:
    """Return the accelerator where there is one, else the CPU."""
    return Accelerator() if accelerator_count() > 0 else CPU()


def pick_weight(checkpoint: Checkpoint, device: Device, dtype: Dtype) -> DType:
    """Return the type to keep matrices in.

    On a CPU float16 where that is exact, because the kernels widen it before they compute; on an
    accelerator the type asked for, because the built-in products compute in it.
    """
    if device.label == "cpu":
        return DType.float16 if checkpoint.fits_float16 else DType.float32
    return DType[dtype]


@cache
def session(device_label: str) -> InferenceSession:
    """Return this process's session for `cpu` or `gpu`, created on first use."""
    return InferenceSession(devices=[CPU()] if device_label == "cpu" else [Accelerator()])


def load_graphs(
    half: Literal["encoder", "decoder"],
    dims: ModelDimensions,
    device: Device,
    weight: DType,
    listener: Listener,
) -> tuple[dict[str, Model], Operations]:
    """Return a half's compiled graphs for `device`, ready to run; see `compile_graphs`."""
    compiled, op = compile_graphs(half, dims, device, weight, listener)
    models = session(device.label).init_all(compiled)
    if device.label == "cpu":
        start_runtime(models["post"])
    return models, op


def start_runtime(layer_norm: Model) -> None:
    """Run a graph once, by which MAX starts its last thread, so that this seldom wakes.

    In MAX 26.7 it looks for work 5,000 times a second, also where there is none: 7 % of a core all
    the time, and 4 to 11 % of every kernel's speed on two cores. With coarse timers it looks 20
    times. All other threads are started earlier.
    """
    inputs = [Buffer.zeros(shape, DType.float32) for shape in ((1, 1), (1,), (1,))]
    with coarse_timers():
        layer_norm.execute(*inputs)


def compile_graphs(
    half: Literal["encoder", "decoder"],
    dims: ModelDimensions,
    device: Device,
    weight: DType,
    listener: Listener,
) -> tuple[CompiledModel, Operations]:
    """Return a half's compiled graphs for `device`, from the cache or compiled now.

    `weight`: the type of the matrices; see `pick_weight`. On a CPU one module holds both halves of
    every checkpoint, since the fixed cost of compiling one is about half of what either half takes.
    """
    op: Operations
    if device.label == "cpu":
        op = CpuOperations(weight, amx=request_amx())
        path = entry_path("whisper", "cpu", f"{weight.name} {op.terms}")
    else:
        op, target = AcceleratorOperations(weight), f"{device.api}-{device.architecture_name}"
        path = entry_path(half, target, f"{weight.name} {dims}")

    def build(module: Module) -> Graph:
        if isinstance(op, CpuOperations):
            encoder.build(module, op, encoder.SYMBOLIC)
            return cpu_decoder.build(module, op)
        if half == "encoder":
            return encoder.build(module, op, encoder.Sizes.of(dims))
        return accelerator_decoder.build(module, op, dims)

    if path not in _compiled:
        _compiled[path] = load_compiled(path, lambda: compile_module(build, device.label), listener)
    return _compiled[path], op


def compile_module(build: Callable[[Module], Graph], device_label: str) -> CompiledModel:
    """Compile the graphs that `build` adds to a module, of which it returns the last.

    MAX 26.7 allows an empty `Module` only on the thread that first imported `max.graph`, unless a
    private context is entered. A `Graph` does so itself, but here several graphs share a module.
    Raises `EngineError` where MAX gives up, whose own message says nothing; its cause says why.
    """
    from max._mlir_context import ensure_default_mlir_context

    with ensure_default_mlir_context():
        graph = build(Module())
    try:
        return session(device_label).compile(graph)
    except RuntimeError as error:
        cause = error.__cause__ or error
        if ran_out_of_memory(cause):
            raise EngineError(f"MAX can't compile: {describe_error(cause)}.") from error
        said = " ".join(str(cause).split()).rpartition("error: ")[2][:240]
        hint = ": free some space, or let MAX_WHISPER_CACHE name a folder that can be written"
        no_room = re.search(r"could not be created|cannot write|no space|read-only", said, re.I)
        raise EngineError(f"MAX can't compile ({said}){hint if no_room else ''}.") from error


def load_compiled(
    path: Path, compile_now: Callable[[], CompiledModel], listener: Listener
) -> CompiledModel:
    """Read `path`, or compile and write it; only one thread of one process compiles an entry."""
    compiled = read_entry(path)
    if compiled is not None:
        return compiled
    listener.report("compiling")
    with _compile_lock, ExitStack() as held:
        with suppress(OSError, NotImplementedError):  # a file system without locks or without room
            held.enter_context(FileLock(path.with_suffix(".lock"), fallback_to_soft=False))
            for left in path.parent.glob(f"{path.stem}-*"):  # by a kill while it was written
                shutil.rmtree(left, ignore_errors=True)
        compiled = read_entry(path)
        if compiled is None:
            compiled = compile_now()
            write_entry(path, compiled)
        return compiled


def read_entry(path: Path) -> CompiledModel | None:
    """Return the compiled module in `path`; None where there is none or it is damaged.

    Raises `EngineError` where somebody else could have written it: what it holds is run.
    """
    for place in (path.parent, path):
        check_owner(place)
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


def check_owner(path: Path) -> None:
    """Raise `EngineError` for a file or folder that belongs to, or can be written by, others."""
    try:
        found = path.stat()
    except OSError:
        return
    group = found.st_mode & 0o020 and found.st_gid not in (os.getegid(), 0)
    if found.st_uid not in (os.geteuid(), 0) or group or found.st_mode & 0o002:
        raise EngineError(
            f"Compiled code is not taken from {path}, which other users may have written: set "
            "MAX_WHISPER_CACHE to a folder of your own that only you can write."
        )


def write_entry(path: Path, compiled: CompiledModel) -> None:
    """Write the entry atomically; a cache that can't be written is ignored."""
    try:
        with tempfile.TemporaryDirectory(prefix=f"{path.stem}-", dir=path.parent) as folder:
            exported = Path(folder) / "module.mef"
            compiled.export_mef(exported)
            body = exported.read_bytes()
            exported.write_bytes(hashlib.sha256(body).digest() + body)
            exported.replace(path)
    except (OSError, ValueError):  # the latter is MAX's, where it can't write
        pass


def entry_path(name: str, target: str, variant: str) -> Path:
    """Return an entry's path, with a digest of all it depends on; `variant`: sizes and types."""
    parts = [version("max"), processor(), target, variant, sources_digest()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
    return cache_folder() / f"{name}-{key}.mef"


@cache
def processor() -> str:
    """Return the processor's model and instruction sets, which compiled code targets."""
    name, flags = read_processor()
    return " ".join([platform.machine(), name or platform.processor(), *sorted(flags)])


@cache
def sources_digest() -> str:
    """Return a digest of the graph builders and kernels."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.py"), *folder.glob("kernels/*.mojo")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
