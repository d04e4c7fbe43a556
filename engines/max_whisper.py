"""The engines in MAX: `max_hybrid` has its encoder in MAX graphs, `max_full` both halves."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from engines.base import (
    SILENT,
    Clip,
    Dtype,
    EngineError,
    EngineUnavailable,
    FloatArray,
    Listener,
    Options,
    Stopped,
    Transcript,
    explain,
)
from engines.checkpoints import Checkpoint
from engines.graph_whisper import DecoderModule, EncoderModule, FastWhisper, GraphWhisper
from engines.registry import EngineRow
from engines.token_selection import TorchInference
from engines.transcription import TimedWhisper, WhisperEngine

if TYPE_CHECKING:
    from max.dtype import DType

    from engines.max_graph.decoder import Decoder
    from engines.max_graph.encoder import MaxEncoder
    from engines.max_graph.weights import EncoderWeights


def load_max_encoder(
    checkpoint: Checkpoint,
    listener: Listener = SILENT,
    dtype: Dtype = "float32",
    weights: EncoderWeights | None = None,
) -> tuple[MaxEncoder, float]:
    """Return the MAX encoder of a checkpoint, and the seconds that compiling its graphs took.

    `dtype`: the type of an accelerator's products; a CPU's are always float32. `weights`: used in
    place of the checkpoint's.
    """
    from engines.max_graph import compile_cache
    from engines.max_graph.encoder import MaxEncoder
    from engines.max_graph.weights import encoder_weights

    weights = weights or encoder_weights(checkpoint.state, checkpoint.dims)
    device = compile_cache.pick_device()
    weight = compile_cache.pick_weight(checkpoint, device, dtype)
    start = perf_counter()
    models, op = compile_cache.load_graphs("encoder", checkpoint.dims, device, weight, listener)
    compiling = perf_counter() - start
    return MaxEncoder(models, weights, op, device), compiling


def pick_device(dtype: Dtype) -> str:
    """Return the label of MAX's device here; raises `EngineUnavailable` for halves on a CPU."""
    from engines.max_graph import compile_cache

    label: str = compile_cache.pick_device().label
    if dtype != "float32" and label == "cpu":
        raise EngineUnavailable("MAX computes only in float32 on a CPU")
    return label


class HybridWhisper(FastWhisper):
    """A whisper model with PyTorch's decoder under the fast token loop."""

    def make_inference(self, prompt_length: int, sot_index: int) -> TorchInference:
        return TorchInference(self, prompt_length, sot_index)


class MaxHybridEngine(WhisperEngine):
    """Encoder in MAX, on the accelerator where there is one; decoder in PyTorch."""

    def __init__(self, row: EngineRow, model: str, dtype: Dtype) -> None:
        pick_device(dtype)
        super().__init__(row, model, "cuda" if torch.cuda.is_available() else "cpu", dtype)

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        model = checkpoint.build(HybridWhisper)
        encoder, compiling = load_max_encoder(checkpoint, listener, self.dtype)
        model.encoder = EncoderModule(encoder)
        return model.to(self.device), compiling


class MaxFullEngine(WhisperEngine):
    """Encoder and decoder in MAX, on the accelerator where there is one, else on the CPU."""

    def __init__(self, row: EngineRow, model: str, dtype: Dtype) -> None:
        super().__init__(row, model, pick_device(dtype), dtype)

    def build(self, checkpoint: Checkpoint, listener: Listener) -> tuple[TimedWhisper, float]:
        """Return a whisper model with both halves replaced; it holds no PyTorch weights."""
        encoder, encoder_seconds = load_max_encoder(checkpoint, listener, self.dtype)
        decoder, decoder_seconds = load_max_decoder(checkpoint, listener, self.dtype)
        model = checkpoint.build(GraphWhisper)
        model.encoder = EncoderModule(encoder)
        model.decoder = DecoderModule(decoder)
        return model, encoder_seconds + decoder_seconds

    def transcribe_batch(
        self,
        clips: Sequence[Clip],
        options: Sequence[Options],
        at_once: int,
        listener: Listener = SILENT,
    ) -> list[Transcript | EngineError]:
        """Transcribe clips, up to `at_once` of them together, which is faster and changes no token.

        Each has its own options, and its transcript, without features, or its error stands in its
        place. Seconds are those of a clip's own run, much of which it waits for others; `listener`
        is called by several threads. On an accelerator it is one clip after another.
        """
        with self._lock:
            models: SimpleQueue[TimedWhisper] = SimpleQueue()
            for model in self._split(min(at_once, len(clips)), options):
                models.put(model)

            def run(clip: Clip, chosen: Options) -> Transcript | EngineError:
                model = models.get()
                try:
                    return self.run(model, clip, chosen, listener).without_features()
                except Stopped:
                    raise
                except Exception as error:  # the other clips go on
                    return EngineError(explain(error))
                finally:
                    models.put(model)

            with ThreadPoolExecutor(models.qsize()) as pool:
                return list(pool.map(run, clips, options))

    def _split(self, count: int, options: Sequence[Options]) -> list[TimedWhisper]:
        """Return models that share this one's graphs, for so many threads."""
        from engines.max_graph.cpu_decoder import CpuDecoder
        from engines.max_graph.decoder_batch import DecoderBatch

        model = self.ready()
        decoder, encoder = model.decoder.graphs, model.encoder
        if count == 1 or not isinstance(decoder, CpuDecoder):
            return [model]
        beams = max(max(each.beam_size or 1, each.best_of or 1) for each in options)
        batch = DecoderBatch(decoder, count, beams)

        def encode(mel: FloatArray) -> FloatArray:
            return batch.alone(lambda: encoder.encode(mel))

        return [
            model.copy_with(EncoderModule(encode), DecoderModule(batch.member(number)))
            for number in range(count)
        ]


def load_max_decoder(
    checkpoint: Checkpoint,
    listener: Listener = SILENT,
    dtype: Dtype = "float32",
    on_cpu: bool = False,
    weight: DType | None = None,
) -> tuple[Decoder, float]:
    """Return the MAX decoder of a checkpoint, and the seconds that compiling its graphs took.

    `dtype`: the type of an accelerator's products. A CPU's are always float32, with matrices kept
    in float16 when it holds all of them exactly. `on_cpu`: on the CPU, even where there is an
    accelerator. `weight`: the type to keep matrices in, whatever is exact.
    """
    from max.driver import CPU

    from engines.max_graph import compile_cache
    from engines.max_graph.accelerator_decoder import AcceleratorDecoder
    from engines.max_graph.cpu_decoder import CpuDecoder
    from engines.max_graph.weights import decoder_weights

    dims, weights = checkpoint.dims, decoder_weights(checkpoint.state, checkpoint.dims)
    device = CPU() if on_cpu else compile_cache.pick_device()
    weight = weight or compile_cache.pick_weight(checkpoint, device, dtype)
    start = perf_counter()
    models, op = compile_cache.load_graphs("decoder", dims, device, weight, listener)
    seconds = perf_counter() - start
    kind = CpuDecoder if device.label == "cpu" else AcceleratorDecoder
    return kind(models, weights, dims, op, device), seconds
