"""A graph of two operations, compiled anew: does MAX compile and run here, and how fast?"""

from __future__ import annotations

from time import perf_counter

from max.driver import CPU, Accelerator, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType, TensorValue

from engines.base import FloatArray


class Sum:
    """`a * b + a` of float32 `(n,)`; `seconds` is what building and compiling took.

    Not a product of matrices: its kernels alone take MAX longer to compile than all the rest.
    """

    def __init__(self, n: int, place: str = "cpu") -> None:
        self._device = CPU() if place == "cpu" else Accelerator()
        reference = DeviceRef.CPU() if place == "cpu" else DeviceRef.GPU()
        vector = TensorType(DType.float32, (n,), reference)
        start = perf_counter()
        graph = Graph("small", forward=multiply_and_add, input_types=[vector, vector])
        self._model = InferenceSession(devices=[self._device]).load(graph)
        self.seconds = perf_counter() - start

    def __call__(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """The sum `(n,)`, on the host."""
        inputs = [Buffer.from_numpy(array).to(self._device) for array in (a, b)]
        (found,) = self._model.execute(*inputs)
        total: FloatArray = found.to(CPU()).to_numpy()
        return total


def multiply_and_add(a: TensorValue, b: TensorValue) -> TensorValue:
    """The graph's operations."""
    return a * b + a
