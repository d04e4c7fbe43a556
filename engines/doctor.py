"""The command `doctor`: what this machine has, and whether it works."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import typer

from engines import registry
from engines.analysis import records
from engines.audio import find_clip, load_clip
from engines.base import EngineError, EngineUnavailable, FloatArray, explain
from engines.benchmark import machine

WIDTH = max(len(row.key) for row in registry.ENGINES) + 2
"""Characters of the first column."""


def check_machine(model: str) -> bool:
    """Print the machine, its engines, whether MAX compiles and whether encoders agree.

    Returns whether all is well.
    """
    typer.echo(machine.describe().describe())
    for status in registry.statuses():
        typer.echo(f"{status.key:<{WIDTH}}{status.reason or 'available'}")
    check_gpus()
    return report("MAX on CPU", check_max) and report("encoders", lambda: check_encoders(model))


def check_gpus() -> bool:
    """Print what PyTorch and MAX see of a GPU; return whether both can use one."""
    worked = [
        report("PyTorch GPU", check_torch_gpu),
        report("MAX GPU", lambda: check_max(on_gpu=True)),
    ]
    return all(worked)


def report(name: str, check: Callable[[], str]) -> bool:
    """Print what a check found, or why it failed; return whether it passed."""
    try:
        typer.echo(f"{name:<{WIDTH}}{check()}")
        return True
    except Exception as error:  # a broken installation may raise anything
        typer.echo(f"{name:<{WIDTH}}no: {explain(error)}")
        return False


def check_torch_gpu() -> str:
    """Describe the CUDA device, and compute on it."""
    import torch

    if not torch.cuda.is_available():
        raise EngineUnavailable(f"PyTorch {torch.__version__} finds no CUDA device")
    device = torch.cuda.get_device_properties(0)

    def compute(a: FloatArray, b: FloatArray) -> FloatArray:
        x = torch.from_numpy(a).cuda()
        total: FloatArray = (x * torch.from_numpy(b).cuda() + x).cpu().numpy()
        return total

    check_sum(compute)
    return (
        f"{device.name}, sm_{device.major}{device.minor}, {device.total_memory / 2**30:.0f} GiB, "
        f"CUDA {torch.version.cuda}, computes rightly"
    )


def check_max(on_gpu: bool = False) -> str:
    """Compile and run a graph of two operations, anew, so that its seconds are true.

    Not a matrix product, whose kernels alone take MAX longer to compile than all the rest.
    """
    try:
        from max import driver
        from max.dtype import DType
        from max.engine import InferenceSession
        from max.graph import DeviceRef, Graph, TensorType
    except ImportError as error:
        raise EngineUnavailable(f"the package max can't be imported ({error})") from error
    if on_gpu and not driver.accelerator_count():
        raise EngineUnavailable("MAX finds no accelerator on this machine")
    device = driver.Accelerator() if on_gpu else driver.CPU()
    start = perf_counter()
    vector = TensorType(DType.float32, ("n",), DeviceRef.GPU() if on_gpu else DeviceRef.CPU())
    graph = Graph("sum", forward=lambda a, b: a * b + a, input_types=[vector, vector])
    model = InferenceSession(devices=[device]).load(graph)
    seconds = perf_counter() - start

    def compute(a: FloatArray, b: FloatArray) -> FloatArray:
        inputs = [driver.Buffer.from_numpy(array).to(device) for array in (a, b)]
        total: FloatArray = model.execute(*inputs)[0].to(driver.CPU()).to_numpy()
        return total

    check_sum(compute)
    names = (driver.accelerator_api(), driver.accelerator_architecture_name()) if on_gpu else ()
    return ", ".join([*names, f"compiled two operations in {seconds:.1f} s, computes rightly"])


def check_sum(compute: Callable[[FloatArray, FloatArray], FloatArray]) -> None:
    """Raise `EngineError` unless it computes `a * b + a` of two vectors.

    Rounding once or twice is off by 2⁻²⁴ = 6e-8 each time; what did not run by about 1.
    """
    a, b = np.random.default_rng(0).standard_normal((2, 2**20)).astype(np.float32)
    expected = a * b + a
    error = float(np.linalg.norm(compute(a, b) - expected) / np.linalg.norm(expected))
    if not error < 1e-6:
        raise EngineError(f"a sum of {len(a)} numbers is off by {error:.1e}")


def check_encoders(model: str) -> str:
    """Compare every other engine's encoder with the baseline's after every stage."""
    others = [key for key in registry.available() if key != registry.BASELINE]
    if not others:
        raise EngineUnavailable(f"there is none but {registry.BASELINE}'s")
    inspection = records.Inspection("encoder", (registry.BASELINE, *others), model)
    compared = records.compare_halves(inspection, load_clip(find_clip("jfk")))
    past = {other.name: compared.first_past(other.name) for other in compared.others}
    if apart := [f"{name} from {stage} on" for name, stage in past.items() if stage]:
        raise EngineError(f"{', '.join(apart)} is not {compared.baseline.name}'s")
    return f"{', '.join(past)} on {model}: the same as {compared.baseline.name} after every stage"
