"""Checkpoints with random weights, and files of them in every format that can be read."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

State = Mapping[str, Any]
Heads = list[list[int]] | None

DIMENSIONS = {
    "tiny": ModelDimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4),
    "small": ModelDimensions(80, 1500, 768, 12, 12, 51864, 448, 768, 12, 12),
    "medium": ModelDimensions(80, 1500, 1024, 16, 24, 51865, 448, 1024, 16, 1),
    "large": ModelDimensions(128, 1500, 1280, 20, 8, 51866, 448, 1280, 20, 1),
    "mini": ModelDimensions(80, 1500, 64, 1, 1, 51864, 448, 64, 1, 1),
    "mini128": ModelDimensions(128, 1500, 64, 1, 2, 51866, 448, 64, 1, 1),
    "distilled": ModelDimensions(80, 1500, 128, 2, 3, 51865, 448, 128, 2, 2),
}
"""Real sizes (`medium` and `large` with fewer layers) and small ones; English has a token less."""


def random_state(dims: ModelDimensions, seed: int = 0, half: bool = False) -> dict[str, Tensor]:
    """The state dictionary of a Whisper with PyTorch's default initialisation, float32; `half`:
    such as float16 holds exactly, as it does OpenAI's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Whisper(dims)
        torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)
    state: dict[str, Tensor] = model.state_dict()
    return {name: tensor.half().float() for name, tensor in state.items()} if half else state


def write_checkpoint(path: Path, dims: ModelDimensions, state: State | None = None) -> Path:
    """Write a checkpoint in OpenAI's format, a random one unless told otherwise."""
    state = random_state(dims) if state is None else dict(state)
    torch.save({"dims": vars(dims), "model_state_dict": state}, path)
    return path


def write_hugging_face(
    folder: Path,
    dims: ModelDimensions,
    state: State,
    shards: int = 1,
    heads: Heads = None,
    **config: Any,
) -> Path:
    """Write `config.json`, `generation_config.json` and the tensors as Hugging Face has them."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "model_type": "whisper",
        "num_mel_bins": dims.n_mels,
        "max_source_positions": dims.n_audio_ctx,
        "d_model": dims.n_audio_state,
        "encoder_attention_heads": dims.n_audio_head,
        "encoder_layers": dims.n_audio_layer,
        "vocab_size": dims.n_vocab,
        "max_target_positions": dims.n_text_ctx,
        "decoder_attention_heads": dims.n_text_head,
        "decoder_layers": dims.n_text_layer,
    }
    (folder / "config.json").write_text(json.dumps(described | config))
    generation = {} if heads is None else {"alignment_heads": heads}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    named = {
        f"model.{rename(name, HUGGING_FACE_NAMES)}": tensor.contiguous()
        for name, tensor in state.items()
    }
    for shard in range(shards):
        part = f"-{shard + 1:05}-of-{shards:05}" if shards > 1 else ""
        held = {name: named[name] for name in sorted(named)[shard::shards]}
        save_file(held, folder / f"model{part}.safetensors")
    return folder


HUGGING_FACE_NAMES = {
    r"\.blocks\.": ".layers.",
    r"\.cross_attn\.": ".encoder_attn.",
    r"\.attn\.": ".self_attn.",
    r"\.cross_attn_ln\.": ".encoder_attn_layer_norm.",
    r"\.attn_ln\.": ".self_attn_layer_norm.",
    r"\.mlp_ln\.": ".final_layer_norm.",
    r"\.(q|k|v)(uery|ey|alue)\.": r".\1_proj.",
    r"\.out\.": ".out_proj.",
    r"\.mlp\.0\.": ".fc1.",
    r"\.mlp\.2\.": ".fc2.",
    r"\.ln(_post)?\.": ".layer_norm.",
    r"\.token_embedding\.": ".embed_tokens.",
    r"\.positional_embedding$": ".embed_positions.weight",
}


CTRANSLATE2_NAMES = {
    r"^encoder\.ln_post\.": "encoder.layer_norm.",
    r"^decoder\.ln\.": "decoder.layer_norm.",
    r"\.token_embedding\.": ".embeddings.",
    r"\.positional_embedding$": ".position_encodings.encodings",
    r"\.blocks\.": ".layer_",
    r"\.attn_ln\.": ".self_attention.layer_norm.",
    r"\.cross_attn_ln\.": ".attention.layer_norm.",
    r"\.mlp_ln\.": ".ffn.layer_norm.",
    r"\.attn\.(query|key|value)\.": ".self_attention.linear_0.",
    r"\.attn\.out\.": ".self_attention.linear_1.",
    r"\.cross_attn\.query\.": ".attention.linear_0.",
    r"\.cross_attn\.(key|value)\.": ".attention.linear_1.",
    r"\.cross_attn\.out\.": ".attention.linear_2.",
    r"\.mlp\.0\.": ".ffn.linear_0.",
    r"\.mlp\.2\.": ".ffn.linear_1.",
    r"layer_norm\.weight$": "layer_norm.gamma",
    r"layer_norm\.bias$": "layer_norm.beta",
    r"\.": "/",
}


def rename(name: str, patterns: dict[str, str]) -> str:
    """Return another library's name of one of OpenAI's tensors."""
    for pattern, replacement in patterns.items():
        name = re.sub(pattern, replacement, name)
    return name


def write_ctranslate2(
    folder: Path, dims: ModelDimensions, state: State, dtype: str = "float16", heads: Heads = None
) -> Path:
    """Write `model.bin` and `config.json` as CTranslate2's converter does."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = stack_projections(state)
    content = struct.pack("<I", 6) + pack_string("WhisperSpec")
    content += struct.pack("<II", 3, len(variables) + 1)
    content += pack_string("encoder/num_heads") + struct.pack("<BBIh", 0, 2, 2, dims.n_audio_head)
    code = {"float32": 0, "int8": 1, "float16": 4}[dtype]
    for name, array in variables.items():
        raw = array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        content += pack_string(name) + shape + struct.pack("<BI", code, len(raw)) + raw
    content += struct.pack("<I", 1)
    content += pack_string("decoder/projection/weight") + pack_string("decoder/embeddings/weight")
    (folder / "model.bin").write_bytes(content)
    config = {} if heads is None else {"alignment_heads": heads}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def pack_string(text: str) -> bytes:
    """Return a string as `model.bin` has it."""
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def stack_projections(state: State) -> dict[str, np.ndarray]:
    """Return CTranslate2's arrays by name, those of a projection stacked; keys have a bias of 0."""
    parts: dict[str, list[np.ndarray]] = {}
    for name, tensor in state.items():
        parts.setdefault(rename(name, CTRANSLATE2_NAMES), []).append(tensor.numpy())
        if name.endswith(".key.weight"):
            bias = rename(name.replace(".weight", ".bias"), CTRANSLATE2_NAMES)
            parts.setdefault(bias, []).append(np.zeros(len(tensor), np.float32))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
