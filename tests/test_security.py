"""What strangers try: reading files, making the server fetch, markup, huge bodies, no password.

The shapes are those of Gradio's published advisories: path traversal and prefixes in `/file=`,
file objects with paths of the server, addresses to fetch from inside, components' own functions.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import socket
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio import processing_utils

from demo import middleware, page, server
from demo.jobs import JobQueue
from demo.visits import SavedResults
from tests import fakes
from tests.fake_page import FakePage, make_backend
from tests.load.check import predict

ROOT = Path(__file__).resolve().parents[1]
META = {"_type": "gradio.FileData"}
SECRET = "only for the machine's owner"


@pytest.fixture
def url(fake_page: FakePage) -> str:
    return fake_page.url


@pytest.fixture(scope="module")
def public(serve_fakes: Callable[..., FakePage]) -> str:
    """Where a page is that others reach, as on a Space."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(server.PROXY, "1")
        return serve_fakes().url


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that no visitor may read."""
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return path


def test_no_file_of_the_machine_is_served(url: str, secret: Path) -> None:
    dots = "../" * 12
    for path in (
        str(secret),
        f"//{str(secret)[1:]}",
        f"file://{secret}",
        f"{dots}etc/passwd",
        "..%2f..%2f..%2f..%2fetc/passwd",
        f"{ROOT}/audio_samples/../app.py",
        "audio_samples/..%2fapp.py",
        "app.py",
        f"{ROOT}/.git/config",
        "/proc/self/environ",
    ):
        for route in ("gradio_api/file=", "gradio_api/file/", "file=", "static/", "assets/",
                     "svelte/", "gradio_api/custom_component/1/client/x/"):  # fmt: skip
            answer = httpx.get(f"{url}{route}{path}").text
            for inside in (SECRET, "root:", "from demo import page", "repositoryformat"):
                assert inside not in answer, f"{route}{path}"
            assert "GRADIO_ANALYTICS_ENABLED" not in answer


@pytest.mark.parametrize("shape", [{}, {"meta": META}, {"meta": META, "is_stream": True}])
def test_no_file_of_the_machine_is_a_clip(
    shape: dict[str, Any], url: str, uploads: Path, secret: Path
) -> None:
    link = uploads / "link.wav"
    link.symlink_to(secret)
    for path in (secret, f"file://{secret}", "../../../../etc/passwd", link):
        clip = {"path": str(path), "url": str(path), **shape}
        answer = predict(url, "transcribe", clip=clip)
        assert "event: error" in answer
        assert SECRET not in answer and "root:" not in answer
    link.unlink()


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/x", "http://169.254.169.254/x", "HTTPS://example.org/x.wav"]
)
def test_no_address_is_fetched(address: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def note(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise ConnectionError

    for name in ("get", "async_validate_url"):
        monkeypatch.setattr(processing_utils.sh, name, note)
    whole = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in ("127.0.0.1", "localhost", None):
            asked.append(host)
        return whole(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    for route in ("gradio_api/file=", "gradio_api/file/", "gradio_api/proxy="):
        assert httpx.get(f"{url}{route}{address}").status_code in (400, 403, 404)
    clip = {"path": address, "url": address, "meta": META}
    for name in ("clip", "sample"):
        assert "event: error" in predict(url, "transcribe", **{name: clip})
    assert not asked


def test_a_sample_of_the_page_is_nobody_s_clip(
    url: str, uploads: Path, sample_folder: Path
) -> None:
    """The page tells every visitor where it lies; a clip is deleted at the end of its call."""
    held = str(sample_folder / "jfk.flac")
    assert held in httpx.get(f"{url}config").text.replace("\\/", "/")
    answer = predict(url, "transcribe", clip={"path": held, "meta": META})
    assert "not a file that was uploaded here" in answer and Path(held).exists()
    assert not list(uploads.rglob("*.flac")), "the page copies no sample"


def test_routes_nobody_needs_are_closed(url: str) -> None:
    assert httpx.post(f"{url}gradio_api/process_recording").status_code == 403
    assert httpx.get(f"{url}gradio_api/deep_link?session_hash=x").status_code == 403
    assert httpx.post(f"{url}gradio_api/vibe-edit/", json={}).status_code == 403
    for function in ("preprocess", "move_resource_to_block_cache", "__init__", "get_config"):
        body = {"session_hash": "x", "component_id": 1, "fn_name": function, "data": "/etc/passwd"}
        assert httpx.post(f"{url}gradio_api/component_server", json=body).status_code == 403


def test_gradio_s_run_history_is_not_here(url: str) -> None:
    """CVE-2026-134825 needs it; a forged host is asked for it in vain."""
    for host in ("localhost", "127.0.0.1:7860"):
        for route in ("runs", "gradio_api/runs", "gradio_api/runs/x", "gradio_api/run-history"):
            assert httpx.get(f"{url}{route}", headers={"host": host}).status_code == 404, route


def test_bodies_have_a_limit_whatever_they_say(url: str) -> None:
    huge = {"data": ["x" * (middleware.MOST_JSON_BYTES + 1)]}
    assert httpx.post(f"{url}gradio_api/call/compare", json=huge).status_code == 413

    def drip() -> Any:
        for _ in range(40):
            yield b" " * 2**16

    answer = httpx.post(f"{url}gradio_api/queue/join", content=drip())
    assert answer.status_code in (400, 413) and "event_id" not in answer.text


def test_an_uploaded_page_is_never_shown_as_one(url: str) -> None:
    script = b"<script>alert(1)</script>"
    files = {"files": ("evil.html", script, "text/html")}
    (path,) = httpx.post(f"{url}gradio_api/upload", files=files).json()
    answer = httpx.get(f"{url}gradio_api/file={path}")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "html" not in answer.headers["content-type"]


def test_nothing_but_health_answers_without_the_password(
    serve_fakes: Callable[..., FakePage],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(middleware.AUTH, "me:hush-hush")
    url = serve_fakes().url

    def encode(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    wrong = ("me:wrong", "me:", "me:hush-hush\n")
    given = [f"Basic {encode(each)}" for each in wrong]
    for header in (None, "Basic", "Basic !!!", *given, f"Bearer {encode('me:hush-hush')}"):
        headers = {"authorization": header} if header else {}
        for route in ("", "config", "gradio_api/info", "gradio_api/file=x", "gradio_api/mcp/",
                      "theme.css"):  # fmt: skip
            answer = httpx.get(f"{url}{route}", headers=headers)
            assert answer.status_code == 401 and "Basic" in answer.headers["www-authenticate"]
        assert httpx.post(f"{url}gradio_api/upload", headers=headers).status_code == 401
        assert httpx.get(f"{url}health", headers=headers).status_code == 200
    for route in ("", "config"):
        answer = httpx.get(f"{url}{route}", auth=("me", "hush-hush"))
        assert answer.status_code == 200 and "hush-hush" not in answer.text
    out, err = capfd.readouterr()
    assert "hush-hush" not in caplog.text + out + err


def test_health_is_said_and_illness_too(url: str) -> None:
    answer = httpx.get(f"{url}health")
    assert answer.status_code == 200 and answer.json()["status"] == "ok"
    assert answer.json()["memory_bytes"] > 0
    assert server.find_problem([fakes.GPU], 10**12) == "No engine can run."
    assert "left" in str(server.find_problem([fakes.CPU], 1000))
    assert server.find_problem([fakes.CPU, fakes.GPU], 10**12) is None


def test_the_page_names_no_path_of_the_machine(url: str) -> None:
    """Its samples are named below the project's folder, wherever that is."""
    built = page.build(make_backend(server.SAMPLES), JobQueue(), SavedResults())
    told = {"config": json.dumps(built.get_config_file())}
    assert tempfile.gettempdir() not in told["config"], "where the uploads are"
    sample = httpx.get(f"{url}gradio_api/file={server.SAMPLES}/jfk.flac")
    assert sample.status_code == 200 and f'"{server.SAMPLES}/jfk.flac"' in told["config"]
    for route in ("", "health", "gradio_api/info"):
        answer = httpx.get(f"{url}{route}")
        assert answer.status_code == 200
        told[route] = answer.text
    for where, text in told.items():
        for place in (ROOT, Path.home()):
            assert not re.search(rf"{place}\b", text), f"{where} names {place}"


def test_on_its_own_machine_the_page_answers_no_other_name(url: str) -> None:
    """Nor a page of another site, whose name may have been made to lead here."""
    clip = {"files": ("a.wav", b"RIFF")}
    for headers in (
        {"host": "evil.example"},
        {"host": "evil.example:7860", "origin": "http://evil.example:7860"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
    ):
        for route in ("config", "gradio_api/info", "gradio_api/mcp/", "health"):
            assert httpx.get(f"{url}{route}", headers=headers).status_code == 421
        sent = httpx.post(f"{url}gradio_api/upload", files=clip, headers=headers)
        assert sent.status_code == 421 and "localhost" in sent.text
    for host in ("localhost:1", "127.0.0.1", "[::1]:7860"):
        headers = {"host": host, "origin": f"http://{host}"}
        assert httpx.get(f"{url}config", headers=headers).status_code == 200


SPACE = "somebody-one-clip.hf.space"


@pytest.mark.parametrize("route", ["upload", "mcp/", "call/compare"])
def test_a_page_of_another_site_changes_nothing_on_a_public_one(route: str, public: str) -> None:
    """A Space's own page, shown in a frame of huggingface.co, sends from the Space's host."""
    bodies: dict[str, dict[str, Any]] = {
        "upload": {"files": {"files": ("a.wav", b"RIFF")}},
        "mcp/": {"json": {"jsonrpc": "2.0", "id": 1, "method": "ping"}},
        "call/compare": {"json": {"data": []}},
    }
    accept = "application/json, text/event-stream"
    for passes, headers in (
        (True, {}),
        (True, {"origin": f"https://{SPACE}"}),
        (True, {"origin": f"http://{SPACE}:8443"}),
        (True, {"origin": f"https://{SPACE}", "sec-fetch-site": "same-origin"}),
        (True, {"origin": "https://clips.example", "sec-fetch-site": "same-origin"}),
        (False, {"origin": "https://evil.example"}),
        (False, {"origin": "https://evil.example", "x-forwarded-host": "evil.example"}),
        (False, {"origin": f"https://{SPACE}.evil.example"}),
        (False, {"origin": "https://other.hf.space", "sec-fetch-site": "same-site"}),
        (False, {"origin": f"https://{SPACE}", "sec-fetch-site": "cross-site"}),
        (False, {"origin": "null"}),
        (False, {"origin": "https://[evil"}),
    ):
        sent = {"host": SPACE, "accept": accept, **headers}
        answer = httpx.post(f"{public}gradio_api/{route}", headers=sent, **bodies[route])
        assert (answer.status_code == 200) is passes, (headers, answer.text)
        assert passes or (answer.status_code == 403 and "another site" in answer.text)
        assert httpx.get(f"{public}config", headers=sent).status_code == 200, "a link leads here"


def test_a_request_that_makes_no_sense_is_answered_in_a_sentence(
    url: str, sample_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sample = f"{url}gradio_api/file={sample_folder / 'jfk.flac'}"
    ranges = ("bytes=0-1,5-6", "bytes=--5", "bytes=²-³", "x", "bytes=5-2", "bytes=999999999-")
    for value in ranges:
        answer = httpx.get(sample, headers={b"range": value.encode()})
        assert answer.status_code in (206, 416), value
    assert httpx.get(sample, headers={"range": "bytes=0-9"}).status_code == 206
    for route, body in (
        ("call/v2/nothing", {}),
        ("call/nothing", {"data": []}),
        ("call/transcribe", {"data": [1] * 99}),
        ("queue/join", {"data": [], "fn_index": 10**6, "session_hash": "x"}),
        ("queue/join", {"data": [], "fn_index": -1, "session_hash": "x"}),
        ("run/predict", {"data": [[]] * 40, "fn_index": 3}),
        ("cancel", {"session_hash": None, "fn_index": "x", "event_id": 5}),
    ):
        answer = httpx.post(f"{url}gradio_api/{route}", json=body)
        assert answer.status_code < 500, (route, body, answer.text)
    kind = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    for route, depth in product(("call/transcribe", "queue/join", "mcp/"), (101, 500, 100_000)):
        nested = '{"x":' * depth + "0" + "}" * depth
        answer = httpx.post(f"{url}gradio_api/{route}", content=nested, headers=kind, timeout=60)
        assert answer.status_code == 400 and "docs/api.md" in answer.text, (route, answer.text)
    forged = [{"path": path, "meta": META} for path in ("/etc/passwd", "x" * 5000, "\0", "~a/b")]
    for clip in (*forged, {"path": None, "url": "a"}, {"a": 1}, [1]):
        answer_text = predict(url, "transcribe", clip=clip)
        assert "null" not in answer_text.partition("event: error")[2], clip
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err, err[-3000:]
