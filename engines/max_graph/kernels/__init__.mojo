"""Whisper's kernels as MAX custom operations.

Activations are float32, row-major and of run-time size, so one compiled graph serves every Whisper
checkpoint. Weights are float32, or float16 widened in registers; a draft's are integers with a scale for each column.

    tile.mojo       the register tile of every matrix product below
    linear.mojo     projections and convolutions, with bias, GELU and residual
    amx.mojo        products on Intel's matrix unit, with float32's accuracy
    attention.mojo  softmax attention over heads of 64
    amx_attention.mojo  the encoder's, on that unit
    rows.mojo       layer norm, and padding a spectrogram
    decoder.mojo    the text decoder's layers, and its logits
    draft.mojo      a draft's logits
    team.mojo       threads that go through a decoder's many short phases together
    select.mojo     top k tokens under Whisper's filters
    product.mojo    float32 matrix product on an accelerator; all others run on a CPU
"""

from .amx_attention import AmxAttention
from .attention import PackKeysValues, SelfAttention
from .decoder import Decoder, Logits
from .draft import DraftLogits
from .linear import Linear
from .product import Product
from .rows import LayerNorm, PadFrames
from .select import Select
