"""The network in training: whisper's own blocks, a compact vocabulary and helper heads.

The helpers (letters by CTC, word and phone of each frame) are dropped at export; they give the
encoder something to learn from the first minute on. The attention of the decoder's last layer is
guided to the time at which each token is spoken: whisper reads its word times there.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import AudioEncoder, ModelDimensions, MultiHeadAttention, TextDecoder

from . import tokens as vocab
from .windows import IGNORE

DIMS = ModelDimensions(
    n_mels=80, n_audio_ctx=1500, n_audio_state=192, n_audio_head=3, n_audio_layer=4,
    n_vocab=vocab.N_VOCAB, n_text_ctx=448, n_text_state=192, n_text_head=3, n_text_layer=2,
)  # fmt: skip


FRAME_STEPS = {"words": 4, "phones": 2}  # neighbours hold the same label: every n-th is enough
RECALL_HEADS = 2  # heads of the decoder's first layer that are guided
MARGIN = 3  # frames of slack on both sides of a token's span


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts."""

    tokens: float = 1.0
    letters: float = 0.3
    words: float = 0.5
    phones: float = 0.5
    guide: float = 0.3
    recall: float = 0.2
    cover: float = 0.15


class Network(nn.Module):
    """Encoder, decoder over the compact vocabulary, helper heads."""

    bonus: Tensor  # (rows,), log of how many full tokens each row stands for

    def __init__(self, phone_count: int):
        super().__init__()
        d, rows = DIMS, len(vocab.compact_ids()) + 1
        width = d.n_audio_state
        self.encoder = AudioEncoder(d.n_mels, d.n_audio_ctx, width, d.n_audio_head, d.n_audio_layer)
        self.decoder = TextDecoder(rows, d.n_text_ctx, width, d.n_text_head, d.n_text_layer)
        self.letters = nn.Linear(width, len(vocab.LETTERS) + 2)
        self.words = nn.Linear(width, len(vocab.word_classes()) + 1)
        self.phones = nn.Linear(width, phone_count + 1)
        bonus = torch.zeros(rows)
        bonus[-1] = torch.tensor(float(vocab.N_VOCAB - (rows - 1))).log()
        self.register_buffer("bonus", bonus, persistent=False)
        with torch.no_grad():  # at the default scale the positions drown the audio
            self.encoder.conv1.weight.mul_(2.5)
            self.encoder.conv2.weight.mul_(3.0)
            self.decoder.token_embedding.weight.normal_(0, 0.05)
            self.decoder.positional_embedding.normal_(0, 0.02)

    def encode(self, mel: Tensor, offset: Tensor) -> Tensor:
        """(B, 80, 2L) log-mel, (B,) first positions -> (B, L, width) features."""
        x = F.gelu(self.encoder.conv1(mel))
        x = F.gelu(self.encoder.conv2(x)).permute(0, 2, 1)
        places = offset[:, None] + torch.arange(x.shape[1], device=x.device)
        x = x + self.encoder.positional_embedding[places]
        for block in self.encoder.blocks:
            x = x + _attend(block.attn, block.attn_ln(x))
            x = x + block.mlp(block.mlp_ln(x))
        return self.encoder.ln_post(x)

    def decode(
        self, inputs: Tensor, features: Tensor, first: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """(B, T) compact ids, (B, L, width), (B,) first positions -> (B, T, rows) logits and, for
        the first and the last layer, their attention over the features (B, heads, T, L)."""
        d = self.decoder
        places = first[:, None] + torch.arange(inputs.shape[1], device=first.device)
        x = (
            d.token_embedding(inputs)
            + d.positional_embedding[places.clamp_max(d.mask.shape[0] - 1)]
        )
        attentions = []
        for block in d.blocks:
            x = x + block.attn(block.attn_ln(x), mask=d.mask)[0]
            mixed, attention = _open_attention(block.cross_attn, block.cross_attn_ln(x), features)
            x = x + mixed
            x = x + block.mlp(block.mlp_ln(x))
            attentions.append(attention)
        logits = F.linear(d.ln(x), d.token_embedding.weight).float() + self.bonus
        return logits, [attentions[0], attentions[-1]]


def _heads(layer: MultiHeadAttention, x: Tensor, xa: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of `x`, already scaled, keys and values of `xa`; each (B, heads, T or L, size)."""
    q, k, v = (
        t.view(*t.shape[:2], layer.n_head, -1).permute(0, 2, 1, 3)
        for t in (layer.query(x), layer.key(xa), layer.value(xa))
    )
    return q * q.shape[-1] ** -0.5, k, v


def _joined(layer: MultiHeadAttention, mixed: Tensor) -> Tensor:
    """The heads' values, (B, heads, T, size), through the layer's last product: (B, T, width)."""
    out: Tensor = layer.out(mixed.permute(0, 2, 1, 3).flatten(2))
    return out


def _attend(layer: MultiHeadAttention, x: Tensor) -> Tensor:
    """Whisper's self-attention without a mask, (B, L, width) to the same."""
    q, k, v = _heads(layer, x, x)
    if x.device.type == "cpu":
        return _joined(layer, HeadByHead.apply(q, k, v))
    return _joined(layer, F.scaled_dot_product_attention(q, k, v, scale=1.0))


class HeadByHead(torch.autograd.Function):
    """softmax(q k^T) v, each (B, heads, L, size), one head of one window at a time.

    On a processor PyTorch's own attention takes 1.6 to 2 times as long in bfloat16, there and
    back: here the scores of a head stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, *qkv: Tensor) -> Tensor:
        """The mixed values; the probabilities are kept for the way back."""
        q, k, v = (t.contiguous() for t in qkv)
        mixed, ctx.probabilities = torch.empty_like(q), {}
        for place in np.ndindex(q.shape[:2]):
            shares = (q[place] @ k[place].T).softmax(-1)
            torch.mm(shares, v[place], out=mixed[place])
            ctx.probabilities[place] = shares
        ctx.save_for_backward(q, k, v)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """The gradients of queries, keys and values."""
        (mixed,) = (g.contiguous() for g in gradients)
        q, k, v = ctx.saved_tensors
        of_q, of_k, of_v = (torch.empty_like(t) for t in (q, k, v))
        for place, shares in ctx.probabilities.items():
            torch.mm(shares.T, mixed[place], out=of_v[place])
            of_shares = mixed[place] @ v[place].T
            scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype)
            torch.mm(scores, k[place], out=of_q[place])
            torch.mm(scores.T, q[place], out=of_k[place])
        return of_q, of_k, of_v


def _open_attention(
    layer: MultiHeadAttention, x: Tensor, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Whisper's cross-attention with its probabilities in the open, (B, heads, T, L) float32."""
    q, k, v = _heads(layer, x, features)
    attention = (q @ k.transpose(-1, -2)).float().softmax(-1)
    return _joined(layer, attention.to(v.dtype) @ v), attention


def guide_loss(attention: Tensor, spans: Tensor) -> Tensor:
    """-log of the attention inside each token's span; spans (B, T, 2) in frames, -1 for none."""
    known = spans[..., 1] >= 0
    frames = torch.arange(attention.shape[-1], device=attention.device)
    first, last = spans[..., :1].floor() - MARGIN, spans[..., 1:].ceil() + MARGIN
    inside = (frames >= first) & (frames <= last)
    mass = (attention * inside[:, None]).sum(-1).clamp_min(1e-5)
    known = known & inside.any(-1)
    return -(mass.log().mean(1) * known).sum() / known.sum().clamp_min(1)


def cover_loss(attention: Tensor, spans: Tensor, text: Tensor) -> Tensor:
    """How far the attention of each text token is from being even over its span.

    The Kullback-Leibler divergence; spans (B, T, 2) in frames, text (B, T) bool. Whisper's word
    times are the borders between the tokens' attention: a peak in the middle leaves them open.
    """
    frames = torch.arange(attention.shape[-1], device=attention.device)
    inside = (frames >= spans[..., :1].round()) & (frames < spans[..., 1:].round())
    count = inside.sum(-1)
    text = text & (spans[..., 1] >= 0) & (count > 0)
    each = (attention.clamp_min(1e-6).log() * inside[:, None]).sum(-1).mean(1)
    divergence = -each / count.clamp_min(1) - count.clamp_min(1).log()
    return (divergence * text).sum() / text.sum().clamp_min(1)


def letter_loss(network: Network, features: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """CTC over the letters of the words spoken, per letter."""
    counts = batch["letter_counts"]
    letters = network.letters(features).float().log_softmax(-1).transpose(0, 1)
    lengths = torch.full_like(counts, letters.shape[0])
    loss = F.ctc_loss(
        letters, batch["letters"], lengths, counts, reduction="sum", zero_infinity=True
    )
    return loss / counts.sum().clamp_min(1)


def encoder_losses(
    network: Network, features: Tensor, batch: dict[str, Tensor], weights: LossWeights
) -> dict[str, Tensor]:
    """Losses of the helper heads; the letters only where they count, for they cost time."""
    features = features.float()
    losses = {"letters": letter_loss(network, features, batch)} if weights.letters else {}
    for head, step in FRAME_STEPS.items():
        begin = int(torch.randint(step, ()))
        scores = getattr(network, head)(features[:, begin::step]).float().flatten(0, 1)
        labels = batch[head][:, begin::step].flatten()
        weight = torch.where(labels > 0, 1.0, 0.2)
        loss = F.cross_entropy(scores, labels, reduction="none") * weight
        losses[head] = loss.sum() / weight.sum()
        spoken = labels > 0
        losses[head + "_accuracy"] = (scores.argmax(-1) == labels)[spoken].float().mean()
    return losses


def decoder_losses(
    network: Network, features: Tensor, batch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Token cross-entropy (the shared row counted as often as it will stand) and the guides.

    The last layer is guided to the token to come, some heads of the first layer to the token just
    read: where that one was is what the last layer needs to know to go on from there.
    """
    logits, (first, last) = network.decode(batch["inputs"], features, batch["position"])
    targets = batch["targets"]
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    known = targets != IGNORE
    accuracy = (logits.argmax(-1) == targets)[known].float().mean()
    text = known & (targets < int(vocab.compact_index()[vocab.tokenizer().eot]))
    text_accuracy = (logits.argmax(-1) == targets)[text].float().mean()
    spans = batch["spans"]
    return {
        "tokens": loss,
        "guide": guide_loss(last, spans),
        "cover": cover_loss(last, spans, text),
        "recall": guide_loss(first[:, :RECALL_HEADS, 1:], spans[:, :-1]),
        "accuracy": accuracy,
        "text_accuracy": text_accuracy,
    }


def total(losses: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of the losses that are there."""
    return sum(losses[name] * w for name, w in asdict(weights).items() if name in losses and w)
