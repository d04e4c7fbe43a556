"""The operations of Whisper's graphs, for a CPU and for an accelerator.

`CpuOperations` calls this project's Mojo kernels: they compile in seconds, take any size at run
time and are faster than the built-in ones at Whisper's shapes. `AcceleratorOperations` uses MAX's
built-in operations, except for float32 products, where the built-in one rounds to TF32 and a
kernel of ours does not. Each has one layout for weight matrices, made by its `lay_out`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from max.driver import Buffer, Device
from max.dtype import DType
from max.graph import (
    DeviceRef,
    Dim,
    Graph,
    KernelLibrary,
    Module,
    TensorType,
    TensorValue,
    Type,
    ops,
)

from engines.base import FloatArray
from engines.max_graph.weights import PANEL, AnyFloatArray, Matrix, Weights, pack

Size: TypeAlias = int | str | Dim
Parameter: TypeAlias = int | bool | DType

KERNELS = Path(__file__).parent / "kernels"

HEAD = 64
"""Width of a head in every Whisper checkpoint."""

EPSILON = 1e-5
"""PyTorch's default for `nn.LayerNorm`, which Whisper uses."""


@cache
def kernels() -> KernelLibrary:
    """Build and read our kernels, once for all graphs: it takes MAX seconds."""
    library = KernelLibrary()
    library.load_paths([KERNELS])
    return library


def new_graph(name: str, inputs: Iterable[Type[Any]], module: Module) -> Graph:
    """Return an empty graph in `module` that can call our kernels."""
    return Graph(name, input_types=inputs, kernel_library=kernels(), module=module)


@dataclass(frozen=True)
class CpuOperations:
    """Float32 on the CPU through the kernels in `kernels/`; every size may be symbolic.

    `weight`: the type that matrices are kept in, float16 only where that is exact.
    """

    weight: DType = DType.float32
    device = DeviceRef.CPU()

    def lay_out(self, matrix: FloatArray) -> AnyFloatArray:
        """Pack a matrix `(n_out, depth)` into the kernels' panels `(panels, depth, PANEL)`."""
        return pack(matrix).astype(self.weight.to_numpy())

    def tensor(self, *shape: Size) -> TensorType:
        """A float32 tensor type on this device."""
        return TensorType(DType.float32, list(shape), self.device)

    def matrix(self, name: str, n_out: Size, depth: Size) -> TensorType:
        """Type of the weight matrix `name` as `lay_out` makes it."""
        return TensorType(self.weight, [f"{name}_panels", depth, PANEL], self.device)

    def pad_frames(self, mel: TensorValue) -> TensorValue:
        """`(n_mels, frames)` to `(frames + 2, n_mels)`, a row of zeros at both ends."""
        n_mels, frames = mel.shape
        return self._call("whisper_pad_frames", [mel], self.tensor(frames + 2, n_mels))[0]

    def conv(
        self,
        x: TensorValue,
        w: TensorValue,
        b: TensorValue,
        rows: Size,
        stride: int,
        add: TensorValue | None = None,
        padded: bool = False,
    ) -> TensorValue:
        """GELU of a convolution of width 3 over the padded `x`, to `(rows, n_out)`.

        `add` is added after the GELU; `padded` gives a row of zeros at both ends (in `rows`).
        """
        result = self.tensor(rows, b.shape[0])
        return self._linear(x, w, b, result, add, stride=stride, gelu=True, padded=padded)

    def linear(
        self,
        x: TensorValue,
        w: TensorValue,
        b: TensorValue,
        gelu: bool = False,
        add: TensorValue | None = None,
    ) -> TensorValue:
        """`x @ w + b` to `(rows, n_out)`, then exact GELU or the sum with `add`."""
        result = self.tensor(x.shape[0], b.shape[0])
        return self._linear(x, w, b, result, add, stride=1, gelu=gelu, padded=False)

    def layer_norm(self, x: TensorValue, w: TensorValue, b: TensorValue) -> TensorValue:
        """Layer norm over the last axis."""
        return self._call("whisper_layer_norm", [x, w, b], x.type)[0]

    def attention(self, qkv: TensorValue, n_state: Size) -> TensorValue:
        """Self-attention over heads of 64, `(n_ctx, 3 * n_state)` to `(n_ctx, n_state)`."""
        keys, values = self.pack_keys_values(qkv, 1, n_state)
        result = self.tensor(qkv.shape[0], n_state)
        return self._call("whisper_self_attention", [qkv, keys, values], result)[0]

    def pack_keys_values(
        self, kv: TensorValue, layers: Size, n_state: Size
    ) -> tuple[TensorValue, TensorValue]:
        """Keys and values from the last `layers * 2 * n_state` columns of `kv`.

        Both `(layers, heads, panels, HEAD * PANEL)`; see `kernels/attention.mojo`.
        """
        panels = (kv.shape[0] + PANEL - 1) // PANEL
        packed = self.tensor(layers, Dim(n_state) // HEAD, panels, HEAD * PANEL)
        keys, values = self._call("whisper_pack_keys_values", [kv], packed, packed)
        return keys, values

    def _linear(
        self,
        x: TensorValue,
        w: TensorValue,
        b: TensorValue,
        result: TensorType,
        add: TensorValue | None,
        **parameters: Parameter,
    ) -> TensorValue:
        values = [x, w, b, x if add is None else add]
        parameters |= {"residual": add is not None, "weight": w.dtype}
        return self._call("whisper_linear", values, result, **parameters)[0]

    def _call(
        self, name: str, values: list[TensorValue], *results: TensorType, **parameters: Parameter
    ) -> list[TensorValue]:
        outputs = ops.custom(
            name, device=self.device, values=values, out_types=results, parameters=parameters
        )
        return [output.tensor for output in outputs]


@dataclass(frozen=True)
class AcceleratorOperations:
    """MAX's built-in operations on an accelerator; methods as above.

    `weight`: the type of both sides of every product, and of the caches. All between the products
    (sums, layer norms, GELU, softmax) is float32 whatever it is. Products in float32 are our own
    (`kernels/product.mojo`): for the built-in one float32 is TF32, which has 10 bits of mantissa.
    """

    weight: DType = DType.float32
    device: DeviceRef = field(default_factory=DeviceRef.GPU)

    def lay_out(self, matrix: FloatArray) -> AnyFloatArray:
        """`(n_out, depth)` as `(depth, n_out)`, so that a product needs no transposition."""
        return np.ascontiguousarray(matrix.T)

    def tensor(self, *shape: Size) -> TensorType:
        """A float32 tensor type on this device."""
        return TensorType(DType.float32, list(shape), self.device)

    def matrix(self, name: str, n_out: Size, depth: Size) -> TensorType:
        """Type of the weight matrix `name` as `lay_out` makes it."""
        return TensorType(self.weight, [depth, n_out], self.device)

    def product(self, a: TensorValue, b: TensorValue, transposed: bool = False) -> TensorValue:
        """Return `a @ b` in float32, both operands in type `weight`.

        `a`: `(..., m, depth)`. `b`: `(..., depth, n)` or, with `transposed`, `(..., n, depth)`.
        """
        if self.weight != DType.float32:
            b = ops.transpose(b, -1, -2) if transposed else b
            return cast(cast(a, self.weight) @ cast(b, self.weight), DType.float32)
        shape = [*a.shape[:-1], b.shape[-2 if transposed else -1]]
        a, b = (  # all leading axes as one
            ops.reshape(each, [math.prod(each.shape[:-2], start=Dim(1)), *each.shape[-2:]])
            for each in (a, b)
        )
        result = self.tensor(a.shape[0], *shape[-2:])
        y = ops.custom(
            "whisper_product",
            device=self.device,
            values=[a, b],
            out_types=[result],
            parameters={"transposed": transposed},
        )
        return ops.reshape(y[0].tensor, shape)

    def pad_frames(self, mel: TensorValue) -> TensorValue:
        """`(n_mels, frames)` to `(frames + 2, n_mels)`, a row of zeros at both ends."""
        return self._pad(ops.transpose(mel, 0, 1))

    def conv(
        self,
        x: TensorValue,
        w: TensorValue,
        b: TensorValue,
        rows: Size,
        stride: int,
        add: TensorValue | None = None,
        padded: bool = False,
    ) -> TensorValue:
        """GELU of a convolution of width 3: its three taps side by side, then one product."""
        length = int(x.shape[0]) - 2
        taps = [x[tap : tap + length : stride, :] for tap in range(3)]  # each (rows, n_in)
        y = self.linear(ops.concat(taps, axis=1), w, b, gelu=True, add=add)  # (rows, n_out)
        return self._pad(y) if padded else y

    def linear(
        self,
        x: TensorValue,
        w: TensorValue,
        b: TensorValue,
        gelu: bool = False,
        add: TensorValue | None = None,
    ) -> TensorValue:
        """`x @ w + b` to `(rows, n_out)`, then exact GELU or the sum with `add`."""
        y = self.product(x, w) + b
        if gelu:
            y = ops.gelu(y)
        return y if add is None else y + add

    def layer_norm(self, x: TensorValue, w: TensorValue, b: TensorValue) -> TensorValue:
        """Layer norm over the last axis."""
        return ops.layer_norm(x, w, b, epsilon=EPSILON)

    def attention(self, qkv: TensorValue, n_state: Size) -> TensorValue:
        """Self-attention over heads of 64, `(n_ctx, 3 * n_state)` to `(n_ctx, n_state)`."""
        n_ctx, n = int(qkv.shape[0]), int(Dim(n_state))
        heads = ops.reshape(qkv, [n_ctx, 3, n // HEAD, HEAD])
        query, key, value = (
            ops.transpose(heads[:, part], 0, 1)  # (heads, n_ctx, HEAD)
            for part in range(3)
        )
        scores = self.product(query * HEAD**-0.5, key, transposed=True)  # (heads, n_ctx, n_ctx)
        mixed = self.product(ops.softmax(scores), value)  # (heads, n_ctx, HEAD)
        return ops.reshape(ops.transpose(mixed, 0, 1), [n_ctx, n])

    def _pad(self, x: TensorValue) -> TensorValue:
        zeros = ops.constant(np.zeros((1, int(x.shape[1])), np.float32), device=self.device)
        return ops.concat([zeros, x, zeros], axis=0)


def place(arrays: Weights, op: Operations, device: Device) -> list[Buffer]:
    """Copy weights to `device`, matrices laid out as `op` reads them."""
    return [
        put(op.lay_out(each.values), device, op.weight)
        if isinstance(each, Matrix)
        else put(each, device)
        for each in arrays
    ]


def put(array: np.ndarray, device: Device, dtype: DType | None = None) -> Buffer:
    """Copy an array to `device`, in type `dtype` where one is given."""
    array = np.ascontiguousarray(array)
    if dtype == DType.bfloat16:  # numpy has no such type
        return Buffer.from_dlpack(torch.from_numpy(array).bfloat16()).to(device)
    if dtype is not None:
        array = array.astype(dtype.to_numpy(), copy=False)
    return Buffer.from_numpy(array).to(device)


def cast(x: TensorValue, dtype: DType) -> TensorValue:
    """Convert `x` to another type, unless it has that type already."""
    return x if x.dtype == dtype else x.cast(dtype)


Operations: TypeAlias = "CpuOperations | AcceleratorOperations"
