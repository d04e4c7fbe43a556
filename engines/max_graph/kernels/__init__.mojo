"""Kernels of Whisper, as MAX custom operations: for a CPU all but `product.mojo`.

Everything is float32, row-major and of run-time size, so one compiled graph serves every Whisper
checkpoint; weights may be float16, widened in registers. `tile.mojo` holds the matrix product that
all of them share, `linear.mojo` projections and convolutions, `attention.mojo` attention,
`rows.mojo` what works row by row, `decoder.mojo` the text decoder, `select.mojo` the choice of tokens.
`product.mojo` is the matrix product of an accelerator.
"""

from .attention import PackKeysValues, SelfAttention
from .decoder import Decoder, Logits
from .linear import Linear
from .product import Product
from .rows import LayerNorm, PadFrames
from .select import Select
