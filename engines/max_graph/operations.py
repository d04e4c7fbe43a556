"""The operations of Whisper's graphs, for a CPU and for an accelerator.

`CpuOperations` calls this project's Mojo kernels: they compile in seconds, take any size at run
time and are faster than the built-in ones at Whisper's shapes. `AcceleratorOperations` uses MAX's
built-in operations, except for float32 products, where the built-in one rounds to TF32 and a
kernel of ours does not.
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
from max.driver import CPU, Buffer, Device
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
from engines.max_graph.weights import TAPS, Weights

Size: TypeAlias = int | str | Dim

HEAD = 64
"""Width of a head in every Whisper checkpoint."""

PANEL = 32
"""Columns of one packed panel; `kernels/tile.mojo` computes by the same number."""

SPAN = 32
"""Columns, and depths, of what AMX multiplies at once; `kernels/amx.mojo` has the same numbers."""

TILE = 16 * 32
"""Values of a tile of AMX in bfloat16."""


@cache
def kernels() -> KernelLibrary:
    """Build and read our kernels, once for all graphs: it takes MAX seconds."""
    library = KernelLibrary()
    library.load_paths([Path(__file__).parent / "kernels"])
    return library


def new_graph(name: str, inputs: Iterable[Type[Any]], module: Module) -> Graph:
    """Return an empty graph in `module` that can call our kernels."""
    return Graph(name, input_types=inputs, kernel_library=kernels(), module=module)


class _Types:
    """Types of what goes through the graphs: matrices in type `weight`, all else in float32."""

    device: DeviceRef
    weight: DType

    @property
    def operand(self) -> DType:
        """The type of what `lay_out` returns."""
        return self.weight

    def tensor(self, *shape: Size) -> TensorType:
        """A float32 tensor type on this device."""
        return TensorType(DType.float32, list(shape), self.device)

    def matrix(self, name: str, n_out: Size, depth: Size) -> TensorType:
        """Type of the weight matrix `name` as `lay_out` makes it."""
        raise NotImplementedError

    def linear_pair(self, name: str, n_out: Size, depth: Size) -> list[TensorType]:
        """Types of the matrix `name` and its bias."""
        return [self.matrix(name, n_out, depth), self.tensor(n_out)]

    def norm_pair(self, n: Size) -> list[TensorType]:
        """Types of a layer norm's scale and shift."""
        return [self.tensor(n), self.tensor(n)]


@dataclass(frozen=True)
class CpuOperations(_Types):
    """Float32 on the CPU through the kernels in `kernels/`; every size may be symbolic.

    `weight`: float16 only where that is exact. `amx`: multiply many rows by AMX, whose operands
    are bfloat16: each weight is the sum of two terms, or of three where it isn't float16.
    """

    weight: DType = DType.float32
    amx: bool = False
    device = DeviceRef.CPU()

    @property
    def operand(self) -> DType:
        return DType.bfloat16 if self.amx else self.weight

    @property
    def terms(self) -> int:
        """Terms of a weight on AMX; 0 without it."""
        return (2 if self.weight == DType.float16 else 3) if self.amx else 0

    def lay_out(self, matrix: FloatArray) -> FloatArray:
        """Lay out a matrix `(n_out, depth)` for `linear`: as panels, or for `kernels/amx.mojo`.

        The latter is `(spans, steps, terms * 2 * 16 * 32)`, zero-padded, of values that bfloat16
        can hold.
        """
        if not self.amx:
            return self.pack_panels(matrix)
        spans, steps = (-(-size // SPAN) for size in matrix.shape)
        padded = np.zeros((spans * SPAN, steps * SPAN), np.float32)
        padded[: matrix.shape[0], : matrix.shape[1]] = matrix
        rest, terms = torch.from_numpy(padded), []
        for _ in range(self.terms):
            terms.append(rest.bfloat16().float())
            rest = rest - terms[-1]
        # Two tiles of 16 columns, in whose rows two depths of each column stand side by side.
        shape = [self.terms, spans, 2, SPAN // 2, steps, SPAN // 2, 2]
        tiles = torch.stack(terms).reshape(shape).permute(1, 4, 0, 2, 5, 3, 6)
        return tiles.reshape(spans, steps, -1).numpy()

    def pack_panels(self, matrix: FloatArray) -> FloatArray:
        """Pack a matrix `(n_out, depth)` into zero-padded panels `(panels, depth, PANEL)`."""
        n_out, depth = matrix.shape
        panels = -(-n_out // PANEL)
        padded = np.zeros((panels * PANEL, depth), self.weight.to_numpy())
        padded[:n_out] = matrix
        return np.ascontiguousarray(padded.reshape(panels, PANEL, depth).transpose(0, 2, 1))

    def matrix(self, name: str, n_out: Size, depth: Size) -> TensorType:
        if not self.amx:
            return self.panels(name, depth)
        tiles = self.terms * 2 * TILE
        return TensorType(self.operand, [f"{name}_spans", f"{name}_steps", tiles], self.device)

    def panels(self, name: str, depth: Size) -> TensorType:
        """Type of the weight matrix `name` as `pack_panels` makes it."""
        return TensorType(self.weight, [f"{name}_panels", depth, PANEL], self.device)

    def call(
        self, name: str, values: list[TensorValue], *results: TensorType, **parameters: Any
    ) -> list[TensorValue]:
        """Call a kernel."""
        outputs = ops.custom(
            name, device=self.device, values=values, out_types=results, parameters=parameters
        )
        return [output.tensor for output in outputs]

    def stem(self, mel: TensorValue, w: list[TensorValue]) -> tuple[TensorValue, TensorValue]:
        """Both convolutions with GELU of `mel` `(n_mels, frames)`, and the positions added.

        `w`: two pairs, and the positions. Returns the first convolution's output
        `(frames + 2, n_state)`, a row of zeros at both ends, and the sum `(n_ctx, n_state)`.
        """
        w1, b1, w2, b2, positions = w
        n_mels, frames = mel.shape
        [x] = self.call("whisper_pad_frames", [mel], self.tensor(frames + 2, n_mels))
        result = self.tensor(frames + 2, b1.shape[0])
        padded = self._linear([x, w1, b1, x], result, taps=TAPS, gelu=True, padded=True)
        parameters = {"taps": TAPS, "stride": 2, "gelu": True, "residual": True}
        return padded, self._linear([padded, w2, b2, positions], positions.type, **parameters)

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
        values = [x, w, b, x if add is None else add]
        return self._linear(values, result, gelu=gelu, residual=add is not None)

    def layer_norm(self, x: TensorValue, w: TensorValue, b: TensorValue) -> TensorValue:
        """Layer norm over the last axis."""
        return self.call("whisper_layer_norm", [x, w, b], x.type)[0]

    def attention(self, qkv: TensorValue, n_state: Dim) -> TensorValue:
        """Self-attention over heads of 64, `(n_ctx, 3 * n_state)` to `(n_ctx, n_state)`."""
        result = self.tensor(qkv.shape[0], n_state)
        if self.amx:
            return self.call("whisper_amx_attention", [qkv], result)[0]
        keys, values = self.pack_keys_values(qkv, 1, n_state)
        return self.call("whisper_self_attention", [qkv, keys, values], result)[0]

    def pack_keys_values(self, kv: TensorValue, layers: Size, n_state: Dim) -> list[TensorValue]:
        """Keys and values from the last `layers * 2 * n_state` columns of `kv`.

        Both `(layers, heads, panels, HEAD * PANEL)`; see `kernels/attention.mojo`.
        """
        panels = (kv.shape[0] + PANEL - 1) // PANEL
        packed = self.tensor(layers, n_state // HEAD, panels, HEAD * PANEL)
        return self.call("whisper_pack_keys_values", [kv], packed, packed)

    def _linear(
        self, values: list[TensorValue], result: TensorType, **parameters: Any
    ) -> TensorValue:
        """Call `whisper_linear`; the last of the values is not read unless `residual` is set."""
        usual = {"taps": 1, "stride": 1, "gelu": False, "residual": False, "padded": False}
        parameters = usual | parameters | {"weight": self.operand, "terms": self.terms}
        return self.call("whisper_linear", values, result, **parameters)[0]


@dataclass(frozen=True)
class AcceleratorOperations(_Types):
    """MAX's built-in operations on an accelerator, of fixed sizes; methods as in `CpuOperations`.

    `weight`: the type of both sides of every product, and of the caches. All between the products
    (sums, layer norms, GELU, softmax) is float32 whatever it is. Products in float32 are our own
    (`kernels/product.mojo`): for the built-in one float32 is TF32, which has 10 bits of mantissa.
    """

    weight: DType = DType.float32
    device: DeviceRef = field(default_factory=DeviceRef.GPU)

    def lay_out(self, matrix: FloatArray) -> FloatArray:
        """`(n_out, depth)` as `(depth, n_out)`, so that a product needs no transposition."""
        return np.ascontiguousarray(matrix.T)

    def matrix(self, name: str, n_out: Size, depth: Size) -> TensorType:
        return TensorType(self.weight, [depth, n_out], self.device)

    def product(self, a: TensorValue, b: TensorValue, transposed: bool = False) -> TensorValue:
        """Return `a @ b` in float32, both operands in type `weight`.

        `a`: `(..., m, depth)`. `b`: `(..., depth, n)` or, with `transposed`, `(..., n, depth)`.
        """
        if self.weight != DType.float32:
            b = ops.transpose(b, -1, -2) if transposed else b
            return (a.cast(self.weight) @ b.cast(self.weight)).cast(DType.float32)
        shape = [*a.shape[:-1], b.shape[-2 if transposed else -1]]
        a, b = (  # all leading axes as one
            ops.reshape(each, [math.prod(each.shape[:-2], start=Dim(1)), *each.shape[-2:]])
            for each in (a, b)
        )
        [y] = ops.custom(
            "whisper_product",
            device=self.device,
            values=[a, b],
            out_types=[self.tensor(a.shape[0], *shape[-2:])],
            parameters={"transposed": transposed},
        )
        return ops.reshape(y.tensor, shape)

    def stem(self, mel: TensorValue, w: list[TensorValue]) -> tuple[TensorValue, TensorValue]:
        def pad(x: TensorValue) -> TensorValue:
            zeros = ops.constant(np.zeros((1, int(x.shape[1])), np.float32), device=self.device)
            return ops.concat([zeros, x, zeros], axis=0)

        def convolve(x: TensorValue, w: TensorValue, b: TensorValue, stride: int) -> TensorValue:
            end = int(x.shape[0]) - 2
            taps = [x[tap : tap + end : stride, :] for tap in range(3)]  # each (rows, n_in)
            return self.linear(ops.concat(taps, axis=1), w, b, gelu=True)  # (rows, n_out)

        w1, b1, w2, b2, positions = w
        padded = pad(convolve(pad(ops.transpose(mel, 0, 1)), w1, b1, stride=1))
        return padded, convolve(padded, w2, b2, stride=2) + positions

    def linear(
        self,
        x: TensorValue,
        w: TensorValue,
        b: TensorValue,
        gelu: bool = False,
        add: TensorValue | None = None,
    ) -> TensorValue:
        y = self.product(x, w) + b
        if gelu:
            y = ops.gelu(y)
        return y if add is None else y + add

    def layer_norm(self, x: TensorValue, w: TensorValue, b: TensorValue) -> TensorValue:
        return ops.layer_norm(x, w, b, epsilon=1e-5)  # the default of PyTorch's, and so whisper's

    def attention(self, qkv: TensorValue, n_state: Dim) -> TensorValue:
        n_ctx, n = int(qkv.shape[0]), int(n_state)
        heads = ops.reshape(qkv, [n_ctx, 3, n // HEAD, HEAD])
        query, key, value = (
            ops.transpose(heads[:, part], 0, 1)  # (heads, n_ctx, HEAD)
            for part in range(3)
        )
        return ops.reshape(self.attend(query, key, value)[0], [n_ctx, n])

    def attend(
        self,
        query: TensorValue,
        key: TensorValue,
        value: TensorValue,
        mask: TensorValue | None = None,
    ) -> tuple[TensorValue, TensorValue]:
        """Softmax attention of operands `(..., heads, rows, HEAD)`, the mask added to the scores.

        Returns the values' averages `(..., rows, heads, HEAD)` and the scaled scores.
        """
        scores = self.product(query * HEAD**-0.5, key, transposed=True)  # (..., rows, keys)
        scores = scores if mask is None else scores + mask
        mixed = self.product(ops.softmax(scores), value)  # (..., heads, rows, HEAD)
        return ops.transpose(mixed, -2, -3), scores


def place(arrays: Weights, op: Operations, device: Device) -> list[Buffer]:
    """Copy pairs of weights to `device`, matrices laid out as `op` reads them."""
    return [
        put(op.lay_out(each), device, op.operand) if each.ndim == 2 else put(each, device)
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


def read(buffer: Buffer) -> FloatArray:
    """Copy a buffer to the host, as float32 whatever its type."""
    values: FloatArray = torch.from_dlpack(buffer.to(CPU())).float().numpy()
    return values


Operations: TypeAlias = "CpuOperations | AcceleratorOperations"
