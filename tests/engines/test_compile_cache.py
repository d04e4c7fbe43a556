"""The cache of compiled graphs: kept, moved by a variable, rebuilt when damaged or stale."""

import functools
import hashlib
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
from filelock import FileLock

pytest.importorskip("max.engine")

from max.dtype import DType
from max.engine import CompiledModel
from max.graph import DeviceRef, Graph, Module, TensorType

from engines.base import EngineError
from engines.max_graph import compile_cache as cache
from tests.processes import Recorder, wait_until

pytestmark = pytest.mark.max


def build_identity(module: Module) -> Graph:
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


def load(path: Path, compiler: Mock, recorder: Recorder | None = None) -> list[str]:
    """Stages reported while the entry was loaded; the loaded module must run."""
    recorder = recorder or Recorder()
    compiled = cache.load_compiled(path, compiler, recorder)
    assert "same" in cache.session("cpu").init_all(compiled)
    return recorder.stages


@pytest.mark.slow
def test_graphs_are_built_on_any_thread() -> None:
    """On one that didn't import MAX, as the page's lanes are: through a private module of MAX."""
    see = "MAX has changed: see `compile_module` in engines/max_graph/compile_cache.py"
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(Module).exception()
        assert "No MLIR context" in str(refused), f"{see}, whose private context may be needless"
        error = pool.submit(cache.compile_module, build_identity, "cpu").exception()
        assert error is None, f"{see}, whose private context no longer serves: {error}"


def test_what_another_process_compiles_is_waited_for(tmp_path: Path, compiler: Mock) -> None:
    path, recorder = tmp_path / "entry.mef", Recorder()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(path.with_suffix(".lock")):
            waiting = pool.submit(load, path, compiler, recorder)
            wait_until(lambda: recorder.stages == ["compiling"], "waiting")
            cache.write_entry(path, compile_identity())
        waiting.result()
    compiler.assert_not_called()


@pytest.mark.parametrize("content", ["flipped", "intact, but no module"])
def test_a_damaged_entry_is_rebuilt(tmp_path: Path, compiler: Mock, content: str) -> None:
    path = tmp_path / "entry.mef"
    assert load(path, compiler) == ["compiling"]
    assert load(path, compiler) == []
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    foreign = hashlib.sha256(b"hello").digest() + b"hello"
    path.write_bytes(flipped if content == "flipped" else foreign)
    assert load(path, compiler) == ["compiling"]
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
    (tmp_path / "entry-1234" / "part").mkdir(parents=True)  # what a kill left
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # a disk that is full while MAX writes
    try:
        assert load(path, compiler) == ["compiling"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {each.name for each in tmp_path.iterdir()} == {"file", "entry.lock"}
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


def test_compiled_code_that_others_may_have_written_is_refused(
    tmp_path: Path, compiler: Mock
) -> None:
    path = tmp_path / "entry.mef"
    load(path, compiler)
    cache.check_owner(path)
    for place in (path, tmp_path):
        before = place.stat().st_mode
        place.chmod(0o777)
        with pytest.raises(EngineError, match=f"not taken from {place}, .* MAX_WHISPER_CACHE"):
            cache.load_compiled(path, compiler, Recorder())
        place.chmod(before)
    load(path, compiler)
    assert compiler.call_count == 1


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (
            "Graph compilation failed:\nerror: could not lower: /home/x could not be created: "
            "Permission denied",
            r"\(could not lower: .* denied\): free some space, or let MAX_WHISPER_CACHE name a",
        ),
        (
            "error: cannot write to file to filesystem cache since available space(1) is too small",
            r"too small\): free some space, or let MAX_WHISPER_CACHE name a folder",
        ),
        ("std::bad_alloc", "MAX can't compile: there was not enough memory: pick a smaller model"),
        ("error: no such instruction", r"MAX can't compile \(no such instruction\)\.$"),
    ],
)
def test_why_max_can_t_compile_is_one_sentence(
    cause: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The causes are MAX's own, of a home that can't be written and of a full disk."""
    giving_up = RuntimeError("Failed to compile the model. Please file an issue")
    giving_up.__cause__ = RuntimeError(cause)
    session = Mock(compile=Mock(side_effect=giving_up))
    monkeypatch.setattr(cache, "session", lambda label: session)
    with pytest.raises(EngineError, match=sentence):
        cache.compile_module(build_identity, "cpu")


COUNT_WAKING = """
import time
from pathlib import Path
import numpy as np
from engines import checkpoints
from engines.max_whisper import load_max_encoder
encoder, _ = load_max_encoder(checkpoints.load("tiny.en"))
encoder(np.zeros((80, 3000), np.float32))
def count():
    lines = [each for path in Path("/proc/self/task").glob("*/status") for each in path.open()]
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
before = count()
time.sleep(1)
print(count() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_threads_rest_while_there_is_nothing_to_compute() -> None:
    """One of MAX's would look for work 5,000 times a second, if its timers were not coarse."""
    done = subprocess.run([sys.executable, "-c", COUNT_WAKING], capture_output=True, text=True)
    assert int(done.stdout) < 500, done.stderr[-3000:]


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
"""What makes root another user, who may read everything and write nothing of root's."""

RUN_ALL = """
from engines import worker
clip = worker.load_clip("audio_samples/jfk.flac")
print(worker.describe_sound(clip).seconds)
print(worker.get_engine("max_full", "tiny.en").transcribe(clip).text)
"""


@pytest.mark.slow
def test_a_home_that_can_t_be_written_costs_what_is_kept_only(tmp_path: Path) -> None:
    """MAX and librosa both fail where they find no folder for what they compile."""
    another = NOBODY if os.geteuid() == 0 else []
    if another and (not shutil.which("setpriv") or subprocess.run([*another, "true"]).returncode):
        pytest.skip("root can't become another user here")
    home, caches = tmp_path / "home", Path.home() / ".cache"
    (home / ".cache" / "max-whisper").mkdir(parents=True)
    for kept in ("whisper", "max-whisper/models"):
        (home / ".cache" / kept).symlink_to(caches / kept)
    for folder in (home / ".cache" / "max-whisper", home / ".cache", home):
        folder.chmod(0o555)
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*another, sys.executable, "-c", RUN_ALL], env=env, capture_output=True, text=True
    )
    assert done.stdout.startswith("11.0\n And so my fellow Americans"), done.stderr[-3000:]
    assert {path.name for path in home.rglob("*")} == {".cache", "max-whisper", "whisper", "models"}
    for folder in (home, home / ".cache", home / ".cache" / "max-whisper"):
        folder.chmod(0o755)  # for pytest, which removes it
