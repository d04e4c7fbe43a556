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
from max.graph import Graph, Module, TensorType

from engines.base import SILENT
from engines.max_graph.compile_cache import compile_module, entry_path, load_compiled, session
from engines.max_graph.operations import AcceleratorOperations, CpuOperations, new_graph
from engines.token_selection import TokenConstraints, select_top_k

pytestmark = pytest.mark.max

ERROR = 2e-6
"""Bound on the largest error over the largest value. Measured: below 7e-7 at these depths."""

Array = np.ndarray
Run = Callable[..., list[Array]]


def build(module: Module) -> Graph:
    """Add one graph for each kernel and variant, with symbolic sizes."""
    op, half = CpuOperations(), CpuOperations(DType.float16)
    on_accelerator = AcceleratorOperations(device=op.device)

    def graph(name: str, inputs: list, body: Callable) -> Graph:
        with new_graph(name, inputs, module) as built:
            results = body(*(value.tensor for value in built.inputs))
            built.output(*(results if isinstance(results, list | tuple) else [results]))
        return built

    x, add, pair = op.tensor("rows", "depth"), op.tensor("rows", "n"), op.norm_pair("depth")
    inputs = [x, *op.linear_pair("w", "n", "depth")]
    graph("plain", inputs, op.linear)
    graph("gelu", inputs, partial(op.linear, gelu=True))
    graph("add", [*inputs, add], lambda x, w, b, add: op.linear(x, w, b, add=add))
    graph("half", [x, *half.linear_pair("w", "n", "depth")], half.linear)
    graph("norm", [x, *pair], op.layer_norm)
    first, second = op.linear_pair("w1", "n", "taps"), op.linear_pair("w2", "n", "more_taps")
    inputs = [op.tensor("mels", "frames"), *first, *second, op.tensor("ctx", "n")]
    graph("stem", inputs, lambda mel, *w: op.stem(mel, list(w)))
    inputs = [op.tensor("ctx", "qkv"), op.tensor("ctx", "state")]
    graph("attention", inputs, lambda qkv, like: op.attention(qkv, like.shape[1]))
    inputs = [
        op.tensor("m", "v"),
        op.tensor("v"),
        TensorType(DType.int64, ["m", 4], op.device),
        TensorType(DType.int64, [1], op.device),
        op.tensor("k"),
    ]
    top = TensorType(DType.int64, ["m", "k"], op.device), op.tensor("m", "k")
    graph("select", inputs, lambda *values: op.call("whisper_select", list(values[:4]), *top))
    a, b = op.tensor("batch", "rows", "depth"), op.tensor("batch", "depth", "n")
    graph("product", [a, b], on_accelerator.product)
    across = partial(on_accelerator.product, transposed=True)
    return graph("product across", [a, op.tensor("batch", "n", "depth")], across)


@pytest.fixture(scope="module")
def run() -> Run:
    """Executes one of the graphs by name; compiled once for the sources of kernels and graphs."""
    path = entry_path("kernels", "cpu", Path(__file__).read_text())
    compiled = load_compiled(path, lambda: compile_module(build, "cpu"), SILENT)
    models: dict[str, Model] = session("cpu").init_all(compiled)

    def execute(name: str, *arrays: Array) -> list[Array]:
        kept = (a if a.dtype in (np.float16, np.int64) else a.astype(np.float32) for a in arrays)
        buffers = [Buffer.from_numpy(np.ascontiguousarray(a)) for a in kept]
        return [output.to_numpy() for output in models[name].execute(*buffers)]

    return execute


def normal(*shape: int) -> Array:
    """Standard normal values that float16 holds exactly, as float64."""
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    return values.astype(np.float16).astype(np.float64)


def pack(matrix: Array) -> Array:
    return CpuOperations().lay_out(matrix)


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def assert_close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < ERROR, f"largest error {error:.1e}"


@pytest.mark.parametrize(
    ("rows", "depth", "n"),
    [(1, 1, 1), (5, 3, 7), (12, 64, 32), (13, 33, 31), (97, 80, 65), (200, 127, 96)],
)
def test_linear(run: Run, rows: int, depth: int, n: int) -> None:
    x, w, b, add = normal(rows, depth), normal(n, depth), normal(n), normal(rows, n)
    product = x @ w.T + b
    [plain] = run("plain", x, pack(w), b)
    assert_close(plain, product)
    assert_close(run("gelu", x, pack(w), b)[0], gelu(product))
    assert_close(run("add", x, pack(w), b, add)[0], product + add)
    np.testing.assert_array_equal(run("half", x, pack(w).astype(np.float16), b)[0], plain)


@pytest.mark.parametrize("n", [31, 32, 50])
@pytest.mark.parametrize("frames", [2, 26, 100])
def test_stem(run: Run, frames: int, n: int) -> None:
    """Two convolutions with GELU, of strides 1 and 2, and positions added."""

    def windows(x: Array) -> Array:
        padded = np.pad(x, ((1, 1), (0, 0)))
        return np.stack([padded[t : t + 3].ravel() for t in range(len(x))])

    mel, w1, w2 = normal(9, frames), normal(n, 27), normal(n, 3 * n) / n
    b1, b2, positions = normal(n), normal(n), normal(frames // 2, n)
    padded, found = run("stem", mel, pack(w1), b1, pack(w2), b2, positions)
    first = gelu(windows(mel.T) @ w1.T + b1)
    assert_close(padded, np.pad(first, ((1, 1), (0, 0))))
    assert_close(found, gelu(windows(first) @ w2.T + b2)[::2] + positions)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 8, 9, 64, 130])
@pytest.mark.parametrize(("depth", "n"), [(1, 1), (5, 3), (16, 64), (33, 130)])
def test_the_accelerators_product(run: Run, batch: int, rows: int, depth: int, n: int) -> None:
    """What the threads of its blocks do, done one after another: one row, few rows, tiles."""
    a, b = normal(batch, rows, depth), normal(batch, depth, n)
    assert_close(run("product", a, b)[0], a @ b)
    assert_close(run("product across", a, b.transpose(0, 2, 1))[0], a @ b)


@pytest.mark.parametrize(("rows", "n"), [(1, 1), (3, 17), (130, 64), (5, 385)])
def test_layer_norm(run: Run, rows: int, n: int) -> None:
    x, w, b = 3 + normal(rows, n), normal(n) + 2, normal(n)
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    assert_close(run("norm", x, w, b)[0], (x - mean) / np.sqrt(variance + 1e-5) * w + b)


@pytest.mark.parametrize(("n_ctx", "heads"), [(1, 1), (31, 2), (32, 1), (100, 3), (205, 1)])
def test_attention(run: Run, n_ctx: int, heads: int) -> None:
    qkv = 2 * normal(n_ctx, 3 * heads * 64)
    q, k, v = qkv.reshape(n_ctx, 3, heads, 64).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1) / 8
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = (weights @ v).transpose(1, 0, 2).reshape(n_ctx, -1)
    assert_close(run("attention", qkv, np.zeros((n_ctx, heads * 64)))[0], expected)


Select = Callable[..., tuple[Array, Array]]


@pytest.fixture(params=["kernel", "host"])
def select(request: pytest.FixtureRequest, run: Run) -> Select:
    """Tokens and log-probabilities, by the kernel and by what stands for it elsewhere."""

    def choose(
        logits: Array, mask: Array, ranges: Array, dominate: bool, k: int
    ) -> tuple[Array, Array]:
        if request.param == "host":
            constraints = TokenConstraints(mask.astype(np.float32), dominate)
            return select_top_k(logits.astype(np.float32), constraints, ranges, k)
        flag = np.array([dominate], np.int64)
        tokens, logprobs = run("select", logits, mask, ranges, flag, np.zeros(k))
        return tokens, logprobs

    return choose


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dominate", [True, False])
def test_select(select: Select, seed: int, dominate: bool) -> None:
    """The best tokens under a mask and ranges, with the log-softmax over what is left."""
    rng = np.random.default_rng(seed)
    m, n, k, begin = 3, 1000, 6, 901
    logits = 3 * rng.standard_normal((m, n)).astype(np.float32)
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
        np.testing.assert_allclose(logprobs[row], log_softmax[expected], rtol=1e-5, atol=1e-6)


def test_of_equals_the_lower_token_is_chosen_and_past_the_allowed_none(select: Select) -> None:
    logits = np.zeros((1, 100))
    logits[0, [90, 41, 7]] = 1.0
    tokens, _ = select(logits, np.zeros(100), np.array([[80, 0, 80, 100]]), False, 4)
    assert tokens[0].tolist() == [7, 41, 90, 0]
    ranges = np.array([[80, 80, 98, 100]])
    tokens, logprobs = select(np.zeros((1, 100)), np.zeros(100), ranges, True, 4)
    assert tokens[0].tolist() == [98, 99, -1, -1]
    np.testing.assert_allclose(logprobs[0, :2], math.log(0.5), rtol=1e-6)
    assert (logprobs[0, 2:] < -1e29).all()
