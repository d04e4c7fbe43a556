"""One CPU decoder for several clips at once, each transcribed by a thread of its own.

A step of one clip reads all weights to make one token. The steps of clips that are decoding at the
same time are taken together, and read them once. Each clip keeps its own caches and windows, so no
clip's tokens depend on another's; logits may differ in their last bits, as from one number of beams
to another, because few rows are summed in another order than many. All else that needs the
processor, such as encoding a window, is done by one thread at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from max.driver import Buffer
from whisper.model import ModelDimensions

from engines.base import FloatArray
from engines.max_graph.cpu_decoder import CpuDecoder, PendingStep
from engines.max_graph.decoder import Cache, CrossKV
from engines.token_selection import IntArray, Step

Result = TypeVar("Result")


@dataclass(eq=False)
class _Request:
    """A step that a thread waits for, and what came of it."""

    step: PendingStep
    result: Step | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.result is not None or self.error is not None


class DecoderBatch:
    """A decoder, the caches and windows of several clips, and the order in which these take turns.

    `clips`: how many take part. `beams`: the most that one of them has.
    """

    def __init__(self, decoder: CpuDecoder, clips: int, beams: int) -> None:
        self.decoder, self.beams = decoder, beams
        self.cache = decoder.new_cache(clips * beams)
        self._clips = clips
        self._windows: tuple[FloatArray, FloatArray] | None = None
        self._turn = threading.Condition()
        self._busy = False
        self._decoding: set[int] = set()
        self._requests: list[_Request] = []

    def member(self, number: int) -> ClipDecoder:
        """Return the decoder of clip `number`."""
        return ClipDecoder(self, number)

    def alone(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, done while no other thread uses the processor."""
        with self._turn:
            self._turn.wait_for(lambda: not self._busy)
            self._busy = True
        try:
            return work()
        finally:
            self._free_processor()

    def _free_processor(self) -> None:
        with self._turn:
            self._busy = False
            self._turn.notify_all()

    def keep_window(self, number: int, cross: CrossKV) -> None:
        """Copy a window's keys and values to the place of clip `number`."""
        arrays = [np.from_dlpack(each) for each in cross]  # (1, layers, heads, …)
        if self._windows is None:
            shape = (self._clips, *arrays[0].shape[1:])
            self._windows = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for kept, array in zip(self._windows, arrays, strict=True):
            kept[number] = array[0]

    def windows(self) -> CrossKV:
        """Return the keys and values of all clips' windows, where they are kept."""
        assert self._windows is not None, "no window was kept"
        keys, values = (Buffer.from_numpy(each) for each in self._windows)
        return keys, values

    def enter(self, number: int) -> None:
        """Let the steps of others wait for those of clip `number`, which begins a window."""
        with self._turn:
            self._decoding.add(number)

    def leave(self, number: int) -> None:
        """Let nobody wait for clip `number` any more."""
        with self._turn:
            self._decoding.discard(number)
            self._turn.notify_all()

    def take(self, step: PendingStep) -> Step:
        """Return the results of a step, taken with those of all clips that are decoding."""
        self.decoder.check(step.tokens, step.cache)
        request = _Request(step)
        with self._turn:
            self._requests.append(request)
        while True:
            with self._turn:
                self._turn.wait_for(lambda: request.done or self._is_complete())
                if request.done:
                    break
                requests = self._pick()
                self._busy = True
            try:
                self._run(requests)
            finally:
                self._free_processor()
        if request.error:
            raise request.error
        assert request.result is not None
        return request.result

    def _is_complete(self) -> bool:
        """Whether the processor is free, and all clips that are decoding have asked for a step."""
        return not self._busy and len(self._requests) >= max(len(self._decoding), 1)

    def _pick(self) -> list[_Request]:
        """Take the first request out of the queue, and those that select tokens as it does."""
        first = self._requests[0].step
        picked = [
            each
            for each in self._requests
            if each.step.k == first.k and each.step.constraints.digest == first.constraints.digest
        ]
        picked.sort(key=lambda each: each.step.cache.window)
        self._requests = [each for each in self._requests if each not in picked]
        return picked

    def _run(self, requests: list[_Request]) -> None:
        try:
            steps = [each.step for each in requests]
            results = self.decoder.step_together(steps, self.windows())
            for request, result in zip(requests, results, strict=True):
                request.result = result
        except BaseException as error:
            for request in requests:
                request.error = error


class ClipDecoder:
    """The decoder of one clip of a batch: an `engines.graph_whisper.GraphDecoder`."""

    def __init__(self, batch: DecoderBatch, number: int) -> None:
        self._batch, self._number = batch, number
        self.dims: ModelDimensions = batch.decoder.dims

    def compute_cross_kv(self, features: FloatArray) -> CrossKV:
        """As `Decoder.compute_cross_kv`."""
        return self._batch.alone(lambda: self._batch.decoder.compute_cross_kv(features))

    def new_cache(self, batch: int) -> Cache:
        """As `Decoder.new_cache`; a clip has one cache at a time, in its own places."""
        first, shared = self._number * self._batch.beams, self._batch.cache
        places = tuple(range(first, first + batch))
        return Cache(shared.keys, shared.values, places=places, window=self._number)

    def reorder_beams(self, cache: Cache, source: Cache, beams: list[int]) -> None:
        """As `Decoder.reorder_beams`."""
        self._batch.decoder.reorder_beams(cache, source, beams)

    def step(
        self, tokens: IntArray, cross: CrossKV, cache: Cache, rows: IntArray, **select: Any
    ) -> Step:
        """As `Decoder.step`; a prompt alone, all else together with the other clips."""
        batch = self._batch
        if cache.length:
            return batch.take(PendingStep(tokens, cache, rows, **select))

        def run_prompt() -> Step:
            batch.keep_window(self._number, cross)
            return batch.decoder.step(tokens, batch.windows(), cache, rows, **select)

        result = batch.alone(run_prompt)
        batch.enter(self._number)
        return result

    def align(self, tokens: IntArray, cross: CrossKV) -> tuple[FloatArray, FloatArray]:
        """As `Decoder.align`."""
        return self._batch.alone(lambda: self._batch.decoder.align(tokens, cross))

    def end_window(self) -> None:
        """Let the other clips' steps no longer wait for this clip's."""
        self._batch.leave(self._number)
