"""Each fault changes what it says, and shows first where it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from engines import checkpoints, registry
from engines.analysis import faults
from engines.analysis.faults import FAULTS, Fault, get_fault, run_fault
from engines.audio import load_clip
from engines.base import SAMPLE_RATE, Clip, Stages, Stopped
from engines.checkpoints import Checkpoint
from tests import fakes
from tests.engines.checkpoint_files import DIMENSIONS, random_state
from tests.processes import Recorder

CLIP = Clip(load_clip("audio_samples/jfk.flac").samples[:SAMPLE_RATE])


@pytest.fixture(scope="module")
def mini() -> Iterator[str]:
    """A checkpoint with random weights and three layers, which writes 16 tokens at most.

    Float16 holds them, as it does OpenAI's, so that the graphs are those of most tests.
    """
    dims = replace(DIMENSIONS["mini"], n_audio_layer=3, n_text_ctx=32)
    state = random_state(dims, half=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "load", lambda *_: Checkpoint("mini", dims, state))
        yield "mini"
        registry.release("mini")


EXPECTED = {
    "ln_post": "ln_post",
    "conv_layout": "conv1",
    "power_to_db": "log-mel",
    "scaled": "ln_post",
    "first_window": None,
    "positions": "positions",
    "block": "blocks.1",
    "int8": "conv1",
    "bfloat16": "conv1",
}
"""Where each was put in, and so where measuring has to find it; the middle of three blocks."""

QUICK = ("ln_post", "int8", "first_window")
REST = [pytest.param(key, marks=pytest.mark.slow) for key in EXPECTED if key not in QUICK]


@pytest.mark.max
@pytest.mark.parametrize("key", [*QUICK, *REST])
def test_a_fault_shows_first_where_it_was_put_in(key: str, mini: str) -> None:
    fault = get_fault(key)
    result = run_fault(fault, mini, CLIP, "en")
    assert result.first_stage == EXPECTED[key] and len(EXPECTED) == len(FAULTS)
    assert result.layers.first_past(result.right_encoder.name) is None
    assert result.error is None and result.faulty is not None
    named = (result.right.engine, result.faulty.engine)
    assert named == ("max_hybrid", f"max_hybrid with {fault.key}")
    if fault.first_window_only:  # in a clip of one window nothing is left out
        assert result.faulty.tokens == result.right.tokens


def test_what_begins_in_the_first_window_is_kept() -> None:
    whole = fakes.FakeEngine(windows=2).transcribe(fakes.make_clip(60.0))
    first = faults.keep_first_window(whole)
    assert first.segments == whole.segments[:2] and first.tokens == whole.tokens[:8]
    assert first.text == "".join(segment.text for segment in first.segments)
    one = replace(whole, window_starts=(0.0,))
    assert faults.keep_first_window(one).segments == whole.segments


@pytest.mark.max
def test_what_breaks_is_reported_and_the_layers_are_still_compared(mini: str) -> None:
    def break_at_the_end(stages: Stages) -> Stages:
        for name, output in stages:
            yield name, output[:, :3] if name == "ln_post" else output

    broken = Fault("cut", "Cut", "The output is cut short.", stages=break_at_the_end)
    result = run_fault(broken, mini, CLIP, "en")
    assert result.faulty is None and result.error
    assert result.first_stage == "ln_post"


@pytest.mark.max
def test_a_run_can_be_stopped(mini: str) -> None:
    with pytest.raises(Stopped):
        run_fault(get_fault("scaled"), mini, CLIP, listener=Recorder(patience=6))
