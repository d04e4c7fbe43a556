"""The MCP tools, called by the protocol's own client over HTTP."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from demo import middleware
from tests import fakes
from tests.fake_page import FakePage

mcp = pytest.importorskip("mcp")
connect_to = pytest.importorskip("mcp.client.streamable_http").streamable_http_client


def talk(url: str, work: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
    """Open a session, do the work in it, and close it; `options` are the HTTP client's."""

    async def run() -> Any:
        async with (
            httpx.AsyncClient(timeout=60, **options) as client,
            connect_to(f"{url}gradio_api/mcp/", http_client=client) as streams,
            mcp.ClientSession(*streams[:2]) as session,
        ):
            await session.initialize()
            return await work(session)

    # In a thread of its own: the browser's tests leave a loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


def call(url: str, name: str, arguments: dict[str, Any], **options: Any) -> Any:
    return talk(url, lambda session: session.call_tool(name, arguments), **options)


def test_tools_say_what_they_take_and_give(fake_page: FakePage) -> None:
    listed = talk(fake_page.url, lambda session: session.list_tools())
    by_name = {tool.name: tool for tool in listed.tools}
    assert set(by_name) == {"compare_clip", "list_engines"}
    tool = by_name["compare_clip"]
    assert "clip_base64" in tool.description and "beam_size" in tool.description
    assert {"sample", "clip_base64", "engines", "repeats"} <= set(tool.inputSchema["properties"])
    assert {"headline", "lanes"} <= set(tool.outputSchema["properties"])
    found = call(fake_page.url, "list_engines", {}).structuredContent["result"]
    assert [record["engine"] for record in found] == ["cpu", "gpu", "max_hybrid"]


def test_a_sample_is_compared(fake_page: FakePage) -> None:
    fake_page.use(max_hybrid=fakes.fake_max(words="The compiler turned"))
    for details in (False, True):
        asked = {"sample": "jfk", "details": details}
        found = call(fake_page.url, "compare_clip", asked).structuredContent
        assert found["clip"] == "Kennedy, 11 s" and found["baseline"] == "cpu"
        cpu, hybrid = found["lanes"]
        assert cpu["text"] == fakes.WORDS and hybrid["against_baseline"]["deleted"] == 8
        assert bool(cpu["segments"]) == bool(cpu["tokens"]) == details


def test_a_clip_in_base64_is_compared_and_gone(
    fake_page: FakePage, sample_folder: Path, uploads: Path
) -> None:
    code = base64.b64encode((sample_folder / "columbia.flac").read_bytes()).decode()
    for clip in (code, f"data:audio/flac;base64,{code}"):
        result = call(fake_page.url, "compare_clip", {"clip_base64": clip, "engines": ["cpu"]})
        assert result.structuredContent["lanes"][0]["text"] == fakes.WORDS
        assert not list(uploads.rglob("clip-*")), "where it was meanwhile"


def test_a_caller_who_leaves_frees_the_processor(fake_page: FakePage) -> None:
    held = fakes.FakeEngine(last_word=Event())
    fake_page.use(cpu=held)
    arguments = {"sample": "jfk", "engines": ["cpu"]}

    async def start_and_leave(session: Any) -> None:
        asking = asyncio.create_task(session.call_tool("compare_clip", arguments))
        while not held.prepared.is_set():
            await asyncio.sleep(0.01)
        asking.cancel()

    talk(fake_page.url, start_and_leave)
    result = call(fake_page.url, "compare_clip", {**arguments, "engines": ["max_hybrid"]})
    assert result.structuredContent["lanes"][0]["text"] == fakes.WORDS


def test_wrong_calls_are_errors_with_a_sentence(fake_page: FakePage) -> None:
    for clip, sentence in (
        ("http://127.0.0.1/clip.wav", "addresses are not fetched"),
        (base64.b64encode(b"no audio").decode(), "holds no audio"),
    ):
        result = call(fake_page.url, "compare_clip", {"clip_base64": clip})
        assert result.isError and sentence in result.content[0].text


def test_with_the_password_tools_answer_and_without_the_package_only_the_page(
    serve_fakes: Callable[..., FakePage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(middleware.AUTH, "me:hush-hush")
    me = ("me", "hush-hush")
    assert not call(serve_fakes().url, "list_engines", {}, auth=me).isError
    monkeypatch.setitem(sys.modules, "mcp.server.fastmcp", None)
    url = serve_fakes().url
    assert httpx.get(url, auth=me).status_code == 200
    answer = httpx.post(f"{url}gradio_api/mcp/", json={}, auth=me)
    assert answer.status_code in (404, 405)
