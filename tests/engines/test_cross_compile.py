"""The accelerators' graphs compile for GPUs that this machine lacks.

Minutes each, so these run only in `make test-cross`. What they compute is for `make test` on a
machine that has a GPU: the contract, and the equality of tokens.
"""

import subprocess
import sys

import pytest

pytest.importorskip("max.engine")

pytestmark = [pytest.mark.max, pytest.mark.cross]

COMPILE = """
import sys
from max import driver
driver.set_virtual_device_api("cuda")
driver.set_virtual_device_target_arch(sys.argv[1])
driver.set_virtual_device_count(1)
from max.dtype import DType
from engines.max_graph import accelerator_decoder, encoder
from engines.max_graph.compile_cache import compile_module
from engines.max_graph.operations import AcceleratorOperations
from tests.engines.checkpoint_files import DIMENSIONS
op, dims = AcceleratorOperations(DType[sys.argv[3]]), DIMENSIONS["tiny"]
if sys.argv[2] == "encoder":
    compile_module(lambda module: encoder.build(module, op, encoder.Sizes.of(dims)), "gpu")
else:
    compile_module(lambda module: accelerator_decoder.build(module, op, dims), "gpu")
print("compiled")
"""


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        ("sm_75", "float32"),
        ("sm_86", "float32"),
        ("sm_90a", "float32"),
        ("sm_120a", "float32"),
        ("sm_86", "float16"),
        ("sm_90a", "bfloat16"),
    ],
)
def test_graphs_compile_without_the_gpu(architecture: str, dtype: str, half: str) -> None:
    command = [sys.executable, "-c", COMPILE, architecture, half, dtype]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert run.stdout == "compiled\n", run.stderr[-2000:]
