"""Row-wise operations: layer norm, and transposing and padding a spectrogram."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.math import ceildiv, sqrt

from .tile import WIDTH, Vector

comptime ROWS_PER_TASK = 128
"""Rows of one task."""


@extensibility.register("whisper_layer_norm")
struct LayerNorm:
    """Layer norm over the last axis.

    `x`, `y`: `(m, n)`. `w`, `b`: scale and shift, `(n,)`.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        x: InputTensor[dtype=DType.float32, rank=2, ...],
        w: InputTensor[dtype=DType.float32, rank=1, ...],
        b: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var m, n = y.dim_size(0), y.dim_size(1)
        var xp = x.unsafe_ptr()
        var wp = w.unsafe_ptr()
        var bp = b.unsafe_ptr()
        var yp = y.unsafe_ptr()

        def work(task: Int) raises {imm}:
            normalise(task * ROWS_PER_TASK, min((task + 1) * ROWS_PER_TASK, m), n, xp, wp, bp, yp)

        sync_parallelize(work, ceildiv(m, ROWS_PER_TASK))


@always_inline
def normalise(
    first: Int,
    last: Int,
    n: Int,
    xp: Pointer[Float32, ...],
    w: Pointer[Float32, ...],
    b: Pointer[Float32, ...],
    yp: Pointer[mut=True, Float32, ...],
):
    """Layer norm of rows `first` to `last` of `xp` `(m, n)` to `yp`.

    The variance takes a pass of its own: the difference of two sums would cancel.
    """
    var body = n - n % WIDTH  # columns in whole vectors
    for i in range(first, last):
        var x = xp.unsafe_offset(i * n)  # (n,)
        var y = yp.unsafe_offset(i * n)
        var sums = Vector(0)
        for c in range(0, body, WIDTH):
            sums += x.unsafe_offset(c).unsafe_load[width=WIDTH]()
        var total = sums.reduce_add()
        for c in range(body, n):
            total += x.unsafe_offset(c).unsafe_load()
        var mean = total / Float32(n)

        # Variance around the mean.
        sums = Vector(0)
        for c in range(0, body, WIDTH):
            var d = x.unsafe_offset(c).unsafe_load[width=WIDTH]() - mean
            sums = d.fma(d, sums)
        total = sums.reduce_add()
        for c in range(body, n):
            var d = x.unsafe_offset(c).unsafe_load() - mean
            total += d * d
        var scale = 1 / sqrt(total / Float32(n) + Float32(1e-5))  # PyTorch's default, which Whisper uses

        # (x - mean) * scale * w + b
        for c in range(0, body, WIDTH):
            var d = (x.unsafe_offset(c).unsafe_load[width=WIDTH]() - mean) * scale
            var shift = b.unsafe_offset(c).unsafe_load[width=WIDTH]()
            y.unsafe_offset(c).unsafe_store(d.fma(w.unsafe_offset(c).unsafe_load[width=WIDTH](), shift))
        for c in range(body, n):
            var d = (x.unsafe_offset(c).unsafe_load() - mean) * scale
            var shift = b.unsafe_offset(c).unsafe_load()
            y.unsafe_offset(c).unsafe_store(d.fma(w.unsafe_offset(c).unsafe_load(), shift))


@extensibility.register("whisper_pad_frames")
struct PadFrames:
    """Transposes `mel` `(n_mels, frames)` into `y` `(frames + 2, n_mels)`, a row of zeros at both ends."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=2, ...],
        mel: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var n_mels, frames = mel.dim_size(0), mel.dim_size(1)
        var mp = mel.unsafe_ptr()
        var yp = y.unsafe_ptr()
        for c in range(n_mels):
            yp.unsafe_offset(c).unsafe_store(Float32(0))
            yp.unsafe_offset((frames + 1) * n_mels + c).unsafe_store(Float32(0))

        def work(task: Int) raises {imm}:
            for t in range(task * ROWS_PER_TASK, min((task + 1) * ROWS_PER_TASK, frames)):
                for c in range(n_mels):
                    yp.unsafe_offset((t + 1) * n_mels + c).unsafe_store(mp.unsafe_offset(c * frames + t).unsafe_load())

        sync_parallelize(work, ceildiv(frames, ROWS_PER_TASK))
