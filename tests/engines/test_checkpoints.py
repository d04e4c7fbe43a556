"""Loading checkpoints: right ones as whisper does, wrong ones with one clear sentence."""

import hashlib
import os
import pickle
import subprocess
import sys
import urllib.error
import zipfile
from pathlib import Path

import pytest
import torch
import whisper
from whisper.model import Whisper

from engines import checkpoints, registry
from engines.base import CheckpointError, Stopped
from engines.locks import file_lock
from tests.engines.checkpoint_files import DIMENSIONS, random_state, write_checkpoint

MINI = DIMENSIONS["mini"]


def test_a_path_loads_as_whisper_loads_it(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "mini.pt", MINI)
    expected = whisper.load_model(str(path), device="cpu").state_dict()
    found = checkpoints.load(str(path)).build(Whisper).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_half_precision_files_are_widened_exactly(tmp_path: Path) -> None:
    state = {key: tensor.half() for key, tensor in random_state(MINI).items()}
    path = tmp_path / "half.pt"
    torch.save({"dims": vars(MINI), "model_state_dict": state}, path)
    found = checkpoints.load(str(path)).state
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    assert all(torch.equal(found[key], state[key].float()) for key in state)


def test_engines_that_hold_a_checkpoint_share_its_memory() -> None:
    first, second = checkpoints.load("tiny.en"), checkpoints.load("tiny.en")
    assert first is second
    model = first.build(Whisper)
    key = "decoder.token_embedding.weight"
    assert model.state_dict()[key].data_ptr() == first.state[key].data_ptr()


def not_a_zip(path: Path) -> None:
    path.write_bytes(b"these are not weights" * 100)


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    write_checkpoint(path, MINI)
    os.truncate(path, path.stat().st_size // 2)


def another_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")


def only_a_tensor(path: Path) -> None:
    torch.save(torch.zeros(3), path)


def only_weights(path: Path) -> None:
    torch.save(random_state(MINI), path)


def no_mels(path: Path) -> None:
    torch.save({"dims": vars(MINI) | {"n_mels": 0}, "model_state_dict": {}}, path)


def huge_vocabulary(path: Path) -> None:
    dims = vars(MINI) | {"n_vocab": 10**15}
    torch.save({"dims": dims, "model_state_dict": random_state(MINI)}, path)


def missing_tensor(path: Path) -> None:
    write_checkpoint(path, MINI, encoder__ln_post__weight=None)


def unused_tensor(path: Path) -> None:
    write_checkpoint(path, MINI, encoder__blocks__0__attn__key__bias=torch.zeros(64))


def wrong_shape(path: Path) -> None:
    write_checkpoint(path, MINI, decoder__ln__weight=torch.zeros(65))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (not_a_zip, "is not a Whisper checkpoint"),
        (empty, "is not a Whisper checkpoint"),
        (truncated, "is not a Whisper checkpoint"),
        (another_zip, "is not a Whisper checkpoint"),
        (only_a_tensor, "is not a Whisper checkpoint"),
        (only_weights, "is not a Whisper checkpoint"),
        (no_mels, "dimensions that no Whisper has"),
        (huge_vocabulary, "token_embedding.weight has shape"),
        (missing_tensor, "encoder.ln_post.weight is missing"),
        (unused_tensor, "attn.key.bias is not used by this model"),
        (wrong_shape, r"decoder.ln.weight has shape \(65,\) in place of \(64,\)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_file_gets_one_sentence(make, words: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "model.pt"
    make(path)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoints.load(str(path))
    assert "\n" not in str(caught.value)


class WritesAFile:
    """Unpickling this with Python's own pickle would create `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [torch.save, plain_pickle])
def test_nothing_in_a_file_is_executed(save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trap, path = tmp_path / "trap", tmp_path / "model.pt"
    save({"dims": vars(MINI), "model_state_dict": WritesAFile(trap)}, path)
    with pytest.raises(CheckpointError, match="is not a Whisper checkpoint"):
        checkpoints.load(str(path))
    assert not trap.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused_by_name(tmp_path: Path, value: float) -> None:
    state = random_state(MINI)
    state["decoder.ln.weight"][3] = value
    path = tmp_path / "broken.pt"
    torch.save({"dims": vars(MINI), "model_state_dict": state}, path)
    with pytest.raises(CheckpointError, match=r"values in decoder\.ln\.weight that are not"):
        checkpoints.load(str(path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"no model called 'tinny': pick nano, tiny\.en"):
        registry.get("cpu", "tinny").prepare()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "whisper"


def test_an_official_name_is_downloaded_with_progress(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real download code, pointed at a file of ours."""
    source = write_checkpoint(tmp_path / "source.pt", MINI)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    folder = tmp_path / digest
    folder.mkdir()
    url = source.rename(folder / "tiny.en.pt").as_uri()
    monkeypatch.setitem(whisper._MODELS, "tiny.en", url)
    monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "tiny.en", None)
    stages: list[str] = []
    checkpoint = checkpoints.load("tiny.en", stages.append)
    assert checkpoint.dims == MINI
    assert (empty_cache / "tiny.en.pt").is_file()
    assert stages[0] == "downloading tiny.en"
    assert any(" of 14 MB" in stage for stage in stages), stages
    assert stages[-1] == "loading"


DOWNLOAD = """
import os, sys, time
from pathlib import Path
import whisper
from engines import checkpoints
url, mine, other = sys.argv[1:]
whisper._MODELS["tiny.en"], whisper._ALIGNMENT_HEADS["tiny.en"] = url, None
open_url = whisper.urllib.request.urlopen

def open_late(url):
    Path(mine).touch()  # this one downloads; the other has a while to do so too
    until = time.monotonic() + 3
    while not Path(other).exists() and time.monotonic() < until:
        time.sleep(0.02)
    return open_url(url)

whisper.urllib.request.urlopen = open_late
print(checkpoints.load("tiny.en").dims.n_audio_state)
"""


def test_two_processes_download_a_checkpoint_once(empty_cache: Path, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source.pt", MINI)
    folder = tmp_path / hashlib.sha256(source.read_bytes()).hexdigest()
    folder.mkdir()
    url = source.rename(folder / "tiny.en.pt").as_uri()
    marks = [str(tmp_path / name) for name in ("one", "other")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DOWNLOAD, url, mine, other],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for mine, other in (marks, marks[::-1])
    ]
    answers = [process.communicate(timeout=300) for process in processes]
    assert [out.strip() for out, _ in answers] == [str(MINI.n_audio_state)] * 2, answers
    assert sum(Path(mark).exists() for mark in marks) == 1


def test_whoever_waits_for_a_download_may_stop(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`progress` raises, as it does where somebody stopped; nothing is fetched."""
    monkeypatch.setattr("urllib.request.urlopen", lambda *_: pytest.fail("fetched"))
    empty_cache.mkdir(parents=True)

    def progress(stage: str) -> None:
        if stage == "waiting for tiny.en":
            raise Stopped("stopped")

    with file_lock(empty_cache / "tiny.en.lock"), pytest.raises(Stopped):
        checkpoints.fetch("tiny.en", progress)


def test_offline_an_official_name_says_what_to_do(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(CheckpointError, match=r"base could not be downloaded .*pick nano"):
        checkpoints.load("base")
