"""Stands in for Hugging Face's package `spaces`: for tests, and in the folder of a Space's page."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any

Function = Callable[..., Any]
FORK = multiprocessing.get_context("fork")
DEVICE = "GPU-of-this-call"


class Error(Exception):
    """Stands in for `gradio.Error`."""

    def __init__(self, message: str) -> None:
        self.message = message


class FakeSpaces:
    """Stands in for the package: a wrapped generator runs in a forked process.

    As `spaces` 0.51 has it: arguments and results travel pickled, a closed generator is closed in
    the fork before its next result, and what goes wrong there arrives as an error with a title.
    `refusal` is what the next call is told in place of getting a GPU.
    """

    def __init__(self) -> None:
        self.wrapped: list[Function] = []
        self.asked: list[int] = []
        self.forks: list[int] = []
        self.refusal: str | None = None

    def GPU(
        self, duration: Callable[..., int]
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """The decorator."""

        def wrap(function: Function) -> Function:
            self.wrapped.append(function)

            def call(*arguments: Any) -> Iterator[Any]:
                self.asked.append(duration(*arguments))
                return self._call(function, arguments)

            return call

        return wrap

    def _call(self, function: Function, arguments: tuple[Any, ...]) -> Iterator[Any]:
        if self.refusal is not None:
            raise Error(self.refusal)
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=serve, args=(function, arguments, ours, theirs))
        process.start()
        self.forks.append(process.pid or 0)
        theirs.close()
        try:
            while (result := ours.recv()) is not StopIteration:
                yield result
        except EOFError:
            raise Error("GPU task aborted") from None
        finally:
            ours.close()
            process.join()


def serve(function: Function, arguments: tuple[Any, ...], ours: Any, theirs: Any) -> None:
    """What the forked process does, until nobody listens any more."""
    ours.close()
    os.environ["CUDA_VISIBLE_DEVICES"] = DEVICE
    generator = function(*arguments)
    try:
        for value in generator:
            theirs.send(value)
        theirs.send(StopIteration)
    except BrokenPipeError:
        generator.close()


GPU = FakeSpaces().GPU


def gradio_auto_wrap(function: Function) -> Function:
    """What Gradio asks of the package for each listener."""
    return function
