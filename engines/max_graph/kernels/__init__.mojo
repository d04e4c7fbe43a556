"""CPU kernels of Whisper, as MAX custom operations.

Everything is float32, row-major and of run-time size, so one compiled graph serves every Whisper
checkpoint; weights may be float16, widened in registers. `tile.mojo` holds the matrix product that
all of them share, `linear.mojo` projections and convolutions, `attention.mojo` attention,
`rows.mojo` what works row by row, `decoder.mojo` the text decoder, `select.mojo` the choice of tokens.
"""

from .attention import PackKeysValues, SelfAttention
from .decoder import Decoder, Logits
from .linear import Linear
from .rows import LayerNorm, PadFrames
from .select import Select
