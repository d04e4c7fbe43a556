"""The cache of compiled graphs: kept, moved by a variable, rebuilt when damaged or stale."""

import functools
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("max.engine")

from max.dtype import DType
from max.engine import CompiledModel
from max.graph import DeviceRef, Graph, Module, TensorType

from engines.base import Listener, Progress
from engines.max_graph import compile_cache as cache
from engines.max_graph.encoder import Sizes
from tests.engines.checkpoint_files import DIMENSIONS

pytestmark = pytest.mark.max


@functools.cache
def compile_identity() -> CompiledModel:
    """A graph that returns its input."""
    kind = TensorType(DType.float32, ["n"], DeviceRef.CPU())
    with Graph("same", input_types=[kind]) as graph:
        graph.output(graph.inputs[0].tensor)
    return cache.session("cpu").compile(graph)


class Compiler:
    """Counts how often it was asked to compile."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> CompiledModel:
        self.calls += 1
        return compile_identity()


def load(path: Path, compiler: Compiler) -> list[str]:
    """Stages reported while the entry was loaded; the loaded module must run."""
    stages: list[str] = []

    class Recorder(Listener):
        def progress(self, progress: Progress) -> None:
            stages.append(progress.stage)

    compiled = cache.load_compiled(path, compiler, Recorder())
    assert "same" in cache.session("cpu").init_all(compiled)
    return stages


def test_graphs_are_built_on_any_thread() -> None:
    """On one that didn't import MAX: the page's lanes are such threads."""

    def build() -> Graph:
        kind = TensorType(DType.float32, ["n"], DeviceRef.CPU())
        with Graph("same", input_types=[kind], module=Module()) as graph:
            graph.output(graph.inputs[0].tensor)
        return graph

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(RuntimeError, match="No MLIR context"):
            pool.submit(build).result()
        assert pool.submit(cache.build_anywhere, build).result().name == "same"


def test_two_threads_compile_once(tmp_path: Path) -> None:
    compiler = Compiler()
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, tmp_path / "entry.mef", compiler) for _ in range(4)]
    assert [load.result() for load in loads].count(["compiling"]) >= 1
    assert compiler.calls == 1


def test_a_second_load_compiles_nothing(tmp_path: Path) -> None:
    compiler, path = Compiler(), tmp_path / "entry.mef"
    assert load(path, compiler) == ["compiling"]
    assert load(path, compiler) == []
    assert compiler.calls == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "unusable"])
def test_a_damaged_entry_is_rebuilt(tmp_path: Path, damage: str) -> None:
    compiler, path = Compiler(), tmp_path / "entry.mef"
    load(path, compiler)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    half = good[: len(good) // 2]
    bad = {"empty": b"", "cut": half, "flipped": bytes(flipped), "foreign": b"hello" * 99}
    bad["unusable"] = hashlib.sha256(b"hello").digest() + b"hello"
    path.write_bytes(bad[damage])
    assert load(path, compiler) == ["compiling"]
    assert compiler.calls == 2
    assert load(path, compiler) == []


def test_a_folder_that_cannot_be_written_costs_only_the_next_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    compiler, path = Compiler(), tmp_path / "entry.mef"
    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    assert load(path, compiler) == ["compiling"]
    assert not path.exists()


def test_a_folder_that_cannot_be_made_or_locked_costs_only_the_next_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*args: object) -> None:
        raise OSError("No locks available")

    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    compiler, folder = Compiler(), cache.cache_folder()
    assert load(folder / "entry.mef", compiler) == ["compiling"]
    monkeypatch.setattr("fcntl.flock", no_locks)
    assert load(tmp_path / "entry.mef", compiler) == ["compiling"]
    assert load(tmp_path / "entry.mef", compiler) == []


def test_the_key_depends_on_all_that_the_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        return cache.entry_key("cpu", repr(Sizes.symbolic()))

    first = key()
    assert key() == first
    others = {
        cache.entry_key("cuda-sm_90a", repr(Sizes.symbolic())),
        cache.entry_key("cpu", repr(Sizes.of(DIMENSIONS["tiny"]))),
        cache.entry_key("cpu", repr(Sizes.of(DIMENSIONS["base"]))),
    }
    for name in ("processor", "sources_digest"):
        with monkeypatch.context() as patch:
            patch.setattr(cache, name, lambda: "another")
            others.add(key())
    with monkeypatch.context() as patch:
        patch.setattr(cache, "version", lambda package: "0.0")
        others.add(key())
    assert len(others | {first}) == 7


LOAD_ENCODER = """
from engines.base import Listener
from engines.max_graph import compile_cache
from engines.max_whisper import load_max_encoder
from engines.checkpoints import Checkpoint
from tests.engines.checkpoint_files import DIMENSIONS, random_state

class Printer(Listener):
    def progress(self, progress):
        print(progress.stage, flush=True)

write = compile_cache.write_entry
def write_and_tell(*entry):
    print("compiled", flush=True)
    write(*entry)
compile_cache.write_entry = write_and_tell
tiny = DIMENSIONS["tiny"]
state = {name: tensor.half().float() for name, tensor in random_state(tiny).items()}
load_max_encoder(Checkpoint("random", tiny, state), Printer())
"""


@pytest.mark.slow
def test_two_processes_share_one_cache_that_a_variable_moves(tmp_path: Path) -> None:
    """Both start with an empty cache at the same time; both get the encoder, one compiles it."""
    environment = {**os.environ, cache.CACHE_VARIABLE: str(tmp_path)}
    command = [sys.executable, "-c", LOAD_ENCODER]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = []
    for process in processes:
        outputs.append(process.communicate(timeout=900)[0])
        assert process.returncode == 0
    assert sorted(outputs) == ["compiling\n", "compiling\ncompiled\n"]
    assert len(list(tmp_path.glob("*.mef"))) == 1
    third = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert third.stdout == ""
