"""Other projects to measure against have our weights and write as many tokens."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines import bench, checkpoints
from engines.base import EngineError
from engines.measure import clips, encoder, peers, step
from tests.bench.stand_ins import silent


def test_ctranslate2_has_our_weights_and_writes_what_whisper_writes() -> None:
    """Its features to 1e-5 (3.6e-7 was measured), and the same greedy tokens on speech."""
    pytest.importorskip("ctranslate2")
    import torch
    from whisper.model import Whisper

    from tests.peers.ctranslate2_whisper import CTranslate2Writer

    nano = checkpoints.load("tiny.en")
    writer = CTranslate2Writer(nano, 1, "float32")
    features, prompt = step.encode(nano), step.prompt_of(nano)
    found = writer.encode(encoder.window(80))
    assert encoder.relative_error(found, features) < 1e-5

    model, tokens = nano.build(Whisper), list(prompt)
    end = 50256
    with torch.inference_mode():
        for _ in range(12):
            logits = model.logits(torch.tensor([tokens]), torch.from_numpy(features)[None])[0, -1]
            logits[end] = -torch.inf
            tokens.append(int(logits.argmax()))
    assert writer.tokens(features, prompt, 12) == tokens[len(prompt) :]


def test_every_peer_writes_as_many_tokens_as_it_is_asked_for() -> None:
    pytest.importorskip("ctranslate2")
    from tests.peers.ctranslate2_whisper import writers

    nano = checkpoints.load("tiny.en")
    features, prompt = step.encode(nano), step.prompt_of(nano)
    makers = writers(nano, 1)
    assert list(makers) == ["ctranslate2_float32", "ctranslate2_int8"]
    for name, make in makers.items():
        writer = make()
        assert (writer.device, f"ctranslate2_{writer.dtype}") == ("cpu", name)
        assert [writer.write(features, prompt, n) for n in (1, 65)] == [1, 65]


def test_a_peer_takes_part_in_whole_runs() -> None:
    """Under the same loop as ours; on the cleanest sample its float32 run writes our tokens."""
    pytest.importorskip("ctranslate2")
    plan = clips.Plan(["cpu", "ctranslate2_float32"], ["short"], repeats=1)
    ours, theirs = clips.measure(plan, silent)
    assert ours.error is None and theirs.error is None
    assert theirs.figures["equal_tokens"] is True and theirs.figures["tokens"]
    assert theirs.figures["dtype"] == "float32"


@pytest.mark.parametrize("peer", ["ctranslate2", "faster_whisper"])
def test_the_type_in_the_record_is_the_one_computed_in(peer: str) -> None:
    pytest.importorskip(peer)
    plan = clips.Plan([f"{peer}_int8"], ["short"], repeats=1, warm_ups=0)
    (result,) = clips.measure(plan, silent)
    assert result.error is None and result.figures["dtype"] == "int8"
    assert "dtype" not in plan.settings(), "it is not equal on all sides"


def test_faster_whisper_s_own_tokenizer_is_whisper_s() -> None:
    pytest.importorskip("faster_whisper")
    from tests.peers import faster_whisper_itself as peer

    nano = checkpoints.load("tiny.en")
    ours, theirs = peer.tokenizer_of(nano), peer.make_tokenizer(nano)
    for text in ("It's 1,234 naïve words…", "  two  spaces\n\nand lines", " ♪♪ (x) [y] 日本"):
        ids = ours.encode(text)
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        assert theirs.decode(ids) == text
    special = ours.special_tokens.items()
    assert len(special) > 1500 and all(theirs.token_to_id(name) == id for name, id in special)


def test_faster_whisper_itself_takes_part_in_whole_runs() -> None:
    """Its loop is its own; on the cleanest sample it writes whisper's tokens."""
    pytest.importorskip("faster_whisper")
    plan = clips.Plan(["cpu", "faster_whisper_float32"], ["short"], repeats=1)
    ours, theirs = clips.measure(plan, silent)
    assert ours.error is None and theirs.error is None
    assert theirs.figures["equal_tokens"] is True
    parts = [theirs.seconds[stage][0] for stage in ("audio", "mel", "encode", "decode")]
    assert min(parts) > 0 and sum(parts) == pytest.approx(theirs.seconds["total"][0])


def test_a_key_that_no_peer_has_is_the_registry_s() -> None:
    assert peers.get("cpu", "tiny.en").key == "cpu"
    assert peers.keys([]) == peers.writer_keys([]) == ()
    with pytest.raises(EngineError, match="no engine 'no_such'"):
        peers.get("no_such", "tiny.en")


# Peers that are not there, and peers that fail.


@pytest.fixture
def write_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module for this test; gives its name."""
    name = "a_peer_of_this_test"
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return name

    yield write
    sys.modules.pop(name, None)


def test_a_mistyped_module_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("no.such.peer", "tests.peers.ctranslate_whisper", ".."):
        with pytest.raises(EngineError, match=r"There is no module .*--peers takes"):
            peers.present([name])
    assert bench.main(["step", "--peers", "no_such_peer"]) == 1
    assert "There is no module 'no_such_peer'" in capsys.readouterr().err


def test_a_peer_whose_package_is_not_installed_takes_no_part(
    write_peer: Callable[[str], str],
) -> None:
    assert peers.present([write_peer("import no_such_package.part")]) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import engines.no_such_part", "No module named 'engines.no_such_part'"),
        ("from engines.base import NoSuchName", "cannot import name 'NoSuchName'"),
        ("raise OSError('libgone.so: cannot open')", "OSError: libgone.so: cannot open"),
        ("KEYS = WRITERS = ()", "it has no engine and no writers"),
    ],
)
def test_a_peer_that_fails_is_a_record_with_its_error(
    text: str, why: str, write_peer: Callable[[str], str]
) -> None:
    name = write_peer(text)
    assert peers.keys([name]) == peers.writer_keys([name]) == (name,)
    with pytest.raises(EngineError, match=f"The peer {name} can't be used: .*{why}"):
        peers.get(name, "tiny.en", [name])
    with pytest.raises(EngineError, match=f"The peer {name} can't be used"):
        peers.get("one_of_its_keys", "tiny.en", [name])
    assert peers.get("cpu", "tiny.en", [name]).key == "cpu"
    torch_only = {step.BASELINE: step.TorchStepper}
    ours, theirs = step.measure(["tiny.en"], 2, 1, 1, silent, torch_only, [name])
    assert ours.error is None and theirs.contender == name
    assert theirs.error and why in theirs.error


def test_writers_that_can_t_be_made_are_records(write_peer: Callable[[str], str]) -> None:
    body = (
        "def engine(key, model): pass\ndef writers(checkpoint, threads): raise MemoryError('all')"
    )
    name = write_peer(f"KEYS = ()\nWRITERS = ('a', 'b')\n{body}")
    makers = peers.writers_of([name], checkpoints.load("tiny.en"), 1)
    assert list(makers) == ["a", "b"]
    with pytest.raises(MemoryError):
        makers["b"]()
