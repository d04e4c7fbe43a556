"""The page behind nginx, with the configuration that docs/hosting.md shows."""

from __future__ import annotations

import base64
import grp
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file

from demo import middleware, server
from tests import fakes
from tests.fake_page import FakePage
from tests.processes import wait_until

ROOT = Path(__file__).resolve().parents[1]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/bin")
PASSWORD = "a-long-password"

AROUND = """
daemon off;
user {user} {group};
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/a;
    uwsgi_temp_path {folder}/b;
    scgi_temp_path {folder}/c;
    {server}
}}
"""


def answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}health").status_code == 200
    return False


@pytest.fixture
def proxied(
    serve_fakes: Callable[..., FakePage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address at nginx of a page with a password, its path included."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    monkeypatch.setenv(server.PROXY, "1")
    monkeypatch.setenv(middleware.AUTH, f"team:{PASSWORD}")
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/clips")
    page = serve_fakes()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    documented = (ROOT / "docs" / "hosting.md").read_text("utf-8")
    (block,) = re.findall(r"```\n(server \{.*?)```", documented, re.DOTALL)
    for theirs, ours in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port}"),
        ("location / ", "location /clips/ "),
        ("proxy_pass http://127.0.0.1:7860", f"proxy_pass {page.url}"),
    ):
        assert block.count(theirs) == 1
        block = block.replace(theirs, ours)
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(AROUND.format(folder=tmp_path, server=block, user=user, group=group))
    nginx = subprocess.Popen([NGINX, "-p", str(tmp_path), "-c", str(configuration)])
    url = f"http://127.0.0.1:{port}/clips/"
    try:
        wait_until(lambda: answers(url), "nginx")
        yield url
    finally:
        nginx.terminate()
        nginx.wait()


def test_behind_nginx_with_a_password_a_clip_is_compared(
    proxied: str, sample_folder: Path, connect: Callable[..., Client]
) -> None:
    assert httpx.get(proxied).status_code == 401
    code = base64.b64encode(f"team:{PASSWORD}".encode()).decode()
    me = {"authorization": f"Basic {code}"}
    clip = handle_file(sample_folder / "columbia.flac")
    record = connect(proxied, headers=me).predict(clip=clip, api_name="/compare")
    assert {lane["text"] for lane in record["lanes"]} == {fakes.WORDS}
    for origin, status in (("http://127.0.0.1", 200), ("http://evil.example", 403)):
        files = {"files": ("a.wav", b"RIFF")}
        headers = {**me, "origin": origin}
        sent = httpx.post(f"{proxied}gradio_api/upload", files=files, headers=headers)
        assert sent.status_code == status
    large = {"files": ("a.wav", bytes(2 * 2**20))}  # nginx itself takes no more than 1 MB
    assert httpx.post(f"{proxied}gradio_api/upload", files=large, headers=me).status_code == 200
