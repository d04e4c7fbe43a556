"""Where two engines part: the first token that differs, the half behind it, and the judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from whisper.tokenizer import Tokenizer, get_tokenizer

from engines import checkpoints, registry
from engines.analysis import faults, replay
from engines.analysis.divergence import Parting, find_parting
from engines.analysis.divergence_records import Divergence, Pairing
from engines.audio import SAMPLE_RATE, load_clip
from engines.base import Clip, Engine, Listener, Options, Segment, Transcript, Window
from engines.checkpoints import Checkpoint
from engines.graph_whisper import DecoderModule
from engines.max_whisper import MaxFullEngine, load_max_decoder
from engines.transcription import TimedWhisper
from engines.whisper_torch import TorchEngine
from tests import fakes
from tests.engines.checkpoint_files import write_checkpoint

# The first token that differs

TOKENIZER: Tokenizer = get_tokenizer(False)
BEGIN, EOT = TOKENIZER.timestamp_begin, TOKENIZER.eot
PROMPT = TOKENIZER.sot_sequence
LONGEST = 224


def write(*windows: Window, told: bool = True) -> Transcript:
    """A transcript that kept all the tokens of its windows, a segment for each."""
    blank = fakes.FakeEngine().transcribe(fakes.make_clip(1.0))
    segments = tuple(
        Segment(each.start, each.start + 5, "", each.tokens, each.temperature) for each in windows
    )
    return replace(
        blank,
        segments=segments,
        tokens=tuple(token for each in segments for token in each.tokens),
        windows=windows if told else (),
        window_starts=tuple(each.start for each in windows),
    )


def window(start: float, *tokens: int, **other: Any) -> Window:
    return Window(**{"start": start, "prompt": PROMPT, "tokens": tokens, "temperature": 0} | other)


def find(first: Transcript, second: Transcript) -> Parting:
    return find_parting(
        (first, second), TOKENIZER, LONGEST, lambda said: (TOKENIZER.sot_prev, *said, *PROMPT)
    )


FIRST = window(0.0, BEGIN, 11, 12, BEGIN + 250)
SECOND = window(5.0, BEGIN, 21, 22, BEGIN + 250)


@pytest.mark.parametrize(
    ("other", "parts", "number", "tokens"),
    [
        (SECOND, "nowhere", 1, ()),
        (window(5.0, BEGIN, 21, 23, BEGIN + 250), "token", 1, (22, 23)),
        (window(5.0, BEGIN, 21, 22, BEGIN + 251), "token", 1, (BEGIN + 250, BEGIN + 251)),
        (window(5.0, BEGIN, 21), "token", 1, (22, EOT)),
        (replace(SECOND, prompt=(PROMPT[0] + 1, *PROMPT[1:])), "prompt", 1, None),
        (replace(SECOND, start=6.0), "window", 1, ()),
        (replace(SECOND, temperature=0.2, tokens=(BEGIN, 9)), "fallback", 1, ()),
        (None, "window", 1, ()),
    ],
)
def test_windows_are_compared_up_to_what_differs_first(
    other: Window | None, parts: str, number: int, tokens: tuple[int, ...] | None
) -> None:
    found = find(write(FIRST, SECOND), write(FIRST, *([other] if other else [])))
    assert (found.parts, found.number, found.window) == (parts, number, SECOND)
    assert tokens is None or found.tokens == tokens
    if parts == "token":
        assert found.before == SECOND.tokens[: len(found.before)]
        assert found.whole[0][len(found.before)] == tokens[0]  # type: ignore[index]


def test_windows_decoded_alike_and_kept_otherwise_part_too() -> None:
    kept = write(FIRST, SECOND)
    assert find(kept, replace(kept, tokens=kept.tokens[:4])).parts == "window"


@pytest.mark.parametrize("swapped", [False, True])
def test_an_engine_with_its_own_loop_is_compared_by_its_text(swapped: bool) -> None:
    told = write(FIRST, SECOND)
    for tokens, expected in {
        (11, 12, 21, 99): (22, 99),
        (11, 12, BEGIN, 21): (22, EOT),
        (11, 12, 21, 22, 31): (BEGIN + 250, 31),
    }.items():
        theirs = replace(told, tokens=tokens, windows=())
        found = find(theirs, told) if swapped else find(told, theirs)
        assert found.parts == "token" and found.window == SECOND
        assert found.tokens == (expected[::-1] if swapped else expected)
        assert found.before == SECOND.tokens[: len(found.before)]
    assert find(told, replace(told, tokens=(11, 12, 21, 22), windows=())).parts == "nowhere"


@pytest.mark.parametrize("starts", [(0.0, 28.0), ()])
def test_two_engines_with_their_own_loops_get_the_windows_that_whisper_would_have(
    starts: tuple[float, ...],
) -> None:
    blank = replace(write(), window_starts=starts)

    def say(*segments: Segment) -> Transcript:
        tokens = tuple(token for each in segments for token in each.tokens)
        return replace(blank, segments=segments, tokens=tokens)

    first = Segment(0.0, 28.0, "", (11, 12), 0.0)
    found = find(
        say(first, Segment(28.5, 33.0, "", (21, 22), 0.0)),
        say(first, Segment(28.0, 33.0, "", (21, 29), 0.0)),
    )
    assert found.parts == "token" and found.tokens == (22, 29)
    assert found.window.start == 28.0 and found.before == (BEGIN + 25, 21)
    said = BEGIN, 11, 12, BEGIN + 1400
    assert found.window.prompt == (TOKENIZER.sot_prev, *said, *PROMPT)


# The step, once more

MODEL = "tiny.en"


@pytest.fixture(scope="module")
def jfk() -> Clip:
    return load_clip("audio_samples/jfk.flac")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return checkpoints.load(MODEL)


@pytest.fixture(scope="module")
def sound(jfk: Clip, checkpoint: Checkpoint) -> tuple[Engine, Transcript]:
    engine = registry.get("cpu", MODEL)
    return engine, engine.transcribe(jfk, replay.GREEDY)


State = dict[str, Tensor]


class PlantedEngine(TorchEngine):
    """PyTorch's Whisper with a mistake in its weights, or in its prompts."""

    def __init__(
        self, change: Callable[[State], State] = dict, kind: type[TimedWhisper] = TimedWhisper
    ) -> None:
        row = registry.row("cpu")
        super().__init__(replace(row, key="planted", label="Planted"), MODEL, "float32")
        self._change, self._kind = change, kind

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        changed = replace(checkpoint, state=self._change(dict(checkpoint.state)))
        return changed.build(self._kind), 0.0


def explain(
    one: tuple[Engine, Transcript], engine: Engine, clip: Clip, options: Options = replay.GREEDY
) -> tuple[Divergence, Transcript]:
    found = engine.transcribe(clip, options)
    checkpoint = checkpoints.load(MODEL)
    return replay.explain([one[0], engine], [one[1], found], checkpoint, clip, options), found


def first_difference(one: Transcript, other: Transcript) -> tuple[int, tuple[int, int]]:
    pairs = enumerate(zip(one.windows[0].tokens, (*other.windows[0].tokens, EOT), strict=False))
    return next((at, pair) for at, pair in pairs if pair[0] != pair[1])


def assert_found(found: Divergence, one: Transcript, other: Transcript, cause: str) -> None:
    """It names the token, the half, and the engine that is right, which is the first."""
    at, tokens = first_difference(one, other)
    assert (found.parts, found.window, found.position) == ("token", 0, at)
    assert tuple(each.token for each in found.candidates) == tokens
    assert found.cause == cause and found.right == 0
    assert found.judge is not None and found.judge.margin is not None and found.judge.margin > 0
    aa, _, _, bb = found.pairings
    assert aa.margin is not None and bb.margin is not None and aa.margin > 0 > bb.margin
    assert aa.margin == pytest.approx(found.judge.margin, abs=1e-3)  # float32 beside float64
    assert 0 <= found.time <= 11 and found.is_past(0.0) and not found.is_past(100.0)


def skip_a_block(state: State) -> State:
    for name in ("attn.out", "mlp.2"):
        for part in ("weight", "bias"):
            state[f"encoder.blocks.2.{name}.{part}"] = torch.zeros_like(
                state[f"encoder.blocks.2.{name}.{part}"]
            )
    return state


def scale_cross_keys(state: State) -> State:
    for layer in range(4):
        state[f"decoder.blocks.{layer}.cross_attn.key.weight"] = (
            0.3 * state[f"decoder.blocks.{layer}.cross_attn.key.weight"]
        )
    return state


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        pytest.param(skip_a_block, "encoder", marks=pytest.mark.slow),
        (scale_cross_keys, "decoder"),
    ],
)
def test_a_planted_fault_is_found_in_its_half(
    change: Callable[[State], State], cause: str, jfk: Clip, sound: tuple[Engine, Transcript]
) -> None:
    found, transcript = explain(sound, PlantedEngine(change), jfk)
    assert_found(found, sound[1], transcript, cause)
    moves = {"encoder": found.encoder_moves, "decoder": found.decoder_moves}
    assert abs(moves.pop(cause) or 0) > abs(moves.popitem()[1] or 0)
    where, why, verdict = found.sentences()
    assert where.startswith("They part at ") and why.startswith(f"The {cause}s part them")
    assert verdict.startswith("PyTorch CPU is right: PyTorch in float64 prefers ")


@pytest.mark.slow
def test_a_wrong_special_token_is_found_in_the_prompt(
    jfk: Clip, sound: tuple[Engine, Transcript]
) -> None:
    class Misprompted(TimedWhisper):
        def decoding_task(self, options: Any) -> Any:
            task = super().decoding_task(options)
            task.initial_tokens = (task.tokenizer.transcribe,)
            return task

    found, _ = explain(sound, PlantedEngine(kind=Misprompted), jfk)
    assert (found.parts, found.position, found.right) == ("prompt", 0, None)
    assert [each.text for each in found.candidates] == ["<|startoftranscript|>", "<|transcribe|>"]
    assert "Their prompts for the window at 0.0 s differ" in found.sentences()[0]
    assert found.is_past(100.0)


@pytest.mark.slow
def test_a_token_against_whispers_rules_is_wrong(
    jfk: Clip, checkpoint: Checkpoint, sound: tuple[Engine, Transcript]
) -> None:
    """Whisper begins a window with a timestamp of its first second."""
    engine, transcript = sound
    first = transcript.windows[0]
    late = replace(first, tokens=(BEGIN + 100, *first.tokens[1:]))
    other = replace(transcript, engine="late", windows=(late,))
    found = replay.explain([engine, engine], [transcript, other], checkpoint, jfk)
    assert [each.allowed for each in found.candidates] == [True, False]
    assert found.right == 0 and found.judge is not None and found.judge.margin is None
    assert found.sentences()[-1].endswith("Whisper’s rules don’t allow “<|2.00|>” here.")


def test_of_models_with_two_vocabularies_the_first_word_is_told(
    jfk: Clip, sound: tuple[Engine, Transcript]
) -> None:
    first = sound[1]
    other = replace(first, model="base", text=first.text.replace("fellow", "yellow"))
    found = replay.explain_transcripts((first, other), jfk, replay.GREEDY)
    assert (found.parts, found.right, found.is_past(100.0)) == ("word", None, True)
    assert [each.text for each in found.candidates] == ["fellow", "yellow"]
    where, why = found.sentences()
    assert where.endswith(
        "PyTorch CPU with tiny.en wrote “fellow”, PyTorch CPU with base “yellow”."
    )
    assert "different vocabularies" in why


@pytest.mark.slow
@pytest.mark.parametrize("strays", [False, True])
def test_two_models_of_one_vocabulary_are_each_their_own_judge(
    strays: bool,
    jfk: Clip,
    checkpoint: Checkpoint,
    sound: tuple[Engine, Transcript],
    tmp_path: Path,
) -> None:
    """A second model is made of tiny.en; one that strays only says to be that model."""
    planted = PlantedEngine(scale_cross_keys).transcribe(jfk, replay.GREEDY)
    state = checkpoint.state if strays else scale_cross_keys(dict(checkpoint.state))
    write_checkpoint(path := tmp_path / "other.pt", checkpoint.dims, state)
    other = replace(planted, model=str(path), engine="cpu")
    found = replay.explain_transcripts((sound[1], other), jfk, replay.GREEDY)
    at, tokens = first_difference(sound[1], planted)
    assert (found.parts, found.position, found.judge, found.right) == ("token", at, None, None)
    assert tuple(each.token for each in found.candidates) == tokens
    margins = [each.margin for each in found.judges]
    assert [each is not None and each > 0 for each in margins] == [True, strays]
    said = found.sentences()[1]
    assert ("is not its own checkpoint’s choice" in said) is strays
    assert ("each engine wrote what its checkpoint says" in said) is not strays
    assert found.is_past(0.0) and not found.is_past(100.0)


def test_engines_that_chose_the_same_tokens_part_nowhere(
    jfk: Clip, sound: tuple[Engine, Transcript]
) -> None:
    same = replay.explain_transcripts((sound[1], sound[1]), jfk, replay.GREEDY)
    assert same.parts == "nowhere" and not same.is_past(0.0) and same.right is None


@pytest.mark.parametrize(
    ("margins", "cause"),
    [
        ((2.0, 2.1, -1.0, -1.1), "encoder"),
        ((2.0, -1.0, 2.1, -1.1), "decoder"),
        ((2.0, -0.1, -0.2, -3.0), "both"),
        ((-1.0, -1.0, -1.0, -1.0), "neither"),
    ],
)
def test_the_choice_follows_a_half(margins: Sequence[float], cause: str) -> None:
    pairings = [Pairing("", "", (0.0, 0.0), margin) for margin in margins]
    found = replay.attribute(pairings)
    assert found["cause"] == cause
    moved = found["encoder_moves"] + found["decoder_moves"]
    assert moved == pytest.approx(margins[0] - margins[3])


@pytest.mark.slow
@pytest.mark.max
def test_a_fault_in_maxs_encoder_is_found(jfk: Clip) -> None:
    engine = registry.get("max_full", MODEL)
    one = engine, engine.transcribe(jfk, replay.GREEDY)
    broken = faults.make_engine(faults.get_fault("block"), MODEL)
    found, transcript = explain(one, broken, jfk)
    assert_found(found, one[1], transcript, "encoder")


@pytest.mark.slow
@pytest.mark.max
def test_a_fault_in_maxs_decoder_is_found(jfk: Clip) -> None:
    from max.dtype import DType

    class BrokenEngine(MaxFullEngine):
        def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
            changed = replace(checkpoint, state=scale_cross_keys(dict(checkpoint.state)))
            model, seconds = super().build(checkpoint, listener)
            decoder, _ = load_max_decoder(changed, listener, weight=DType.float16)
            model.decoder = DecoderModule(decoder)
            return model, seconds

    engine = registry.get("max_full", MODEL)
    one = engine, engine.transcribe(jfk, replay.GREEDY)
    row = registry.row("max_full")
    broken = BrokenEngine(replace(row, key="planted", label="Planted"), MODEL, "float32")
    found, transcript = explain(one, broken, jfk)
    assert_found(found, one[1], transcript, "decoder")


# Real differences


def round_matrices(state: State) -> State:
    return {
        name: torch.from_numpy(faults.round_to_int8(each.numpy()))
        if each.ndim == 2 and "positional" not in name
        else each
        for name, each in state.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 5])
def test_rounding_to_int8_is_explained(beams: int) -> None:
    clip = load_clip("audio_samples/columbia.flac")
    clip = replace(clip, samples=clip.samples[: 60 * SAMPLE_RATE])  # of more than one window
    options = Options(beam_size=beams, temperatures=(0.0,))
    engine = registry.get("cpu", MODEL)
    one = engine, engine.transcribe(clip, options)
    found, _ = explain(one, PlantedEngine(round_matrices), clip, options)
    assert found.parts == "token" and len(found.pairings) == 4
    assert found.judge is not None and found.judge.margin is not None
    assert found.pairings[0].margin == pytest.approx(found.judge.margin, abs=1e-3)
    assert found.right == 0  # float32 is a thousand times nearer to float64
    assert len(found.sequences) == (2 if beams > 1 else 0)
    assert beams > 1 or found.cause in ("encoder", "decoder", "both")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["faster_whisper_int8", "openvino_int8", "whisper_cpp_q8_0"])
def test_a_real_difference_is_explained(key: str) -> None:
    if reason := registry.row(key).why_unavailable():
        pytest.skip(reason)
    found = replay.explain_clip(("cpu", key), MODEL, load_clip("audio_samples/columbia.flac"))
    assert found.parts == "token" and found.right == 0
    replayed = not registry.row(key).own_loop
    assert bool(found.pairings) is replayed and bool(found.cause) is replayed
    assert np.isfinite([logprob for _, logprob in found.judge_best]).all()
