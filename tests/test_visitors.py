"""What a visitor may ask for and leaves behind: by the page's roads, the endpoints and the tool."""

from __future__ import annotations

import base64
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from demo import (
    comparison,
    gradio_hooks,
    jobs,
    limits,
    middleware,
    server,
    streams,
    visits,
)
from demo import uploads as upload_folder
from demo.limits import Limits
from engines import audio
from tests import fakes
from tests.fake_page import FakePage
from tests.load.check import predict, start_as_browser, upload, visit_as_browser
from tests.processes import wait_until

Serve = Callable[..., FakePage]


def list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def call_tool(url: str, headers: dict[str, str] | None = None, **arguments: Any) -> Any:
    """What the tool for models answers."""
    pytest.importorskip("mcp")
    from tests.test_mcp import call

    return call(url, "compare_clip", arguments, headers=headers)


# What is left behind.


def test_two_visitors_with_one_clip_don_t_take_it_from_each_other(
    fake_page: FakePage, sample_folder: Path
) -> None:
    first, second = (upload(fake_page.url, sample_folder / "columbia.flac") for _ in range(2))
    assert first != second
    for held in (first, second):
        answer = predict(fake_page.url, "transcribe", clip=held)
        assert "event: complete" in answer and fakes.WORDS in answer
        assert not Path(held["path"]).parent.exists()


def test_a_clip_of_the_page_goes_an_hour_after_its_last_use_by_itself(
    fake_page: FakePage,
    serve_fakes: Serve,
    sample_folder: Path,
    uploads: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = sample_folder / "columbia.flac"
    old, used = (Path(upload(fake_page.url, clip)["path"]) for _ in range(2))
    broken_off = uploads / "tmp1234"
    broken_off.write_bytes(b"half a clip")
    for path in (old, used, broken_off):
        os.utime(path, (time.time() - 4000,) * 2)
    upload_folder.touch(str(used))
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.05)
    serve_fakes()
    wait_until(lambda: list_files(uploads) == [used], "the cleaning")
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + 7200)  # the machine's clock is set forward
        wait_until(lambda: used.stat().st_mtime > real() + 7000, "the cleaning")
    wait_until(lambda: used.stat().st_mtime < real() + 1, "the cleaning after it was set back")
    used.unlink()
    assert upload_folder.is_gone(str(used)) and not upload_folder.is_gone("jfk")


def test_nothing_but_uploads_is_deleted_or_touched(uploads: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(b"RIFF")
    link = uploads / "link.wav"
    link.symlink_to(other)
    before = other.stat()
    for path in (str(other), str(link), str(uploads), f"{uploads}/../other.wav", "", None, "\0"):
        upload_folder.discard(path)
        upload_folder.touch(path)
    assert other.stat().st_mtime == before.st_mtime and uploads.is_dir()
    link.unlink()


def test_the_folder_for_uploads_is_the_page_s_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(upload_folder.VARIABLE, str(tmp_path / "here"))
    folder = upload_folder.make_folder()
    assert folder.parent == (tmp_path / "here").resolve()
    assert os.environ[upload_folder.VARIABLE] == str(folder) == str(upload_folder.find_folder())
    assert folder.stat().st_mode & 0o077 == 0


def test_what_a_killed_page_left_goes_at_the_next_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(upload_folder.VARIABLE, str(tmp_path))
    code = (
        "import os; from pathlib import Path; from demo import uploads;"
        "(uploads.make_folder() / 'clip.wav').write_bytes(b'RIFF'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert list(tmp_path.glob("clips-*/clip.wav"))
    first = upload_folder.make_folder()
    monkeypatch.setenv(upload_folder.VARIABLE, str(tmp_path))
    second = upload_folder.make_folder()
    assert set(tmp_path.iterdir()) == {first, second}, "that of a living page stays"
    monkeypatch.setenv(upload_folder.VARIABLE, "/proc/uploads")
    with pytest.raises(SystemExit, match="made in /proc/uploads"):
        upload_folder.make_folder()


# What may be asked for.


def test_the_limits_of_the_queue_hold_by_every_route(
    fake_page: FakePage,
    connect: Callable[..., Client],
    sample_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Event()
    cpu = fakes.FakeEngine(last_word=gate)
    fake_page.reset(Limits(waiting=1, at_once=1))
    fake_page.use(cpu=cpu)
    url, count = fake_page.url, fake_page.queue.count
    ask: dict[str, Any] = {"sample": "jfk", "api_name": "/compare"}
    first = connect(url).submit(**ask)
    assert cpu.prepared.wait(60)
    with pytest.raises(AppError, match="1 runs from your address are waiting or going on"):
        connect(url).predict(**ask)
    second = connect(url, headers={"X-Forwarded-For": "192.0.2.1"}).submit(**ask)
    wait_until(lambda: count() == {"running": 1, "waiting": 1, "most_waiting": 1}, "a full queue")
    with pytest.raises(AppError, match="The queue is full, 1 waiting: try again in a few minutes"):
        connect(url).predict(**ask)
    monkeypatch.setattr(jobs.PastJobs, "estimate", lambda self, kind: 600.0)
    with pytest.raises(RuntimeError, match=r"The queue is full, .* in about 20 minutes"):
        visit_as_browser(url, sample_folder / "columbia.flac", ["cpu"])
    answer = call_tool(url, sample="jfk")
    assert answer.isError and "The queue is full" in answer.content[0].text
    told = second.status().log
    assert told and told[0] == "Waiting: 1 run is ahead of this one."
    gate.set()
    assert first.result(60)["lanes"] and second.result(60)["lanes"]
    wait_until(lambda: not count()["running"], "the end of both")
    fake_page.queue.close()
    with pytest.raises(AppError, match="The page is closing"):
        connect(url).predict(**ask)


def test_one_visitor_s_rate_is_limited_whatever_the_session(
    fake_page: FakePage, connect: Callable[..., Client]
) -> None:
    fake_page.reset(Limits(at_once=6, a_minute=2))
    url, ask = fake_page.url, {"sample": "jfk", "api_name": "/compare"}
    # The web server itself believes a proxy on this machine, and nobody else: see `demo.limits`.
    one, two = ({"X-Forwarded-For": f"192.0.2.{number}"} for number in (1, 2))
    for _ in range(2):
        assert connect(url, headers=one).predict(**ask)
    with pytest.raises(AppError, match=r"2 runs a minute .*: try again in \d+ s\.$"):
        connect(url, headers=one).predict(**ask)
    assert connect(url, headers=two).predict(**ask)
    refused = call_tool(url, one, sample="jfk")
    assert refused.isError and "2 runs a minute are the most" in refused.content[0].text
    assert not call_tool(url, two, sample="jfk").isError


def test_uploads_have_a_limit_for_each_visitor(serve_fakes: Serve) -> None:
    url = serve_fakes(limits=Limits(upload_bytes=4 * 2**20)).url

    def send(megabytes: float, **headers: str) -> httpx.Response:
        files = {"files": ("a.wav", b"RIFF" + b"x" * int(megabytes * 2**20))}
        return httpx.post(f"{url}gradio_api/upload", files=files, headers=headers)

    assert send(2).status_code == 200
    answer = send(2)
    assert answer.status_code == 429
    assert answer.text == ("4 MB an hour are the most for one visitor: try again in 60 minutes.")
    assert send(0.5).status_code == 200
    assert send(2, **{"X-Forwarded-For": "192.0.2.9"}).status_code == 200


def test_a_full_disk_takes_no_clips(fake_page: FakePage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full before a clip comes in, or while it does."""
    clip = {"files": ("clip.wav", b"RIFF" + bytes(3 * 2**20))}
    with monkeypatch.context() as patch:
        patch.setattr(upload_folder, "free_bytes", lambda: 1000)
        before = httpx.post(f"{fake_page.url}gradio_api/upload", files=clip)
        assert httpx.get(f"{fake_page.url}health").status_code == 503
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        during = httpx.post(f"{fake_page.url}gradio_api/upload", files=clip, timeout=60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for answer in (before, during):
        assert answer.status_code == 507 and "disk for clips is full" in answer.text
    assert httpx.post(f"{fake_page.url}gradio_api/upload", files=clip).status_code == 200


def test_whoever_leaves_by_whatever_way_has_the_run_stopped(
    fake_page: FakePage, sample_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By /call and by the page's own way: running, waiting, and without ever listening."""
    monkeypatch.setattr(streams, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(streams, "CLOSED_SECONDS", 0.5)
    monkeypatch.setattr(visits, "GRACE_SECONDS", 0.1)
    gate = Event()
    fake_page.use(cpu=fakes.FakeEngine(last_word=gate))
    count, http = fake_page.queue.count, httpx.Client(base_url=f"{fake_page.url}gradio_api/")

    def call() -> str:
        asked = {"sample": "jfk", "engines": ["cpu"]}
        return f"call/compare/{http.post('call/v2/compare', json=asked).json()['event_id']}"

    def visit() -> str:
        browser = httpx.Client(base_url=fake_page.url)
        tab, *_ = start_as_browser(browser, sample_folder / "columbia.flac", ["cpu"])
        return f"queue/data?session_hash={tab}"

    for start in (call, visit):
        with http.stream("GET", start()):
            wait_until(lambda: count()["running"] == 1, "a run")
            with http.stream("GET", start()):
                wait_until(lambda: count()["waiting"] == 1, "a second one's waiting")
            wait_until(lambda: count()["waiting"] == 0, "its leaving the queue")
            assert count()["running"] == 1
        wait_until(lambda: count()["running"] == 0, "the end of the first")
        start()
        wait_until(lambda: count()["running"] == 1, "a run that nobody listens to")
        wait_until(lambda: count()["running"] == 0, "its end")
    gate.set()
    direct = http.post("run/compare", json={"data": [None, "jfk"]})
    assert direct.status_code == 404, "a direct call has no stream"


def test_a_run_ends_at_the_longest_time_for_its_clip_and_model(
    fake_page: FakePage, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.find_run_seconds("large", 1800.0, 1) > limits.MOST_RUN_SECONDS
    assert limits.find_run_seconds("base", 60.0, 2) < limits.MOST_RUN_SECONDS
    fake_page.reset(Limits(run_seconds=60.0))
    fake_page.use(cpu=fakes.FakeEngine(last_word=Event()))
    monkeypatch.setattr(comparison, "find_run_seconds", lambda model, seconds, runs: seconds / 6)
    ask: dict[str, Any] = {"sample": "jfk", "engines": ["cpu", "max_hybrid"], "repeats": 1}
    record = connect(fake_page.url).predict(**ask, schedule="parallel", api_name="/compare")
    failed, done = record["lanes"]
    assert done["state"] == "done" and failed["state"] == "failed"
    assert failed["reason"].startswith("Ended after 1 s, the longest that a run of this clip may")

    def read_slowly(path: str, listener: Any) -> Any:
        time.sleep(1.0)
        return fakes.read_fake_clip(path, listener)

    fake_page.load_clip = read_slowly  # which counts
    record = connect(fake_page.url).predict(**ask, schedule="parallel", api_name="/compare")
    assert {lane["state"] for lane in record["lanes"]} == {"failed"}


def test_size_and_length_hold_by_every_route(
    fake_page: FakePage,
    connect: Callable[..., Client],
    sample_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(path: str, listener: Any) -> Any:
        return audio.load_clip(path, max_seconds=1.0)

    fake_page.load_clip = read
    url, clip = fake_page.url, sample_folder / "columbia.flac"
    too_long = "columbia.flac is longer than 1 seconds, the limit"
    with pytest.raises(AppError, match=too_long):
        connect(url).predict(clip=handle_file(clip), api_name="/compare")
    code = base64.b64encode(clip.read_bytes()).decode()
    refused = call_tool(url, clip_base64=code)
    assert refused.isError and "longer than 1 seconds" in refused.content[0].text
    monkeypatch.setattr(middleware, "MOST_BYTES", 100)
    monkeypatch.setattr(middleware, "MOST_TOOL_BYTES", 1000)
    with pytest.raises(httpx.HTTPStatusError, match="413"):
        connect(url).predict(clip=handle_file(clip), api_name="/compare")
    body = {"jsonrpc": "2.0", "id": 1, "method": "x" * 2000}
    assert httpx.post(f"{url}gradio_api/mcp/", json=body).status_code == 413


def test_an_upload_that_fails_leaves_nothing_and_those_under_way_count(
    fake_page: FakePage, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = httpx.URL(fake_page.url)
    head = (
        f"POST /gradio_api/upload?upload_id=mine HTTP/1.1\r\nHost: {address.host}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {50 * 2**20}\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\nRIFF'
    )
    clip = {"files": ("clip.wav", b"RIFF" + bytes(2**20))}
    free = upload_folder.LEAST_DISK_BYTES + 50 * 2**20
    monkeypatch.setattr(upload_folder, "free_bytes", lambda: free)
    monkeypatch.setattr(upload_folder, "MOST_OPEN", 2)
    before = list_files(uploads)
    with ExitStack() as calls:
        call = calls.enter_context(socket.create_connection((address.host, address.port or 80)))
        call.sendall(head.encode() + bytes(2**16))
        wait_until(lambda: list_files(uploads) != before, "the first bytes")
        send = partial(httpx.post, f"{fake_page.url}gradio_api/upload", files=clip)
        assert send().status_code == 507, "the room is promised to the one under way"
        free *= 2
        assert send().status_code == 200
        other = calls.enter_context(socket.create_connection((address.host, address.port or 80)))
        other.sendall(head.encode())
        wait_until(lambda: send().status_code == 429, "a third upload's refusal")
        before = [path for path in list_files(uploads) if path.parent != uploads]
    wait_until(lambda: list_files(uploads) == before, "the end of both halves")
    many = [("files", (f"{number}.wav", b"RIFF")) for number in range(101)]
    answer = httpx.post(f"{fake_page.url}gradio_api/upload", files=many)
    assert answer.status_code == 400 and "100 files may come at a time" in answer.text
    assert list_files(uploads) == before


def test_nothing_is_kept_of_uploads_that_nobody_sends(
    fake_page: FakePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = partial(httpx.get, f"{fake_page.url}gradio_api/upload_progress", timeout=30)
    statuses = [ask(params={"upload_id": name}).status_code for name in ("x" * 60_000, "", "here")]
    assert statuses == [400, 400, 404]
    kept = gradio_hooks.routes.file_upload_statuses
    assert not {"here", "x" * 60_000} & set(kept._signals)
    clip = {"files": ("clip.wav", b"RIFF")}
    sent = httpx.post(f"{fake_page.url}gradio_api/upload?upload_id=sent", files=clip)
    assert sent.status_code == 200 and '"done"' in ask(params={"upload_id": "sent"}).text
    gradio_hooks.forget_progress(lambda name: False)
    assert not kept._signals and not kept._statuses
