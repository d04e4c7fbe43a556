"""Compile and run a graph of two operations: does MAX work on this machine, and how fast?"""

from __future__ import annotations

from time import perf_counter

import numpy as np
from max.driver import CPU, Accelerator, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType, TensorValue

from engines.base import EngineError, FloatArray

ROUNDING = 1e-6
"""Bound on the relative error of a sum and a product in float32, which rounds by 6e-8 at a time."""


class CompiledSum:
    """`a * b + a` of float32 `(n,)`, compiled now; `seconds`: building and compiling.

    Not a matrix product, whose kernels alone take MAX longer to compile than all the rest.
    """

    def __init__(self, n: int, place: str = "cpu") -> None:
        self._device = CPU() if place == "cpu" else Accelerator()
        reference = DeviceRef.CPU() if place == "cpu" else DeviceRef.GPU()
        vector = TensorType(DType.float32, (n,), reference)
        start = perf_counter()
        graph = Graph("sum", forward=_multiply_and_add, input_types=[vector, vector])
        self._model = InferenceSession(devices=[self._device]).load(graph)
        self.seconds = perf_counter() - start

    def __call__(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Compute the sum `(n,)` and copy it to the host."""
        inputs = [Buffer.from_numpy(array).to(self._device) for array in (a, b)]
        (found,) = self._model.execute(*inputs)
        total: FloatArray = found.to(CPU()).to_numpy()
        return total


def _multiply_and_add(a: TensorValue, b: TensorValue) -> TensorValue:
    return a * b + a


def check_small_graph(place: str = "cpu") -> tuple[float, float]:
    """Compile and run a small graph; returns both times in seconds.

    Raises `EngineError` when the result is wrong.
    """
    add = CompiledSum(1000, place)
    a, b = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    start = perf_counter()
    found = add(a, b)
    seconds = perf_counter() - start
    expected = a * b + a
    if not np.linalg.norm(found - expected) <= ROUNDING * np.linalg.norm(expected):
        raise EngineError("MAX compiled a small graph, but its result is wrong.")
    return add.seconds, seconds
