"""The engines: a row each, which of them this machine can run, and the names of lanes.

A new engine is one file and one row in `ENGINES`. An engine's module is imported when the engine
is first asked for; importing this one imports neither PyTorch nor MAX.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any

from engines import hardware
from engines.base import Dtype, Engine, EngineError, EngineUnavailable, Stopped, describe_error
from engines.models import DEFAULT_MODEL

# Engines


@dataclass(frozen=True)
class EngineRow:
    """One engine: its names, its colour, its types and where its code is.

    `about`: what it is, in a few plain words. `colour`: of its lane and its lines in charts,
    `#rrggbb`. `dtypes`: the types it can compute in, on a GPU at least. `uses_gpu`: whether it runs
    on a GPU where there is one. Functions and classes are named `module:name`. `make(row, model,
    dtype)` returns the engine, not loaded yet; `why_not()` why this machine can't run it, or None.
    `open_encoder(checkpoint, dtype, listener)` opens its encoder for the layer inspection
    (`engines.analysis.layers`), `open_decoder` its decoder; engines of the same half name the same
    function, and an engine without one is not offered there. `offers_dtypes`: whether the page lets
    one choose its type. `packages`: optional ones that it imports. `own_loop`: how its runtime's
    loop differs from whisper's; "" where it runs whisper's. `runs_batches`: whether it has
    `transcribe_batch`, as `engines.max_whisper.MaxFullEngine` has.
    """

    key: str
    label: str
    about: str
    encoder: str
    decoder: str
    colour: str
    make: str
    dtypes: tuple[Dtype, ...] = ("float32",)
    uses_gpu: bool = False
    why_not: str | None = None
    open_encoder: str | None = None
    open_decoder: str | None = None
    offers_dtypes: bool = False
    packages: tuple[str, ...] = ()
    own_loop: str = ""
    runs_batches: bool = False

    @property
    def is_optional(self) -> bool:
        """Whether it needs optional packages; it runs only where it is asked for."""
        return bool(self.packages)

    def find_stages(self, half: str) -> str | None:
        """Return where the function is that opens its `encoder` or `decoder`, or None."""
        return {"encoder": self.open_encoder, "decoder": self.open_decoder}[half]

    def make_engine(self, model: str, dtype: Dtype) -> Engine:
        """Make the engine for a model; raises `EngineUnavailable` where it can't run so."""
        if reason := self.why_unavailable():
            raise EngineUnavailable(reason)
        if dtype not in self.usable_dtypes():
            usable = " or ".join(self.usable_dtypes())
            raise EngineUnavailable(f"{self.label} computes only in {usable} on this machine")
        try:
            make = resolve_name(self.make)
        except (ImportError, OSError) as error:  # a library that this system or processor lacks
            reason = f"{self.label} is installed but can't be loaded: {describe_error(error)}"
            raise EngineUnavailable(reason) from error
        return make(self, model, dtype)

    def why_unavailable(self) -> str | None:
        """Return why this machine can't run the engine, or None when it can."""
        if any(find_spec(name) is None for name in self.packages):
            return f"optional and not installed: run {HOW_TO_INSTALL}"
        return resolve_name(self.why_not)() if self.why_not else None

    def usable_dtypes(self) -> tuple[Dtype, ...]:
        """Return the types it can compute in on this machine: without a GPU float32 alone."""
        if len(self.dtypes) > 1 and self.uses_gpu and not hardware.has_accelerator():
            return self.dtypes[:1]
        return self.dtypes


HOW_TO_INSTALL = "make engines-extra"
"""What installs the packages of optional engines."""


def make_variant(row: EngineRow, dtype: Dtype, colour: str, **changes: str) -> EngineRow:
    """Make the row of the same engine in another type, a colour and other `changes` of its own."""
    about = "The same with the matrices rounded to 8 bits"
    names = {"key": f"{row.key}_{dtype}", "label": f"{row.label} {dtype}", "about": about}
    fields: dict[str, Any] = {**names, "colour": colour, "dtypes": (dtype,), **changes}
    return replace(row, **fields)


FASTER_WHISPER = EngineRow(
    key="faster_whisper",
    label="faster-whisper",
    about="A loop like OpenAI’s over the engine CTranslate2",
    encoder="CTranslate2",
    decoder="CTranslate2",
    colour="#56B4E9",
    make="engines.faster_whisper:FasterWhisperEngine",
    packages=("faster_whisper", "ctranslate2"),
    own_loop="Its own mel spectrogram and loop. Words arrive a window at a time. Above temperature "
    "0 it takes the best of five samples, where OpenAI’s code takes one.",
)

WHISPER_CPP = EngineRow(
    key="whisper_cpp",
    label="whisper.cpp",
    about="Whisper in C++ over ggml, through pywhispercpp",
    encoder="ggml",
    decoder="ggml",
    colour="#D55E00",
    dtypes=("float16",),
    make="engines.whisper_cpp:WhisperCppEngine",
    why_not="engines.hardware:why_no_avx2",
    packages=("pywhispercpp",),
    own_loop="Its own mel spectrogram, loop, beam search and fallback, by entropy in place of "
    "compression. It may write signs for music and noise. Words arrive a window at a time, with "
    "times at the end.",
)

OPENVINO = EngineRow(
    key="openvino",
    label="OpenVINO",
    about="Intel’s OpenVINO, under OpenAI’s loop",
    encoder="OpenVINO",
    decoder="OpenVINO",
    colour="#7B61FF",
    make="engines.openvino:OpenVinoEngine",
    packages=("openvino",),
)

ENGINES: tuple[EngineRow, ...] = (
    EngineRow(
        key="cpu",
        label="PyTorch CPU",
        about="OpenAI’s own code on the processor: the baseline",
        encoder="PyTorch",
        decoder="PyTorch",
        colour="#0072B2",
        make="engines.whisper_torch:TorchEngine",
        open_encoder="engines.analysis.layers:open_torch_cpu",
        open_decoder="engines.analysis.decoder_layers:open_torch_cpu",
    ),
    EngineRow(
        key="gpu",
        label="PyTorch GPU",
        about="OpenAI’s own code on an NVIDIA GPU",
        encoder="PyTorch",
        decoder="PyTorch",
        colour="#E69F00",
        dtypes=("float32", "float16"),
        uses_gpu=True,
        make="engines.whisper_torch:TorchEngine",
        why_not="engines.hardware:why_no_cuda",
        offers_dtypes=True,
        open_encoder="engines.analysis.layers:open_torch_gpu",
        open_decoder="engines.analysis.decoder_layers:open_torch_gpu",
    ),
    EngineRow(
        key="max_hybrid",
        label="MAX hybrid",
        about="The encoder in Modular MAX, the decoder in PyTorch",
        encoder="MAX graph",
        decoder="PyTorch",
        colour="#009E73",
        dtypes=("float32", "float16"),
        uses_gpu=True,
        make="engines.max_whisper:MaxHybridEngine",
        why_not="engines.hardware:why_no_max",
        open_encoder="engines.analysis.layers:open_max",
    ),
    EngineRow(
        key="max_full",
        label="MAX full",
        about="All of it in Modular MAX, with Mojo kernels",
        encoder="MAX graph",
        decoder="MAX graph",
        colour="#CC79A7",
        dtypes=("float32", "float16", "bfloat16"),
        uses_gpu=True,
        make="engines.max_whisper:MaxFullEngine",
        why_not="engines.hardware:why_no_max",
        open_encoder="engines.analysis.layers:open_max",
        open_decoder="engines.analysis.decoder_layers:open_max",
        runs_batches=True,
    ),
    FASTER_WHISPER,
    make_variant(FASTER_WHISPER, "int8", "#1B9E9E"),
    WHISPER_CPP,
    make_variant(WHISPER_CPP, "q8_0", "#8C564B"),
    OPENVINO,
    make_variant(
        OPENVINO,
        "bfloat16",
        "#5F9E3A",
        about="The same computed in bfloat16",
        why_not="engines.hardware:why_no_bfloat16",
    ),
    make_variant(OPENVINO, "int8", "#B07AA1"),
    EngineRow(
        key="transformers",
        label="transformers",
        about="Hugging Face’s own code on PyTorch",
        encoder="PyTorch",
        decoder="PyTorch",
        colour="#A6761D",
        make="engines.transformers:TransformersEngine",
        packages=("transformers", "tokenizers"),
        own_loop="Its own mel spectrogram, loop and beam search; it judges compression by tokens, "
        "not by text. A segment’s temperature and how sure a language is are not told.",
    ),
)

BASELINE = ENGINES[0].key
"""The engine that all others are compared with: openai-whisper as it is."""


@dataclass(frozen=True)
class EngineStatus(EngineRow):
    """One engine on this machine: its row, with the types that it can compute in here.

    `reason`: why it can't run here, else None.
    """

    reason: str | None = None

    @property
    def available(self) -> bool:
        """Whether `get` returns it."""
        return self.reason is None

    def as_dict(self) -> dict[str, Any]:
        """Return what programs are told of it, by name."""
        names = ("key", "label", "encoder", "decoder", "reason", "colour", "dtypes", "uses_gpu")
        others = ("about", "own_loop", "is_optional", "available")
        return {name: getattr(self, name) for name in (*names, *others)}


def statuses() -> list[EngineStatus]:
    """Return every engine, with the reason where this machine can't run it."""
    return [
        EngineStatus(**{**vars(row), "dtypes": row.usable_dtypes()}, reason=row.why_unavailable())
        for row in ENGINES
    ]


def all_keys() -> tuple[str, ...]:
    """Return every engine's key, the baseline first, whether this machine can run it or not."""
    return tuple(row.key for row in ENGINES)


def available(optional: bool = False) -> tuple[str, ...]:
    """Return the keys of the engines that run by default: all available ones but optional ones;
    with `optional` those as well."""
    here = (row for row in ENGINES if row.why_unavailable() is None)
    return tuple(row.key for row in here if optional or not row.is_optional)


def row(key: str) -> EngineRow:
    """Return the row of the engine `key`; raises `EngineError` for an unknown one."""
    for row in ENGINES:
        if row.key == key:
            return row
    raise EngineError(f"There is no engine {key!r}: pick one of {', '.join(all_keys())}.")


# Lanes


@dataclass(frozen=True)
class LaneName:
    """What a lane runs: an engine, perhaps with a type or a model of its own.

    Spelled `ENGINE`, `ENGINE:TYPE`, `ENGINE@MODEL` or `ENGINE:TYPE@MODEL`, wherever an engine's key
    is taken.
    """

    engine: str
    dtype: Dtype | None = None
    model: str | None = None

    def label(self, engine: str) -> str:
        """Return an engine's label, with the type and the model that are the lane's own."""
        own = ", ".join(filter(None, (self.dtype, self.model)))
        return f"{engine} ({own})" if own else engine


def read_lane(name: str) -> LaneName:
    """Parse the name of a lane; raises `EngineError` for an unknown engine or type of one."""
    head, _, model = name.partition("@")
    key, _, dtype = head.partition(":")
    known = row(key).dtypes
    if dtype and dtype not in known:
        raise EngineError(f"{key} has no type {dtype!r}: pick {' or '.join(known)}, after a colon.")
    chosen = next((each for each in known if each == dtype), None)
    return LaneName(key, chosen, model or None)


def resolve_lane(lane: str, model: str, dtype: Dtype | None) -> tuple[str, str, Dtype]:
    """Return engine, model and type of a lane, `model` and `dtype` where it names none itself."""
    parsed = read_lane(lane)
    dtype = parsed.dtype or dtype or row(parsed.engine).dtypes[0]
    return parsed.engine, parsed.model or model, dtype


# Engines that were made

_engines: dict[tuple[str, str, str], Engine] = {}
_lock = threading.Lock()


def get(key: str, model: str = DEFAULT_MODEL, dtype: Dtype | None = None) -> Engine:
    """Return the engine `key` for `model`, the same object each time; nothing is loaded yet.

    `key`: a lane's name as well, whose type and model come first. `dtype`: None for the engine's
    default. Raises `EngineUnavailable` with the reason, or `EngineError` for an unknown key.
    """
    name = resolve_lane(key, model, dtype)
    key, model, dtype = name
    with _lock:
        if name not in _engines:
            _engines[name] = row(key).make_engine(model, dtype)
        return _engines[name]


def release(model: str) -> None:
    """Close and forget every engine that holds `model`."""
    with _lock:
        for name in [name for name in _engines if name[1] == model]:
            _engines.pop(name).close()


def warm(
    engine_keys: Iterable[str],
    model: str = DEFAULT_MODEL,
    get_engine: Callable[[str, str], Engine] = get,
) -> threading.Thread:
    """Prepare engines in the background; a failure shows when the engine is used.

    A user who stops one of them wants the processor free: the rest waits until it is asked for.
    """

    def prepare() -> None:
        for key in engine_keys:
            try:
                get_engine(key, model).prepare()
            except Stopped:  # noqa: PERF203
                break
            except EngineError:
                continue

    thread = threading.Thread(target=prepare, name="warm engines", daemon=True)
    thread.start()
    return thread
