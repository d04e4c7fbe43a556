"""The command `doctor`: what is here, and whether it works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import typer

from engines import registry
from engines.analysis import layers
from engines.audio import load_clip
from engines.base import EngineError, EngineUnavailable, FloatArray
from engines.benchmark import machine
from engines.benchmark.interleave import explain
from engines.benchmark.speed import find_clip

LENGTH = 2**20
"""Numbers in each of the two vectors."""

TOLERANCE = 1e-6
"""Largest relative error of `a * b + a` in float32: rounding once or twice is off by 2⁻²⁴ = 6e-8
each time; what did not run, or ran on something else, is off by about 1."""

Sum = Callable[[FloatArray, FloatArray], FloatArray]
"""`a * b + a` of two vectors on the host."""


def check_machine(model: str) -> bool:
    """Print the machine, its engines, a compile by MAX and how far encoders are apart."""
    typer.echo(machine.describe().describe())
    for status in registry.statuses():
        typer.echo(f"{status.key:<12}{status.reason or 'available'}")
    check_gpus()
    return _report("MAX on CPU", check_max_compiler) and _report(
        "encoders", lambda: check_encoders(model)
    )


def check_gpus() -> bool:
    """Print what PyTorch and MAX see of a GPU; return whether both can use one."""
    worked = [_report("PyTorch GPU", check_torch_gpu), _report("MAX GPU", check_max_gpu)]
    return all(worked)


def _report(name: str, check: Callable[[], Sequence[str]]) -> bool:
    """Print what a check found, or why it failed; return whether it passed."""
    try:
        typer.echo(f"{name:<12}{', '.join(check())}")
        return True
    except Exception as error:  # a broken installation may raise anything
        typer.echo(f"{name:<12}no: {explain(error)}")
        return False


def check_torch_gpu() -> list[str]:
    """Name the CUDA device, and compute on it."""
    import torch

    if not torch.cuda.is_available():
        raise EngineUnavailable(f"PyTorch {torch.__version__} finds no CUDA device")
    device = torch.cuda.get_device_properties(0)

    def add(a: FloatArray, b: FloatArray) -> FloatArray:
        first = torch.from_numpy(a).cuda()
        total: FloatArray = (first * torch.from_numpy(b).cuda() + first).cpu().numpy()
        return total

    return [
        device.name,
        f"sm_{device.major}{device.minor}",
        f"{device.total_memory / 2**30:.0f} GiB",
        f"CUDA {torch.version.cuda}",
        check_sum(add),
    ]


def check_max_gpu() -> list[str]:
    """Name the accelerator, and compile and run a graph on it."""
    _import_max()
    from max.driver import accelerator_api, accelerator_architecture_name, accelerator_count

    if not accelerator_count():
        raise EngineUnavailable("MAX finds no accelerator on this machine")
    return [accelerator_api(), accelerator_architecture_name(), *_compile_sum("accelerator")]


def check_max_compiler() -> list[str]:
    """Compile and run a graph of two operations, anew, so that its seconds are true."""
    _import_max()
    return _compile_sum("cpu")


def _import_max() -> None:
    try:
        import max.engine  # noqa: F401
    except ImportError as error:
        raise EngineUnavailable(f"the package max can't be imported ({error})") from error


def _compile_sum(place: str) -> list[str]:
    from engines.max_graph.smoke_test import CompiledSum

    add = CompiledSum(LENGTH, place)
    return [f"compiled two operations in {add.seconds:.1f} s", check_sum(add)]


def check_sum(add: Sum) -> str:
    """Run it twice, the first time to warm up; raise `EngineError` when it is wrong."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(LENGTH).astype(np.float32) for _ in range(2))
    add(a, b)
    start = perf_counter()
    found = add(a, b)
    seconds = perf_counter() - start
    expected = a * b + a
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    if not error < TOLERANCE:
        raise EngineError(f"a sum of {LENGTH} numbers is off by {error:.1e}")
    return f"{LENGTH} sums, there and back, in {seconds * 1e3:.1f} ms: right"


def check_encoders(model: str) -> list[str]:
    """Compare every other engine's encoder with the baseline's after every stage."""
    others = [status for status in registry.statuses() if status.available]
    names = [status.key for status in others if status.key != registry.BASELINE]
    if not names:
        raise EngineUnavailable(f"there is none but {registry.BASELINE}'s")
    clip = load_clip(find_clip("jfk"))
    found = layers.compare_layers((registry.BASELINE, *names), model, clip)
    past = {other.name: found.first_past(other.name) for other in found.others}
    if apart := [f"{name} from {stage} on" for name, stage in past.items() if stage]:
        raise EngineError(f"{', '.join(apart)} is not {found.baseline.name}'s")
    return [f"{', '.join(past)} on {model}: the same as {found.baseline.name} after every stage"]
