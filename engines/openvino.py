"""OpenVINO on the processor: its encoder and decoder under whisper's own loop.

OpenVINO's users often run it through OpenVINO GenAI, whose loop has no fallback, no previous text
and no test for silence. Here it computes the two halves of the model, by `engines.graph_whisper`,
and every option means what it means in the other engines. The graphs are built from the loaded
tensors; nothing is converted on disk.

- `encoder`: a log-mel window to features.
- `cross`: features to every layer's cross-attention keys and values, once per window.
- `step`: new tokens through all layers, over keys and values that OpenVINO keeps as its state.
- `align`: logits of all rows and the cross-attention scores from which word times are made.

`bfloat16` computes both halves in that type. `int8` rounds the matrices to 8 bits, a scale for each
row, the token embedding included, and computes in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import openvino
import torch
from openvino import Type
from openvino import opset13 as ops
from openvino.opset6 import assign, read_value
from whisper.model import ModelDimensions

from engines.base import Dtype, FloatArray, Listener
from engines.checkpoints import Checkpoint
from engines.graph_whisper import DecoderModule, EncoderModule, GraphWhisper
from engines.registry import EngineRow
from engines.token_selection import IntArray, Step, TokenConstraints, select_top_k
from engines.transcription import TimedWhisper, WhisperEngine

HEAD = 64
"""Width of every attention head."""

MASKED = np.float32(-65504)
"""Added to scores of keys that a query must not see."""

CrossKV = list[openvino.Tensor]
"""One window's cross-attention keys and values, `(1, heads, n_audio_ctx, 64)`, layer by layer."""


class OpenVinoEngine(WhisperEngine):
    """Encoder and decoder in OpenVINO on the processor."""

    def __init__(self, row: EngineRow, model: str, dtype: Dtype) -> None:
        super().__init__(row, model, "cpu", dtype)

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        start = perf_counter()
        graphs = Graphs(checkpoint, self.dtype)
        listener.report("compiling")
        encoder = graphs.compile(graphs.encoder())

        def encode(mel: FloatArray) -> FloatArray:
            features: FloatArray = encoder.infer([mel[None]])[0][0].copy()
            return features

        model = checkpoint.build(GraphWhisper)
        model.encoder = EncoderModule(encode)
        model.decoder = DecoderModule(Decoder(graphs))
        return model, perf_counter() - start


@dataclass
class Cache:
    """The keys and values of some beams, which OpenVINO keeps.

    `sources`: which beam of the last step each beam of the next one continues. `empty`: whether
    the next step is the first.
    """

    sources: list[int]
    empty: bool = True


class Decoder:
    """A decoder's compiled graphs, an `engines.graph_whisper.GraphDecoder`.

    There is one state, of the window that is being decoded.
    """

    def __init__(self, graphs: Graphs) -> None:
        self.dims = graphs.dims
        self._graphs = graphs
        self._cross = graphs.compile(graphs.cross())
        self._step = graphs.compile(graphs.step())

    @cached_property
    def _align(self) -> openvino.InferRequest:
        return self._graphs.compile(self._graphs.align())

    def compute_cross_kv(self, features: FloatArray) -> CrossKV:
        outputs = self._cross.infer([features[None]])
        return [openvino.Tensor(outputs[place].copy()) for place in range(len(outputs))]

    def new_cache(self, batch: int) -> Cache:
        return Cache(list(range(batch)))

    def reorder_beams(self, cache: Cache, source: Cache, beams: list[int]) -> None:
        cache.sources = [source.sources[beam] for beam in beams]
        cache.empty = source.empty

    def step(
        self,
        tokens: IntArray,
        cross: CrossKV,
        cache: Cache,
        rows: IntArray,
        constraints: TokenConstraints,
        ranges: IntArray,
        k: int,
    ) -> Step:
        """Append `tokens` `(batch, new)` and decode `rows`, each beam * new + position.

        Returns logits `(m, n_vocab)` and the top k tokens as `select_top_k` has them.
        """
        if cache.empty:
            self._step.reset_state()
        sources = np.array(cache.sources, np.int32)
        outputs = self._step.infer([tokens, rows, sources, *cross])
        cache.empty, cache.sources = False, list(range(len(tokens)))
        logits: FloatArray = outputs[0].copy()
        return logits, *select_top_k(logits, constraints, ranges, k)

    def align(self, tokens: IntArray, cross: CrossKV) -> tuple[FloatArray, FloatArray]:
        """Return logits `(new, n_vocab)` of `tokens` `(1, new)`, and scaled cross-attention scores
        before the softmax, `(layers, heads, new, n_audio_ctx)`."""
        outputs = self._align.infer([tokens, np.arange(tokens.size, dtype=np.int64), *cross])
        return outputs[0].copy(), outputs[1].copy()

    def end_window(self) -> None:
        """As `engines.graph_whisper.GraphDecoder`."""


class Graphs:
    """Builds and compiles the graphs of one checkpoint; `dtype` as in the module's text.

    In the comments `n_state` is the model's width; `batch` and `new` are known at run time.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: Dtype) -> None:
        self.dims: ModelDimensions = checkpoint.dims
        self._state: Mapping[str, FloatArray] = {
            name: tensor.numpy() for name, tensor in checkpoint.state.items()
        }
        self._dtype = dtype

    def compile(self, graph: openvino.Model) -> openvino.InferRequest:
        """Compile a graph for the processor, with PyTorch's number of threads.

        The types are set because OpenVINO's own choice on some processors is bfloat16, and 8 bits
        for what a decoder keeps.
        """
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
            "INFERENCE_PRECISION_HINT": "bf16" if self._dtype == "bfloat16" else "f32",
            "KV_CACHE_PRECISION": "f32",
        }
        return openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    # The four graphs

    def encoder(self) -> openvino.Model:
        """`(1, n_mels, 3000)` to `(1, n_audio_ctx, n_state)`."""
        mel = ops.parameter([1, self.dims.n_mels, 2 * self.dims.n_audio_ctx], Type.f32)
        x = ops.gelu(self._convolve(mel, "encoder.conv1", 1), "erf")
        x = ops.gelu(self._convolve(x, "encoder.conv2", 2), "erf")
        places = self._state["encoder.positional_embedding"]
        x = ops.add(ops.transpose(x, number([0, 2, 1])), places)
        for layer in range(self.dims.n_audio_layer):
            name = f"encoder.blocks.{layer}"
            normed = self._normalise(x, f"{name}.attn_ln")
            attended = ops.scaled_dot_product_attention(*self._project(normed, f"{name}.attn"))
            x = ops.add(x, self._multiply(self._join(attended), f"{name}.attn.out"))
            x = self._feed_forward(x, name)
        return openvino.Model([self._normalise(x, "encoder.ln_post")], [mel], "encoder")

    def cross(self) -> openvino.Model:
        """Features `(1, n_audio_ctx, n_state)` to key and value of every layer."""
        features = ops.parameter([1, self.dims.n_audio_ctx, self.dims.n_text_state], Type.f32)
        results = [
            self._split(self._multiply(features, f"decoder.blocks.{layer}.cross_attn.{part}"))
            for layer in range(self.dims.n_text_layer)
            for part in ("key", "value")
        ]
        return openvino.Model(results, [features], "cross")

    def step(self) -> openvino.Model:
        """Tokens `(batch, new)`, rows `(m,)`, sources `(batch,)` and cross-attention keys and
        values to logits `(m, n_vocab)`; the state grows by the new positions."""
        tokens, rows, cross = self._decoder_inputs()
        sources = ops.parameter([-1], Type.i32)
        heads = self.dims.n_text_head
        batch = ops.gather(ops.shape_of(tokens), number([0]), number(0))
        nothing = ops.broadcast(np.float32(0), ops.concat([batch, number([heads, 0, HEAD])], 0))
        shape = openvino.PartialShape([-1, heads, -1, HEAD])
        names = [f"{part}.{n}" for n in range(self.dims.n_text_layer) for part in ("key", "value")]
        past = [
            ops.gather(read_value(nothing, name, Type.f32, shape), sources, number(0))
            for name in names
        ]
        logits, whole, _ = self._decode(tokens, rows, cross, past)
        sinks = [assign(each, name) for each, name in zip(whole, names, strict=True)]
        return openvino.Model([logits.output(0)], sinks, [tokens, rows, sources, *cross], "step")

    def align(self) -> openvino.Model:
        """Tokens `(1, new)`, rows and cross-attention keys and values to logits of the rows and
        scores `(layers, heads, new, n_audio_ctx)`."""
        tokens, rows, cross = self._decoder_inputs()
        logits, _, scores = self._decode(tokens, rows, cross, None)
        return openvino.Model([logits, ops.concat(scores, 0)], [tokens, rows, *cross], "align")

    # Their parts

    def _decoder_inputs(self) -> tuple[Any, Any, list[Any]]:
        shape = [1, self.dims.n_text_head, self.dims.n_audio_ctx, HEAD]
        cross = [ops.parameter(shape, Type.f32) for _ in range(2 * self.dims.n_text_layer)]
        return ops.parameter([-1, -1], Type.i64), ops.parameter([-1], Type.i64), cross

    def _decode(
        self, tokens: Any, rows: Any, cross: Sequence[Any], cache: Sequence[Any] | None
    ) -> tuple[Any, list[Any], list[Any]]:
        """Return the logits of `rows`, and of every layer the keys and values with the new ones,
        and without `cache` the cross-attention scores.

        `cache`: keys and values so far, `(batch, heads, positions, 64)`.
        """
        new = ops.gather(ops.shape_of(tokens), number(1), number(0))
        past = ops.gather(ops.shape_of(cache[0]), number(2), number(0)) if cache else number(0)
        places = ops.range(past, ops.add(past, new), number(1), Type.i64)  # (new,)
        embedding = self._matrix("decoder.token_embedding.weight")
        x = ops.add(
            ops.gather(embedding, tokens, number(0)),
            ops.gather(self._state["decoder.positional_embedding"], places, number(0)),
        )  # (batch, new, n_state)
        keys = ops.range(number(0), ops.add(past, new), number(1), Type.i64)
        seen = ops.less_equal(ops.unsqueeze(keys, [0, 1, 2]), ops.unsqueeze(places, [0, 1, 3]))
        mask = ops.select(seen, np.float32(0), MASKED)  # (1, 1, new, past + new)
        whole: list[Any] = []
        scores: list[Any] = []
        for layer in range(self.dims.n_text_layer):
            name = f"decoder.blocks.{layer}"
            query, *pair = self._project(self._normalise(x, f"{name}.attn_ln"), f"{name}.attn")
            if cache:
                pair = [ops.concat([cache[2 * layer + i], pair[i]], 2) for i in (0, 1)]
            whole += pair
            attended = ops.scaled_dot_product_attention(query, *pair, mask)
            x = ops.add(x, self._multiply(self._join(attended), f"{name}.attn.out"))
            key, value = cross[2 * layer : 2 * layer + 2]
            attended, score = self._attend_audio(x, name, key, value, fused=cache is not None)
            scores += [] if score is None else [score]
            x = ops.add(x, self._multiply(attended, f"{name}.cross_attn.out"))
            x = self._feed_forward(x, name)
        flat = ops.reshape(x, number([-1, self.dims.n_text_state]), False)
        chosen = self._normalise(ops.gather(flat, rows, number(0)), "decoder.ln")
        return ops.matmul(chosen, embedding, False, True), whole, scores

    def _attend_audio(
        self, x: Any, name: str, key: Any, value: Any, fused: bool
    ) -> tuple[Any, Any | None]:
        """Return cross-attention of `x`, `(batch, new, n_state)`, and its scores unless `fused`.

        All beams hear the same window, so they are one batch of `batch * new` queries.
        """
        normed = self._normalise(x, f"{name}.cross_attn_ln")
        shape = ops.shape_of(normed)
        one = ops.reshape(
            self._multiply(normed, f"{name}.cross_attn.query"),
            number([1, -1, self.dims.n_text_state]),
            False,
        )
        query, scores = self._split(one), None
        if fused:
            attended = ops.scaled_dot_product_attention(query, key, value)
        else:
            scaled = ops.multiply(query, np.float32(HEAD**-0.5))
            scores = ops.matmul(scaled, key, False, True)
            attended = ops.matmul(ops.softmax(scores, -1), value, False, False)
        return ops.reshape(self._join(attended), shape, False), scores

    def _project(self, x: Any, name: str) -> list[Any]:
        """Return query, key and value of every head, `(batch, heads, positions, 64)`."""
        parts = ("query", "key", "value")
        return [self._split(self._multiply(x, f"{name}.{part}")) for part in parts]

    def _split(self, x: Any) -> Any:
        """`(batch, positions, n_state)` to `(batch, heads, positions, 64)`."""
        return ops.transpose(ops.reshape(x, number([0, 0, -1, HEAD]), True), number([0, 2, 1, 3]))

    def _join(self, x: Any) -> Any:
        """`(batch, heads, positions, 64)` to `(batch, positions, n_state)`."""
        width = self.dims.n_text_state
        return ops.reshape(ops.transpose(x, number([0, 2, 1, 3])), number([0, 0, width]), True)

    def _feed_forward(self, x: Any, name: str) -> Any:
        hidden = self._multiply(self._normalise(x, f"{name}.mlp_ln"), f"{name}.mlp.0")
        return ops.add(x, self._multiply(ops.gelu(hidden, "erf"), f"{name}.mlp.2"))

    def _normalise(self, x: Any, name: str) -> Any:
        normed = ops.mvn(x, number([-1]), True, 1e-5, "inside_sqrt")
        scaled = ops.multiply(normed, self._state[f"{name}.weight"])
        return ops.add(scaled, self._state[f"{name}.bias"])

    def _convolve(self, x: Any, name: str, stride: int) -> Any:
        weight, bias = self._state[f"{name}.weight"], self._state[f"{name}.bias"]
        return ops.add(ops.convolution(x, weight, [stride], [1], [1], [1]), bias[None, :, None])

    def _multiply(self, x: Any, name: str) -> Any:
        """Return `x` times a matrix `(out, in)`, plus its bias where it has one."""
        product = ops.matmul(x, self._matrix(f"{name}.weight"), False, True)
        bias = self._state.get(f"{name}.bias")
        return product if bias is None else ops.add(product, bias)

    def _matrix(self, name: str) -> Any:
        """Return a matrix; a rounded one as 8 bits times the scale of their row."""
        values = self._state[name]
        if self._dtype != "int8":
            return ops.constant(values)
        scales = (np.abs(values).max(1, keepdims=True) / 127).astype(np.float16)
        scales[scales == 0] = 1
        whole = np.rint(values / scales.astype(np.float32)).clip(-127, 127).astype(np.int8)
        halves = ops.convert(ops.constant(whole), Type.f16)
        scaled = ops.multiply(halves, ops.constant(scales))
        return ops.convert(scaled, Type.f32)


def number(value: Any) -> Any:
    """Return whole numbers as a constant."""
    return ops.constant(np.array(value, np.int64))
