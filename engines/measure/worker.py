"""Engines in a process of their own: `python -m engines.measure.worker`, lines of JSON both ways.

An engine that is killed, or that takes all memory, then takes nobody along; and the memory a
process holds at its peak is that of one engine.

A request has `engine` and `model`, and `clip` (a path) and `options` (fields of `Options`) where a
clip is to be run. A reply is `{"prepared": …}`, `{"run": …}` or `{"error": sentence}`; before it
come any number of `{"progress": text}`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

from engines.base import Engine, EngineError, Options, PrepareSeconds, Transcript

ROOT = Path(__file__).parents[2]
PATIENCE = 5.0
"""Seconds that a process has to end by itself."""

Reply = dict[str, Any]
Get = Callable[[str, str], Engine]
Progress = Callable[[str], None]


class EngineDied(EngineError):
    """The process of an engine ended before it had answered."""


@dataclass(frozen=True)
class Run:
    """What a process tells of one transcript.

    `seconds`: by stage, with their total. `peak_memory_bytes`: most that the process ever had
    resident, the interpreter and its packages included; None where the system does not tell.
    `device_memory_bytes`: the peak on CUDA; None elsewhere.
    """

    text: str
    language: str
    tokens: tuple[int, ...]
    seconds: Mapping[str, float]
    audio_seconds: float
    device: str
    dtype: str
    peak_memory_bytes: int | None = None
    device_memory_bytes: int | None = None

    @property
    def real_time_factor(self) -> float | None:
        """Processing seconds per second of audio; None for a clip without audio."""
        return self.seconds["total"] / self.audio_seconds if self.audio_seconds else None


def run_of(transcript: Transcript) -> Run:
    """The part of a transcript that travels between processes."""
    on_cuda = transcript.device.startswith("cuda")
    return Run(
        text=transcript.text,
        language=transcript.language,
        tokens=transcript.tokens,
        seconds=transcript.seconds.as_dict(),
        audio_seconds=transcript.audio_seconds,
        device=transcript.device,
        dtype=transcript.dtype,
        peak_memory_bytes=peak_resident_bytes(),
        device_memory_bytes=transcript.peak_memory_bytes if on_cuda else None,
    )


def peak_resident_bytes() -> int | None:
    """Most memory this process ever had resident, in bytes; None where /proc does not tell.

    Not `ru_maxrss`: a new process inherits that one from the process that started it.
    """
    try:
        with open("/proc/self/status") as file:
            lines = [line.split() for line in file if line.startswith("VmHWM:")]
        return int(lines[0][1]) * 1024
    except (OSError, IndexError):
        return None


class EngineProcess:
    """One process, asked by lines; close it, or use it in a `with` statement.

    `threads`: as many as the engines in it may use. `peers`: modules with more engines
    (`engines.measure.peers`). `place`: among processes that run at the same time, so that each has
    processors of its own.
    """

    def __init__(
        self, threads: int | None = None, peers: Sequence[str] = (), place: int = 0
    ) -> None:
        from engines.measure import machine

        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (open for as long as the process)
        command = [sys.executable, "-m", "engines.measure.worker"]
        if threads and machine.can_share_threads():
            command += ["--threads", str(threads), "--place", str(place)]
        command += ["--peers", ",".join(peers) or "none"]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the one who asks, who then closes this process
        )

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def prepare(
        self, engine: str, model: str, progress: Progress = lambda text: None
    ) -> PrepareSeconds:
        """Load and compile; raises `EngineError` with the engine's sentence."""
        reply = self.ask({"engine": engine, "model": model}, progress)
        return PrepareSeconds(**reply["prepared"])

    def transcribe(self, engine: str, model: str, clip: Path, options: Options) -> Run:
        """Read and run a clip; raises `EngineError` with the engine's sentence."""
        return run_from(self.ask(request_for(engine, model, clip, options)))

    def ask(self, request: Reply, progress: Progress = lambda text: None) -> Reply:
        """The reply to a request; raises `EngineError`, or `EngineDied` if there is none."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # a process that ended says so below
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        while line := self._process.stdout.readline():
            reply: Reply = json.loads(line)
            if "progress" in reply:
                progress(reply["progress"])
            elif "error" in reply:
                raise EngineError(reply["error"])
            else:
                return reply
        said = last_words(self._process, self._said)
        raise EngineDied(f"The engine's process ended ({said}).")

    def close(self) -> None:
        """End the process, even in the middle of a run."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def last_words(process: subprocess.Popen[str], said: IO[bytes]) -> str:
    """Why a process ended: a signal, or the last line of its standard error."""
    status = process.wait()
    if status < 0:
        return f"signal {-status}, {signal.Signals(-status).name}"
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {status}"


def request_for(engine: str, model: str, clip: Path, options: Options) -> Reply:
    """What to ask for a clip to be run."""
    return {"engine": engine, "model": model, "clip": str(clip), "options": asdict(options)}


def run_from(reply: Reply) -> Run:
    """The run that a reply tells of."""
    return Run(**{**reply["run"], "tokens": tuple(reply["run"]["tokens"])})


# The other side.


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer requests until there are no more."""
    parser = argparse.ArgumentParser(prog="python -m engines.measure.worker", description=__doc__)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--place", type=int, default=0)
    parser.add_argument("--peers", default="none")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what engines print is no reply
    from engines.measure import machine, peers

    try:
        if asked.threads:
            machine.take_processors(asked.place, asked.threads)
        machine.share_threads(asked.threads)
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    names = () if asked.peers == "none" else tuple(asked.peers.split(","))
    get = cache(partial(peers.get, names=names))  # an engine stays ready for the next request

    def send(reply: Reply) -> None:
        print(json.dumps(reply), file=replies, flush=True)

    for line in sys.stdin:
        send(answer(json.loads(line), get, lambda text: send({"progress": text})))
    return 0


def answer(request: Reply, get: Get, progress: Progress = lambda text: None) -> Reply:
    """The reply to one request; whatever goes wrong is a reply too."""
    from engines.audio import load_clip
    from engines.measure.turns import in_words

    try:
        engine = get(request["engine"], request["model"])
        prepared = engine.prepare(progress)
        if "clip" not in request:
            return {"prepared": asdict(prepared)}
        transcript = engine.transcribe(load_clip(request["clip"]), options_of(request))
        return {"run": asdict(run_of(transcript))}
    except Exception as error:  # the process must answer, whatever an engine raises
        return {"error": in_words(error)}


def options_of(request: Reply) -> Options:
    """The request's options, as the record that engines take."""
    fields = dict(request.get("options", {}))
    if "temperatures" in fields:
        fields["temperatures"] = tuple(fields["temperatures"])
    return Options(**fields)


if __name__ == "__main__":
    sys.exit(main())
