"""Puts visitors on the page, many at once and then one after another: `python -m tests.load.check`.

Starts `python app.py` with the default checkpoint. First `--visitors` come at the same time, half
of them as programs and half as browsers, each with a clip of its own length; then come
`--comparisons` one after another, each a new session. Prints what came of them, what they waited,
the memory of the page and of its engines' processes on the way, and the files that are left. The
exit status is 1 where a visitor got another's result, or neither a result nor word that the queue
is full, where more were told so than must be, where a process kept growing, or where an endpoint's
clip or, after the end, any file or process is left.

    make load-check
    make load-check ARGS="--visitors 80 --queue 20 --engines cpu"
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from engines import registry
from tests.load import visitors
from tests.load.visitors import Visit
from tests.processes import read_stat

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "audio_samples" / "jfk.flac"

START_SECONDS, READY_SECONDS, END_SECONDS = 180.0, 900.0, 30.0
"""Bounds for the page's start, for the first comparison, which may compile, and for its end."""

DIFFERENT_CLIPS = 20
"""Clips that the visitors who come one after another bring in turn."""

FLAT, ROOM_BYTES = 0.05, 16 * 2**20
"""How much more memory each process may take at the end than after the first third, as a share and
at the least: what it holds for a while, as the last 64 visits, is full by then, and allocators need
some room."""

FULL = "The queue is full, "
"""How the one refusal begins that a visitor may get here."""


@dataclass
class Memory:
    """Resident bytes of the page's process, and of all it started, after so many comparisons."""

    after: int
    page: int
    engines: dict[str, int]

    @property
    def total(self) -> int:
        """All of it."""
        return self.page + sum(self.engines.values())

    @property
    def parts(self) -> dict[str, int]:
        """Each process's share, by its name."""
        return {"page": self.page, **self.engines}

    def describe(self) -> str:
        """One line."""
        parts = [f"page {mega(self.page)}"]
        parts += [f"{name} {mega(size)}" for name, size in sorted(self.engines.items())]
        return f"  after {self.after:>4}: {mega(self.total):>9} = {', '.join(parts)}"


@dataclass
class Report:
    """All that is printed."""

    queue: int
    crowd: list[Visit]
    crowd_seconds: float
    line: list[Visit] = field(default_factory=list)
    line_seconds: float = 0.0
    memory: list[Memory] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    end_seconds: float = 0.0
    status: int | None = None

    def list_growth(self) -> Iterator[tuple[str, int, int]]:
        """Each process's name, and its bytes at the first third's end and at the end."""
        if len(self.memory) >= 3:
            first, last = self.memory[1].parts, self.memory[-1].parts
            for name in sorted({*first, *last}):
                yield name, first.get(name, 0), last.get(name, 0)

    def list_faults(self) -> list[str]:
        """A line for each thing that must not be."""
        visits = [*self.crowd, *self.line]
        faults = [f"{one.clip.path.name}: {one.fault}" for one in visits if one.fault]
        faults += self.list_refusals()
        faults += visitors.find_swaps(visits)
        faults += [
            f"the memory of {name} grew from {mega(first)} to {mega(last)} after the first third"
            for name, first, last in self.list_growth()
            if last - first > max(FLAT * first, ROOM_BYTES)
        ]
        brought = Counter(one.clip.path.name for one in visits if one.by_page)
        faults += [
            f"left by a program's call: {name}"
            for name in (Counter(self.files) - brought).elements()
        ]
        faults += [f"left after the end: {one}" for one in self.left]
        if self.status != 0:
            faults.append(f"the page ended with status {self.status}")
        return faults

    def list_refusals(self) -> Iterator[str]:
        """A line for each refusal but of those for whom the queue had no place."""
        full = [one for one in self.crowd if (one.refusal or "").startswith(FULL)]
        for one in [*self.crowd, *self.line]:
            if one.refusal and one not in full:
                yield f"{one.clip.path.name} was refused: {one.refusal}"
        most = max(0, len(self.crowd) - self.queue - 1)
        if len(full) > most:
            yield f"{len(full)} visitors found the queue full, and {most} is the most that may"
        for one in full:
            if not is_sentence(one.refusal or ""):
                yield f"{one.clip.path.name} was refused in no sentence: {one.refusal!r}"

    def describe(self) -> str:
        """The figures, and a line for each fault."""
        faults, visits = self.list_faults(), [*self.crowd, *self.line]
        lines = [
            f"{len(self.crowd)} visitors at once: {count(self.crowd)}",
            f"  {describe_waits(self.crowd, self.crowd_seconds)}",
            *sorted({f"  refused: {one.refusal}" for one in self.crowd if one.refusal}),
            f"{len(self.line)} comparisons one after another: {count(self.line)}",
            f"  {describe_waits(self.line, self.line_seconds)}",
            "memory, resident:",
            *(one.describe() for one in self.memory),
            *(
                f"  {name} after the first third: {(last - first) / 2**20:+.1f} MiB, "
                f"of {max(FLAT * first, ROOM_BYTES) / 2**20:.0f} allowed"
                for name, first, last in self.list_growth()
            ),
            f"clips kept for their hour: {len(self.files)}, brought to the page: "
            f"{sum(one.by_page for one in visits)}; left after the end: {len(self.left)}",
            f"the end took {self.end_seconds:.1f} s, status {self.status}",
            f"{len(faults)} faults",
            *(f"FAULT {fault}" for fault in faults),
        ]
        return "\n".join(lines)


def count(visits: Sequence[Visit]) -> str:
    """How many of each outcome."""
    kinds = [
        (sum(one.text is not None for one in visits), "results"),
        (sum(one.refusal is not None for one in visits), "refusals"),
        (sum("Wrong:" in (one.fault or "") for one in visits), "of another's words"),
        (sum("Wrong:" not in one.fault for one in visits if one.fault), "faults"),
    ]
    return ", ".join(f"{number} {kind}" for number, kind in kinds)


def describe_waits(visits: Sequence[Visit], seconds: float) -> str:
    """From asking to the answer."""
    waits = sorted(one.seconds for one in visits if one.text is not None)
    if not waits:
        return "nobody got a result"
    middle = statistics.median(waits)
    return (
        f"from asking to the words: {waits[0]:.1f} s the first, {middle:.1f} s the median, "
        f"{waits[-1]:.1f} s the last; all in {seconds:.1f} s"
    )


def is_sentence(text: str) -> bool:
    """One line that ends in a full stop."""
    return text.endswith(".") and text.isprintable() and len(text) < 300


def mega(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 2**20:.0f} MiB"


class Page:
    """`python app.py` in a process of its own."""

    def __init__(self, folder: Path, queue: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self.uploads = f"http://127.0.0.1:{port}/", folder / "uploads"
        self.log = folder / "log.txt"
        environment = {
            **os.environ,
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(self.uploads),
            "DEMO_QUEUE": str(queue),
            "LOG_LEVEL": "warning",
        }
        environment.pop("DEMO_AUTH", None)
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=out, stderr=out
            )

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise SystemExit(f"the page ended:\n{self.log.read_text()}")
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}health").status_code == 200:
                    return
            time.sleep(0.2)
        raise SystemExit(f"the page did not answer:\n{self.log.read_text()}")

    def list_clips(self) -> list[str]:
        """Visitors' clips that lie in the folder for uploads."""
        return sorted(path.name for path in self.uploads.rglob("visitor-*"))

    def measure(self, after: int) -> Memory:
        """Resident memory, by process."""
        engines: dict[str, int] = {}
        for number in list_children(self.process.pid):
            name, size = read_process(number)
            engines[name] = engines.get(name, 0) + size
        return Memory(after, read_process(self.process.pid)[1], engines)

    def end(self) -> tuple[int | None, float, list[str]]:
        """Ask it to end: the status, the seconds, and processes and files that are left."""
        children = list_children(self.process.pid)
        start = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        try:
            status: int | None = self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = None
        seconds = time.perf_counter() - start
        time.sleep(0.5)
        left = [f"process {number}" for number in children if is_running(number)]
        left += [str(path) for path in self.uploads.rglob("*") if path.is_file()]
        return status, seconds, left


def list_children(parent: int) -> list[int]:
    """Every process that descends from another, from Linux's /proc."""
    parents: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            stat = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(stat[1]), []).append(int(name))
    found, open_ones = [], [parent]
    while open_ones:
        children = parents.get(open_ones.pop(), [])
        found += children
        open_ones += children
    return found


def is_running(number: int) -> bool:
    """Whether a process runs; one that ended and waits for somebody to ask its status does not."""
    try:
        return read_stat(str(number))[0] != "Z"
    except OSError:
        return False


def read_process(number: int) -> tuple[str, int]:
    """What a process is called here, and its resident bytes; nothing where it is gone."""
    try:
        words = Path(f"/proc/{number}/cmdline").read_text().split("\0")
        fields = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return "gone", 0
    name = next((word for word in words if word in registry.all_keys()), "other")
    sizes = [int(line.split()[1]) for line in fields if line.startswith("VmRSS:")]
    return name, 1024 * sum(sizes)


def check(options: argparse.Namespace, folder: Path, engines: Sequence[str]) -> Report:
    """The whole of it."""
    (folder / "clips").mkdir()
    clips = visitors.cut_clips(SAMPLE, folder / "clips", max(options.visitors, DIFFERENT_CLIPS))
    page = Page(folder, options.queue)
    try:
        page.wait()
        warm_up(page, clips[0], registry.available())  # the page prepares all, asked for or not
        start = time.perf_counter()
        crowd = visitors.visit_at_once(page.url, clips[: options.visitors], engines)
        report = Report(options.queue, crowd, time.perf_counter() - start)
        tell(f"{len(crowd)} visitors at once: {count(crowd)}")
        come_one_by_one(page, clips[:DIFFERENT_CLIPS], engines, options.comparisons, report)
        report.files = page.list_clips()
        report.status, report.end_seconds, report.left = page.end()
    finally:
        if page.process.poll() is None:
            page.end()
    return report


def warm_up(page: Page, clip: visitors.Clip, engines: Sequence[str]) -> None:
    """One comparison, which waits for the engines to be ready; they may have to be compiled."""
    until = time.monotonic() + READY_SECONDS
    while True:
        first = visitors.visit(visitors.by_program, page.url, clip, engines)
        if first.text is not None:
            return
        if time.monotonic() > until:
            raise SystemExit(f"no comparison came to an end: {first.fault or first.refusal}")
        time.sleep(1.0)


def come_one_by_one(
    page: Page, clips: Sequence[visitors.Clip], engines: Sequence[str], many: int, report: Report
) -> None:
    """New sessions one after another, and the memory at the start and after every third."""
    marks = {round(many * third / 3) for third in (1, 2, 3)}
    report.memory.append(page.measure(0))
    start = time.perf_counter()
    for number in range(many):
        ask = (visitors.by_program, visitors.by_page)[number % 2]
        clip = clips[number // 2 % len(clips)]
        report.line.append(visitors.visit(ask, page.url, clip, engines))
        if number + 1 in marks:
            report.memory.append(page.measure(number + 1))
            tell(report.memory[-1].describe().strip())
    report.line_seconds = time.perf_counter() - start


def tell(line: str) -> None:
    """Progress, apart from the figures."""
    print(line, file=sys.stderr, flush=True)


def read_options(arguments: Sequence[str] | None = None) -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.check", description="Put visitors on the page and count."
    )
    parser.add_argument("--visitors", type=int, default=50, help="at the same time")
    parser.add_argument("--comparisons", type=int, default=300, help="one after another")
    parser.add_argument("--queue", type=int, default=50, help="how many may wait: DEMO_QUEUE")
    parser.add_argument("--engines", help="keys with commas; all of this machine unless given")
    options = parser.parse_args(arguments)
    for name in ("visitors", "comparisons", "queue"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    known = registry.available()
    options.engines = options.engines.split(",") if options.engines else list(known)
    if wrong := [key for key in options.engines if key not in known]:
        parser.error(f"this machine has no engine {wrong[0]!r}: use some of {','.join(known)}")
    return options


def main() -> int:
    """Run the check in a temporary folder and print the report."""
    if not Path("/proc/self/status").exists():
        print("This check reads Linux's /proc, which this machine lacks.")
        return 2
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="load-check-") as folder:
        report = check(options, Path(folder), options.engines)
    print(f"engines: {', '.join(options.engines)}; {options.queue} may wait")
    print(report.describe())
    return 1 if report.list_faults() else 0


if __name__ == "__main__":
    sys.exit(main())
