"""CPU kernels of the Whisper encoder, as MAX custom operations.

Everything is float32, row-major and of run-time size, so one compiled graph serves every Whisper
checkpoint. `linear.mojo` holds the matrix product that convolutions and projections share,
`attention.mojo` the self-attention, `rows.mojo` what works row by row.
"""

from .attention import PackKeysValues, SelfAttention
from .linear import Linear
from .rows import LayerNorm, PadFrames
