"""Mojo kernels against float64, at sizes that are no multiple of a vector or a tile.

`whisper_decoder` and `whisper_logits` are tested in `test_decoder.py`, all layers together.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("max.engine")

from max.driver import Buffer
from max.dtype import DType
from max.engine import Model
from max.graph import Graph, Module, TensorType, ops

from engines.base import SILENT
from engines.max_graph.compile_cache import (
    build_anywhere,
    cache_folder,
    entry_key,
    load_compiled,
    session,
)
from engines.max_graph.operations import AcceleratorOperations, CpuOperations, new_graph
from engines.max_graph.weights import pack
from engines.token_selection import TokenConstraints, select_top_k

pytestmark = pytest.mark.max

ERROR = 2e-6
"""Bound on the largest error over the largest value. Measured: below 7e-7 at these depths."""

Array = np.ndarray


def build() -> Graph:
    """One graph for each kernel and variant, in one module with symbolic sizes."""
    op, module = CpuOperations(), Module()

    def graph(name: str, inputs: list, body: Callable) -> Graph:
        with new_graph(name, inputs, module) as built:
            results = body(*(value.tensor for value in built.inputs))
            built.output(*(results if isinstance(results, list) else [results]))
        return built

    x, w, b = op.tensor("rows", "depth"), op.matrix("w", "n", "depth"), op.tensor("n")
    add = op.tensor("rows", "n")
    taps = op.tensor("panels", "taps", 32)
    graph("plain", [x, w, b], op.linear)
    graph("gelu", [x, w, b], lambda x, w, b: op.linear(x, w, b, gelu=True))
    graph("add", [x, w, b, add], lambda x, w, b, a: op.linear(x, w, b, add=a))
    graph("conv1", [x, taps, b], lambda x, w, b: op.conv(x, w, b, x.shape[0], 1, padded=True))
    half_op = CpuOperations(DType.float16)
    graph("half", [x, half_op.matrix("w", "n", "depth"), b], half_op.linear)
    halved = op.tensor("half", "n")
    graph(
        "conv2",
        [x, taps, b, halved],
        lambda x, w, b, a: op.conv(x, w, b, a.shape[0], 2, add=a),
    )
    graph("pad", [op.tensor("mels", "frames")], op.pad_frames)
    graph("norm", [x, op.tensor("depth"), op.tensor("depth")], op.layer_norm)
    integers = [
        TensorType(DType.int64, ["m", 4], op.device),
        TensorType(DType.int64, [1], op.device),
    ]
    graph(
        "select",
        [op.tensor("m", "v"), op.tensor("v"), *integers, op.tensor("k")],
        lambda x, mask, ranges, dominate, k: ops.custom(
            "whisper_select",
            device=op.device,
            values=[x, mask, ranges, dominate],
            out_types=[
                TensorType(DType.int64, [x.shape[0], k.shape[0]], op.device),
                op.tensor(x.shape[0], k.shape[0]),
            ],
        ),
    )
    accelerator = AcceleratorOperations(device=op.device)
    one, other = op.tensor("batch", "rows", "depth"), op.tensor("batch", "depth", "n")
    graph("product", [one, other], accelerator.product)
    across = op.tensor("batch", "n", "depth")
    graph("product across", [one, across], partial(accelerator.product, transposed=True))
    return graph(
        "attention",
        [op.tensor("ctx", "qkv"), op.tensor("ctx", "state")],
        lambda qkv, like: op.attention(qkv, like.shape[1]),
    )


@pytest.fixture(scope="module")
def run() -> Callable[..., Array]:
    """Executes one of the graphs by name; compiled once for the sources of kernels and graphs."""
    running = session("cpu")
    path = cache_folder() / f"kernels-{entry_key('cpu', Path(__file__).read_text())}.mef"
    compiled = load_compiled(path, lambda: running.compile(build_anywhere(build)), SILENT)
    models: dict[str, Model] = running.init_all(compiled)

    def execute(name: str, *arrays: Array, output: int = 0) -> Array:
        kept = (a if a.dtype in (np.float16, np.int64) else a.astype(np.float32) for a in arrays)
        buffers = [Buffer.from_numpy(np.ascontiguousarray(a)) for a in kept]
        return models[name].execute(*buffers)[output].to_numpy()

    return execute


def normal(*shape: int) -> Array:
    """Standard normal values that float32 holds exactly, as float64."""
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    return values.astype(np.float32).astype(np.float64)


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def assert_close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < ERROR, f"largest error {error:.1e}"


SIZES = [(1, 1, 1), (5, 3, 7), (12, 64, 32), (13, 33, 31), (97, 80, 65), (200, 127, 96)]


@pytest.mark.parametrize(("rows", "depth", "n"), SIZES)
def test_linear(run: Callable[..., Array], rows: int, depth: int, n: int) -> None:
    x, w, b, add = normal(rows, depth), normal(n, depth), normal(n), normal(rows, n)
    packed = pack(w.astype(np.float32))
    product = x @ w.T + b
    assert_close(run("plain", x, packed, b), product)
    assert_close(run("gelu", x, packed, b), gelu(product))
    assert_close(run("add", x, packed, b, add), product + add)


@pytest.mark.parametrize("rows", range(1, 9))
@pytest.mark.parametrize(("depth", "n"), [(1, 5), (63, 33), (192, 100)])
def test_float16_weights_are_widened_exactly(
    run: Callable[..., Array], rows: int, depth: int, n: int
) -> None:
    """A step's products, for 1 to 8 beams: bit for bit those of the same weights in float32."""
    x, w, b = normal(rows, depth), normal(n, depth).astype(np.float16), normal(n)
    packed = pack(w.astype(np.float32))
    found = run("half", x, packed.astype(np.float16), b)
    np.testing.assert_array_equal(found, run("plain", x, packed, b))
    assert_close(found, x @ w.astype(np.float64).T + b)


@pytest.mark.parametrize("n_out", [31, 32, 50])
@pytest.mark.parametrize("frames", [2, 26, 100])
def test_convolutions(run: Callable[..., Array], frames: int, n_out: int) -> None:
    n_in = 9
    x, w, b = normal(frames, n_in), normal(n_out, n_in, 3), normal(n_out)
    padded = np.pad(x, ((1, 1), (0, 0)))
    matrix = w.transpose(0, 2, 1).reshape(n_out, -1)
    windows = np.stack([padded[t : t + 3].ravel() for t in range(frames)])
    full = gelu(windows @ matrix.T + b)
    packed = pack(matrix.astype(np.float32))
    assert_close(run("conv1", padded, packed, b), np.pad(full, ((1, 1), (0, 0))))
    add = normal(frames // 2, n_out)
    assert_close(run("conv2", padded, packed, b, add), full[::2] + add)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 8, 9, 64, 130])
@pytest.mark.parametrize(("depth", "n"), [(1, 1), (5, 3), (16, 64), (33, 130)])
def test_the_accelerators_product(
    run: Callable[..., Array], batch: int, rows: int, depth: int, n: int
) -> None:
    """What the threads of its blocks do, done one after another: one row, few rows, tiles."""
    a, b = normal(batch, rows, depth), normal(batch, depth, n)
    assert_close(run("product", a, b), a @ b)
    assert_close(run("product across", a, b.transpose(0, 2, 1)), a @ b)


@pytest.mark.parametrize(("rows", "n"), [(1, 1), (3, 17), (130, 64), (5, 385)])
def test_layer_norm(run: Callable[..., Array], rows: int, n: int) -> None:
    x, w, b = 3 + normal(rows, n), normal(n) + 2, normal(n)
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    assert_close(run("norm", x, w, b), (x - mean) / np.sqrt(variance + 1e-5) * w + b)


@pytest.mark.parametrize(("n_ctx", "heads"), [(1, 1), (31, 2), (32, 1), (100, 3), (205, 1)])
def test_attention(run: Callable[..., Array], n_ctx: int, heads: int) -> None:
    qkv = 2 * normal(n_ctx, 3 * heads * 64)
    q, k, v = qkv.reshape(n_ctx, 3, heads, 64).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1) / 8
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = (weights @ v).transpose(1, 0, 2).reshape(n_ctx, -1)
    assert_close(run("attention", qkv, np.zeros((n_ctx, heads * 64))), expected)


def test_pad_frames(run: Callable[..., Array]) -> None:
    mel = normal(5, 133)
    np.testing.assert_array_equal(run("pad", mel), np.pad(mel.T, ((1, 1), (0, 0))))


Select = Callable[..., tuple[Array, Array]]


@pytest.fixture(params=["kernel", "host"])
def select(request: pytest.FixtureRequest, run: Callable[..., Array]) -> Select:
    """Tokens and log-probabilities, by the kernel and by what stands for it elsewhere."""

    def on_host(
        logits: Array, mask: Array, ranges: Array, dominate: bool, k: int
    ) -> tuple[Array, Array]:
        constraints = TokenConstraints(mask.astype(np.float32), dominate)
        return select_top_k(logits.astype(np.float32), constraints, ranges, k)

    def by_kernel(
        logits: Array, mask: Array, ranges: Array, dominate: bool, k: int
    ) -> tuple[Array, Array]:
        flag = np.array([dominate]).astype(np.int64)
        arguments = (logits, mask, ranges, flag, np.zeros(k))
        return run("select", *arguments), run("select", *arguments, output=1)

    return by_kernel if request.param == "kernel" else on_host


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dominate", [True, False])
def test_select(select: Select, seed: int, dominate: bool) -> None:
    """The best tokens under a mask and ranges, with the log-softmax over what is left."""
    rng = np.random.default_rng(seed)
    m, n, k, begin = 3, 1000, 6, 901
    logits = 3 * normal(m, n)
    mask = np.where(rng.random(n) < 0.1, -1e30, 0)
    ranges = np.array([[begin, 0, 950, n], [begin, 890, begin, n], [begin, begin, begin, 930]])
    tokens, logprobs = select(logits, mask, ranges, dominate, k)
    for row in range(m):
        _, text, first, last = ranges[row]
        allowed = np.full(n, -np.inf)
        allowed[text:begin] = (logits[row] + mask)[text:begin]
        times = (logits[row] + mask)[first:last]
        sure = np.log(np.exp(times).sum()) > allowed[:begin].max(initial=-np.inf)
        if dominate and sure:
            allowed[:begin] = -np.inf
        allowed[first:last] = times
        expected = np.argsort(-allowed)[:k]
        assert tokens[row].tolist() == expected.tolist()
        log_softmax = allowed - np.log(np.exp(allowed).sum())
        np.testing.assert_allclose(logprobs[row], log_softmax[expected], rtol=1e-5)


def test_of_equals_the_lower_token_is_chosen(select: Select) -> None:
    logits = np.zeros((1, 100))
    logits[0, [90, 41, 7]] = 1.0
    ranges = np.array([[80, 0, 80, 100]])
    tokens, _ = select(logits, np.zeros(100), ranges, False, 4)
    assert tokens[0].tolist() == [7, 41, 90, 0]


def test_where_fewer_are_allowed_than_asked_for_the_rest_is_no_token(select: Select) -> None:
    ranges = np.array([[80, 80, 98, 100]])
    tokens, logprobs = select(np.zeros((1, 100)), np.zeros(100), ranges, True, 4)
    assert tokens[0].tolist() == [98, 99, -1, -1]
    np.testing.assert_allclose(logprobs[0, :2], math.log(0.5), rtol=1e-6)
    assert (logprobs[0, 2:] < -1e29).all()
