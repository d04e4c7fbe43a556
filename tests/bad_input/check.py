"""Puts every file of the corpus through the reader of clips: `python -m tests.bad_input.check`.

Prints what came of them, with the longest time and the most memory that a file took, and each
fault. The exit status is 1 if there was one.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bad_input.corpus import SECONDS, TONE_HZ, Case, list_missing, make

ROOT = Path(__file__).resolve().parents[2]

MOST_BYTES = 1536 * 2**20
"""Address space of the process that reads: half an hour of sound is 173 MB as int16 and float32,
and as much again while the parts are put together; the libraries map some hundred MB."""

LONGEST_WAIT = 240.0
"""Seconds for one file, on the slowest machine: what takes longer is taken for a hang."""

NEAR_HERTZ = 4.0
"""Two seconds resolve half a hertz; the coarsest codec (8 kHz AMR) moved the tone by 1."""


@dataclass(frozen=True)
class Result:
    """What came of one file."""

    case: Case
    answer: dict[str, Any]

    @property
    def fault(self) -> str | None:
        """What is wrong with the answer, or None."""
        return find_fault(self.case, self.answer)


@dataclass
class Reader:
    """A process that reads clips; a fresh one takes over where one hung or died."""

    process: subprocess.Popen[str] | None = field(default=None, init=False)
    lines: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue, init=False)

    def read(self, path: Path) -> dict[str, Any]:
        """The worker's answer, or the fault that kept it from giving one."""
        process = self.process or self.start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
            line = self.lines.get(timeout=LONGEST_WAIT)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            self.stop()
            return {"fault": f"hangs: no answer within {LONGEST_WAIT:.0f} s"}
        if not line:
            status = process.wait()
            self.stop()
            return {"fault": f"ends the process, status {status}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(self) -> subprocess.Popen[str]:
        """A fresh process, and a thread that hands on its lines; an empty one is its end."""
        command = [sys.executable, "-m", "tests.bad_input.worker", str(MOST_BYTES)]
        self.process = process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.lines = lines = queue.SimpleQueue[str]()

        def hand_on() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put("")

        threading.Thread(target=hand_on, daemon=True).start()
        return process

    def stop(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def find_fault(case: Case, answer: dict[str, Any]) -> str | None:
    """What an answer lacks to be a right clip or one clear sentence."""
    if "fault" in answer:
        return str(answer["fault"])
    if "sentence" in answer:
        return find_fault_of_sentence(case, answer["sentence"])
    if not answer["sound"]:
        return "gives samples that are no sound"
    if case.outcome == "refused":
        return f"is taken for a clip of {answer['seconds']:.2f} s"
    if case.seconds is not None and abs(answer["seconds"] - case.seconds) > 0.001:
        return f"has {answer['seconds']:.4f} s in place of {case.seconds:.4f} s"
    right = case.outcome == "heard" or case.whole
    if right and abs(answer["hertz"] - TONE_HZ) > NEAR_HERTZ:
        return f"has its tone at {answer['hertz']:.1f} Hz"
    if right and not 0.9 * SECONDS < answer["seconds"] < 1.2 * SECONDS:
        return f"has {answer['seconds']:.2f} s"
    return None


def find_fault_of_sentence(case: Case, sentence: str) -> str | None:
    """A refusal must be due, and one sentence on one line that ends in a full stop."""
    if case.outcome == "heard":
        return f"is refused: {sentence}"
    if not (sentence.endswith(".") and sentence.isprintable() and len(sentence) < 400):
        return f"is refused in no sentence: {sentence!r}"
    return None


def read_all(cases: Sequence[Case]) -> list[Result]:
    """Every case, one after the other."""
    reader = Reader()
    try:
        return [Result(case, reader.read(case.path)) for case in cases]
    finally:
        reader.stop()


def describe(results: Sequence[Result]) -> str:
    """The figures, and a line for each fault."""
    kinds = Counter("refused" if "sentence" in r.answer else "heard" for r in results)
    faults = [f"FAULT {r.case.name} ({r.case.path.name!r}) {r.fault}" for r in results if r.fault]
    longest = max(results, key=lambda r: r.answer.get("took", 0.0))
    peak = max(r.answer.get("peak_bytes", 0) for r in results)
    return "\n".join(
        [
            f"{len(results)} files: {kinds['heard']} heard, {kinds['refused']} refused in a "
            f"sentence, {len(faults)} faults",
            f"longest: {longest.answer.get('took', 0.0):.2f} s ({longest.case.name})",
            f"most memory: {peak / 2**20:.0f} MiB resident, of {MOST_BYTES / 2**20:.0f} MiB "
            "of address space allowed",
            *faults,
        ]
    )


def main() -> int:
    """Make the corpus in a temporary folder, read it, print the figures."""
    with tempfile.TemporaryDirectory(prefix="bad-input-") as folder:
        cases = make(Path(folder))
        results = read_all(cases)
    print(describe(results))
    if missing := list_missing(cases):
        print(f"not written by this ffmpeg: {', '.join(missing)}")
    return 1 if any(result.fault for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
