"""The tools for language models, called by the protocol's own client over HTTP."""

from __future__ import annotations

import asyncio
import base64
import builtins
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from demo import tools
from tests import fakes

mcp = pytest.importorskip("mcp")
streamable_http = pytest.importorskip("mcp.client.streamable_http")

Serve = Callable[..., str]
Session = Any


def talk(url: str, work: Callable[[Session], Awaitable[Any]], **headers: str) -> Any:
    """Open a session, do the work in it, and close it."""

    async def run() -> Any:
        async with (
            httpx.AsyncClient(headers=headers, timeout=60) as client,
            streamable_http.streamable_http_client(f"{url}gradio_api/mcp/", http_client=client) as (
                reader,
                writer,
                _,
            ),
            mcp.ClientSession(reader, writer) as session,
        ):
            await session.initialize()
            return await work(session)

    # In a thread of its own: the browser's tests leave a loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


def call(url: str, name: str, arguments: dict[str, Any], **headers: str) -> Any:
    """One tool's result."""
    return talk(url, lambda session: session.call_tool(name, arguments), **headers)


def engines() -> dict[str, fakes.FakeEngine]:
    return {
        "cpu": fakes.FakeEngine(),
        "max_hybrid": fakes.FakeEngine("max_hybrid", "MAX hybrid", words="The compiler turned"),
    }


def test_tools_say_what_they_take_and_give(serve_fakes: Serve) -> None:
    listed = talk(serve_fakes(**engines()), lambda session: session.list_tools())
    by_name = {tool.name: tool for tool in listed.tools}
    assert set(by_name) == {"compare_clip", "list_engines"}
    compare = by_name["compare_clip"]
    assert "clip_base64" in compare.description
    assert {"sample", "clip_base64", "engines"} <= set(compare.inputSchema["properties"])
    assert {"headline", "lanes"} <= set(compare.outputSchema["properties"])


def test_a_sample_is_compared(serve_fakes: Serve) -> None:
    result = call(serve_fakes(**engines()), "compare_clip", {"sample": "short"})
    assert not result.isError
    found = result.structuredContent
    assert found["clip"] == "Short sentence" and found["baseline"] == "cpu"
    cpu, hybrid = found["lanes"]
    assert cpu["text"] == fakes.WORDS and cpu["words_unlike_baseline"] is None
    assert hybrid["words_unlike_baseline"] == 9
    assert cpu["word_error_rate"] == pytest.approx(1 / 11)


@pytest.mark.parametrize("head", ["", "data:audio/flac;base64,"])
def test_a_clip_in_base64_is_compared(head: str, serve_fakes: Serve, sample_folder: Path) -> None:
    code = base64.b64encode((sample_folder / "talk.flac").read_bytes()).decode()
    arguments = {"clip_base64": head + code, "engines": ["cpu"]}
    result = call(serve_fakes(**engines()), "compare_clip", arguments)
    assert [lane["text"] for lane in result.structuredContent["lanes"]] == [fakes.WORDS]


def test_engines_are_listed(serve_fakes: Serve) -> None:
    found = call(serve_fakes(**engines()), "list_engines", {}).structuredContent["result"]
    assert [record["engine"] for record in found] == ["cpu", "gpu", "max_hybrid"]


def test_a_caller_who_leaves_frees_the_processor(serve_fakes: Serve) -> None:
    never = Event()
    held = fakes.FakeEngine(last_word=never)
    url = serve_fakes(cpu=held, max_hybrid=engines()["max_hybrid"])

    async def start_and_leave(session: Session) -> None:
        arguments = {"sample": "short", "engines": ["cpu"]}
        asking = asyncio.create_task(session.call_tool("compare_clip", arguments))
        while not held.prepared.is_set():
            await asyncio.sleep(0.01)
        asking.cancel()

    talk(url, start_and_leave)
    result = call(url, "compare_clip", {"sample": "short", "engines": ["max_hybrid"]})
    assert result.structuredContent["lanes"][0]["text"] == "The compiler turned"
    assert not never.is_set()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"sample": "../short"}, "use one of short, talk"),
        ({}, "use one of short, talk"),
        ({"clip_base64": "http://127.0.0.1/clip.wav"}, "addresses are not fetched"),
        ({"clip_base64": "file:///etc/passwd"}, "addresses are not fetched"),
        ({"clip_base64": base64.b64encode(b"no audio").decode()}, "holds no audio"),
        ({"sample": "short", "beam_size": 0}, "whole number from 1"),
        ({"sample": "short", "schedule": "soon"}, "one at a time"),
    ],
)
def test_wrong_calls_are_errors_with_a_sentence(
    arguments: dict[str, Any], sentence: str, serve_fakes: Serve
) -> None:
    result = call(serve_fakes(**engines()), "compare_clip", arguments)
    assert result.isError and sentence in result.content[0].text


def test_a_page_of_another_host_can_t_use_a_visitor_s_browser(serve_fakes: Serve) -> None:
    url = serve_fakes(**engines())
    opening = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"accept": "application/json, text/event-stream"}
    fine = httpx.post(f"{url}gradio_api/mcp/", json=opening, headers=accept)
    assert fine.status_code == 200
    for strange in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        answer = httpx.post(f"{url}gradio_api/mcp/", json=opening, headers={**accept, **strange})
        assert answer.status_code in (403, 421)


def test_tools_need_the_page_s_password(
    serve_fakes: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_AUTH", "me:secret")
    url = serve_fakes(**engines())
    assert httpx.post(f"{url}gradio_api/mcp/", json={}).status_code == 401
    code = base64.b64encode(b"me:secret").decode()
    result = call(url, "compare_clip", {"sample": "short"}, Authorization=f"Basic {code}")
    assert result.structuredContent["lanes"][0]["text"] == fakes.WORDS


def test_without_the_package_there_are_no_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def lack(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("mcp"):
            raise ImportError(name)
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", lack)
    assert tools.make_tools() is None


def test_the_page_works_without_tools(serve_fakes: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from demo import serve

    monkeypatch.setattr(serve, "make_tools", lambda *_: None)
    url = serve_fakes(**engines())
    assert httpx.get(url).status_code == 200
    assert httpx.post(f"{url}gradio_api/mcp/", json={}).status_code in (404, 405)


def test_clips_from_base64_are_gone_after_use() -> None:
    with tools.saved(base64.b64encode(b"sound").decode()) as path:
        assert Path(path).read_bytes() == b"sound"
    assert not Path(path).exists()
