"""Puts visitors on the page, many at once and then one after another: `python -m tests.load.check`.

Starts `python app.py` with the default checkpoint. Each visitor brings a clip of its own length and
looks whose words come back; half come as programs and half as browsers do. Ends with status 1 where
one got another's result or none, a process kept growing, or anything is left after the end.

    make load-check
    make load-check ARGS="--visitors 40 --engines cpu"
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import soundfile

from engines import registry
from tests.running_app import App

ROOT = Path(__file__).resolve().parents[2]
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


def upload(http: httpx.Client, clip: Path) -> dict[str, Any]:
    """Bring a clip; what the page knows it by."""
    with clip.open("rb") as file:
        answer = http.post("gradio_api/upload", files={"files": (clip.name, file)})
    return {"path": answer.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}


def visit_as_program(url: str, clip: Path, engines: Sequence[str]) -> dict[str, Any]:
    """The record by the endpoint `/compare`, as a new session; raises `RuntimeError` if refused."""
    with httpx.Client(base_url=url, timeout=READ_SECONDS) as http:
        asked = {"clip": upload(http, clip), "engines": list(engines), "schedule": "parallel"}
        event = http.post("gradio_api/call/v2/compare", json=asked).json()["event_id"]
        answer = http.get(f"gradio_api/call/compare/{event}").text
    *_, last = answer.strip().split("\n\n")
    kind, data = (line.partition(": ")[2] for line in last.splitlines())
    if kind != "complete":
        raise RuntimeError(json.loads(data))
    record: dict[str, Any] = json.loads(data)[0]
    return record


def start_as_browser(
    http: httpx.Client, clip: Path, engines: Sequence[str]
) -> tuple[str, list[Any], dict[str, int], dict[int, Any]]:
    """Press Compare as a new tab does; its name, the page's listeners, its parts' ids, and by these
    what the parts hold."""
    tab = uuid.uuid4().hex
    config = http.get("config").json()
    parts, listeners = config["components"], config["dependencies"]
    ids = {part["props"].get("elem_id"): part["id"] for part in parts}
    pressed = [each for each in listeners if [ids["compare"], "click"] in each["targets"]]
    (run,) = (
        each
        for each in listeners
        if each["trigger_after"] in [first["id"] for first in pressed] and each["inputs"]
    )
    held = {part["id"]: part["props"].get("value") for part in parts} | {
        run["inputs"][0]: tab,
        ids["sample"]: "own",
        ids["audio"]: upload(http, clip),
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
    record: dict[str, Any] = json.loads(json.loads(parcel)["text"])
    return record


def read_words(record: dict[str, Any], clip: Path, engines: Sequence[str]) -> str:
    """The words in a record; asserts that it is this clip's and complete."""
    seconds = soundfile.info(clip).duration
    assert record["clip"] == clip.name and abs(record["audio_seconds"] - seconds) < 0.01, record
    assert {lane["engine"]: lane["state"] for lane in record["lanes"]} == dict.fromkeys(
        engines, "done"
    ), record["lanes"]
    (words,) = {lane["text"] for lane in record["lanes"]}
    return str(words)


def visit_once(url: str, clip: Path, engines: Sequence[str], number: int) -> str | Exception:
    """One visit, by the endpoint or the page in turn: the words, or what came instead."""
    visit = (visit_as_program, visit_as_browser)[number % 2]
    try:
        return read_words(visit(url, clip, engines), clip, engines)
    except Exception as error:
        return error


def visit_at_once(url: str, clips: Sequence[Path], engines: Sequence[str]) -> list[str | Exception]:
    with ThreadPoolExecutor(len(clips)) as pool:
        asked = [(url, clip, engines, number) for number, clip in enumerate(clips)]
        return list(pool.map(lambda each: visit_once(*each), asked))


def measure(app: App) -> dict[str, int]:
    """Resident bytes by process: the page's, and its engines' by their key."""
    sizes: dict[str, int] = {}
    for number in app.find_processes():
        with suppress(OSError):
            words = Path(f"/proc/{number}/cmdline").read_text().split("\0")
            pages = int(Path(f"/proc/{number}/statm").read_text().split()[1])
            name = next((word for word in words if word in registry.all_keys()), "other")
            name = "page" if number == app.process.pid else name
            sizes[name] = sizes.get(name, 0) + pages * os.sysconf("SC_PAGE_SIZE")
    return sizes


def check(app: App, clips: list[Path], options: Any) -> list[str]:
    """Visit a page that runs; a line for each thing that must not be."""
    url, engines, until = app.url, options.engines, time.monotonic() + START_SECONDS
    while isinstance(first := visit_once(url, clips[0], registry.available(), 0), Exception):
        if time.monotonic() > until or app.process.poll() is not None:
            return [f"no comparison came to an end: {first!r}"]
        time.sleep(1.0)
    start = time.monotonic()
    crowd = visit_at_once(url, clips[: options.visitors], engines)
    faults = [
        f"{clip.name}: {got!r}"
        for clip, got in zip(clips, crowd, strict=False)
        if isinstance(got, Exception)
    ]
    print(f"{len(crowd)} visitors at once: {len(faults)} faults, {time.monotonic() - start:.0f} s")
    marks = []
    for number in range(options.comparisons):
        at = number // 2 % len(crowd)
        got = visit_once(url, clips[at], engines, number)
        if got != crowd[at]:
            faults.append(f"{clips[at].name} got {got!r} instead of {crowd[at]!r}")
        if (number + 1) * 3 % options.comparisons < 3:
            marks.append(measure(app))
            print(f"after {number + 1}: { ({n: s >> 20 for n, s in marks[-1].items()}) } MiB")
    for name, last in marks[-1].items():
        before = marks[0].get(name, 0)
        if last - before > max(FLAT * before, ROOM_BYTES):
            faults.append(f"the memory of {name} grew from {before >> 20} to {last >> 20} MiB")
    return faults


def run_check(options: Any, folder: Path) -> list[str]:
    """Start the page in a folder, check it, and end it."""
    clips = cut_clips(ROOT / "audio_samples" / "jfk.flac", folder, options.visitors)
    uploads = folder / "uploads"
    named = {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_TEMP_DIR": str(uploads),
        "DEMO_AUTH": "",
        "DEMO_QUEUE": str(options.visitors),
        "LOG_LEVEL": "warning",
    }
    app, faults = App(folder, os.environ | named), []
    try:
        faults = check(app, clips, options)
        app.end(signal.SIGTERM)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        faults.append(f"the page did not end well: {error}")
    finally:
        app.kill()
    return faults + [f"left after the end: {path}" for path in uploads.rglob("*") if path.is_file()]


def main() -> int:
    """Read the command line and run the check in a temporary folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.check")
    parser.add_argument("--visitors", type=int, default=50, help="at the same time")
    parser.add_argument("--comparisons", type=int, default=300, help="one after another")
    parser.add_argument("--engines", default=",".join(registry.available()), help="keys")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    with tempfile.TemporaryDirectory(prefix="load-check-") as folder:
        faults = run_check(options, Path(folder))
    print(f"{len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
