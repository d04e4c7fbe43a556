"""One request for page, link, programs and tools; any JSON is one, or refused in a sentence."""

from __future__ import annotations

import dataclasses
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whisper import tokenizer

from demo.request import CLIP_GONE, NO_CLIP, OWN_CLIP, ComparisonRequest
from demo.rules import NO_ENGINE, RULES, Choices, RequestError
from demo.samples import list_samples
from demo.snapshot import Settings, new_comparison
from engines.base import Options
from engines.models import DEFAULT_MODEL, LANGUAGES
from engines.options import OPTIONS
from tests import fakes
from tests.fake_page import make_backend

JSON: dict[str, Any] = {"sample": "jfk"}
EVERYTHING: dict[str, Any] = JSON | {
    "engines": ["max_hybrid", "cpu"],
    "language": "fr",
    "beam_size": 5.0,
    "schedule": "one at a time",
    "word_timestamps": True,
    "gpu_dtype": "float16",
    "repeats": 3,
    "temperatures": 0.4,
    "best_of": 5.0,
    "logprob_threshold": None,
    "suppress_tokens": [0, 50],
    "initial_prompt": "Names: Ödön & +1, “so”",
    "append_punctuations": "",
    "clip_timestamps": "1.5, 3",
}

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["/etc/passwd", "../jfk", "file:///etc/passwd", "http://127.0.0.1/", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
"""Any JSON, and the numbers that JSON lacks."""

clips = st.fixed_dictionaries(
    {"path": anything},
    optional={"meta": st.just({"_type": "gradio.FileData"}) | anything, "url": anything},
)
often = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def choices(sample_folder: Path) -> Choices:
    return make_backend(sample_folder).choices()


def read(choices: Choices, **changes: Any) -> ComparisonRequest | str:
    """The request, or the one sentence with which it is refused; nothing else may come out."""
    try:
        return ComparisonRequest.from_json(JSON | changes, choices)
    except RequestError as error:
        sentence = str(error)
    assert sentence.endswith(".") and sentence.isprintable() and len(sentence) < 300
    return sentence


KINDS = {row.kind: name for name, row in OPTIONS.items()}
"""An option of each kind, since those of one kind are read alike."""


@pytest.mark.parametrize("name", ["clip", *sorted(set(RULES) - set(OPTIONS) | set(KINDS.values()))])
def test_any_json_is_a_request_or_refused_in_a_sentence(name: str, choices: Choices) -> None:
    outcomes, others = [], {"sample": ""} if name == "clip" else {}

    @often
    @given(value=anything | clips if name == "clip" else anything)
    def fuzz(value: Any) -> None:
        outcomes.append(read(choices, **others | {name: value}))

    fuzz()
    assert any(isinstance(outcome, str) for outcome in outcomes)


def test_a_lane_has_a_type_or_a_model_of_its_own_and_may_be_the_baseline(choices: Choices) -> None:
    lanes = ["max_hybrid", "cpu@tiny.en", "cpu:float32", "cpu@base"]
    request = read(choices, engines=lanes, baseline="cpu@tiny.en")
    assert isinstance(request, ComparisonRequest)
    # As the model is base and the type cpu's only one, the last two are one lane.
    assert request.lanes == ("cpu@tiny.en", "cpu:float32", "max_hybrid")
    assert request.run_of("cpu@tiny.en") == ("cpu", "tiny.en", "float32")
    linked = ComparisonRequest.from_query(request.to_query(choices), choices)
    assert (linked.engines, linked.baseline) == (request.engines, request.baseline)
    comparison = new_comparison(request, choices.engines)
    assert [lane.label for lane in comparison.lanes] == [
        "CPU (tiny.en)",
        "CPU (float32)",
        "MAX hybrid",
    ]
    assert comparison.baseline is comparison.lanes[0]
    both = read(choices, engines=["cpu", "max_hybrid"], other_model="tiny.en")
    assert isinstance(both, ComparisonRequest) and both.models == "base and tiny.en"
    assert both.lanes == ("cpu", "max_hybrid", "cpu@tiny.en", "max_hybrid@tiny.en")
    twice = ComparisonRequest.from_query(both.to_query(choices), choices)
    assert twice.lanes == both.lanes and twice.to_controls()["other_model"] == "tiny.en"
    for wrong, sentence in (
        ({"engines": ["cpu@unknown"]}, "model can't be 'unknown'"),
        ({"engines": ["cpu:int8"]}, "has no such type"),
        ({"engines": ["tpu@base"]}, "engine can't be 'tpu'"),
        ({"engines": ["gpu@base"]}, "no CUDA device"),
        ({"engines": ["cpu"], "baseline": "max_hybrid"}, "choose it as well"),
        ({"engines": ["cpu"], "other_model": "tiny.en", "language": "fr"}, "knows only English"),
    ):
        refused = read(choices, **wrong)
        assert isinstance(refused, str) and sentence in refused


def test_a_nest_of_lists_is_refused_too(choices: Choices) -> None:
    nest: list[Any] = []
    for _ in range(100_000):
        nest = [nest]
    assert isinstance(read(choices, model=nest), str)


def test_every_right_value_is_taken_and_travels_in_a_link(choices: Choices) -> None:
    request = read(choices, **EVERYTHING)
    assert isinstance(request, ComparisonRequest)
    assert request.engines == ("cpu", "max_hybrid") and request.repeats == 3
    assert request.options == Options(
        language="fr",
        beam_size=5,
        word_timestamps=True,
        temperatures=(0.4,),
        best_of=5,
        logprob_threshold=None,
        suppress_tokens=(0, 50),
        initial_prompt="Names: Ödön & +1, “so”",
        append_punctuations="",
        clip_timestamps=(1.5, 3.0),
    )
    assert (request.model, request.gpu_dtype) == ("base", "float16")
    often_named = read(choices, engines=["cpu"] * 1000)
    assert isinstance(often_named, ComparisonRequest) and often_named.engines == ("cpu",)
    plain = read(choices, language=None, engines=None)
    assert isinstance(plain, ComparisonRequest)
    assert plain.options.language is None and plain.engines == ("cpu", "max_hybrid")
    query = request.to_query(choices)
    assert query.startswith(
        "language=fr&beam=5&schedule=in-turn&words=1&gpu=float16&runs=3&prompt="
    )
    assert query.endswith("&part=1.5,3&suppress=0,50&temperature=0.4&best_of=5&logprob=&append=")
    assert ComparisonRequest.from_query("?" + query, choices) == request
    own = ComparisonRequest(upload="/tmp/a.wav", model="/home/me/secret.pt").to_query(choices)
    assert own == "", "neither is anybody else's"


def test_every_language_of_whisper_can_be_chosen_and_a_link_s_is_kept(choices: Choices) -> None:
    assert set(choices.values("language")) == {"", *tokenizer.LANGUAGES}
    for code in tokenizer.LANGUAGES:
        linked = ComparisonRequest.from_query(f"?language={code}", choices)
        assert linked.options.language == code and linked.model == DEFAULT_MODEL
    assert ComparisonRequest.from_query("", choices).options.language is None, "it is detected"


def test_a_checkpoint_of_one_s_own_is_looked_up_at_once_and_only_where_it_may_be(
    choices: Choices, tmp_path: Path
) -> None:
    mine, path = dataclasses.replace(choices, own_checkpoints=True), tmp_path / "my.en.pt"
    path.touch()
    for model in (str(path), str(tmp_path), "openai/whisper-tiny", "base"):
        request = read(mine, model=model)
        assert isinstance(request, ComparisonRequest) and request.model == model
    wrong: Any
    for wrong in ("basee", "models/none.pt", f"{path}x", "a" * 5000, "\0", "~nobody/a", 7, [path]):
        assert "There is no model" in str(read(mine, model=wrong))
    assert "model can't be" in str(read(choices, model=str(path)))
    assert "my.en.pt knows only English, not French" in str(
        read(mine, model=str(path), language="fr")
    )


def test_words_that_were_given_stand_in_for_a_sample_s_own_and_travel_in_no_link(
    choices: Choices,
) -> None:
    request = read(choices, reference=" What was\nreally \ud800said ")
    assert isinstance(request, ComparisonRequest) and "really" not in request.to_query(choices)
    clip = request.find_clip(choices)
    assert clip is not None and clip.reference == "What was really ?said"
    own = dataclasses.replace(request, sample="", upload="/tmp/a.wav").find_clip(choices)
    assert own is not None and own.reference == "What was really ?said"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"language": "klingon"}, "language can't be 'klingon': use a code such as en"),
        ({"engines": ["tpu"]}, "engine can't be 'tpu': use one of cpu, gpu, max_hybrid."),
        ({"engines": ["cpu", "gpu"]}, "GPU can't run here: no CUDA device was found."),
        ({"language": "yue"}, "base doesn't know Cantonese: choose turbo or large"),
        ({"engines": "cpu"}, "engines must be a list of keys, not 'cpu'."),
        ({"beam_size": 99}, "beam_size must be a whole number from 1 to 10, not 99."),
        ({"reference": "a" * 50_001}, "reference has 50,001 characters, and 50,000 are the most"),
        ({"word_timestamps": 1}, "word_timestamps must be true or false, not 1."),
        ({"task": "sing"}, "task can't be 'sing': use transcribe or translate."),
        ({"task": "translate", "model": "tiny.en"}, "to translate, choose a multilingual model"),
        ({"temperatures": "0, hot"}, "must be numbers from 0 to 1, with commas between, and 'hot'"),
        ({"temperatures": []}, "temperatures must have one number at least"),
        ({"best_of": 2.5}, "best_of must be a whole number from 1 to 10, or nothing, not 2.5."),
        ({"patience": 2}, "patience 2 needs a beam search: choose a beam size of 2 or more"),
        ({"hallucination_silence_threshold": 1}, "needs word timestamps: switch them on."),
        ({"clip_timestamps": [5, 3]}, "clip_timestamps must rise"),
        ({"initial_prompt": "<|en|>"}, "can't hold '<|en|>', a special token: leave it out."),
    ],
)
def test_each_problem_is_one_sentence(
    changes: dict[str, Any], sentence: str, choices: Choices
) -> None:
    assert sentence in str(read(choices, **changes))


def test_the_page_s_controls_are_a_request_and_back(choices: Choices, tmp_path: Path) -> None:
    default = ComparisonRequest.default(choices)
    request = dataclasses.replace(default, best_of=3, patience=None, temperatures=(0.0, 0.25))
    held = {**request.to_controls(), "audio": None}
    assert held["temperatures"] == "0, 0.25" and held["patience"] == ""
    assert ComparisonRequest.from_controls(held, choices) == request
    clip = tmp_path / "folder" / "own.wav"
    own = held | {"sample": OWN_CLIP, "audio": str(clip)}
    for changes, sentence in (
        ({"audio": None}, NO_CLIP),
        ({}, CLIP_GONE),
        ({"sample": "jfk", "engines": []}, NO_ENGINE),
    ):
        with pytest.raises(RequestError) as caught:
            ComparisonRequest.from_controls(own | changes, choices)
        assert str(caught.value) == sentence
    clip.parent.mkdir()
    clip.touch()
    request = ComparisonRequest.from_controls(own, choices)
    assert request.to_controls()["sample"] == OWN_CLIP
    found = request.find_clip(choices)
    assert found is not None and (found.key, found.title) == ("folder/own.wav", "own.wav")


@often
@given(values=st.dictionaries(st.sampled_from([rule.link for rule in RULES.values()]), st.text()))
def test_what_a_link_names_wrongly_stays_as_it_is(values: dict[str, str]) -> None:
    choices = Choices((), fakes.STATUSES, ("base", "tiny.en"))
    request = ComparisonRequest.from_query(urlencode(values), choices)
    default = ComparisonRequest.default(choices)
    for name in [name for name in RULES if name not in OPTIONS]:
        assert getattr(request, name) in {
            getattr(default, name),
            *(choices.values(name) or (False, True)),
        } or (name == "engines" and set(request.engines) <= {"cpu", "gpu", "max_hybrid"})
    for name, row in OPTIONS.items():
        assert row.read(name, getattr(request, name)) == getattr(request, name)
    assert ComparisonRequest.from_query("beam=5&" * 2000, choices) == default


def test_every_option_has_a_rule_and_the_tables_match_whisper_s() -> None:
    from whisper import transcribe
    from whisper.decoding import DecodingOptions
    from whisper.tokenizer import LANGUAGES as theirs

    usual = {each.name: each.default for each in dataclasses.fields(DecodingOptions)}
    usual |= {name: each.default for name, each in signature(transcribe).parameters.items()}
    usual |= {"temperatures": usual["temperature"], "suppress_tokens": (-1,)}  # "-1" there
    usual |= {"initial_prompt": "", "clip_timestamps": (), "vad": False}  # None, "0", not its
    assert {name: row.default for name, row in OPTIONS.items()} == {n: usual[n] for n in OPTIONS}
    assert list(LANGUAGES.items()) == list(theirs.items())
    assert Settings().model == DEFAULT_MODEL
    fields = {each.name for each in dataclasses.fields(ComparisonRequest)}
    assert fields - set(RULES) == {"upload"}


def test_samples_come_titled_ones_first_with_their_references(
    sample_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a_clip.flac").touch()
    for path in sample_folder.iterdir():
        (tmp_path / path.name).touch()
    samples = list_samples(tmp_path)
    assert [sample.title for sample in samples] == ["Kennedy, 11 s", "Address, 3:19", "A clip"]
    assert samples[0].reference is not None and samples[1].reference is None
    assert [sample.seconds for sample in samples] == [0.0, 0.0, 0.0]  # of files that are empty
    assert [sample.seconds for sample in list_samples(sample_folder)] == [2.0, 2.0]
    assert list_samples(tmp_path / "nowhere") == ()


def test_optional_engines_run_only_where_they_are_asked_for() -> None:
    extra = dataclasses.replace(fakes.MAX, key="faster_whisper", packages=("some",))
    choices = Choices((), (*fakes.STATUSES, extra), ("base",))
    assert ComparisonRequest.default(choices).engines == ("cpu", "max_hybrid")
    assert choices.available[-1] == "faster_whisper"
