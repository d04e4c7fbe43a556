"""Other projects to measure against have our weights and write as many tokens."""

from __future__ import annotations

import pytest

from engines import checkpoints
from engines.base import EngineError
from engines.measure import clips, encoder, peers, step
from tests.bench.stand_ins import silent


def test_ctranslate2_has_our_weights_and_writes_what_whisper_writes() -> None:
    """Its features to 1e-5 (3.6e-7 was measured), and the same greedy tokens on speech."""
    pytest.importorskip("ctranslate2")
    import torch
    from whisper.model import Whisper

    from tests.peers.ctranslate2_whisper import CTranslate2Writer

    nano = checkpoints.load("nano")
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

    nano = checkpoints.load("nano")
    features, prompt = step.encode(nano), step.prompt_of(nano)
    makers = writers(nano, 1)
    assert list(makers) == ["ctranslate2_float32", "ctranslate2_int8"]
    for make in makers.values():
        writer = make()
        assert [writer.write(features, prompt, n) for n in (1, 65)] == [1, 65]


def test_a_peer_takes_part_in_whole_runs() -> None:
    """Under the same loop as ours; on the cleanest sample its float32 run writes our tokens."""
    pytest.importorskip("ctranslate2")
    plan = clips.Plan(["cpu", "ctranslate2_float32"], ["short"], repeats=1)
    ours, theirs = clips.measure(plan, silent)
    assert ours.error is None and theirs.error is None
    assert theirs.figures["equal_tokens"] is True and theirs.figures["tokens"]


def test_faster_whisper_s_own_tokenizer_is_whisper_s() -> None:
    pytest.importorskip("faster_whisper")
    from tests.peers import faster_whisper_itself as peer

    nano = checkpoints.load("nano")
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
    assert peers.get("cpu", "nano").key == "cpu"
    assert peers.present(["no.such.peer"]) == []
    assert peers.keys(["no.such.peer"]) == peers.writer_keys(["no.such.peer"]) == ()
    with pytest.raises(EngineError, match="no engine 'no_such'"):
        peers.get("no_such", "nano")
