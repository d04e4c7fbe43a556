"""Tasks spread over processes of this machine; one that is killed costs the task it was at."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

from engines.base import EngineError
from engines.evaluation.lines import Line, Task, failed, finished
from engines.measure.worker import EngineDied, EngineProcess


def run_in_processes(
    tasks: Sequence[Task], processes: int, threads: int, peers: Sequence[str]
) -> Iterator[Line]:
    """The lines of all tasks as they are finished; each process has so many threads.

    A process is asked for one engine and model only, and ends before the next: so one engine at a
    time is in memory.
    """
    waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    for _ in range(processes):
        waiting.put(None)
    done: queue.SimpleQueue[Line] = queue.SimpleQueue()
    hands = [Hand(place, threads, peers, waiting, done) for place in range(processes)]
    for hand in hands:
        threading.Thread(target=hand.work, daemon=True).start()
    try:
        for _ in tasks:
            yield done.get()
    finally:
        for hand in hands:
            hand.stop()


class Hand:
    """One of the threads that take tasks and ask a process of their own for the text."""

    def __init__(
        self,
        place: int,
        threads: int,
        peers: Sequence[str],
        waiting: queue.SimpleQueue[Task | None],
        done: queue.SimpleQueue[Line],
    ) -> None:
        self._place, self._threads, self._peers = place, threads, peers
        self._waiting, self._done = waiting, done
        self._process: EngineProcess | None = None
        self._holds: tuple[str, str] | None = None
        self._stopped = threading.Event()

    def work(self) -> None:
        """Take tasks until there are no more."""
        while not self._stopped.is_set() and (task := self._waiting.get()) is not None:
            self._done.put(self._run(task))
        self._let_go()

    def stop(self) -> None:
        """End the process, even in the middle of a task."""
        self._stopped.set()
        self._let_go()

    def _run(self, task: Task) -> Line:
        try:
            process = self._process_for(task)
            run = process.transcribe(task.engine, task.model, task.spoken.path, task.options)
            return finished(task, run)
        except EngineDied as error:
            self._let_go()
            return failed(task, str(error))
        except EngineError as error:
            return failed(task, str(error))
        except Exception as error:  # a thread that ends early would leave the others waiting
            return failed(task, f"{type(error).__name__}: {error}")

    def _process_for(self, task: Task) -> EngineProcess:
        wanted = (task.engine, task.model)
        if self._process is None or self._holds != wanted:
            self._let_go()
            self._process = EngineProcess(self._threads, self._peers, self._place)
            self._holds = wanted
        return self._process

    def _let_go(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()
