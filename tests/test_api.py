"""The named endpoints, called as programs call them, and their arguments fuzzed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demo.api import Request, RequestError
from demo.session import Backend, Wish
from tests import fakes
from tests.processes import PATIENCE

Serve = Callable[..., str]

ARGUMENTS: dict[str, Any] = {
    "clip": None,
    "sample": "short",
    "engines": [],
    "model": "tiny.en",
    "language": "en",
    "beam_size": 1,
    "schedule": "parallel",
    "word_timestamps": False,
    "gpu_dtype": "float32",
    "repeats": 1,
}

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["/etc/passwd", "../short", "file:///etc/passwd", "http://127.0.0.1/", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
"""Any JSON, and the numbers that JSON lacks."""

clips = st.fixed_dictionaries(
    {"path": anything},
    optional={"meta": st.just({"_type": "gradio.FileData"}) | anything, "url": anything},
)


@pytest.fixture
def connect(serve_fakes: Serve) -> Iterator[Callable[..., Client]]:
    """A client of the page over the given fakes."""
    clients = []

    def connect_to(**engines: fakes.FakeEngine) -> Client:
        clients.append(Client(serve_fakes(**engines), verbose=False))
        return clients[-1]

    yield connect_to
    for client in clients:
        client.close()


def fake_max(**traits: Any) -> fakes.FakeEngine:
    return fakes.FakeEngine("max_hybrid", "MAX hybrid", noise=1e-6, **traits)


def refusal(client: Client, name: str, **arguments: Any) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(AppError) as caught:
        client.predict(api_name=name, **arguments)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence
    return sentence


def test_compare_gives_every_lane_and_its_differences(connect: Callable[..., Client]) -> None:
    client = connect(cpu=fakes.FakeEngine(), max_hybrid=fake_max(words="The compiler turned"))
    record = client.predict(sample="short", api_name="/compare")
    assert [lane["engine"] for lane in record["lanes"]] == ["cpu", "max_hybrid"]
    assert record["lanes"][0]["text"] == fakes.WORDS
    assert record["lanes"][1]["against_baseline"]["deleted"] == 8
    assert record["reference"].startswith("The compiler turns a graph")
    assert record["settings"]["schedule"] == "one at a time" and not record["shared_processor"]


def test_a_clip_of_one_s_own_with_every_setting(
    connect: Callable[..., Client], sample_folder: Path
) -> None:
    client = connect(cpu=fakes.FakeEngine(), max_hybrid=fake_max())
    record = client.predict(
        clip=handle_file(sample_folder / "columbia.flac"),
        engines=["max_hybrid"],
        model="tiny.en",
        language="",
        beam_size=5,
        schedule="parallel",
        word_timestamps=True,
        gpu_dtype="float16",
        repeats=3,
        api_name="/compare",
    )
    (lane,) = record["lanes"]
    assert record["clip"] == "columbia.flac" and len(lane["runs"]) == 3
    assert lane["segments"][0]["words"][0]["text"] == " The"
    asked = record["settings"]
    assert (asked["model"], asked["language"], asked["beam_size"]) == ("tiny.en", None, 5)


def test_transcribe_gives_one_engine_s_words(connect: Callable[..., Client]) -> None:
    client = connect(cpu=fakes.FakeEngine(), max_hybrid=fake_max(error=ValueError("broken")))
    lane = client.predict(sample="short", engine="cpu", api_name="/transcribe")
    assert lane["text"] == fakes.WORDS and lane["seconds"]["total"] > 0
    with pytest.raises(AppError, match="ValueError: broken"):
        client.predict(sample="short", engine="max_hybrid", api_name="/transcribe")


def test_a_failed_lane_is_part_of_a_comparison(connect: Callable[..., Client]) -> None:
    client = connect(cpu=fakes.FakeEngine(), max_hybrid=fake_max(error=ValueError("broken")))
    record = client.predict(sample="short", api_name="/compare")
    assert [lane["state"] for lane in record["lanes"]] == ["done", "failed"]
    assert record["lanes"][1]["reason"] == "ValueError: broken"


def test_engines_are_listed_with_reasons(connect: Callable[..., Client]) -> None:
    found = connect(cpu=fakes.FakeEngine()).predict(api_name="/engines")
    assert [record["engine"] for record in found] == ["cpu", "gpu", "max_hybrid"]
    assert [record["available"] for record in found] == [True, False, True]
    assert found[1]["reason"] == "no CUDA device was found"


def test_only_these_are_public_and_they_are_documented(connect: Callable[..., Client]) -> None:
    info = connect(cpu=fakes.FakeEngine()).view_api(return_format="dict", print_info=False)
    assert isinstance(info, dict)
    assert set(info["named_endpoints"]) == {"/compare", "/transcribe", "/engines"}
    assert not info["unnamed_endpoints"]
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    for name, endpoint in info["named_endpoints"].items():
        assert f"`{name}`" in page
        for parameter in endpoint["parameters"]:
            assert parameter["type"] and f"`{parameter['parameter_name']}`" in page
        (returned,) = endpoint["returns"]
        fields = returned["type"].get("items", returned["type"])["properties"]
        assert fields and all(f"`{field}`" in page for field in fields)


def test_wrong_calls_are_refused_in_a_sentence(
    connect: Callable[..., Client], tmp_path: Path
) -> None:
    client = connect(cpu=fakes.FakeEngine(), max_hybrid=fake_max())
    assert "use one of short, talk" in refusal(client, "/compare", sample="../talk")
    assert "use one of short, talk" in refusal(client, "/compare")
    assert "use one of nano" in refusal(client, "/compare", sample="short", model="/etc/passwd")
    assert "whole number from 1 to 10" in refusal(client, "/compare", sample="short", beam_size=99)
    assert "such as en" in refusal(client, "/transcribe", sample="short", language="klingon")
    assert "use one of cpu" in refusal(client, "/transcribe", sample="short", engine="tpu")
    (tmp_path / "letter.wav").write_text("not audio")
    own = handle_file(tmp_path / "letter.wav")
    assert "letter.wav holds no audio" in refusal(client, "/compare", clip=own)
    assert "not both" in refusal(client, "/compare", clip=own, sample="short")


def test_a_caller_who_leaves_frees_the_processor(connect: Callable[..., Client]) -> None:
    never = Event()
    engine = fakes.FakeEngine(last_word=never)
    client = connect(cpu=engine, max_hybrid=fake_max())
    waiting = client.submit(sample="short", engine="cpu", api_name="/transcribe")
    assert engine.prepared.wait(PATIENCE)
    client.close()
    other = Client(client.src, verbose=False)
    lane = other.predict(sample="short", engine="max_hybrid", api_name="/transcribe")
    assert lane["text"] == fakes.WORDS and not never.is_set()
    other.close()
    waiting.cancel()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """Fakes behind the arguments' checks."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "short.flac").touch()
    return Backend(
        statuses=lambda: fakes.STATUSES,
        get=lambda key, model, dtype: fakes.FakeEngine(),
        models=lambda: ("tiny.en", "tiny.en"),
        load_clip=fakes.read_fake_clip,
        samples=folder,
    )


def check(backend: Backend, **changes: Any) -> Wish | str:
    """The wish, or the one sentence with which it is refused; nothing else may come out."""
    try:
        return Request(backend).check(*(ARGUMENTS | changes).values())
    except RequestError as error:
        sentence = str(error)
    assert sentence.endswith(".") and sentence.isprintable() and len(sentence) < 300
    return sentence


@pytest.mark.parametrize("name", ARGUMENTS)
def test_any_json_is_a_wish_or_refused_in_a_sentence(name: str, backend: Backend) -> None:
    outcomes = []

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(value=anything | clips if name == "clip" else anything)
    def fuzz(value: Any) -> None:
        outcomes.append(check(backend, **{name: value}))

    fuzz()
    assert any(isinstance(outcome, str) for outcome in outcomes)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.fixed_dictionaries(dict.fromkeys(ARGUMENTS, anything)))
def test_any_json_everywhere_is_refused_in_a_sentence(values: dict[str, Any]) -> None:
    backend = Backend(
        lambda: fakes.STATUSES,
        lambda key, model, dtype: fakes.FakeEngine(),
        lambda: ("tiny.en",),
        fakes.read_fake_clip,
        Path("nowhere"),
    )
    assert isinstance(check(backend, **values), str)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clip=clips)
def test_no_clip_by_any_name_is_a_file_of_this_machine(clip: dict[str, Any]) -> None:
    backend = Backend(
        lambda: fakes.STATUSES,
        lambda key, model, dtype: fakes.FakeEngine(),
        lambda: ("tiny.en",),
        fakes.read_fake_clip,
        Path("nowhere"),
    )
    assert isinstance(check(backend, sample="", clip=clip), str)


def test_a_nest_of_lists_is_refused_too(backend: Backend) -> None:
    nest: list[Any] = []
    for _ in range(100_000):
        nest = [nest]
    assert isinstance(check(backend, model=nest), str)


def test_every_right_value_is_taken(backend: Backend) -> None:
    wish = check(
        backend,
        engines=["max_hybrid", "cpu"],
        model="tiny.en",
        language="",
        beam_size=5.0,
        schedule="one at a time",
        word_timestamps=True,
        gpu_dtype="float16",
        repeats=3,
    )
    assert isinstance(wish, Wish)
    assert wish.settings.engines == ("cpu", "max_hybrid")
    assert wish.settings.options.beam_size == 5 and wish.settings.repeats == 3


def test_a_refusal_is_gradio_s_error_without_a_trace(backend: Backend) -> None:
    with pytest.raises(gr.Error) as caught:
        Request(backend).read(*(ARGUMENTS | {"model": 3}).values())
    assert not caught.value.print_exception
