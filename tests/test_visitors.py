"""What a visitor may ask for and leaves behind: by the page's roads, the endpoints and the tool."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from demo import guard, health, tidy
from demo.keepsakes import Keepsakes, Kept
from demo.limits import Limits
from engines import audio
from tests import fakes

Serve = Callable[..., str]


@pytest.fixture
def connect() -> Iterator[Callable[[str], Client]]:
    """Clients, each a visitor."""
    clients: list[Client] = []

    def connect_to(url: str) -> Client:
        clients.append(Client(url, verbose=False))
        return clients[-1]

    yield connect_to
    for client in clients:
        client.close()


def engines(**traits: Any) -> dict[str, fakes.FakeEngine]:
    return {
        "cpu": fakes.FakeEngine(**traits),
        "max_hybrid": fakes.FakeEngine("max_hybrid", "MAX hybrid"),
    }


def list_files(folder: Path) -> list[Path]:
    """The files in a folder and beneath it."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def upload(url: str, path: Path) -> Path:
    """Where the page puts a file that a visitor brings."""
    with path.open("rb") as file:
        answer = httpx.post(f"{url}gradio_api/upload", files={"files": (path.name, file)})
    return Path(answer.json()[0])


def call_tool(url: str, **arguments: Any) -> Any:
    """What the tool for models answers."""
    from tests.test_mcp import call

    return call(url, "compare_clip", arguments)


# What is left behind.


def test_a_clip_goes_with_its_call(
    serve_fakes: Serve, connect: Callable[..., Client], sample_folder: Path, uploads: Path
) -> None:
    url = serve_fakes(**engines())
    copies = list_files(uploads)
    assert len(copies) == 1  # of the sample that the page shows first
    client, clip = connect(url), sample_folder / "columbia.flac"
    assert client.predict(clip=handle_file(clip), api_name="/compare")["lanes"]
    assert client.predict(clip=handle_file(clip), engine="cpu", api_name="/transcribe")["text"]
    with pytest.raises(AppError, match="use one of nano"):
        client.predict(clip=handle_file(clip), model="huge", api_name="/compare")
    with pytest.raises(AppError, match="not both"):
        client.predict(clip=handle_file(clip), sample="short", api_name="/compare")
    assert list_files(uploads) == copies


def test_a_tool_s_clip_goes_with_its_call(
    serve_fakes: Serve, sample_folder: Path, uploads: Path
) -> None:
    pytest.importorskip("mcp")
    url = serve_fakes(**engines())
    copies = list_files(uploads)
    code = base64.b64encode((sample_folder / "columbia.flac").read_bytes()).decode()
    assert call_tool(url, clip_base64=code).structuredContent["lanes"]
    assert list_files(uploads) == copies


def test_two_visitors_with_one_clip_don_t_take_it_from_each_other(
    serve_fakes: Serve, sample_folder: Path
) -> None:
    url, clip = serve_fakes(**engines()), sample_folder / "columbia.flac"
    first, second = upload(url, clip), upload(url, clip)
    assert first != second
    for path in (first, second):
        held = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        road = f"{url}gradio_api/call/v2/transcribe"
        event = httpx.post(road, json={"clip": held}).json()["event_id"]
        answer = httpx.get(f"{url}gradio_api/call/transcribe/{event}", timeout=60).text
        assert "event: complete" in answer and fakes.WORDS in answer
        assert not path.exists() and not path.parent.exists()


def test_a_clip_of_the_page_goes_an_hour_after_its_last_use(
    serve_fakes: Serve, sample_folder: Path, uploads: Path
) -> None:
    url = serve_fakes(**engines())
    (copy,) = list_files(uploads)
    keep = tidy.name_copies([sample_folder / "short.flac"])
    old, used = (upload(url, sample_folder / "columbia.flac") for _ in range(2))
    broken_off = uploads / "tmp1234"
    broken_off.write_bytes(b"half a clip")
    for path in (copy, old, used, broken_off):
        os.utime(path, (time.time() - 4000,) * 2)
    tidy.touch(str(used))
    assert tidy.sweep(uploads, keep) == 2
    assert list_files(uploads) == sorted([copy, used])
    assert tidy.sweep(uploads, keep, seconds=0) == 1 and list_files(uploads) == [copy]
    assert tidy.is_gone(str(used)) and not tidy.is_gone(str(copy)) and not tidy.is_gone("short")


def test_nothing_but_uploads_is_deleted_or_touched(uploads: Path, tmp_path: Path) -> None:
    uploads.mkdir()
    other = tmp_path / "other.wav"
    other.write_bytes(b"RIFF")
    link = uploads / "link.wav"
    link.symlink_to(other)
    before = other.stat()
    for path in (str(other), str(link), str(uploads), f"{uploads}/../other.wav", "", None, "\0"):
        tidy.discard(path)
        tidy.touch(path)
    assert other.stat().st_mtime == before.st_mtime and uploads.is_dir()


def test_results_are_forgotten_an_hour_after_they_were_made() -> None:
    keepsakes = Keepsakes()
    keepsakes.keep("me", Kept(controls=(), values=("a result",)))
    keepsakes.forget(3600)
    assert keepsakes.find("me")
    keepsakes.forget(0)
    assert keepsakes.find("me") is None


def test_gradio_forgets_a_visit_too(
    serve_fakes: Serve,
    connect: Callable[..., Client],
    sample_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages: list[Any] = []
    from demo import page

    whole = page.build

    def build(*rest: Any) -> Any:
        pages.append(whole(*rest))
        return pages[-1]

    monkeypatch.setattr(page, "build", build)
    client = connect(serve_fakes(**engines()))
    client.predict(clip=handle_file(sample_folder / "columbia.flac"), api_name="/compare")
    (blocks,) = pages
    holder, queue = blocks.server_app.state_holder, blocks._queue
    assert client.session_hash in holder.session_data
    assert client.session_hash in queue.pending_messages_per_session
    copies = len(blocks.upload_file_set)
    assert copies

    def forget(seconds: float) -> None:
        tidy.forget_paths(blocks)
        tidy.forget_visits(blocks, seconds)

    forget(3600)
    assert client.session_hash in holder.session_data
    holder.session_data.clear()
    holder.time_last_used.clear()
    forget(3600)
    assert client.session_hash in queue.pending_messages_per_session
    forget(0)
    assert not holder.session_data and not queue.pending_messages_per_session
    assert not blocks.upload_file_set
    assert client.predict(sample="short", api_name="/compare")["lanes"]


def test_a_round_of_tidying_up_comes_by_itself(
    serve_fakes: Serve, sample_folder: Path, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidy, "SWEEP_SECONDS", 0.05)
    url = serve_fakes(**engines())
    path = upload(url, sample_folder / "columbia.flac")
    os.utime(path, (time.time() - 4000,) * 2)
    until = time.monotonic() + 60
    while path.exists():
        assert time.monotonic() < until, "the clip was not deleted"
        time.sleep(0.02)


def test_the_folder_for_uploads_is_the_page_s_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(tidy.VARIABLE, str(tmp_path / "here"))
    folder = tidy.make_folder()
    assert folder.parent == (tmp_path / "here").resolve()
    assert os.environ[tidy.VARIABLE] == str(folder)
    assert folder.stat().st_mode & 0o077 == 0


# What may be asked for.


def test_the_queue_s_limit_holds_for_programs_and_tools(
    serve_fakes: Serve, connect: Callable[..., Client]
) -> None:
    gate = Event()
    cpu = fakes.FakeEngine(last_word=gate)
    url = serve_fakes(limits=Limits(waiting=1), cpu=cpu, max_hybrid=fakes.FakeEngine("max_hybrid"))
    ask: dict[str, Any] = {"sample": "short", "api_name": "/compare"}
    first = connect(url).submit(**ask)
    assert cpu.prepared.wait(60)
    second = connect(url).submit(**ask)
    wait_for_queue(url, running=1, waiting=1)
    with pytest.raises(AppError, match="The queue is full, 1 waiting: try again in a few minutes"):
        connect(url).predict(**ask)
    try:
        answer = call_tool(url, sample="short")
        assert answer.isError and "The queue is full" in answer.content[0].text
    except pytest.skip.Exception:
        pass
    told = second.status().log
    assert told and told[0] == "Waiting: 1 run is ahead of yours."
    gate.set()
    assert first.result(60)["lanes"] and second.result(60)["lanes"]
    wait_for_queue(url, running=0, waiting=0)


def wait_for_queue(url: str, **counts: int) -> None:
    """Wait until so many run and wait."""
    until = time.monotonic() + 60
    while counts.items() - httpx.get(f"{url}health").json()["queue"].items():
        assert time.monotonic() < until, f"the queue never had {counts}"
        time.sleep(0.02)


def test_one_visitor_s_rate_is_limited_whatever_the_session(
    serve_fakes: Serve, connect: Callable[..., Client]
) -> None:
    url = serve_fakes(limits=Limits(at_once=6, a_minute=2), **engines())
    for _ in range(2):
        assert connect(url).predict(sample="short", api_name="/compare")
    with pytest.raises(AppError, match=r"2 runs a minute .*: try again in \d+ s\.$"):
        connect(url).predict(sample="short", api_name="/compare")
    # The web server itself believes a proxy on this machine, and nobody else: see `demo.limits`.
    other = Client(url, verbose=False, headers={"X-Forwarded-For": "192.0.2.9"})
    assert other.predict(sample="short", api_name="/compare")
    other.close()


def test_a_tool_s_caller_has_the_limits_of_a_visitor(serve_fakes: Serve) -> None:
    from tests.test_mcp import call

    url = serve_fakes(limits=Limits(at_once=6, a_minute=1), **engines())
    one, two = ({"X-Forwarded-For": f"192.0.2.{number}"} for number in (1, 2))
    arguments = {"sample": "short"}
    assert not call(url, "compare_clip", arguments, **one).isError
    refused = call(url, "compare_clip", arguments, **one)
    assert refused.isError and "1 runs a minute are the most" in refused.content[0].text
    assert not call(url, "compare_clip", arguments, **two).isError


def test_uploads_have_a_limit_for_each_visitor(serve_fakes: Serve, sample_folder: Path) -> None:
    url = serve_fakes(limits=Limits(upload_bytes=3 * 2**20), **engines())

    def send(megabytes: float, **headers: str) -> httpx.Response:
        files = {"files": ("a.wav", b"RIFF" + b"x" * int(megabytes * 2**20))}
        return httpx.post(f"{url}gradio_api/upload", files=files, headers=headers)

    assert send(2).status_code == 200
    answer = send(2)
    assert answer.status_code == 429
    assert answer.text == ("3 MB an hour are the most for one visitor: try again in 60 minutes.")
    assert send(0.5).status_code == 200
    assert send(2, **{"X-Forwarded-For": "192.0.2.9"}).status_code == 200


def test_a_full_disk_takes_no_clips(serve_fakes: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve_fakes(**engines())
    monkeypatch.setattr(health, "read_free_disk", lambda: 1000)
    answer = httpx.post(f"{url}gradio_api/upload", files={"files": ("a.wav", b"RIFF")})
    assert answer.status_code == 507 and "disk for clips is full" in answer.text
    assert httpx.get(f"{url}health").status_code == 503


def test_size_and_length_hold_by_every_road(
    serve_fakes: Serve,
    connect: Callable[..., Client],
    sample_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_clip = partial(audio.load_clip, max_seconds=1.0)
    url, clip = serve_fakes(load_clip=load_clip, **engines()), sample_folder / "columbia.flac"
    too_long = "columbia.flac is longer than 1 seconds, the limit"
    with pytest.raises(AppError, match=too_long):
        connect(url).predict(clip=handle_file(clip), api_name="/compare")
    pytest.importorskip("mcp")
    code = base64.b64encode(clip.read_bytes()).decode()
    refused = call_tool(url, clip_base64=code)
    assert refused.isError and "longer than 1 seconds" in refused.content[0].text
    monkeypatch.setattr(guard, "MOST_UPLOAD_BYTES", 100)
    monkeypatch.setattr(guard, "MOST_TOOL_BYTES", 1000)
    with pytest.raises(httpx.HTTPStatusError, match="413"):
        connect(url).predict(clip=handle_file(clip), api_name="/compare")
    body = {"jsonrpc": "2.0", "id": 1, "method": "x" * 2000}
    assert httpx.post(f"{url}gradio_api/mcp/", json=body).status_code == 413
