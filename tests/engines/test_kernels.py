"""Kernels whose odd sizes no engine's test meets on a CPU, against float64.

The encoder's are measured stage by stage in `test_encoder.py`; the decoder's, and the choice of
tokens under whisper's rules, in `test_decoder.py`.
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

Array = np.ndarray
Run = Callable[..., list[Array]]


def build(module: Module) -> Graph:
    """Add one graph for each kernel and variant, with symbolic sizes."""
    op = CpuOperations()
    on_accelerator = AcceleratorOperations(device=op.device)

    def graph(name: str, inputs: list, body: Callable) -> Graph:
        with new_graph(name, inputs, module) as built:
            results = body(*(value.tensor for value in built.inputs))
            built.output(*(results if isinstance(results, list | tuple) else [results]))
        return built

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
        kept = (a if a.dtype == np.int64 else a.astype(np.float32) for a in arrays)
        buffers = [Buffer.from_numpy(np.ascontiguousarray(a)) for a in kept]
        return [output.to_numpy() for output in models[name].execute(*buffers)]

    return execute


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 8, 9, 64, 130])
@pytest.mark.parametrize(("depth", "n"), [(1, 1), (5, 3), (16, 64), (33, 130)])
def test_the_accelerators_product(run: Run, batch: int, rows: int, depth: int, n: int) -> None:
    """What the threads of its blocks do, done one after another: one row, few rows, tiles."""
    generator = np.random.default_rng(0)
    shapes = (batch, rows, depth), (batch, depth, n)
    a, b = (generator.standard_normal(shape).astype(np.float32) for shape in shapes)
    exact = a.astype(np.float64) @ b
    for [found] in (run("product", a, b), run("product across", a, b.transpose(0, 2, 1))):
        # Measured: below 7e-7 of the largest value at these depths.
        np.testing.assert_allclose(found, exact, rtol=0, atol=2e-6 * np.abs(exact).max())


@pytest.mark.parametrize("on_host", [False, True], ids=["kernel", "host"])
def test_of_equals_the_lower_token_is_chosen_and_past_the_allowed_none(
    run: Run, on_host: bool
) -> None:
    def select(logits: Array, ranges: list[int], dominate: bool) -> list[Array]:
        """Four tokens and their log-probabilities, by the kernel or by what stands for it."""
        mask, rows = np.zeros(100, np.float32), np.array([ranges])
        if on_host:
            constraints = TokenConstraints(mask, dominate)
            return list(select_top_k(logits.astype(np.float32), constraints, rows, 4))
        return run("select", logits, mask, rows, np.array([dominate], np.int64), np.zeros(4))

    logits = np.zeros((1, 100))
    logits[0, [90, 41, 7]] = 1.0
    tokens, _ = select(logits, [80, 0, 80, 100], False)
    assert tokens[0].tolist() == [7, 41, 90, 0]
    tokens, logprobs = select(np.zeros((1, 100)), [80, 80, 98, 100], True)
    assert tokens[0].tolist() == [98, 99, -1, -1]
    np.testing.assert_allclose(logprobs[0, :2], math.log(0.5), rtol=1e-6)
    assert (logprobs[0, 2:] < -1e29).all()
