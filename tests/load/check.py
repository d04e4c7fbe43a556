"""Visitors of a page, half as programs and half as browsers: many at once, then one after another.

Each brings a clip of its own length and looks whose words come back. The test here is run by name
alone: `make load-check`, or with fewer, `VISITORS=9 COMPARISONS=30 make load-check`.
"""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import Any

import httpx
import psutil
import soundfile

from engines import registry
from tests.processes import wait_until
from tests.running_app import App

VISITORS = int(os.environ.get("VISITORS", 50))
COMPARISONS = int(os.environ.get("COMPARISONS", 300))
STEP_SECONDS = 0.05
"""By how much each visitor's clip is shorter than the one before."""

READ_SECONDS, START_SECONDS = 120.0, 900.0
"""Bounds for an answer, and for a first comparison, which may compile."""

FLAT, ROOM_BYTES = 0.05, 16 * 2**20
"""How much more memory each process may take at the end than after the first third, as a share and
at the least: what is kept for a while is full by then, and allocators need some room."""


def cut_clips(sample: Path, folder: Path, count: int) -> list[Path]:
    """The sample's beginning in so many lengths, each under a name of its own."""
    samples, rate = soundfile.read(sample, dtype="float32")
    paths = [folder / f"visitor-{number:02}.wav" for number in range(count)]
    for number, path in enumerate(paths):
        kept = len(samples) - round(number * STEP_SECONDS * rate)
        soundfile.write(path, samples[:kept], rate, subtype="PCM_16")
    return paths


def upload(url: str, clip: Path) -> dict[str, Any]:
    """Bring a clip; what the page knows it by."""
    sent = {"files": (clip.name, clip.read_bytes())}
    answer = httpx.post(f"{url}gradio_api/upload", files=sent, timeout=READ_SECONDS)
    return {"path": answer.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}


def predict(url: str, name: str, **sent: Any) -> str:
    """All that an endpoint answers to raw JSON, past every check of a client."""
    call = f"{url}gradio_api/call"
    started = httpx.post(f"{call}/v2/{name}", json=sent, timeout=READ_SECONDS)
    if started.status_code != 200:
        return started.text
    return httpx.get(f"{call}/{name}/{started.json()['event_id']}", timeout=READ_SECONDS).text


def visit_as_program(url: str, clip: Path, engines: Sequence[str]) -> dict[str, Any]:
    """The record by the endpoint `/compare`, as a new session; raises `RuntimeError` if refused."""
    asked = {"clip": upload(url, clip), "engines": list(engines), "schedule": "parallel"}
    answer = predict(url, "compare", **asked)
    *_, last = answer.strip().split("\n\n")
    kind, data = (line.partition(": ")[2] for line in last.splitlines())
    if kind != "complete":
        raise RuntimeError(json.loads(data))
    return json.loads(data)[0]


def start_as_browser(
    http: httpx.Client, clip: Path, engines: Sequence[str]
) -> tuple[str, list[Any], dict[str, int], dict[int, Any]]:
    """Press Compare as a new tab does; its name, the page's listeners, its parts' ids, and by these
    what the parts hold."""
    tab = uuid.uuid4().hex
    config = http.get("config").json()
    parts, listeners = config["components"], config["dependencies"]
    ids = {part["props"].get("elem_id"): part["id"] for part in parts}
    pressed = [each["id"] for each in listeners if [ids["compare"], "click"] in each["targets"]]
    (run,) = (each for each in listeners if each["trigger_after"] in pressed and each["inputs"])
    held = {part["id"]: part["props"].get("value") for part in parts} | {
        run["inputs"][0]: tab,
        ids["sample"]: "own",
        ids["audio"]: upload(str(http.base_url), clip),
        ids["engines"]: list(engines),
    }
    data = [held[each] for each in run["inputs"]]
    body = {"fn_index": run["id"], "session_hash": tab, "data": data}
    http.post("gradio_api/queue/join", json=body).raise_for_status()
    return tab, listeners, ids, held


def visit_as_browser(url: str, clip: Path, engines: Sequence[str]) -> dict[str, Any]:
    """The same by the page's own listeners, as a new tab: press Compare, wait, save the result."""
    with httpx.Client(base_url=url, timeout=READ_SECONDS) as http:
        tab, listeners, ids, held = start_as_browser(http, clip, engines)
        alert = ""
        with http.stream("GET", "gradio_api/queue/data", params={"session_hash": tab}) as stream:
            for line in stream.iter_lines():
                alert = line if "headline alert" in line else alert
                if '"process_completed"' in line:
                    break
        if alert:
            raise RuntimeError(alert)
        save = next(each for each in listeners if [ids["save-json"], "click"] in each["targets"])
        asked = [tab, engines[0], *(held[each] for each in save["inputs"][2:])]
        body = {"fn_index": save["id"], "session_hash": tab, "data": asked}
        parcel = http.post("gradio_api/run/predict", json=body).json()["data"][0]
    return json.loads(json.loads(parcel)["text"])


def visit_once(url: str, clip: Path, engines: Sequence[str], number: int) -> str | Exception:
    """One visit, by the endpoint or the page in turn: the words, or what came instead, which may
    be another clip's record or an incomplete one."""
    try:
        record = (visit_as_program, visit_as_browser)[number % 2](url, clip, engines)
        seconds = soundfile.info(clip).duration
        assert record["clip"] == clip.name and abs(record["audio_seconds"] - seconds) < 0.01, record
        states = {lane["engine"]: lane["state"] for lane in record["lanes"]}
        assert states == dict.fromkeys(engines, "done"), record["lanes"]
        (words,) = {lane["text"] for lane in record["lanes"]}
        return str(words)
    except Exception as error:
        return error


def visit_at_once(url: str, clips: Sequence[Path], engines: Sequence[str]) -> list[str | Exception]:
    with ThreadPoolExecutor(len(clips)) as pool:
        return list(pool.map(visit_once, repeat(url), clips, repeat(engines), count()))


def measure(app: App) -> Counter[str]:
    """Resident bytes by process: the page's, and its engines' by their key."""
    sizes: Counter[str] = Counter()
    for number in app.find_processes():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(number)
            name = next(
                (word for word in process.cmdline() if word in registry.all_keys()), "other"
            )
            sizes["page" if number == app.process.pid else name] += process.memory_info().rss
    return sizes


def test_many_visitors_and_comparisons_on_the_real_page_leave_nothing(tmp_path: Path) -> None:
    """Each gets the words of its own clip, every time, and no process keeps growing."""
    engines, uploads = registry.available(), tmp_path / "uploads"
    clips = cut_clips(Path("audio_samples/jfk.flac"), tmp_path, VISITORS)
    named = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_TEMP_DIR": str(uploads)}
    named |= {"DEMO_AUTH": "", "DEMO_QUEUE": str(VISITORS)}
    with closing(App(tmp_path, os.environ | named)) as app:
        first = partial(visit_once, app.url, clips[0], engines, 0)
        wait_until(lambda: app.answers() and isinstance(first(), str), "words", START_SECONDS)
        crowd = visit_at_once(app.url, clips, engines)
        assert not [each for each in crowd if isinstance(each, Exception)]
        marks = []
        for number in range(COMPARISONS):
            at = number // 2 % VISITORS
            assert visit_once(app.url, clips[at], engines, number) == crowd[at]
            if (number + 1) * 3 % COMPARISONS < 3:
                marks.append(measure(app))
                print(f"after {number + 1}: { ({n: s >> 20 for n, s in marks[-1].items()}) } MiB")
        for name, last in marks[-1].items():
            assert last - marks[0][name] <= max(FLAT * marks[0][name], ROOM_BYTES), (name, marks)
        app.end(signal.SIGTERM)
    assert not [path for path in uploads.rglob("*") if path.is_file()]
