"""`python app.py` in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.processes import wait_until

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS, END_SECONDS = 300.0, 60.0
"""Bounds on a busy machine: an end takes some two seconds where nothing else runs."""


class App:
    """The page, with a mark in its environment by which its processes are found."""

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str] = os.environ,
        python: str | Path = sys.executable,
        checkout: Path = ROOT,
    ) -> None:
        """`folder`: where its output goes. `variables`: all of them, if not this process's."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.mark, self.log = uuid.uuid4().hex, folder / "log.txt"
        self.url = f"http://127.0.0.1:{port}/"
        environment = {**variables, "GRADIO_SERVER_PORT": port, "MARK": self.mark}
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [python, "app.py"], cwd=checkout, env=environment, stdout=out, stderr=out
            )
        try:
            wait_until(self.answers, "the start of the page", START_SECONDS)
        except BaseException:
            self.close()
            raise

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}health").status_code == 200
        return False

    def queue(self) -> Any:
        return httpx.get(f"{self.url}health", timeout=60).json()["queue"]

    def find_processes(self) -> list[int]:
        """The living processes with the mark."""
        processes = psutil.process_iter(["environ"])
        return [p.pid for p in processes if (p.info["environ"] or {}).get("MARK") == self.mark]

    def end(self, number: signal.Signals) -> str:
        """Tell it to end; it does, well, and leaves no process. Returns what it printed."""
        self.process.send_signal(number)
        assert self.process.wait(END_SECONDS) == 0, self.log.read_text()
        wait_until(lambda: not self.find_processes(), "the end of every process", END_SECONDS)
        return self.log.read_text()

    def close(self) -> None:
        """Leave nothing behind, whatever the test found."""
        for number in self.find_processes():
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()
