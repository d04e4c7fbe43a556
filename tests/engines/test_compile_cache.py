"""The cache of compiled graphs: kept, moved by a variable, rebuilt when damaged or stale."""

import functools
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

pytest.importorskip("max.engine")

from max.dtype import DType
from max.engine import CompiledModel
from max.graph import DeviceRef, Graph, Module, TensorType

from engines.base import Listener, Progress
from engines.max_graph import compile_cache as cache

pytestmark = pytest.mark.max


def build_identity(module: Module) -> Graph:
    """Add a graph that returns its input."""
    kind = TensorType(DType.float32, ["n"], DeviceRef.CPU())
    with Graph("same", input_types=[kind], module=module) as graph:
        graph.output(graph.inputs[0].tensor)
    return graph


@functools.cache
def compile_identity() -> CompiledModel:
    return cache.compile_module(build_identity, "cpu")


@pytest.fixture
def compiler() -> Mock:
    """Counts how often it was asked to compile."""
    return Mock(side_effect=compile_identity)


def load(path: Path, compiler: Mock) -> list[str]:
    """Stages reported while the entry was loaded; the loaded module must run."""
    stages: list[str] = []

    class Recorder(Listener):
        def progress(self, progress: Progress) -> None:
            stages.append(progress.stage)

    compiled = cache.load_compiled(path, compiler, Recorder())
    assert "same" in cache.session("cpu").init_all(compiled)
    return stages


def test_graphs_are_built_on_any_thread() -> None:
    """On one that didn't import MAX, as the page's lanes are: through a private module of MAX."""
    see = "MAX has changed: see `compile_module` in engines/max_graph/compile_cache.py"
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(Module).exception()
        assert "No MLIR context" in str(refused), f"{see}, whose private context may be needless"
        error = pool.submit(cache.compile_module, build_identity, "cpu").exception()
        assert error is None, f"{see}, whose private context no longer serves: {error}"


def test_two_threads_compile_once(tmp_path: Path, compiler: Mock) -> None:
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, tmp_path / "entry.mef", compiler) for _ in range(4)]
    assert ["compiling"] in [load.result() for load in loads]
    assert compiler.call_count == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "unusable"])
def test_a_damaged_entry_is_rebuilt(tmp_path: Path, compiler: Mock, damage: str) -> None:
    path = tmp_path / "entry.mef"
    assert load(path, compiler) == ["compiling"]
    assert load(path, compiler) == []
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    half = good[: len(good) // 2]
    bad = {"empty": b"", "cut": half, "flipped": bytes(flipped), "foreign": b"hello" * 99}
    bad["unusable"] = hashlib.sha256(b"hello").digest() + b"hello"
    path.write_bytes(bad[damage])
    assert load(path, compiler) == ["compiling"]
    assert compiler.call_count == 2
    assert load(path, compiler) == []


def fail(*args: object, **kwargs: object) -> None:
    raise OSError("No space left on device")


def test_a_folder_that_cannot_be_made_written_or_locked_costs_only_the_next_compile(
    tmp_path: Path, compiler: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MAX_WHISPER_CACHE", str(tmp_path / "file" / "cache"))
    assert load(cache.cache_folder() / "entry.mef", compiler) == ["compiling"]
    path = tmp_path / "entry.mef"
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryDirectory", fail)
        assert load(path, compiler) == ["compiling"]
        assert not path.exists()
    monkeypatch.setattr("fcntl.flock", fail)
    assert load(path, compiler) == ["compiling"]
    assert load(path, compiler) == []


def test_the_key_depends_on_all_that_the_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def path(target: str = "cpu", variant: str = "float16") -> Path:
        return cache.entry_path("whisper", target, variant)

    assert path() == path()
    paths = {path(), path(target="cuda-sm_90a"), path(variant="float32")}
    for name in ("processor", "sources_digest", "version"):
        with monkeypatch.context() as patch:
            patch.setattr(cache, name, lambda *package: "another")
            paths.add(path())
    assert len(paths) == 6


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
    environment = {**os.environ, "MAX_WHISPER_CACHE": str(tmp_path)}
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
