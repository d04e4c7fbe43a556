"""The Mojo kernels against float64, built for each width of vectors, also for older processors."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engines.hardware import request_amx

pytest.importorskip("max.engine")
pytestmark = [pytest.mark.max, pytest.mark.slow]

HERE = Path(__file__).parent
MOJO = Path(sys.executable).with_name("mojo")
KERNELS = HERE.parents[1] / "engines" / "max_graph"


@pytest.mark.skipif(sys.platform != "linux", reason="names processors of x86-64")
@pytest.mark.parametrize(("processor", "width"), [("x86-64-v3", 8), ("x86-64-v4", 16)])
def test_products_and_attention_at_odd_sizes(processor: str, width: int, tmp_path: Path) -> None:
    """As near to float64 as loops in float32; `x86-64-v3` is AVX2, `x86-64-v4` AVX-512."""
    program = tmp_path / "errors"
    source = HERE / "kernel_errors.mojo"
    build = [MOJO, "build", "--target-cpu", processor, "-I", KERNELS, source, "-o", program]
    subprocess.run(list(map(str, build)), check=True)
    ran = subprocess.run([program], capture_output=True, text=True, check=False)
    if ran.returncode == -signal.SIGILL:
        pytest.skip(f"this processor is no {processor}")
    found, product, attention, plain, exponential, *on_amx = map(float, ran.stdout.split())
    amx_product, amx_attention, amx_plain = on_amx
    assert found == width
    assert product < 133**0.5 * 2**-23  # 133 roundings of a sum, which partly cancel
    assert attention < 2 * plain
    assert exponential < 1.5  # units of 2**-24
    if width == 16 and request_amx():
        assert 0 < amx_product < product  # it adds 32 depths before it rounds to a sum
        assert amx_attention < 2 * amx_plain
