"""Visitors of a page that runs elsewhere: each brings a clip of its own and looks whose words come
back.

`by_program` asks as `gradio_client` does, `by_page` as the page in a browser does.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

STEP_SECONDS = 0.05
"""By how much each visitor's clip is shorter than the one before."""

READ_SECONDS = 120.0
"""The page says something at least every quarter of a minute."""

ALERT = re.compile(r'.*class=\\"summary\\">(?:<span[^>]*>[^<]*</span>)?([^<]*)</p>.*')
"""The sentence in a message, in JSON, that has a refusal in the summary."""


@dataclass(frozen=True)
class Clip:
    """A clip like no other, by name and length."""

    path: Path
    seconds: float


@dataclass(frozen=True)
class Visit:
    """What came of one visit: words, or a refusal, or a fault of the page's.

    `seconds`: from asking to the answer. `by_page`: whether the clip was brought to the page, which
    keeps it for an hour, and not to an endpoint. Gradio tells a program of a crash as it tells of a
    refusal, so whoever counts refusals must read them.
    """

    clip: Clip
    seconds: float
    text: str | None = None
    refusal: str | None = None
    fault: str | None = None
    by_page: bool = False


Ask = Callable[[str, Clip, Sequence[str]], str]
"""`ask(url, clip, engines)` gives the words; raises `AppError` for a refusal, `Wrong` for another's
result, and anything else for a fault."""


class Wrong(Exception):
    """A result that is not of the clip that was sent."""


def cut_clips(sample: Path, folder: Path, count: int) -> list[Clip]:
    """The sample's beginning in so many lengths, each under a name of its own."""
    samples, rate = soundfile.read(sample, dtype="float32")
    clips = []
    for number in range(count):
        kept = len(samples) - round(number * STEP_SECONDS * rate)
        path = folder / f"visitor-{number:02}.wav"
        soundfile.write(path, samples[:kept], rate, subtype="PCM_16")
        clips.append(Clip(path, kept / rate))
    return clips


def by_program(url: str, clip: Clip, engines: Sequence[str]) -> str:
    """Through the endpoint `/compare`, as a new session."""
    client = Client(url, verbose=False, httpx_kwargs={"timeout": READ_SECONDS})
    try:
        record = client.predict(
            clip=handle_file(clip.path),
            engines=list(engines),
            schedule="parallel",
            api_name="/compare",
        )
    finally:
        client.close()
    return read_words(record, clip, engines)


def by_page(url: str, clip: Clip, engines: Sequence[str]) -> str:
    """Through the page's own listeners, as a new tab: press Compare, wait, save the result."""
    with httpx.Client(base_url=url, timeout=READ_SECONDS) as http:
        record = Tab(http, http.get("config").json()).compare(clip, engines)
    return read_words(record, clip, engines)


def read_words(record: dict[str, Any], clip: Clip, engines: Sequence[str]) -> str:
    """The words in a result, if it is this clip's and every engine wrote the same."""
    if record["clip"] != clip.path.name or abs(record["audio_seconds"] - clip.seconds) > 0.01:
        raise Wrong(f"{clip.path.name} got {record['clip']} of {record['audio_seconds']:.2f} s")
    found = [lane["engine"] for lane in record["lanes"] if lane["state"] == "done"]
    if sorted(found) != sorted(engines):
        states = {lane["engine"]: lane["reason"] or lane["state"] for lane in record["lanes"]}
        raise RuntimeError(f"the lanes ended as {states}")
    texts = {lane["text"] for lane in record["lanes"]}
    if len(texts) != 1:
        raise Wrong(f"the lanes of {clip.path.name} wrote {texts}")
    return str(texts.pop())


class Tab:
    """A browser's tab: it calls the page's listeners by number, in a browser's order."""

    def __init__(self, http: httpx.Client, config: dict[str, Any]) -> None:
        self.http, self.session = http, uuid.uuid4().hex[:11]
        self.parts = config["components"]
        self.listeners = config["dependencies"]
        self.begin = self.find_click("compare")
        self.run = next(one for one in self.listeners if one["trigger_after"] == self.begin["id"])
        self.save = self.find_click("save-record")

    def find(self, name: str) -> int:
        """A component's number."""
        found: int = next(one["id"] for one in self.parts if one["props"].get("elem_id") == name)
        return found

    def find_click(self, name: str) -> dict[str, Any]:
        """What a button starts on the server."""
        click = [self.find(name), "click"]
        found: dict[str, Any] = next(
            one for one in self.listeners if click in one["targets"] and one["outputs"]
        )
        return found

    def compare(self, clip: Clip, engines: Sequence[str]) -> dict[str, Any]:
        """The result as the page saves it; raises `AppError` with the sentence of a refusal."""
        with clip.path.open("rb") as file:
            files = {"files": (clip.path.name, file)}
            (path,) = self.http.post("gradio_api/upload", files=files).raise_for_status().json()
        held = {
            self.find("sample"): "own",
            self.find("audio"): {"path": path, "meta": {"_type": "gradio.FileData"}},
            self.find("engines"): list(engines),
        }
        held = {one["id"]: one["props"].get("value") for one in self.parts} | held
        self.call(self.begin, [self.session])
        self.join([self.session, *(held[part] for part in self.run["inputs"][1:])])
        self.listen()
        parcel = self.call(self.save, [self.session])[0]
        record: dict[str, Any] = json.loads(json.loads(parcel)["text"])
        return record

    def call(self, listener: dict[str, Any], data: list[Any]) -> list[Any]:
        """What a quick listener gives."""
        body = {"fn_index": listener["id"], "session_hash": self.session, "data": data}
        answer = self.http.post("gradio_api/run/predict", json=body).raise_for_status()
        values: list[Any] = answer.json()["data"]
        return values

    def join(self, data: list[Any]) -> None:
        """Ask for the run itself."""
        body = {"fn_index": self.run["id"], "session_hash": self.session, "data": data}
        self.http.post("gradio_api/queue/join", json=body).raise_for_status()

    def listen(self) -> None:
        """Hear the messages until the run's last one."""
        alert = ""
        road = f"gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", road) as stream:
            for line in stream.iter_lines():
                if "headline alert" in line:
                    alert = ALERT.sub(r"\1", line)
                if '"process_completed"' in line:
                    break
        if alert:
            raise AppError(alert)


def visit(ask: Ask, url: str, clip: Clip, engines: Sequence[str]) -> Visit:
    """One visit, whatever comes of it."""
    start = time.perf_counter()
    found: dict[str, Any] = {}
    try:
        found["text"] = ask(url, clip, engines)
    except AppError as error:
        found["refusal"] = str(error)
    except Exception as error:
        found["fault"] = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    return Visit(clip, seconds, by_page=ask is by_page, **found)


def visit_at_once(url: str, clips: Sequence[Clip], engines: Sequence[str]) -> list[Visit]:
    """Every clip's visitor at the same time, by the endpoint and by the page in turn."""
    together = threading.Barrier(len(clips))

    def come(number: int) -> Visit:
        together.wait(READ_SECONDS)
        return visit((by_program, by_page)[number % 2], url, clips[number], engines)

    with ThreadPoolExecutor(len(clips)) as pool:
        return list(pool.map(come, range(len(clips))))


def find_swaps(visits: Sequence[Visit]) -> list[str]:
    """Clips that were given other words on one visit than on another."""
    texts: dict[str, set[str]] = {}
    for one in visits:
        if one.text is not None:
            texts.setdefault(one.clip.path.name, set()).add(one.text)
    return [f"{name} got {sorted(found)}" for name, found in texts.items() if len(found) > 1]
