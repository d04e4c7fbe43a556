"""One question of a benchmark in a process of its own: `python -m engines.measure.apart …`.

What ends that process, be it inside native code, is the question's error; what it had finished is
kept, and the next question is asked. The arguments are those of `python -m engines.bench`; what is
printed are lines of JSON: `{"progress": text}`, `{"result": …}` as the record has it, and at the
end `{"interrupted": whether}`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.base import EngineError
from engines.measure.record import Result, result_from
from engines.measure.worker import PATIENCE, last_words

ROOT = Path(__file__).parents[2]

Say = Callable[[str], None]


def ask(arguments: Sequence[str], say: Say) -> Iterator[Result]:
    """The results of one question, as soon as they are there.

    Raises `EngineError` if the process ends before it is done. An interrupt is handed on; what was
    finished comes still, then `KeyboardInterrupt` is raised.
    """
    with tempfile.TemporaryFile() as errors:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-m", "engines.measure.apart", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the one who asks, who hands it on
        )
        try:
            interrupted = None
            for line in hear(process):
                if "progress" in line:
                    say(line["progress"])
                elif "result" in line:
                    yield result_from(line["result"])
                else:
                    interrupted = line["interrupted"]
            if interrupted is None:
                said = last_words(process, errors)
                raise EngineError(f"The process of this question ended ({said}).")
            if interrupted:
                raise KeyboardInterrupt
        finally:
            end(process)


def hear(process: subprocess.Popen[str]) -> Iterator[Mapping[str, Any]]:
    """The lines; a first interrupt is handed on, a second one is raised."""
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(process, said), daemon=True).start()
    interrupted = False
    while True:
        try:
            line = said.get()
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            process.send_signal(signal.SIGINT)
            continue
        if line is None and interrupted:
            raise KeyboardInterrupt
        if line is None:
            return
        yield json.loads(line)


def _listen(process: subprocess.Popen[str], said: queue.SimpleQueue[str | None]) -> None:
    """Lines as they come, apart from who waits for them, so that an interrupt cuts none in two."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.endswith("\n"):
                said.put(line)
    finally:
        said.put(None)


def end(process: subprocess.Popen[str]) -> None:
    """See to it that the process is gone."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# The other side.


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the one question; returns the exit status."""
    from engines.bench import guarded
    from engines.measure import machine
    from engines.measure.command_line import parse

    signal.signal(signal.SIGINT, signal.default_int_handler)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what engines print is no reply

    def send(**reply: object) -> None:
        print(json.dumps(reply, allow_nan=False), file=replies, flush=True)

    asked = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        threads = machine.share_threads(asked.threads)
        (benchmark,) = asked.plan(asked, threads)
        for result in guarded(benchmark, lambda text: send(progress=text)):
            send(result=result.as_json())
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        send(interrupted=True)
        return 0
    send(interrupted=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
