"""The accelerators' graphs compile for GPUs that this machine does not have.

Minutes each, so these run only in `make test-cross`. That they compute the right thing needs the
GPU itself: there, `make test` runs the contract and the equality of tokens on it.
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
from max.driver import Accelerator
from max.engine import InferenceSession
from engines.max_graph import accelerator_decoder, encoder
from engines.max_graph.operations import AcceleratorOperations
from engines.sizes import DIMENSIONS
op, dims = AcceleratorOperations(), DIMENSIONS["tiny"]
if sys.argv[2] == "encoder":
    graph = encoder.build(op, encoder.Sizes.of(dims))
else:
    graph = accelerator_decoder.build(op, dims)
InferenceSession(devices=[Accelerator()]).compile(graph)
print("compiled")
"""


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("architecture", ["sm_75", "sm_86", "sm_90a", "sm_120a"])
def test_graphs_compile_without_the_gpu(architecture: str, half: str) -> None:
    command = [sys.executable, "-c", COMPILE, architecture, half]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert run.stdout == "compiled\n", run.stderr[-2000:]
