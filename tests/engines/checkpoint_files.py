"""Checkpoints with random weights, and files of them in every format that can be read."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

VOCABULARY = 51864
"""Tokens of the English-only checkpoints; the multilingual ones have one more, or two."""

DIMENSIONS = {
    "tiny": ModelDimensions(80, 1500, 384, 6, 4, VOCABULARY, 448, 384, 6, 4),
    "base": ModelDimensions(80, 1500, 512, 8, 6, VOCABULARY, 448, 512, 8, 6),
    "small": ModelDimensions(80, 1500, 768, 12, 12, VOCABULARY, 448, 768, 12, 12),
    "mini": ModelDimensions(80, 1500, 64, 1, 1, VOCABULARY, 448, 64, 1, 1),
    "mini128": ModelDimensions(128, 1500, 64, 1, 2, 51866, 448, 64, 1, 1),
    "distilled": ModelDimensions(80, 1500, 128, 2, 3, 51865, 448, 128, 2, 2),
}


def random_state(dims: ModelDimensions, seed: int = 0) -> dict[str, Tensor]:
    """The state dictionary of a Whisper with PyTorch's default initialisation, float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Whisper(dims)
        torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)
    state: dict[str, Tensor] = model.state_dict()
    return state


def write_checkpoint(
    path: Path, dims: ModelDimensions, state: Mapping[str, Any] | None = None
) -> Path:
    """Write a checkpoint in OpenAI's format, a random one unless told otherwise."""
    state = random_state(dims) if state is None else dict(state)
    torch.save({"dims": vars(dims), "model_state_dict": state}, path)
    return path


def write_hugging_face(
    folder: Path,
    dims: ModelDimensions,
    state: Mapping[str, Tensor],
    shards: int = 1,
    heads: list[list[int]] | None = None,
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
    named = {name_for_hugging_face(name): tensor.contiguous() for name, tensor in state.items()}
    if shards == 1:
        save_file(named, folder / "model.safetensors")
        return folder
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_file({name: named[name] for name in sorted(named)[shard::shards]}, folder / file)
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


def name_for_hugging_face(name: str) -> str:
    """Return Hugging Face's name of one of OpenAI's tensors."""
    for pattern, replacement in HUGGING_FACE_NAMES.items():
        name = re.sub(pattern, replacement, name)
    return f"model.{name}"


def write_ctranslate2(
    folder: Path,
    dims: ModelDimensions,
    state: Mapping[str, Tensor],
    dtype: str = "float16",
    heads: list[list[int]] | None = None,
) -> Path:
    """Write `model.bin` and `config.json` as CTranslate2's converter does."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = list(list_variables(dims, {name: t.numpy() for name, t in state.items()}))
    content = struct.pack("<I", 6) + pack_string("WhisperSpec")
    content += struct.pack("<II", 3, len(variables) + 1)
    content += pack_string("encoder/num_heads") + struct.pack("<BBIh", 0, 2, 2, dims.n_audio_head)
    code = {"float32": 0, "int8": 1, "float16": 4}[dtype]
    for name, array in variables:
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


def list_variables(
    dims: ModelDimensions, state: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield CTranslate2's names and arrays, projections stacked as its converter stacks them."""

    def norm(theirs: str, ours: str) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{theirs}/gamma", state[f"{ours}.weight"]
        yield f"{theirs}/beta", state[f"{ours}.bias"]

    def linear(theirs: str, *ours: str) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{theirs}/weight", np.concatenate([state[f"{name}.weight"] for name in ours])
        zeros = np.zeros(dims.n_audio_state, np.float32)
        yield f"{theirs}/bias", np.concatenate([state.get(f"{name}.bias", zeros) for name in ours])

    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            yield f"encoder/{conv}/{kind}", state[f"encoder.{conv}.{kind}"]
    yield "decoder/embeddings/weight", state["decoder.token_embedding.weight"]
    yield from norm("encoder/layer_norm", "encoder.ln_post")
    yield from norm("decoder/layer_norm", "decoder.ln")
    for half, layers in (("encoder", dims.n_audio_layer), ("decoder", dims.n_text_layer)):
        yield f"{half}/position_encodings/encodings", state[f"{half}.positional_embedding"]
        for layer in range(layers):
            theirs, ours = f"{half}/layer_{layer}", f"{half}.blocks.{layer}"
            yield from norm(f"{theirs}/self_attention/layer_norm", f"{ours}.attn_ln")
            stacked = [f"{ours}.attn.{name}" for name in ("query", "key", "value")]
            yield from linear(f"{theirs}/self_attention/linear_0", *stacked)
            yield from linear(f"{theirs}/self_attention/linear_1", f"{ours}.attn.out")
            if half == "decoder":
                yield from norm(f"{theirs}/attention/layer_norm", f"{ours}.cross_attn_ln")
                cross = f"{ours}.cross_attn"
                yield from linear(f"{theirs}/attention/linear_0", f"{cross}.query")
                yield from linear(f"{theirs}/attention/linear_1", f"{cross}.key", f"{cross}.value")
                yield from linear(f"{theirs}/attention/linear_2", f"{cross}.out")
            yield from norm(f"{theirs}/ffn/layer_norm", f"{ours}.mlp_ln")
            yield from linear(f"{theirs}/ffn/linear_0", f"{ours}.mlp.0")
            yield from linear(f"{theirs}/ffn/linear_1", f"{ours}.mlp.2")
